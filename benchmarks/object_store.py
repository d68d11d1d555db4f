"""How often an object store is asked during an audit from and to it, by kind of request.

    python benchmarks/object_store.py [--shards 8] [--rows 400]

The storage is a local S3 server; what is counted does not depend on how fast it is.
"""

import argparse
import io
import logging
import os
import tempfile
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def counted_server() -> tuple[Any, Counter[str]]:
    """Start an S3 server; returns it and the number of its requests by kind."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    kinds: Counter[str] = Counter()
    real = DomainDispatcherApplication.__call__

    def counted(app: Any, environ: dict[str, Any], start: Any) -> Any:
        kind = str(environ["REQUEST_METHOD"])
        kind = "LIST" if "list-type" in environ["QUERY_STRING"] else kind
        kinds["COPY" if "HTTP_X_AMZ_COPY_SOURCE" in environ else kind] += 1
        return real(app, environ, start)

    DomainDispatcherApplication.__call__ = counted
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    return server, kinds


def write_source(uri: str, shards: int, rows: int) -> None:
    """Write items with ready probabilities, in small shards."""
    from pipelines.storage.store import ObjectStore

    rng = np.random.default_rng(0)
    store = ObjectStore(uri)
    for shard, n in enumerate(map(len, np.array_split(np.arange(rows), shards))):
        probs = rng.dirichlet(np.ones(4), n).astype(np.float32)
        table = pa.table(
            {
                "item_id": [f"{shard}-{row}" for row in range(n)],
                "label": [f"class {k}" for k in rng.integers(0, 4, n)],
                "features": pa.FixedSizeListArray.from_arrays(
                    rng.normal(size=n * 6).astype(np.float32), 6
                ),
                "pred_probs": pa.FixedSizeListArray.from_arrays(probs.ravel(), 4),
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        store.write_atomic(f"part-{shard:05d}.parquet", buffer.getvalue())


def count(shards: int, rows: int) -> Counter[str]:
    """Return the requests of one audit, by kind."""
    import s3fs

    import pipelines.run
    from pipelines.recipe import load_recipe

    server, kinds = counted_server()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        s3fs.S3FileSystem().mkdir("bucket")
        write_source("s3://bucket/data", shards, rows)
        kinds.clear()
        pipelines.run.run(load_recipe("audit"), data="s3://bucket/data", out="s3://bucket/run")
    finally:
        server.stop()
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rows", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        kinds = count(arguments.shards, arguments.rows)
    total = sum(kinds.values())
    print(f"{total} requests, {total / arguments.shards:.1f} a shard:", dict(kinds.most_common()))


if __name__ == "__main__":
    main()
