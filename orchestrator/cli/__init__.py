"""`plw`: its commands and their output. No other package may import from here."""
