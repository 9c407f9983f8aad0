"""What was found, on a page and in plots."""
