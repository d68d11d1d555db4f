"""Several heads in one run, against a run for each of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pipelines.run
from labelops.opinions.pool import fit_weights, pool
from pipelines.core.state import Run, load_run
from pipelines.recipe import load_recipe
from tests.datasets import blobs, even, write_shards

N = 300
VOTING = ("linear", "nearest", "trees", "network")
KINDS = (*VOTING, "prototypes")


def audit(folder: Path, heads: tuple[str, ...]) -> Run:
    table = blobs(N)
    rng = np.random.default_rng(0)
    labels = np.array(table["label"].to_pylist())
    wrong = rng.random(N) < 0.15
    labels[wrong] = rng.permutation(labels)[wrong]
    table = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    source = write_shards(folder / "src", table, even(N, 2))
    recipe = load_recipe("audit", [f"infer.heads={list(heads)}"])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def rows(run: Run, folder: str) -> pa.Table:
    files = sorted((Path(run.uri) / folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def test_pool__is_made_of_what_each_head_says_alone_and_changes_need_two_of_them(
    tmp_path: Path,
) -> None:
    alone = [rows(audit(tmp_path / kind, (kind,)), "infer") for kind in KINDS]
    assert all("opinions" not in table.column_names for table in alone)
    probs = np.stack([np.array(table["pred_probs"].to_pylist(), np.float32) for table in alone])
    run = audit(tmp_path / "all", KINDS)
    found = rows(run, "infer")
    opinions = np.array(found["opinions"].to_pylist())
    # Class means are as linear as the linear head: where both agree, no second opinion does.
    assert np.array_equal(opinions[:, :-1], probs[:-1].argmax(axis=2).T)
    assert (opinions[:, -1] == -1).all()
    given = rows(run, "source")["given"].to_numpy()
    weights = run.context("infer", run.layout()).own("weights")["weights"]
    # The same items in another order: up to the tolerance of the search.
    np.testing.assert_allclose(weights, fit_weights(probs, given), atol=0.01)
    wanted = pool(probs, weights).astype(np.float32)
    np.testing.assert_allclose(np.array(found["pred_probs"].to_pylist()), wanted, rtol=1e-6)
    decided = rows(run, "decide")
    changed = np.flatnonzero(np.array(decided["decision"].to_pylist()) == "relabel")
    classes = run.context("decide", run.layout()).classes
    new = np.array([classes.index(decided["label_clean"][i].as_py()) for i in changed.tolist()])
    assert len(changed) > 5
    assert ((opinions[changed] == new[:, None]).sum(axis=1) >= 2).all()
