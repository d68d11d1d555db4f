"""Damage to bytes and to text, the same for the same seed."""

import random
from collections.abc import Sequence

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1)
"""Where counts and lengths tip over."""


def damaged(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes with some of them flipped, replaced, removed, doubled, or from elsewhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        kind = rng.randrange(8)
        if kind <= 2:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            changed[at] = rng.randrange(256)
        elif kind == 4:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(NUMBERS) & (1 << 8 * width) - 1
            changed[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 5:
            del changed[at : at + rng.choice((1, 2, 8, 100, len(changed)))]
        elif kind == 6:
            changed[at:at] = changed[at : at + rng.choice((1, 4, 64))] or b"\0"
        else:
            other = rng.choice(others) if others else bytes(64)
            first = rng.randrange(max(1, len(other)))
            piece = other[first : first + rng.choice((1, 4, 32, 256))]
            changed[at : at + len(piece)] = piece
    return bytes(changed)
