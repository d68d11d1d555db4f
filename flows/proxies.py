"""What is on this machine is reached without a proxy, whatever the environment says of proxies.

Most companies set ``HTTP_PROXY`` and its kin for all programs. A proxy elsewhere cannot reach the
loopback interface of this machine; and some kinds of proxy Prefect's client cannot use at all, and
ends even where it would not have asked them.
"""

import ipaddress
import urllib.parse
from collections.abc import Mapping

from pipelines.errors import RunError

LOOPBACK = ("localhost", "127.0.0.1", "::1")

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def is_loopback(url: str) -> bool:
    """Say whether an address is one of this machine only.

    Examples
    --------
    >>> is_loopback("http://127.0.0.2:4200/api"), is_loopback("http://work:4200/api")
    (True, False)
    """
    host = _host(url)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""


def past_proxies(url: str | None, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return what to change in the environment for a Prefect API; None removes a variable.

    Parameters
    ----------
    url
        Address of the API; None for a server of this process's own.
    environ
        The environment as it is.

    Raises
    ------
    RunError
        If the API is elsewhere, and a proxy is set that Prefect's client cannot use.
    """
    # Both spellings: programs differ in which one they look at first.
    present = {name: environ.get(name, "") for name in ("no_proxy", "NO_PROXY")}
    hosts = [*LOOPBACK, *([_host(url)] if url is not None and is_loopback(url) else [])]
    changes: dict[str, str | None] = {}
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        listed = [part.strip() for part in (present[name] or present[other]).split(",")]
        kept = [part for part in listed if part]
        changes[name] = ",".join([*kept, *(host for host in hosts if host not in kept)])
    for name, value in environ.items():
        if name.lower() not in PROXIES or not value or (problem := unusable(value)) is None:
            continue
        if url is not None and not is_loopback(url):
            raise RunError(
                f"{name}: a proxy that Prefect's client can use was expected, got one of kind "
                f"{value.partition('://')[0]!r} ({problem}). Set another, unset it, or run with "
                "--no-prefect"
            )
        changes[name] = None
    return changes


def unusable(proxy: str) -> str | None:
    """Say why Prefect's client cannot even be made while this proxy is set; None if it can."""
    import httpx

    try:
        httpx.HTTPTransport(proxy=proxy if "://" in proxy else f"http://{proxy}").close()
    except ImportError:
        return "it needs the package socksio: pip install 'httpx[socks]'"
    except Exception:
        return "it is not an address of a proxy"
    return None
