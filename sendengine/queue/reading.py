"""Replies of Redis as the rest of the queue reads them."""

from __future__ import annotations


def as_text(flat: list[bytes]) -> dict[str, str]:
    """HGETALL as text; values that are not (packed samples) are read where they are used."""
    return {
        name.decode(): value.decode("utf-8", "surrogateescape") for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
