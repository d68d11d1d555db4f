"""An S3 server on this machine, that also says what it was asked for."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest


class Request(NamedTuple):
    kind: str
    path: str
    who: str
    """Name of the key that it is signed with."""


class Requests(list[Request]):
    """Every request since the last `clear`."""

    def kinds(self) -> Counter[str]:
        return Counter(request.kind for request in self)


def read(environ: dict[str, Any]) -> Request:
    kind = str(environ["REQUEST_METHOD"])
    if "HTTP_X_AMZ_COPY_SOURCE" in environ:
        kind = "COPY"
    if "list-type" in environ["QUERY_STRING"]:
        kind = "LIST"
    signed = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2]
    return Request(kind, environ["PATH_INFO"], signed.partition("/")[0])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, Requests]]:
    """The server's address, and what it was asked for."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication
    from moto.server import ThreadedMotoServer

    requests, turn = Requests(), threading.Lock()
    real = DomainDispatcherApplication.__call__

    def counted(app: Any, environ: dict[str, Any], start: Any) -> Any:
        requests.append(read(environ))
        # S3 decides about a condition and writes in one; moto lets others in between.
        is_conditional = environ.keys() & {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"}
        with turn if is_conditional else contextlib.nullcontext():
            return real(app, environ, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DomainDispatcherApplication, "__call__", counted)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}", requests
        server.stop()


@pytest.fixture(scope="module")
def bucket(s3_server: tuple[str, Requests], request: pytest.FixtureRequest) -> Iterator[str]:
    """A bucket for one module of tests, found through the usual environment variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server[0])
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        name = request.module.__name__.rpartition(".")[2].replace("_", "-")
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def requests(s3_server: tuple[str, Requests]) -> Requests:
    """What the S3 server is asked for in this test."""
    s3_server[1].clear()
    return s3_server[1]
