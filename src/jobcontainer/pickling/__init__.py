"""Object to stream and back: notebook code by value, versions, source text, diagnosis."""

from typing import Final

MOST_BUFFERS: Final = 100_000
"""How many buffers a stream may have beside it; what comes after them goes into the stream."""
