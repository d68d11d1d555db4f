"""A PostgreSQL of the test's own, from the system's package."""

import contextlib
import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def tools() -> str | None:
    """Return the folder of PostgreSQL's programs: Debian keeps them apart from all others."""
    found = shutil.which("initdb")
    if found:
        return os.path.dirname(os.path.realpath(found))
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    return folders[-1] if folders else None


def somebody() -> list[str] | None:
    """Return how to run its programs, which refuse to be root; None where nobody else can be."""
    if os.getuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        command = ["runuser", "-u", name, "--"]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
    return None


def lacking() -> str | None:
    """Say why there can be no PostgreSQL here; None if there can."""
    if tools() is None:
        return "no PostgreSQL on this machine: apt-get install postgresql"
    return "PostgreSQL refuses to run as root" if somebody() is None else None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Give the address of an empty database."""
    folder_of_tools, other = tools(), somebody()
    assert folder_of_tools is not None
    assert other is not None
    port = free_port()
    # A short path of its own: the name of its socket has 107 characters at most.
    with tempfile.TemporaryDirectory(
        prefix="labelops-pg-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        if other:
            shutil.chown(folder, other[2])

        def call(tool: str, *arguments: str) -> None:
            subprocess.run(
                [*other, f"{folder_of_tools}/{tool}", *arguments],
                cwd="/",
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=120,
            )

        data, log = f"{folder}/data", f"{folder}/log"
        call("initdb", "-D", data, "-U", "prefect", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -F"
        call("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
        try:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
