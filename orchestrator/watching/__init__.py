"""A sweep seen from outside its process: find it, watch it, read its logs, end it."""
