"""Errors that a user can mend, and how to tell them."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can mend; its message is one line that names field, value and remedy."""


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch says so in the error's kind on a GPU, and in words alone on a CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )
