"""Compiling, once a machine where it can be remembered."""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from functools import cache
from importlib.abc import Traversable
from importlib.resources import files
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

Function = Callable[..., Any]


@cache
def source_stamp() -> str:
    """Return a hash of all sources of this package."""
    digest = hashlib.sha256()
    for source in _sources(files("labelops")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _sources(folder: Traversable) -> Iterator[Traversable]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield entry


class _Index(IndexDataCacheFile):
    """An index that is empty where it cannot be read.

    numba unpickles it before it looks whether it is stale: it can name classes that are gone.
    """

    def _load_index(self) -> dict[Any, str]:
        try:
            index: dict[Any, str] = super()._load_index()
        except Exception:
            return {}
        return index


class StampedCache(FunctionCache):
    """What was compiled before, unless any source has changed since.

    numba looks at the file of the outermost function only; loops that it calls, and constants that
    it was compiled with, lie in other files.
    """

    def __init__(self, function: Function) -> None:
        super().__init__(function)
        self._cache_file = _Index(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=source_stamp(),
        )


def compiled(*, fastmath: Collection[str] = ()) -> Callable[[Function], Function]:
    """Compile a function with numba; it runs without the GIL.

    Parameters
    ----------
    fastmath
        What LLVM may assume, by its names for it; by default nothing, so that bits are kept.
    """

    def decorate(function: Function) -> Function:
        compiler = numba.njit(nogil=True, error_model="numpy", fastmath=set(fastmath))
        result: Function = compiler(function)
        # Where neither the folder beside the source nor the user's cache may be written, numba
        # raises; then it is compiled every time.
        with contextlib.suppress(RuntimeError):
            result._cache = StampedCache(function)  # type: ignore[attr-defined]
        return result

    return decorate
