"""Which code computes: what two processes have in common if they are to give the same bytes."""

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import labelops

PACKAGES = ("numpy", "scipy", "scikit-learn", "pyarrow", "torch", "numba")
"""Whose versions decide about bytes, besides Python and our own source."""


@functools.cache
def code() -> str:
    """Return this process's code, as ``name=version`` for each part; read once in a process.

    Examples
    --------
    >>> [part.partition("=")[0] for part in code().split()][:4]
    ['labelops', 'source', 'python', 'numpy']
    """
    parts = {
        "labelops": labelops.__version__,
        "source": source_hash(Path(labelops.__file__).parents[1]),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def source_hash(root: Path) -> str:
    """Return a hash of all that is computed with: the modules of `labelops` and `pipelines`."""
    digest = hashlib.sha256()
    for package in ("labelops", "pipelines"):
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def differences(expected: str, actual: str) -> str:
    """Say in which parts the actual code is other than expected.

    Examples
    --------
    >>> differences("labelops=0.1 numpy=2.4", "labelops=0.1 numpy=2.3")
    'numpy 2.3 instead of 2.4'
    >>> differences("labelops=0.1 numpy=2.4", "")
    'an earlier version, which does not say what it has, instead of labelops 0.1, numpy 2.4'
    """
    ours, theirs = _parts(expected), _parts(actual)
    if not theirs:
        listed = ", ".join(f"{name} {value}" for name, value in ours.items())
        return f"an earlier version, which does not say what it has, instead of {listed}"
    return ", ".join(
        f"{name} {theirs.get(name, 'none')} instead of {ours.get(name, 'none')}"
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if ours.get(name) != theirs.get(name)
    )


def _parts(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split() if "=" in part)
