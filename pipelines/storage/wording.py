"""How messages show what came: on one line, short, with nothing that hides or reorders it."""

import difflib
import re
from collections.abc import Iterable, Sequence

MOST = 80
"""Longer values are cut in messages, with their length said."""

LONG = 200
"""Nothing longer than this is a slip of the pen: no near name is looked for."""


_KIND = re.compile(r"^[A-Z][A-Za-z]*(Error|Exception|Invalid): ")
"""Kinds of errors say nothing to those who have not written the program."""


def shown(value: object, most: int = MOST) -> str:
    r"""Return a value as a message shows it.

    Text stands in quotes; what cannot be seen (control characters, marks that change the direction
    of reading, halves of surrogate pairs) as an escape.

    Examples
    --------
    >>> print(shown(" i0"), shown("a\u202eb\n"), shown("x" * 10**6, most=10))
    ' i0' 'a\u202eb\n' 'xxxxxxxx… (1000000 characters)
    """
    try:
        text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    except (ValueError, RecursionError):
        # Python refuses to write integers of more than 4 300 digits, and what is nested too deep.
        return f"a value too large to show ({type(value).__name__})"
    n = len(value) if isinstance(value, str | bytes) else len(text)
    if n > most or len(text) > 6 * most:
        return f"{text[: most - 1]}… ({n} characters)"
    return text


def is_unicode(text: str) -> bool:
    """Say whether text can be written as UTF-8; halves of surrogate pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def several(values: Sequence[object], most: int, n_all: int | None = None) -> str:
    """Return the first of some values, separated by commas.

    Examples
    --------
    >>> several(["a", "b", "c"], 2)
    "'a', 'b', …"
    """
    n = len(values) if n_all is None else n_all
    return ", ".join(shown(value) for value in values[:most]) + (", …" if n > most else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, whatever its case; None without one.

    Examples
    --------
    >>> nearest("lable", ["label", "labels"]), nearest("Label", ["label"]), nearest("x", ["label"])
    ('label', 'label', None)
    """
    if len(name) > LONG:
        return None
    folded = {other.strip().casefold(): other for other in known if len(other) <= LONG}
    matches = difflib.get_close_matches(name.strip().casefold(), list(folded), n=1)
    return folded[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name that ends a clause, or a full stop."""
    meant = nearest(name, known)
    return f"; did you mean {meant!r}?" if meant else "."


def why(err: BaseException) -> str:
    r"""Return what went wrong with a file, in a line.

    Examples
    --------
    >>> why(FileNotFoundError(2, "No such file or directory", "/x")), why(ValueError("a: b\nc"))
    ('no such file or directory', 'a: b')
    """
    if isinstance(err, OSError) and err.strerror:
        return err.strerror[:1].lower() + err.strerror[1:]
    if isinstance(err, UnicodeDecodeError):
        return f"text that is not UTF-8 (byte {err.object[err.start]:#04x} at {err.start})"
    lines = str(err).strip().splitlines()
    return _KIND.sub("", lines[0])[:200] if lines else type(err).__name__
