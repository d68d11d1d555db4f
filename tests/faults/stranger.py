"""Another user of the machine: asks who listens at each port to compute something.

usage: stranger.py PORT…; prints how each was answered.
"""

import asyncio
import os
import sys

from distributed.core import connect
from distributed.protocol.pickle import dumps
from distributed.security import Security


async def ask(port: str, kind: str) -> str:
    """Return what came back: without TLS, and with a certificate of the stranger's own."""
    protocol = "tcp" if kind == "plain" else "tls"
    security = Security() if kind == "plain" else Security.temporary()
    try:
        comm = await connect(
            f"{protocol}://127.0.0.1:{port}", timeout=5, **security.get_connection_args("client")
        )
        call = {"op": "run", "function": dumps(os.getuid), "reply": True}
        await asyncio.wait_for(comm.write(call), 5)
        return f"answered {await asyncio.wait_for(comm.read(), 5)}"
    except (OSError, TimeoutError, ValueError) as err:
        return f"refused {type(err).__name__}"


if __name__ == "__main__":
    for port in sys.argv[1:]:
        for kind in ("plain", "own certificate"):
            print(port, kind, asyncio.run(ask(port, kind)))
    sys.stdout.flush()
    os._exit(0)
