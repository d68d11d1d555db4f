"""Errors as plain records, so that they reach the driver from any process.

An exception that travels as itself takes along what it holds: causes that lead back to it, objects
that cannot be pickled, arrays of gigabytes. What people and programs need of it is its kind, its
text, what caused it, and where it was raised.
"""

import builtins
import contextlib
import traceback
from dataclasses import dataclass

from pipelines import errors

MAX_TEXT = 20_000
"""Characters of a text or a trace that are kept."""

MAX_CAUSES = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """What is to be known of an exception.

    Attributes
    ----------
    names : its class and the classes that this is a kind of, nearest first.
    text : what it says.
    errno, filename, filename2 : of an error of the operating system.
    cause : what it was raised from.
    trace : where, as Python prints it.
    """

    names: tuple[str, ...]
    text: str
    errno: int | None = None
    filename: str | None = None
    filename2: str | None = None
    cause: "Failure | None" = None
    trace: str = ""

    def error(self) -> Exception:
        """Return an exception of the same kind, text and causes."""
        error = self._bare()
        error.__cause__ = None if self.cause is None else self.cause.error()
        return error

    def _bare(self) -> Exception:
        if self.errno is not None:
            return OSError(self.errno, self.text, self.filename, None, self.filename2)
        for name in self.names:
            known = getattr(errors, name, None) or getattr(builtins, name, None)
            if not (isinstance(known, type) and issubclass(known, Exception)):
                continue
            kind = known
            if name != self.names[0] or known is KeyError:
                # Of a library that the driver need not have: the name is what people look for. And
                # a KeyError says its text in quotes, which this one has already.
                kind = type(self.names[0], (known,), {"__str__": lambda error: error.args[0]})
            # UnicodeDecodeError and its like want more than a text.
            with contextlib.suppress(TypeError):
                error: Exception = kind(self.text)
                return error
        return Exception(self.text)


def record(err: BaseException) -> Failure:
    """Return what is to be known of an exception; never fails, whatever the exception is like."""
    return _record(err, _trace(err), set())


def _record(err: BaseException, trace: str, seen: set[int]) -> Failure:
    # A chain of causes may lead back into itself.
    seen.add(id(err))
    cause = err.__cause__
    follow = cause is not None and id(cause) not in seen and len(seen) < MAX_CAUSES
    errno, text = None, _text(err)
    names: list[str | None] = [None, None]
    if isinstance(err, OSError) and isinstance(err.errno, int) and err.strerror is not None:
        errno, text = err.errno, str(err.strerror)
        names = [None if n is None else str(n) for n in (err.filename, err.filename2)]
    return Failure(
        names=tuple(kind.__name__ for kind in type(err).__mro__),
        text=text[:MAX_TEXT],
        errno=errno,
        filename=names[0],
        filename2=names[1],
        cause=_record(cause, "", seen) if follow and cause is not None else None,
        trace=trace,
    )


def _text(err: BaseException) -> str:
    try:
        return str(err)
    except Exception:
        return f"{type(err).__name__}, which cannot be printed"


def _trace(err: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(err))[-MAX_TEXT:]
    except Exception:
        return ""
