"""From a sweep's answer to a model: trained here, or exported to another framework.

Only the command line may import from here.
"""
