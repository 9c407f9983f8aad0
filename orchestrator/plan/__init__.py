"""Plan a spec's trials, without starting them: their ids, models, data and estimated costs.

The main call is `sweep_plan.make_plan(spec)`. The packages trials and cli may import from here.
"""
