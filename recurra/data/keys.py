"""Numbers that are a function of what they are for: (seed, epoch), (seed, step). No generator state is ever stored."""

import hashlib


def key(*parts: int | str) -> int:
    """A number in [0, 2^63) drawn by sha256 from the parts; the same on every machine and in every release."""
    words = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1
