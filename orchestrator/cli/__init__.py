"""`plw`: its commands, and what they print."""
