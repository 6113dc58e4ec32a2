"""The notebook: the magics, and the cards that they show."""
