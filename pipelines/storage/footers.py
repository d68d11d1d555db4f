"""Footers of foreign Parquet files, looked at first in a process that may die of them.

A damaged or encrypted footer can take down the process that decodes it, past every ``except``. So
the bytes of the footers go to a child process, which does with them all that we do later; what it
survives is harmless here. Statistics are never decoded: nothing of ours needs them.
"""

import atexit
import base64
import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import threading
import time
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

IDLE_S = 10.0
"""A child that nobody asked for so long is ended."""


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
    decoded: dict[bytes, Footer | FooterError] = {key: _known[key] for key in keys if key in _known}
    answers = zip(asked, _decode([by_key[key] for key in asked]), strict=True)
    for key in keys:
        while key not in decoded:
            answered, said = next(answers)
            decoded[answered] = said
            if isinstance(said, Footer):
                _known[answered] = said
        yield decoded[key]
    while len(_known) > KNOWN:
        _known.popitem(last=False)


def _decode(footers: Sequence[bytes]) -> Iterator[Footer | FooterError]:
    begin = 0
    while begin < len(footers):
        end, n_bytes = begin, 0
        while end < len(footers) and (end == begin or n_bytes + len(footers[end]) <= BATCH_BYTES):
            n_bytes += len(footers[end])
            end += 1
        decoded = _child.ask(footers[begin:end])
        yield from decoded
        begin += len(decoded)


class _Child:
    """The process that decodes; kept for a while: starting it takes longer than its work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None
        self._held = b""

    def ask(self, footers: Sequence[bytes]) -> list[Footer | FooterError]:
        """Return what it said of the first of these; of at least one of them."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            process = self._started()
            sender = threading.Thread(target=_send, args=(process, footers), daemon=True)
            sender.start()
            answers: list[Footer | FooterError] = []
            for _ in footers:
                line = self._line(process)
                if line is None:
                    answers.append(FooterError(self._death(process)))
                    break
                answers.append(_parse(json.loads(line)))
            sender.join()
            self._timer = threading.Timer(IDLE_S, self.close)
            self._timer.daemon = True
            self._timer.start()
            return answers

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            script = str(Path(__file__).with_name("footer_process.py"))
            # By path and with -P: no folder of the user is searched for modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", script, str(MEMORY_BYTES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in the terminal is for the run.
                start_new_session=True,
            )
        return self._process

    def _line(self, process: "subprocess.Popen[bytes]") -> bytes | None:
        """Return the next line, or None if the process died or takes too long."""
        assert process.stdout is not None
        until = time.monotonic() + DEADLINE_S
        while b"\n" not in self._held:
            left = max(0.0, until - time.monotonic())
            ready, _, _ = select.select([process.stdout], [], [], left)
            data = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                return None
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line

    def _death(self, process: "subprocess.Popen[bytes]") -> str:
        """End the process; returns why it did not answer."""
        try:
            code = process.wait(timeout=1)
            said = f"the process that decoded its footer died ({code})"
        except subprocess.TimeoutExpired:
            said = f"its footer was not decoded within {DEADLINE_S:.0f} s"
        self._end()
        return f"{said}; it is damaged, or has encrypted columns"

    def close(self) -> None:
        """End the process, if it is not at work."""
        if self._lock.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        process, self._process, self._held = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def _send(process: "subprocess.Popen[bytes]", footers: Sequence[bytes]) -> None:
    assert process.stdin is not None
    # A process that died of a footer reads no more.
    with contextlib.suppress(OSError, ValueError):
        for footer in footers:
            process.stdin.write(len(footer).to_bytes(8, "little") + footer)
        process.stdin.flush()


_child = _Child()
atexit.register(_child.close)


def _parse(line: dict[str, Any]) -> Footer | FooterError:
    if "error" in line:
        return FooterError(line["error"])
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(line["schema"])))
    return Footer(line["rows"], schema)
