"""One fine-tune with a weighted prompt loss, on one rank or many."""
