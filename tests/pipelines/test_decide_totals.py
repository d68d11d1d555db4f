"""Decisions that agree with known totals. Oracle: planted truth, a fifth of labels flipped."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.belief import believe
from labelops.fast.cardinality import marginals
from labelops.proportions.counts import hard_counts
from pipelines.bags.findings import bag_losses
from pipelines.bags.totals import contradicts
from pipelines.core.results import load_result
from pipelines.core.state import Run, load_run
from pipelines.recipe import parse_recipe
from pipelines.registry import STAGES
from tests.datasets import even, vectors, write_shards
from tests.pipelines.bagged import rows_of

N, BAG = 1200, 12
RECIPE = """
stages = ["source", "confident", "proportions", "decide"]
[decide]
max_change_share = 0.5
max_review = 0
"""


@pytest.fixture(autouse=True)
def _fake_confident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "confident", "tests.fake_confident:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")


def planted(n_classes: int, *, seed: int = 0) -> tuple[pa.Table, pa.Table, np.ndarray, np.ndarray]:
    """Return items whose labels are wrong in a fifth of cases, true totals of bags, true and given.

    What the model sees leaves 12 to 25 % of the items in doubt.
    """
    rng = np.random.default_rng([seed, n_classes])
    bag = rng.permutation(N) // BAG
    share = rng.dirichlet(np.ones(n_classes), N // BAG)
    true = np.array([rng.choice(n_classes, p=share[b]) for b in bag])
    given = np.where(rng.random(N) < 0.2, (true + rng.integers(1, n_classes, N)) % n_classes, true)
    seen = np.eye(n_classes)[true] * 1.5 + rng.normal(size=(N, n_classes))
    probs = np.exp(1.5 * seen)
    probs /= probs.sum(axis=1, keepdims=True)
    counts = np.stack([np.bincount(bag, true == k) for k in range(n_classes)], axis=1)
    items = pa.table(
        {
            "item_id": [f"i{i:04d}" for i in range(N)],
            "bag_id": bag,
            "label": pa.array([f"class {k}" for k in given]),
            "pred_probs": vectors(probs.astype(np.float32)),
        }
    )
    sizes = np.full(N // BAG, BAG)
    bags = {"bag_id": np.arange(N // BAG), "n": sizes, "counts": counts.astype(int).tolist()}
    return items, pa.table(bags), true, given


def decide(
    folder: Path,
    n_classes: int,
    *settings: str,
    n_shards: int = 3,
    bags: pa.Table | None = None,
    has_totals: bool = True,
) -> Run:
    items, true_bags, _, _ = planted(n_classes)
    bags = true_bags if bags is None else bags
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(bags, folder.parent / "bags.parquet")
    source = write_shards(folder / "src", items, even(N, n_shards))
    table = [f"proportions.bags={folder.parent / 'bags.parquet'}"] if has_totals else []
    recipe = parse_recipe(RECIPE, name="test", overrides=[*table, *settings])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def labels_of(run: Run, given: np.ndarray) -> np.ndarray:
    """Return the class to train on; of items that were set aside the given one."""
    table = rows_of(run, "decide")
    clean = [-1 if v is None else int(v[-1]) for v in table["label_clean"].to_pylist()]
    return np.where(np.array(clean) < 0, given, clean)


def believed(run: Run) -> np.ndarray:
    return np.array([ids[0] for ids in rows_of(run, "decide")["topk_ids"].to_pylist()])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_known_totals__make_more_labels_right_than_the_same_evidence_without_them(
    tmp_path: Path, n_classes: int
) -> None:
    _, _, true, given = planted(n_classes)
    with_totals = decide(tmp_path / "with", n_classes)
    without = decide(tmp_path / "without", n_classes, has_totals=False)
    right = {
        "given": (given == true).mean(),
        "without": (labels_of(without, given) == true).mean(),
        "with": (labels_of(with_totals, given) == true).mean(),
        "believed without": (believed(without) == true).mean(),
        "believed with": (believed(with_totals) == true).mean(),
    }
    assert right["with"] > right["without"] + 0.01, right
    assert right["believed with"] > right["believed without"] + 0.015, right
    assert right["with"] > right["given"] + 0.04, right


def test_beliefs__are_those_of_decide_with_the_totals_brought_in_exactly(tmp_path: Path) -> None:
    items, bags, _, given = planted(2)
    run = decide(tmp_path / "a", 2)
    temperature = float(run.context("proportions", run.layout()).own("temperature")["temperature"])
    probs = np.array(items["pred_probs"].to_pylist(), np.float32)
    noise = np.array([[0.8, 0.2], [0.2, 0.8]])
    _, plain = believe(probs, given, noise, temperature=temperature)
    order = np.argsort(items["bag_id"].to_numpy(), kind="stable")
    log_odds = (np.log(plain[:, 1]) - np.log(plain[:, 0]))[order]
    k = np.array(bags["counts"].to_pylist())[:, 1]
    wanted = marginals(log_odds, np.arange(0, N + 1, BAG), hard_counts(k)).beliefs
    found = np.array(rows_of(run, "proportions")["bag_probs"].to_pylist())[order, 1]
    np.testing.assert_allclose(found, wanted, atol=1e-6)  # stored in single precision


def test_decisions__with_totals_do_not_depend_on_the_shards(tmp_path: Path) -> None:
    runs = [decide(tmp_path / str(n), 3, n_shards=n) for n in (1, 7)]
    for folder in ("decide", "proportions", "proportions_bags"):
        assert rows_of(runs[0], folder).equals(rows_of(runs[1], folder))


def test_audit__without_a_table_skips_the_stage_and_says_so(tmp_path: Path) -> None:
    items, _, _, _ = planted(2)
    source = write_shards(tmp_path / "src", items, [N])
    recipe = parse_recipe(RECIPE, name="test")
    pipelines.run.run(recipe, data=str(source), out=str(tmp_path / "out"))
    entry = load_run(str(tmp_path / "out")).entry("proportions")
    assert entry.skipped == "proportions.bags names no table with totals of bags"


def with_counts(bags: pa.Table, counts: np.ndarray) -> pa.Table:
    return bags.set_column(bags.column_names.index("counts"), "counts", pa.array(counts.tolist()))


def test_totals_of_the_other_class__are_left_out_and_reported(tmp_path: Path) -> None:
    _, bags, true, given = planted(2)
    counts = np.array(bags["counts"].to_pylist())
    swapped = decide(tmp_path / "swapped", 2, bags=with_counts(bags, counts[:, ::-1]))
    without = decide(tmp_path / "without", 2, has_totals=False)
    np.testing.assert_array_equal(labels_of(swapped, given), labels_of(without, given))
    assert bool(load_result(swapped.store, "proportions", "constrain")["is_contrary"])
    assert not any(rows_of(swapped, "proportions_bags")["imposed"].to_pylist())
    imposed = decide(
        tmp_path / "imposed",
        2,
        "proportions.improbable=impose",
        bags=with_counts(bags, counts[:, ::-1]),
    )
    assert (labels_of(imposed, given) == true).mean() < (given == true).mean()


def test_totals_of_labels_that_miss_a_class_everywhere__are_no_contradiction() -> None:
    """Half of a class goes unseen: what totals are there to mend."""
    rng = np.random.default_rng(5)
    share = np.repeat(rng.beta(9, 11, N // BAG), BAG)
    true = rng.random(N) < share
    log_odds = np.where(true, 1.0, -1.0) + rng.normal(size=N)
    p = 1 / (1 + np.exp(-(log_odds - 1.5)))
    beliefs = np.stack([1 - p, p], axis=1)
    start = np.arange(0, N + 1, BAG)
    k = np.add.reduceat(true, start[:-1], dtype=np.int64)
    counts = np.stack([BAG - k, k], axis=1)
    constant = np.tile(counts.sum(axis=0) / N, (N, 1))
    # As they are, they predict totals worse than one share for all bags.
    worse = bag_losses(beliefs, start, counts) - bag_losses(constant, start, counts)
    assert worse.mean() > 0
    assert not contradicts(beliefs, start, counts)
    assert contradicts(beliefs, start, counts[:, ::-1])


def test_one_improbable_total__is_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    _, bags, _, _ = planted(2)
    counts = np.array(bags["counts"].to_pylist())
    wrong = int(np.argmax(counts[:, 0]))
    assert counts[wrong, 1] == 0
    false = counts.copy()
    false[wrong] = false[wrong, ::-1]
    run = decide(tmp_path / "a", 2, bags=with_counts(bags, false))
    table = rows_of(run, "proportions_bags")
    left_out = table.filter(pc.invert(table["imposed"]))["bag_id"].to_pylist()
    assert left_out == [wrong]
    beliefs = np.array(rows_of(run, "proportions")["bag_probs"].to_pylist())
    bag = planted(2)[0]["bag_id"].to_numpy()
    sums = np.stack([np.bincount(bag, beliefs[:, k]) for k in range(2)], axis=1)
    off = np.abs(sums - false).max(axis=1)
    assert off[wrong] > 6
    assert np.delete(off, wrong).max() < 1e-4
