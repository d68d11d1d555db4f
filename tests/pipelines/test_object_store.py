"""A run from and to an object store: a real S3 protocol over loopback."""

import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import pipelines.core.reader
import pipelines.registry
import pipelines.run
from pipelines.bags.table import open_table
from pipelines.core.commit import commit_shard, load_record, record_name, verify
from pipelines.core.stage import Map, Output
from pipelines.core.state import load_run
from pipelines.errors import DataError
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.storage.frame import Frame
from pipelines.storage.source import open_source
from pipelines.storage.store import ObjectStore
from tests.datasets import blobs, even, vectors, write_shards
from tests.pipelines.conftest import Requests
from tests.toy import RECIPE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def upload(folder: Path, uri: str) -> None:
    store = ObjectStore(uri)
    for path in sorted(folder.iterdir()):
        store.write_atomic(path.name, path.read_bytes())


def test_run_on_an_object_store__gives_the_files_of_a_local_run(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    data = write_shards(tmp_path / "src", blobs(), even(240, 3))
    upload(data, f"{bucket}/src")
    recipe = parse_recipe(RECIPE, name="toy")
    pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "out"))
    pipelines.run.run(recipe, data=f"{bucket}/src", out=f"{bucket}/out")
    store = ObjectStore(f"{bucket}/out")
    for path in sorted((tmp_path / "out").rglob("*.parquet")):
        name = path.relative_to(tmp_path / "out").as_posix()
        assert store.read_bytes(name) == path.read_bytes(), name
    assert not [name for name in store.list("toy") if name.startswith(".tmp")]
    remote = load_run(f"{bucket}/out")
    table = pa.concat_tables(
        f.table(["share"]) for f in pipelines.core.reader.frames(remote, ["share"])
    )
    local = pa.concat_tables(
        pq.read_table(path, columns=["share"]) for path in sorted((tmp_path / "out/toy").glob("p*"))
    )
    assert table.equals(local)


def test_create_if_absent__lets_one_of_many_writers_win(bucket: str) -> None:
    store = ObjectStore(f"{bucket}/race")
    for race in range(5):
        won: list[int] = []
        barrier = threading.Barrier(6)

        def write(
            me: int, race: int = race, won: list[int] = won, at: threading.Barrier = barrier
        ) -> None:
            at.wait()
            if store.create_if_absent(f"{race}.json", str(me).encode()):
                won.append(me)

        threads = [threading.Thread(target=write, args=(me,)) for me in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(me).encode() for me in won] == [store.read_bytes(f"{race}.json")]


def test_missing_bucket__names_address_and_remedy(bucket: str) -> None:
    with pytest.raises(DataError) as refused:
        open_source("s3://no-such-bucket/data")
    assert "s3://no-such-bucket/data" in str(refused.value)
    assert "The specified bucket does not exist" in str(refused.value)


def test_store_out_of_reach__names_address_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError) as refused:
        open_source("s3://elsewhere/data")
    s3fs.S3FileSystem.clear_instance_cache()
    assert str(refused.value).startswith(
        "source: a readable folder of Parquet shards was expected at s3://elsewhere/data, got "
    )
    assert "Check the address, the credentials and the network" in str(refused.value)


def test_table_of_bags__is_read_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    table = pa.table({"bag_id": ["b", "a"], "n": [3, 4], "counts": [[1, 2], [4, 0]]})
    pq.write_table(table, tmp_path / "bags.parquet")
    ObjectStore(bucket).write_atomic("bags.parquet", (tmp_path / "bags.parquet").read_bytes())
    found = open_table(f"{bucket}/bags.parquet")
    assert (found.ids.tolist(), found.counts.tolist()) == (["a", "b"], [[4, 0], [1, 2]])
    with pytest.raises(
        DataError, match=r"got no such file or directory; at s3://test-object-store/no.csv"
    ):
        open_table(f"{bucket}/no.csv")


def test_table_of_bags__without_credentials_is_said_to_be_unreadable() -> None:
    class Locked(MemoryFileSystem):
        protocol = "locked"

        def info(self, path: str, **kwargs: object) -> None:
            raise RuntimeError("Unable to locate credentials")

    fsspec.register_implementation("locked", Locked, clobber=True)
    with pytest.raises(DataError, match=r"Unable to locate credentials.*into the environment"):
        open_table("locked://bags.parquet")


def test_audit_of_eight_small_shards__asks_the_storage_seldom(
    bucket: str, requests: Requests, tmp_path: Path
) -> None:
    # Copies and questions whether there is something are what made it 264.
    data = blobs(400)
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 400).astype(np.float32)
    upload(
        write_shards(
            tmp_path / "src", data.append_column("pred_probs", vectors(probs)), even(400, 8)
        ),
        f"{bucket}/eight",
    )
    requests.clear()
    pipelines.run.run(load_recipe("audit"), data=f"{bucket}/eight", out=f"{bucket}/asked")
    # How often the lease is looked at depends on how long the run takes.
    lease = [request for request in requests if "/.lock-epochs" in request.path]
    kinds = requests.kinds() - Requests(lease).kinds()
    assert kinds["COPY"] == 0
    assert kinds["HEAD"] <= 7 * 8
    assert sum(kinds.values()) <= 70 * 8, kinds


def test_file_too_long_for_one_request__is_the_same_and_leaves_no_temporary(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    monkeypatch.setattr("pipelines.storage.store.HELD_BYTES", 1000)
    data = write_shards(tmp_path / "src", blobs(), even(240, 3))
    recipe = parse_recipe(RECIPE, name="toy")
    for out in (str(tmp_path / "out"), f"{bucket}/long", "memory://long"):
        pipelines.run.run(recipe, data=str(data), out=out)
    for uri in (f"{bucket}/long", "memory://long"):
        store = ObjectStore(uri)
        for path in sorted((tmp_path / "out").rglob("part-*")):
            name = path.relative_to(tmp_path / "out").as_posix()
            assert store.read_bytes(name) == path.read_bytes(), name
        assert store.list(".tmp-objects") == []
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("place", ["s3", "memory"])
def test_six_racing_workers__one_commit_wins_and_its_files_are_whole(
    bucket: str, place: str
) -> None:
    store = ObjectStore(f"{bucket}/six" if place == "s3" else "memory://six")
    outputs = {
        folder: Output(schema=pa.schema([("x", pa.float64())])) for folder in ("race", "more")
    }
    step = Map(name="race", reads=[], writes=outputs, apply=lambda frame, ctx: {})
    for shard in range(8):
        barrier = threading.Barrier(6)

        def work(worker: int, shard: int = shard, barrier: threading.Barrier = barrier) -> None:
            frame = Frame(index=shard, label="s", n=9, files={}, columns={}, reads=[])
            # Not deterministic on purpose: every worker would write other files.
            table = pa.table({"x": np.random.default_rng(worker).normal(size=9)})
            barrier.wait()
            commit_shard(
                store,
                stage="race",
                step=step,
                frame=frame,
                tables={"race": table, "more": table},
                item_ids=lambda: pa.nulls(9),
                source_rows=lambda: np.arange(9),
            )

        threads = [threading.Thread(target=work, args=(w,)) for w in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = load_record(store, record_name("race", "race", shard))
        verify(store, record)
    assert store.list(".tmp-objects") == []
