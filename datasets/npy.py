"""What NumPy raises on damaged ``.npy`` files."""

from __future__ import annotations

import tokenize

ARRAY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    SyntaxError,
    MemoryError,
    tokenize.TokenError,
)
"""Its headers are Python literals, and fail in as many ways as those."""
