"""Object to stream and back: notebook code by value, versions, source text, diagnosis."""
