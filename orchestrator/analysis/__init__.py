"""From the record of a sweep to what it found."""
