"""What is on this machine is reached without a proxy; the user's own exceptions are kept."""

import urllib.request
from pathlib import Path

import pytest

from flows.proxies import is_loopback, past_proxies, unusable
from pipelines.errors import RunError
from tests.flows.conftest import Command
from tests.flows.test_flow import Ask, ask, flow_run_on

__all__ = ["ask"]

DEAD = "127.0.0.1:9"
"""Nobody listens there: whoever asks it gets no further."""


@pytest.mark.parametrize(
    "proxies",
    [
        {"http_proxy": f"http://{DEAD}", "https_proxy": f"http://{DEAD}"},
        {"HTTP_PROXY": f"http://{DEAD}", "HTTPS_PROXY": f"http://{DEAD}", "NO_PROXY": "intra.net"},
        {"ALL_PROXY": f"socks5://{DEAD}", "all_proxy": f"socks5h://{DEAD}", "no_proxy": "a,b"},
        {"all_proxy": f"socks://{DEAD}/", "http_proxy": DEAD},
    ],
    ids=lambda proxies: "+".join(proxies),
)
def test_run__reaches_an_api_on_this_machine_past_every_proxy(
    inside: Command,
    prefect_url: dict[str, str],
    ask: Ask,
    shards: Path,
    nap_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proxies: dict[str, str],
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    out = tmp_path / "run"
    # What opens addresses reads the proxies when it is first asked, and keeps them.
    monkeypatch.setattr(urllib.request, "_opener", None)
    done = inside("run", nap_recipe, "--data", shards, "--out", out, **prefect_url, **proxies)
    assert done.returncode == 0, done.stderr
    for name in proxies:
        monkeypatch.delenv(name)
    monkeypatch.setattr(urllib.request, "_opener", None)
    assert flow_run_on(ask, out)["state_type"] == "COMPLETED"


def test_embedded_server__is_reached_past_every_proxy(
    labelops: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    proxies = {
        name: f"{kind}://{DEAD}"
        for lower, kind in (
            ("http_proxy", "http"),
            ("https_proxy", "http"),
            ("all_proxy", "socks5"),
        )
        for name in (lower, lower.upper())
    }
    command = ("run", nap_recipe, "--data", shards, "--out", tmp_path / "run", "--prefect")
    done = labelops(*command, **proxies, no_proxy="", NO_PROXY="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "run" / "report.html")]


OURS = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    ("environ", "lower", "upper"),
    [
        ({}, OURS, OURS),
        ({"no_proxy": " a.b , .c"}, f"a.b,.c,{OURS}", f"a.b,.c,{OURS}"),
        ({"NO_PROXY": "a"}, f"a,{OURS}", f"a,{OURS}"),
        ({"NO_PROXY": "a", "no_proxy": "b"}, f"b,{OURS}", f"a,{OURS}"),
        ({"no_proxy": "*"}, f"*,{OURS}", f"*,{OURS}"),
        ({"no_proxy": "::1,localhost"}, "::1,localhost,127.0.0.1", "::1,localhost,127.0.0.1"),
    ],
)
def test_exceptions_of_the_user__are_kept_and_extended(
    environ: dict[str, str], lower: str, upper: str
) -> None:
    assert past_proxies(None, environ) == {"no_proxy": lower, "NO_PROXY": upper}


def test_api_under_another_address_of_this_machine__is_an_exception_too() -> None:
    changes = past_proxies("http://127.3.2.1:4200/api", {})
    assert changes["no_proxy"] == f"{OURS},127.3.2.1"
    assert past_proxies("https://prefect.work/api", {})["no_proxy"] == OURS


def test_proxy_that_the_client_cannot_use__is_out_of_the_way_of_this_machine_only() -> None:
    environ = {"ALL_PROXY": "socks5://gate:1080", "http_proxy": "http://gate:3128"}
    changes = past_proxies("http://localhost:4200/api", environ)
    assert changes["ALL_PROXY"] is None
    # That is for the data: only what stops Prefect's client is taken away.
    assert "http_proxy" not in changes
    with pytest.raises(RunError, match=r"ALL_PROXY: a proxy that .*httpx\[socks\].*--no-prefect"):
        past_proxies("https://prefect.work/api", environ)


def test_password_of_a_proxy__is_not_in_the_message() -> None:
    with pytest.raises(RunError) as refused:
        past_proxies("https://prefect.work/api", {"all_proxy": "socks4://me:secret@gate:1080"})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:4200/api", True),
        ("http://LOCALHOST/api", True),
        ("http://[::1]:4200/api", True),
        ("http://127.9.9.9/api", True),
        ("http://0.0.0.0:4200/api", True),
        ("http://prefect.localhost/api", True),
        ("http://localhost.evil.com/api", False),
        ("http://10.0.0.1/api", False),
        ("http://[bad/api", False),
        ("", False),
    ],
)
def test_address__is_of_this_machine_or_not(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_usable_proxy__is_left_alone() -> None:
    assert unusable("http://me:secret@gate:3128") is None
    assert unusable("gate:3128") is None
    assert unusable("nonsense://gate") is not None
