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
import sys
import threading

STOP_S = 5.0
"""A server that has not shut down by itself after so long is ended."""


def end(home: str) -> None:
    """Remove the state of the server, and end it with everything it started."""
    shutil.rmtree(home, ignore_errors=True)
    # The whole group: `flows.server` starts this process as the leader of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Serve until standard input ends."""
    home = os.environ["PREFECT_HOME"]
    stopping: list[object] = []

    def watch() -> None:
        # Blocks until the owner closes its end, or dies.
        while os.read(0, 1):
            pass
        timer = threading.Timer(STOP_S, end, [home])
        timer.daemon = True
        timer.start()
        if not stopping:
            end(home)
        for server in stopping:
            server.should_exit = True  # type: ignore[attr-defined]

    threading.Thread(target=watch, name="owner", daemon=True).start()

    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                stopping.append(self)
                os.write(1, b"up\n")

    listener = socket.socket(fileno=int(sys.argv[1]))
    app = create_app(ephemeral=True, final=True)
    Server(uvicorn.Config(app, log_level="error", lifespan="on")).run([listener])
    end(home)


if __name__ == "__main__":
    main()
