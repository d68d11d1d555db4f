"""Seals: what is read again carries a checksum of itself, and is damaged without one.

The last bytes of a sealed file hold the SHA-256 of all bytes before them. JSON stays JSON (its last
key is `seal`), a zip stays a zip (the seal ends its comment), a page stays a page.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

HEX = 64


class SealError(ValueError):
    """A file is not what was sealed."""


class Form(NamedTuple):
    """How a seal is written: what stands before and after the checksum."""

    before: bytes
    after: bytes

    @property
    def n_bytes(self) -> int:
        """Length of a seal."""
        return len(self.before) + HEX + len(self.after)


JSON = Form(b'"seal": "', b'"}\n')
PAGE = Form(b"<!-- seal: ", b" -->\n")


def make_seal(head: bytes | memoryview, form: Form) -> bytes:
    """Return the seal of some bytes, to be written right after them."""
    return form.before + hashlib.sha256(head).hexdigest().encode() + form.after


def check_seal(data: bytes, form: Form) -> None:
    """Check that a file ends with the seal of all that comes before.

    Raises
    ------
    SealError
        If it does not.
    """
    head = memoryview(data)[: max(0, len(data) - form.n_bytes)]
    if data[len(head) :] != make_seal(head, form):
        raise SealError("its content does not fit its checksum")


def dump_sealed(value: Mapping[str, Any], *, indent: int | None = 1) -> bytes:
    """Return a sealed JSON object with sorted keys: equal values give equal bytes.

    Without indent, for what has an entry a shard: it is written some ten times faster.

    Examples
    --------
    >>> load_sealed(dump_sealed({"rows": 3}))
    {'rows': 3}
    """
    text = json.dumps(value, sort_keys=True, indent=indent)
    head = (text.removesuffix("}").rstrip() + (",\n" if value else "\n")).encode()
    return head + make_seal(head, JSON)


def load_sealed(data: bytes, *keys: str) -> dict[str, Any]:
    """Return the JSON object that `dump_sealed` wrote.

    Raises
    ------
    SealError
        If a single bit of it is another one, or it lacks some keys and so is another file.
    """
    check_seal(data, JSON)
    value: dict[str, Any] = json.loads(data)
    del value["seal"]
    if not value.keys() >= set(keys):
        raise SealError("it is another file")
    return value
