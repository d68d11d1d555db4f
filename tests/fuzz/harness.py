"""Runs many damaged inputs past a reader, in processes that may die or hang."""

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

DEADLINE_S = 60.0
"""A case that takes longer hangs."""

PREPARE_S = 300.0
"""So long may imports, and making a batch of cases, take on a busy machine."""

MEMORY = {"parquet": 8 << 30, "recipes": 3 << 30, "pictures": 4 << 30}
"""Address space of a child; what wants more gets an error."""

PEAK_KB = {"parquet": 2_500_000, "recipes": 600_000, "pictures": 1_500_000}
"""What a child may have held at most."""


@dataclass
class Tried:
    """What came of some cases.

    Attributes
    ----------
    n_ok, n_refused : read, and refused with a message of ours.
    bad : by seed, what should not have been: other errors, deaths, hangs, too much memory.
    peak_kb, slowest_s : most memory and time of a case.
    """

    n_ok: int = 0
    n_refused: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    peak_kb: int = 0
    slowest_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, found: dict[str, Any]) -> None:
        """Count a case."""
        self.peak_kb = max(self.peak_kb, found["peak_kb"])
        self.slowest_s = max(self.slowest_s, found["s"])
        if "bad" in found:
            self.bad[found["seed"]] = f"{found['bad']}\n{found.get('trace', '')}"
        elif found["peak_kb"] > PEAK_KB[kind]:
            self.bad[found["seed"]] = f"{found['peak_kb']} kB of memory"
        elif "refused" in found:
            self.n_refused += 1
            self.reasons[found["refused"][:40]] += 1
        else:
            self.n_ok += 1


def fuzz(kind: str, first: int, n: int) -> Tried:
    """Try the cases of some seeds.

    Parameters
    ----------
    kind
        A module of this folder: "parquet", "recipes" or "pictures".
    first, n
        Seeds from `first` on.
    """
    tried = Tried()
    at, end = first, first + n
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        while at < end:
            at = _until_it_dies(kind, at, end, folder, tried) + 1
    return tried


def _until_it_dies(kind: str, first: int, end: int, folder: str, tried: Tried) -> int:
    """Try cases until the child ends; returns the last seed it began."""
    command = [sys.executable, "-m", "tests.fuzz.child", kind, str(first), str(end), folder]
    child = subprocess.Popen(
        [*command, str(MEMORY[kind])],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    errors: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(child.stdout, lines.put), daemon=True),
        threading.Thread(target=_read, args=(child.stderr, errors.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    begun, done, patience = first, first - 1, PREPARE_S
    try:
        while (line := lines.get(timeout=patience)) is not None:
            found = json.loads(line)
            patience = DEADLINE_S
            if "batch" in found:
                begun, patience = found["batch"], PREPARE_S
            elif "begin" in found:
                begun = found["begin"]
            else:
                done = found["seed"]
                tried.note(kind, found)
                # The last of a batch may be followed by making the next one.
                patience = PREPARE_S
        child.wait(timeout=DEADLINE_S)
    except (queue.Empty, subprocess.TimeoutExpired):
        child.kill()
        child.wait()
        tried.bad[begun] = f"hung for more than {patience:.0f} s"
        return begun
    finally:
        for reader in readers:
            reader.join(timeout=5)
        child.stdout.close()
        child.stderr.close()
    if done < end - 1:
        said = "".join(text for text in errors if text)[-1500:]
        tried.bad[begun] = f"the process died ({child.returncode}): {said}"
        return begun
    return done


def _read(stream: Any, put: Any) -> None:
    for line in stream:
        put(line)
    put(None)
