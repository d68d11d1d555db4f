"""Texts in arrays, exactly: NumPy's own arrays of text drop what NUL characters end them with."""

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import DataError
from pipelines.storage.wording import is_unicode, shown

if TYPE_CHECKING:
    from pipelines.core.stage import Arrays

LONGEST = 1000
"""Names of classes are no longer: such a label is a text, not a class."""

UNSEEN = ("Cf", "Cc", "Mn")
"""Kinds of characters that can hardly be seen."""


def pack(texts: Iterable[str]) -> "Arrays":
    r"""Return distinct texts, sorted, as arrays of bytes and of where each ends.

    Examples
    --------
    >>> unpack(pack(["b", "a\0", "a", "b"]))
    ['a', 'a\x00', 'b']
    """
    encoded = [text.encode() for text in sorted(set(texts))]
    ends = np.cumsum([len(data) for data in encoded], dtype=np.int64)
    return {"text": np.frombuffer(b"".join(encoded), np.uint8), "ends": ends}


def unpack(packed: "Arrays") -> list[str]:
    """Return the texts that `pack` packed."""
    data, ends = packed["text"].tobytes(), packed["ends"].tolist()
    return [data[start:end].decode() for start, end in itertools.pairwise([0, *ends])]


def check_names(names: Sequence[str]) -> None:
    """Refuse class names that could be mistaken for others, or that are no names.

    Raises
    ------
    DataError
        If one is.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"source: class names must differ, got {shown(name)} twice. Correct data.classes"
            )
        seen.add(name)
        what = None
        if not is_unicode(name):
            what = "in Unicode"
        elif name.endswith("\0"):
            what = "that do not end in a NUL character"
        elif len(name) > LONGEST:
            what = f"of at most {LONGEST} characters"
        if what is not None:
            raise DataError(
                f"source: names of classes {what} were expected, got {shown(name)}. Is the right "
                "column mapped to the labels in data.columns? Else write them otherwise"
            )


def alike(names: Sequence[str]) -> list[str]:
    """Say which names differ by no more than case, spaces, marks or the form of their characters.

    Examples
    --------
    >>> alike(["cat", "Cat ", "dog"])
    ["1 of 3 classes differs from another only by case, spaces or marks: 'Cat ' from 'cat'"]
    """
    twins = [(name, names[k]) for name, k in zip(names, firsts(names), strict=True)]
    twins = [(name, other) for name, other in twins if name != other]
    if not twins:
        return []
    pairs = ", ".join(f"{shown(a)} from {shown(b)}" for a, b in twins[:3])
    more = ", …" if len(twins) > 3 else ""
    return [
        f"{len(twins)} of {len(names)} classes {'differs' if len(twins) == 1 else 'differ'} from "
        f"another only by case, spaces or marks: {pairs}{more}"
    ]


def firsts(names: Sequence[str]) -> list[int]:
    """Return of each name the position of the first that differs by no more than `alike` allows.

    Examples
    --------
    >>> firsts(["cat", "Cat ", "dog"])
    [0, 0, 2]
    """
    first: dict[str, int] = {}
    return [first.setdefault(_plain(name), k) for k, name in enumerate(names)]


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKD", name).casefold()
    return "".join(c for c in folded if unicodedata.category(c) not in UNSEEN and not c.isspace())
