"""How a job looks, as text and as HTML."""
