"""MLflow as a view of the record. Only `client` imports mlflow at run time.

trials, watching and the command line may import from here.
"""
