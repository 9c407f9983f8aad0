"""Data before it is trained on: shown, turned round, and what is known of its best PLW."""
