"""Write counts with their nouns."""


def format_count(count: int, noun: str) -> str:
    """Return text such as `1 trial` or `1,200 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
