"""Mirror a sweep's record in MLflow.

`Tracker.open(folder, uri=..., experiment=...)` finds or creates the runs. `Tracker.sync_trial` and
`Tracker.finish` post to them. `sync_sweep` posts everything for a sweep that has ended. Only
`client` imports mlflow at run time. monitoring, trials and the command line may import from here.
"""
