"""Which points of the space are tried next, and which are given up."""
