"""The process of the embedded Prefect server; started by `flows.server`, by path.

Serves on the socket that it inherits, says on standard output when it is up, and lives exactly as
long as somebody holds the other end of its standard input: that end is closed by the kernel however
its owner dies, so not even ``kill -9`` leaves a server behind.
"""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

STOP_S = 5.0
"""A server that has not shut down by itself after so long is ended."""


def end(home: Path) -> None:
    """Remove the state of the server, and end it with everything it started."""
    shutil.rmtree(home, ignore_errors=True)
    # The whole group: `flows.server` starts this process as the leader of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def keep(database: Path, template: Path) -> None:
    """Keep a new, empty database for the next server: making one takes longer than all else.

    Whole or not at all, and without the rows that are of this server only. Where the folder cannot
    be written, the next server makes its own again.
    """
    part = template.with_name(f".{template.name}-{os.getpid()}")
    with contextlib.suppress(OSError, sqlite3.Error):
        template.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database)) as source:
            source.execute("VACUUM INTO ?", [str(part)])
        with contextlib.closing(sqlite3.connect(part)) as copy, copy:
            copy.execute("DELETE FROM configuration")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, template)
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def main(descriptor: int, home: Path, template: Path | None) -> None:
    """Serve until standard input ends.

    Parameters
    ----------
    descriptor
        Socket to listen on.
    home
        Folder of this server.
    template
        Where an empty database is kept for the next server; None keeps none.
    """
    serving: list[Any] = []

    def watch() -> None:
        # Blocks until the owner closes its end, or dies.
        while os.read(0, 1):
            pass
        timer = threading.Timer(STOP_S, end, [home])
        timer.daemon = True
        timer.start()
        if not serving:
            end(home)
        for server in serving:
            server.should_exit = True

    threading.Thread(target=watch, name="owner", daemon=True).start()
    database = home / "prefect.db"
    with contextlib.suppress(OSError):
        if template is not None:
            shutil.copyfile(template, database)
    is_new = not database.exists()

    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                if is_new and template is not None:
                    keep(database, template)
                serving.append(self)
                os.write(1, b"up\n")

    app = create_app(ephemeral=True, final=True)
    server = Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    try:
        server.run([socket.socket(fileno=descriptor)])
    finally:
        if not serving and template is not None:
            # It did not come up: perhaps what was kept is to blame. The next one starts afresh.
            template.unlink(missing_ok=True)
    end(home)


if __name__ == "__main__":
    kept = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    main(int(sys.argv[1]), Path(sys.argv[2]), kept)
