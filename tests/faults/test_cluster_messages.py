"""What a user reads when a cluster is not there, goes away, or lets nobody in; and how soon."""

import signal
import threading
import time
from pathlib import Path

import pytest
from distributed.security import Security

import pipelines.core.cluster
from pipelines.core.graph import check_address, open_workers
from pipelines.errors import RunError
from tests.faults.chores import wait_long
from tests.faults.schedulers import scheduler, worker

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

TLS = "DASK_DISTRIBUTED__COMM__TLS__"


@pytest.mark.parametrize(
    "address",
    [
        *("tcp://127.0.0.1", "tcp://host:", "tcp://:8786", "tcp://host:0", "tcp://host:65536"),
        *("http://host:80", "host:8786", "", "tcp://", "tcp://a b:1", "tcp://host:8786/path"),
        *("tcp://host:8786?x=1", "tls://[::1]:x", "tcp://host:٣", "tcp://host:1\n"),
    ],
)
def test_address_of_no_scheduler__is_refused_without_a_try(address: str) -> None:
    began = time.monotonic()
    with (
        pytest.raises(RunError, match=r"tcp://host:port or tls://host:port was expected, got '"),
        open_workers(cluster=address),
    ):
        pass
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tls://a-b.c:1/", "tcp://[fe80::1]:9"])
def test_address_of_a_scheduler__is_taken(address: str) -> None:
    check_address(address)


def test_password_in_an_address__is_not_repeated() -> None:
    with pytest.raises(RunError, match="one with a user or password") as refused:
        check_address("tcp://me:secret@host:8786")
    assert "secret" not in str(refused.value)


def test_host_that_is_not_known__is_said_with_the_address() -> None:
    with (
        pytest.raises(RunError, match=r"expected at tcp://no\.such\.host\.invalid:1, none"),
        open_workers(cluster="tcp://no.such.host.invalid:1", connect_s=2.0),
    ):
        pass


def test_no_worker_ever__is_said_after_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.core.cluster, "WORKERS_S", 2.0)
    began = time.monotonic()
    with (
        scheduler(tmp_path) as (address, _),
        pytest.raises(RunError, match=r"at least one worker was expected at .*dask worker tcp://"),
        open_workers(cluster=address),
    ):
        pass
    assert time.monotonic() - began < 40


def test_all_workers_gone_while_the_scheduler_stays__is_said_after_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        scheduler(tmp_path) as (address, _),
        worker(address) as only,
        open_workers(cluster=address) as pool,
    ):
        monkeypatch.setattr(pipelines.core.cluster, "WORKERS_S", 3.0)
        threading.Timer(1.0, only.send_signal, [signal.SIGKILL]).start()
        began = time.monotonic()
        with pytest.raises(RunError, match=r"there has been none for 3 s\. Finished shards"):
            list(pool.map(wait_long, [("", 1)]))
        assert time.monotonic() - began < 40


@pytest.mark.parametrize("when", ["at work", "between steps"])
def test_scheduler_killed__is_said_within_seconds(tmp_path: Path, when: str) -> None:
    with (
        scheduler(tmp_path) as (address, process),
        worker(address),
        open_workers(cluster=address) as pool,
    ):
        if when == "at work":
            threading.Timer(1.0, process.send_signal, [signal.SIGKILL]).start()
        else:
            process.send_signal(signal.SIGKILL)
            process.wait()
        began = time.monotonic()
        with pytest.raises(RunError, match=f"no answer from the scheduler at {address}"):
            list(pool.map(wait_long, [("", 1)]))
        assert time.monotonic() - began < 30


def test_certificates_that_are_missing__are_named_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import dask

    address = "tls://127.0.0.1:9"
    with (
        pytest.raises(RunError, match=f"nothing is set for {TLS}CA_FILE. Set"),
        open_workers(cluster=address),
    ):
        pass
    gone = str(tmp_path / "ca.pem")
    with (
        dask.config.set({"distributed.comm.tls.ca-file": gone}),
        pytest.raises(RunError, match=f"{gone} cannot be read for {TLS}CA_FILE"),
        open_workers(cluster=address),
    ):
        pass
    Path(gone).write_text("no certificate\n")
    tls = {f"distributed.comm.tls.{key}": gone for key in ("ca-file", "client.cert", "client.key")}
    with (
        dask.config.set(tls),
        pytest.raises(RunError, match="certificates and a key in PEM form were expected in"),
        open_workers(cluster=address),
    ):
        pass


def test_cluster_with_tls__works_with_its_certificates_and_refuses_others(tmp_path: Path) -> None:
    import dask

    def settings(name: str) -> tuple[dict[str, str], dict[str, str]]:
        made = Security.temporary()
        (tmp_path / f"{name}.pem").write_text(made.tls_ca_file)
        (tmp_path / f"{name}.key").write_text(made.tls_client_key)
        parts = {"ca-file": f"{name}.pem"}
        for role in ("client", "scheduler", "worker"):
            parts |= {f"{role}.cert": f"{name}.pem", f"{role}.key": f"{name}.key"}
        files = {key: str(tmp_path / file) for key, file in parts.items()}
        environ = {
            f"{TLS}{key.upper().replace('.', '__').replace('-', '_')}": file
            for key, file in files.items()
        }
        return {f"distributed.comm.tls.{key}": file for key, file in files.items()}, environ

    ours, environ = settings("ours")
    theirs, _ = settings("theirs")
    with scheduler(tmp_path, protocol="tls", env=environ) as (address, _):
        with (
            worker(address, env=environ),
            dask.config.set(ours),
            open_workers(cluster=address) as pool,
        ):
            assert list(pool.map(len, ["abc"])) == [3]
        with (
            dask.config.set(theirs),
            pytest.raises(RunError, match="with a certificate that it accepts"),
            open_workers(cluster=address, connect_s=3.0),
        ):
            pass
        with (
            pytest.raises(RunError, match="tls:// where it speaks TLS"),
            open_workers(cluster=address.replace("tls", "tcp"), connect_s=3.0),
        ):
            pass
