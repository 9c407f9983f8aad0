"""From a sweep's answer to a model: here, or with another framework."""
