"""What the reader of a notebook touches: magics and cards."""
