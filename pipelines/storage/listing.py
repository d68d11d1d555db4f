"""Which files of a folder are shards, what their places say of them, and what was left out."""

import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.errors import DataError
from pipelines.storage.store import LocalStore, ObjectStore, Store

ENDINGS = (".parquet", ".parq", ".pq")

MARKERS = ("_success", "_metadata", "_common_metadata", "_started", "_committed")
"""What Spark, Dask and others leave beside shards: files that hold no rows."""

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words in names of files and folders that name a split, as Hugging Face data sets read them."""

_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])")

SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """The files of a data set.

    Attributes
    ----------
    names : its shards, sorted.
    left_out : files that are not read: name → why.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def notices(self) -> list[str]:
        """Say what was left out, with numbers."""
        by_reason: dict[str, list[str]] = {}
        for name, why in sorted(self.left_out.items()):
            by_reason.setdefault(why, []).append(name)
        said = []
        for why, names in by_reason.items():
            n, are = (f"{len(names):,} files", "are") if len(names) > 1 else ("1 file", "is")
            said.append(f"{n} of the data's folder {are} not read ({why}): {some(names)}")
        return said


def some(names: Sequence[str]) -> str:
    """Return the first few names as a message shows them."""
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def list_shards(store: Store) -> Listing:
    """Find the shards in a folder and all folders in it, also behind links.

    Raises
    ------
    DataError
        If there is no such folder, or links lead in a circle.
    """
    if isinstance(store, LocalStore):
        if not os.path.isdir(store.uri):
            raise DataError(
                f"source: a folder of Parquet shards was expected at {store.root}, there is "
                "none. Check the path"
            )
        return _choose(_walk(store.uri))
    assert isinstance(store, ObjectStore)
    return _choose((name, "") for name in store.walk())


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Yield every file below a folder, with why it cannot be read, if so."""

    def fail(err: OSError) -> None:
        raise DataError(
            f"source: folders that can be listed were expected, got {err.strerror} for "
            f"{err.filename}. Grant the right to read it, or take it out of the data's folder"
        ) from err

    seen: dict[tuple[int, int], str] = {}
    for folder, folders, leaves in os.walk(root, followlinks=True, onerror=fail):
        place = os.stat(folder)
        first = seen.setdefault((place.st_dev, place.st_ino), folder)
        if first != folder:
            # Read twice, its items would all have doubles; and a circle has no end.
            raise DataError(
                f"source: every folder was expected once, but {folder} and {first} are one and the "
                "same through a link. Remove the link"
            )
        if "_delta_log" in folders:
            raise DataError(
                f"source: plain Parquet shards were expected, but {folder} is a Delta table, whose "
                "log says which of its files still count. Write its rows to a folder of their own"
            )
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for leaf in leaves:
            path = f"{folder}/{leaf}"
            try:
                is_file = stat.S_ISREG(os.stat(path).st_mode)
            except OSError as err:
                yield os.path.relpath(path, root), f"it cannot be opened: {err.strerror}"
                continue
            yield os.path.relpath(path, root), "" if is_file else "it is no regular file"


def _choose(files: Iterable[tuple[str, str]]) -> Listing:
    names: list[str] = []
    left_out: dict[str, str] = {}
    for name, why in files:
        parts = name.split("/")
        leaf = parts[-1]
        is_shard = leaf.lower().endswith(ENDINGS)
        if any(part.startswith((".", "_")) for part in parts):
            if is_shard and not leaf.lower().startswith(MARKERS):
                left_out[name] = "names that begin with '.' or '_'"
        elif why:
            left_out[name] = why
        elif is_shard:
            names.append(name)
        else:
            left_out[name] = f"names that do not end in {', '.join(ENDINGS)}"
    return Listing(tuple(sorted(names)), left_out)


def partitions(name: str) -> dict[str, str | None]:
    """Return the columns that a shard's folders name, as Hive does.

    Examples
    --------
    >>> partitions("label=cat/year=2024/part-0.parquet")
    {'label': 'cat', 'year': '2024'}
    >>> partitions("city=S%C3%A3o%20Paulo/x=__HIVE_DEFAULT_PARTITION__/a.parquet")
    {'city': 'São Paulo', 'x': None}
    """
    columns: dict[str, str | None] = {}
    for part in name.split("/")[:-1]:
        key, equals, value = part.partition("=")
        if equals and key:
            text = urllib.parse.unquote(value)
            columns[urllib.parse.unquote(key)] = None if text == NULL_PARTITION else text
    return columns


def split_of(name: str) -> str | None:
    """Return the split that the name of a shard or of its folders says, or None.

    Examples
    --------
    >>> split_of("data/train-00000-of-00004.parquet"), split_of("val/a.parquet")
    ('train', 'validation')
    >>> split_of("trains.parquet"), split_of("latest.parquet")
    (None, None)
    """
    for part in reversed(name.lower().split("/")):
        if words := set(_WORD.findall(part)):
            named = {SPLITS[word] for word in words}
            return named.pop() if len(named) == 1 else None
    return None
