"""Addresses of folders and files, as people write them: one spelling for each place.

Data, runs, recipes and the files that settings name are local paths, ``file://`` URIs, or URIs of
a storage (``s3://bucket/folder``). Whatever comes in goes through `normalize` once. Addresses are
written into recipes, logs, reports and parameters of flows, so none may carry a password.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from pipelines.errors import AddressError

# Bounded, here and below: a text of a million letters is looked through once, not at each of them.
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,40})://")

MOST = 4096
"""No address is longer."""

SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "webhdfs": "hdfs"}
"""Schemes that lead to the same storage as another."""

BUCKETS = frozenset({"s3", "gs", "oss", "cos", "tos"})
"""Storages in whose addresses a bucket, and nothing but a bucket, follows the scheme."""

LOCAL = frozenset({"file", "local"})

SECRET_WORDS = (
    r"[\w.-]*(?:secret|passw(?:or)?d|passwd|token|signature|credentials?|access[_-]?key(?:[_-]?id)?)"
    r"|pwd|sig|sas|key|auth|authorization|account[_-]?key|api[_-]?key|googleaccessid"
    r"|connection[_-]?string"
)

SECRET_QUERY = re.compile(rf"([?&;#](?:{SECRET_WORDS})=)([^&;#\s'\"]*)", re.IGNORECASE)
"""What gives access, written as ``name=value`` behind an address."""

LOGIN = re.compile(
    r"([A-Za-z][A-Za-z0-9+.\-]{0,40}://)"
    r"([^\s'\"<>/?#@]{0,1000}:[^\s'\"<>]{0,1000}|[^\s'\"<>/?#]{1,1000})@"
)
"""A login at the beginning of an address, in a text."""

REMEDY = (
    "Addresses are kept in files, logs and reports, so they carry no password: leave it out and "
    "put it into the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "FSSPEC_<PROTOCOL>_<KEY> for any storage), or into a file in ~/.config/fsspec"
)


def scheme_of(address: str) -> str:
    """Return the scheme of an address in small letters; empty for local paths.

    Examples
    --------
    >>> scheme_of("S3://bucket/x"), scheme_of("/data/x")
    ('s3', '')
    """
    match = SCHEME.match(address)
    return match[1].lower() if match else ""


def secret_in(text: str) -> str | None:
    """Say what secret an address in a text seems to carry, without repeating it; None if none.

    Examples
    --------
    >>> secret_in("s3://AKIA:wJal@bucket/x")
    'a login'
    >>> secret_in("https://host/x.parquet?sig=abc")
    "a secret ('sig=')"
    >>> secret_in("abfs://container@account.dfs.core.windows.net/x") is None
    True
    """
    first = SCHEME.search(text)
    named = first and SECRET_QUERY.search(text, first.end())
    if named:
        return f"a secret ({named[1][1:]!r})"
    for match in SCHEME.finditer(text):
        scheme, rest = match[1].lower(), unquote(text[match.end() : match.end() + MOST])
        authority = re.split(r"[/?#\s]", rest, maxsplit=1)[0]
        user, at, _ = authority.rpartition("@")
        if at and (":" in user or not _may_have_user(scheme)):
            return "a login"
        # An unescaped password may hold a slash, those of Amazon do.
        _, colon, port = authority.partition(":")
        behind = rest.split(maxsplit=1)[0] if rest.strip() else ""
        if colon and not at and "@" in behind and (scheme in BUCKETS or not port.isdecimal()):
            return "a login"
        if colon and SAME.get(scheme, scheme) in BUCKETS:
            return "a login"
    return None


def _may_have_user(scheme: str) -> bool:
    """Return whether a name before '@' is no secret there: a user's, or a container of Azure's."""
    return SAME.get(scheme, scheme) in {"abfs", "wasb", "wasbs", "sftp", "ssh", "ftp", "hdfs"}


def redact(text: str) -> str:
    """Return a text with every secret of an address in it blotted out.

    Examples
    --------
    >>> redact("no answer from https://me:pass@host/x?token=abc&a=1")
    'no answer from https://***@host/x?token=***&a=1'
    """
    text = SECRET_QUERY.sub(r"\1***", text)
    return LOGIN.sub(lambda m: m[0] if _is_plain(m) else f"{m[1]}***@", text)


def _is_plain(login: re.Match[str]) -> bool:
    scheme, user = login[1][:-3].lower(), unquote(login[2])
    host, _, port = user.partition(":")
    if "/" in port and port.split("/")[0].isdecimal():
        return True  # host:port/path@version
    return (":" not in user and _may_have_user(scheme)) or not host


def check_secrets(value: object, what: str) -> None:
    """Refuse texts, also in lists and tables, that carry a secret in an address.

    Raises
    ------
    AddressError
        Naming where, never what.
    """
    for where, text in _texts(value, what):
        secret = secret_in(text)
        if secret is not None:
            raise AddressError(f"{where}: an address without secrets was expected, got one with "
                               f"{secret}. {REMEDY}")  # fmt: skip


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key, where)
            name = "" if secret_in(str(key)) else f".{key}"
            yield from _texts(inner, f"{where}{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, where)


def normalize(address: str, what: str = "address") -> str:
    """Return the one spelling of an address: an absolute local path, or a URI of a storage.

    Parameters
    ----------
    address
        Local path (``~`` is the home folder), ``file://`` URI, or URI of a storage.
    what
        What it is the address of, for messages.

    Raises
    ------
    AddressError
        If it is empty, carries a secret, or cannot lead anywhere.

    Notes
    -----
    Local links are left as they are, so that messages show the path that was given; only where
    ``..`` comes after a link, what it leads to has to be looked up. In storages ``//``, ``.`` and
    ``..`` are taken as in paths.

    Examples
    --------
    >>> normalize("file:///data/first%20try/"), normalize("/data//x/./y")
    ('/data/first try', '/data/x/y')
    >>> normalize("S3://bucket//a/../b/")
    's3://bucket/b'
    """
    if not address.strip():
        raise AddressError(
            f"{what}: a path or an address was expected, got {address!r}. For the current folder "
            "write '.'"
        )
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in address):
        raise AddressError(
            f"{what}: a path or an address was expected, got one with control characters: "
            f"{redact(address)!r}. Was it copied with a line break?"
        )
    check_secrets(address, what)
    scheme = scheme_of(address)
    if scheme in LOCAL or re.match(r"file:/(?!/)", address, re.IGNORECASE):
        return _local(_path_of_uri(address, what), what, home=False)
    if not scheme:
        _refuse_near(address, what)
        return _local(address, what, home=True)
    return _remote(address, scheme, what)


def _local(path: str, what: str, *, home: bool) -> str:
    if home and path.startswith("~"):
        expanded = os.path.expanduser(path)
        if expanded.startswith("~"):
            user = path.partition("/")[0]
            raise AddressError(
                f"{what}: a home folder was expected for {user!r}, there is none; got {path!r}. "
                f"Write the whole path, or './{path}' for a folder of that name here"
            )
        path = expanded
    if ".." in path.split("/"):
        return os.path.realpath(path)
    # POSIX leaves the meaning of two leading slashes open; Linux has none.
    return re.sub("^//+", "/", os.path.abspath(path))


def _path_of_uri(address: str, what: str) -> str:
    rest = address.split(":", 1)[1]
    host = ""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path
    if host.lower() not in {"", "localhost", "127.0.0.1"} or not rest.startswith("/"):
        raise AddressError(
            f"{what}: a file:// address of this machine was expected, as file:///data/shards, got "
            f"{address!r}, in which {host!r} is the name of a machine. Add the third slash, or "
            "write the path alone"
        )
    decoded = unquote_to_bytes(rest)
    if b"\0" in decoded:
        raise AddressError(f"{what}: a path was expected, got {address!r} with a zero byte (%00)")
    return os.fsdecode(decoded)


def _refuse_near(address: str, what: str) -> None:
    """Refuse what is no local path although nothing stands in the way of making such a folder."""
    chained = re.match(r"[A-Za-z][A-Za-z0-9+.\-]*::", address)
    if chained and "://" in address:
        raise AddressError(
            f"{what}: one address was expected, got a chain of them: {address!r}. Leave out "
            f"{chained[0]!r}"
        )
    near = re.match(r"(s3a?|gs|gcs|abfss?|az|memory|https?|hdfs|sftp|ftp):/*", address, re.I)
    if near and not os.path.lexists(near[0].rstrip("/")):
        raise AddressError(
            f"{what}: {near[1]}://… was expected, got {address!r}. Add the missing slash, or write "
            f"'./{address}' for a folder of that name here"
        )


def _remote(address: str, scheme: str, what: str) -> str:
    host, slash, path = address[len(scheme) + 3 :].partition("/")
    query = ""
    if scheme in {"http", "https"}:
        path, mark, query = path.partition("?")
        query = mark + query
    if scheme == "memory":
        # Has no host: memory://a/b and memory:///a/b are the same place.
        host, slash, path = "", "", f"{host}{slash}{path}"
    elif not host or host in {".", ".."}:
        raise AddressError(
            f"{what}: {scheme}://BUCKET/FOLDER was expected, got {address!r}, which names no "
            "bucket or machine"
        )
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and not parts:
            raise AddressError(
                f"{what}: an address within its bucket was expected, got {address!r}, whose '..' "
                "leads out of it"
            )
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return f"{scheme}://{'/'.join([host, *parts] if host else parts)}{query}"


def join(folder: str, name: str) -> str:
    """Return the address of a name in a folder."""
    return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"


def split(address: str) -> tuple[str, str]:
    """Return the folder that a normalized address lies in, and its name there.

    Examples
    --------
    >>> split("s3://bucket/a/b.csv"), split("/b.csv"), split("memory://b.csv")
    (('s3://bucket/a', 'b.csv'), ('/', 'b.csv'), ('memory://', 'b.csv'))
    """
    folder, slash, name = address.rpartition("/")
    if not folder or folder.endswith(":/"):
        folder = f"{folder}{slash}"
    return folder, name


def is_inside(address: str, folder: str) -> bool:
    """Say whether an address is a folder, or lies in it, however the two are spelled.

    Locally links are followed and folders are told by what the disk says of them; in storages
    schemes that mean the same are one.

    Examples
    --------
    >>> is_inside("s3a://bucket/data/run", "s3://bucket/data/")
    True
    >>> is_inside("s3://bucket/data-run", "s3://bucket/data")
    False
    """
    address, folder = normalize(address), normalize(folder)
    if scheme_of(address) or scheme_of(folder):
        return f"{_canonical(address)}/".startswith(f"{_canonical(folder)}/")
    path, root = os.path.realpath(address), os.path.realpath(folder)
    if f"{path}/".startswith(f"{root.rstrip('/')}/"):
        return True
    # The same folder under another name: mounted twice, or on a disk that ignores case.
    for above in (Path(path), *Path(path).parents):
        with contextlib.suppress(OSError):
            if above.samefile(root):
                return True
    return False


def _canonical(address: str) -> str:
    scheme = scheme_of(address)
    if not scheme:
        return f"file://{os.path.realpath(address)}"
    return f"{SAME.get(scheme, scheme)}://{address[len(scheme) + 3 :]}".rstrip("/")
