"""MLflow as a view of the record."""
