"""Numbers in sentences."""

from __future__ import annotations


def plural(count: int, one: str, several: str | None = None) -> str:
    """``1 image``, ``2 images``, ``3,000 images``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
