"""How the command line ends when something fails: one message, and nothing after it."""

import errno
import logging
import os
import sys
import threading
from typing import NoReturn

BUGS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
        NotImplementedError, RecursionError, TypeError)  # fmt: skip
"""What our own checks never raise on purpose; everything else has a message for the user."""

OURS = ("labelops", "pipelines", "flows")

KEPT = "Finished shards are kept"

REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within your quota",
    errno.EACCES: "see to the rights, or choose another place",
    errno.EPERM: "see to the rights, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "wait until the machine has fewer files open",
}


def say(text: str) -> None:
    """Print a line for people; what cannot be printed is shown as an escape, no secret at all."""
    from pipelines.storage.address import redact

    text = redact(text)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print(f"labelops: {shown}", file=sys.stderr, flush=True)


def end(err: Exception) -> NoReturn:
    """Say what failed and end the process with code 1; with 2 for a wrong address."""
    from pipelines.errors import AddressError, LabelopsError, StorageTrouble, UnforeseenError

    if isinstance(err, AddressError):
        _leave(f"error: {err}", code=2)
    if isinstance(err, LabelopsError):
        # What we raise on purpose may well come from a KeyError.
        if isinstance(err, UnforeseenError) and isinstance(err.__cause__, BUGS):
            _report_bug(str(err), err)
        _leave(f"error: {err}")
    if isinstance(err, StorageTrouble):
        _leave(f"error: {err}. {KEPT}; give the same command again")
    if isinstance(err, OSError):
        _leave(f"error: {_of_the_system(err)}")
    if isinstance(err, MemoryError) or "can't start new thread" in str(err):
        said = str(err) or "there is none left"
        _leave(
            f"error: memory or threads ran out ({said}). {KEPT}; give the process more "
            "memory, or write smaller shards, and give the same command again"
        )
    if isinstance(err, ImportError) and (err.name or "").partition(".")[0] not in (*OURS, ""):
        _leave(
            f"error: package {err.name!r} was expected to be installed and whole, got: {err}. "
            f"Install it, or run 'make setup' again. {KEPT}"
        )
    _report_bug(f"{type(err).__name__}: {err}", err)


def _of_the_system(err: OSError) -> str:
    """Word an error of the system: what, where, and what to do."""
    what = err.strerror or str(err) or type(err).__name__
    where = f": {err.filename}" if err.filename else ""
    remedy = REMEDIES.get(err.errno or 0, "fix the cause (path, space, permissions, network)")
    return f"{what[:1].lower()}{what[1:]}{where}. {KEPT}; {remedy} and give the same command again"


def _report_bug(text: str, err: Exception) -> NoReturn:
    import traceback

    from pipelines.storage.address import redact

    print(redact("".join(traceback.format_exception(err))), end="", file=sys.stderr)
    _leave(
        f"error: {text}. This is a fault of labelops, not of the data: please report it "
        f"with the lines above. {KEPT}"
    )


def _leave(text: str, *, code: int = 1) -> NoReturn:
    """Say the last words: what is collected or logged later is of no use to anybody."""
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    logging.disable(logging.CRITICAL)
    say(text)
    sys.exit(code)


def drop_output() -> NoReturn:
    """End where whoever read our output has seen enough, as in ``labelops schema | head``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
