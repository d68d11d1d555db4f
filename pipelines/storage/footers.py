"""Footers of foreign Parquet files, looked at first in a process that may die of them.

A damaged or encrypted footer can take down the process that decodes it, past every ``except``. So
the bytes of the footers go to a child process, which does with them all that we do later; what it
survives is harmless here. Statistics are never decoded: nothing of ours needs them.
"""

import base64
import hashlib
import json
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"
TAIL_BYTES = 1 << 16
"""So much is read of the end of a file at once; most footers are shorter."""

BATCH_BYTES = 1 << 26
"""Footers are handed to one child up to this size, then to a next one."""

MEMORY_BYTES = 4 << 30
"""What a child may allocate: a footer of a few bytes can claim billions of columns."""

DEADLINE_S = 120.0

_LENGTH = struct.Struct("<Q")


class FooterError(ValueError):
    """A footer that cannot be used; its text is the reason."""


class Footer(NamedTuple):
    """What the footer of a Parquet file says.

    Attributes
    ----------
    rows : number of rows.
    schema : as Arrow schema, with metadata.
    """

    rows: int
    schema: pa.Schema


def footer_of(file: BinaryIO, size: int) -> bytes:
    """Return the footer of an open Parquet file, with its length and the magic bytes.

    Raises
    ------
    FooterError
        If the file does not end as a Parquet file does.
    """
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read(TAIL_BYTES)
    if size < 12 or len(tail) < 12:
        raise FooterError(f"it has {size} bytes, too few for a Parquet file")
    if tail[-4:] == ENCRYPTED_MAGIC:
        raise FooterError("it is encrypted; write it without encryption")
    if tail[-4:] != MAGIC:
        raise FooterError("it does not end with the magic bytes of Parquet")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length + 4 > size:
        raise FooterError(f"its footer claims {length - 8} bytes, the file has {size}")
    if length > len(tail):
        file.seek(size - length)
        tail = file.read(length)
    return bytes(tail[-length:])


_known: OrderedDict[bytes, Footer] = OrderedDict()
"""What footers said that this process has asked of before, by their hash."""

KNOWN = 1 << 12
"""At most so many are remembered."""


def decode(footers: Sequence[bytes]) -> Iterator[Footer | FooterError]:
    """Yield what every footer says, or why it cannot be used."""
    keys = [hashlib.sha256(footer).digest() for footer in footers]
    asked = list(dict.fromkeys(key for key in keys if key not in _known))
    by_key = dict(zip(keys, footers, strict=True))
    found: dict[bytes, Footer | FooterError] = {key: _known[key] for key in keys if key in _known}
    answers = zip(asked, _decode([by_key[key] for key in asked]), strict=True)
    for key in keys:
        while key not in found:
            answered, said = next(answers)
            found[answered] = said
            if isinstance(said, Footer):
                _known[answered] = said
        yield found[key]
    while len(_known) > KNOWN:
        _known.popitem(last=False)


def _decode(footers: Sequence[bytes]) -> Iterator[Footer | FooterError]:
    begin = 0
    while begin < len(footers):
        end, n_bytes = begin, 0
        while end < len(footers) and (end == begin or n_bytes + len(footers[end]) <= BATCH_BYTES):
            n_bytes += len(footers[end])
            end += 1
        found = _in_child(footers[begin:end])
        yield from found
        begin += len(found)


def _in_child(footers: Sequence[bytes]) -> list[Footer | FooterError]:
    """Return what a child said of the first of these; of at least one of them."""
    script = str(Path(__file__).with_name("footer_process.py"))
    frames = b"".join(_LENGTH.pack(len(footer)) + footer for footer in footers)
    try:
        # By path and with -P: no folder of the user is searched for modules.
        done = subprocess.run(
            [sys.executable, "-P", script, str(MEMORY_BYTES)],
            input=frames,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
        )
        said, why = done.stdout, f"the process that decoded its footer died ({done.returncode})"
    except subprocess.TimeoutExpired as err:
        said, why = err.stdout or b"", f"its footer was not decoded within {DEADLINE_S:.0f} s"
    whole = said[: said.rfind(b"\n") + 1].splitlines()
    found = [_parse(json.loads(line)) for line in whole]
    if len(found) < len(footers):
        found.append(FooterError(f"{why}; it is damaged, or has encrypted columns"))
    return found


def _parse(line: dict[str, Any]) -> Footer | FooterError:
    if "error" in line:
        return FooterError(line["error"])
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(line["schema"])))
    return Footer(line["rows"], schema)
