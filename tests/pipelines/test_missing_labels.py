"""Lists with missing positives, from shards to page. Oracles: the networks fitted directly, a slow
loop over cells, the same data with every class known, and planted truth."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.hashing import hash_strings
from labelops.multilabel.labels import from_states
from labelops.nn import shallow
from labelops.nn.binary_heads import fit_binary_heads
from labelops.nn.cell_heads import CellHeads, fit_cells, predict_cells
from labelops.nn.cell_losses import LOSSES
from labelops.nn.linear import Block, predict
from labelops.opinions import trees
from labelops.partial.recall import found_by_epoch, log_recalls
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError, LabelopsError, RecipeError
from pipelines.inference.settings import MissingLoss
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.report import collect
from pipelines.report.render import render
from tests.datasets import even, tagged, vectors, write_shards
from tests.pipelines.shown import section, table_of, worst_groups
from tests.pipelines.test_report_render import HOSTILE, Page

N, K, EPOCHS = 200, 5, 20
STAGES = 'stages = ["source", "infer"]\n[data]\nabsent_classes = "allow"\n'
UNKNOWN, NETWORK = "data.absent_labels=unknown", "infer.heads=['network']"
CLASSES = [f"class {k}" for k in range(K)]


def source(**how: Any) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Return items with half of their labels left unsaid, what is given, and the truth."""
    table, true = tagged(N, n_classes=K, hidden=0.5, wrong=0.0, **how)
    lists = table["labels"].to_pylist()
    return table, np.array([[c in given for c in CLASSES] for given in lists]), true


def listed(cells: np.ndarray, names: Sequence[str] = CLASSES) -> pa.Array:
    lists = [[names[k] for k in np.flatnonzero(row)] for row in cells]
    return pa.array(lists, pa.list_(pa.string()))


def run(folder: Path, table: pa.Table, *settings: str, page: bool = False) -> Run:
    n = len(table)
    data = write_shards(folder / "src", table, even(n, 3))
    with pytest.MonkeyPatch.context() as patch:
        if not page:
            patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        recipe = parse_recipe(STAGES, name="test", overrides=settings)
        pipelines.run.run(recipe, data=str(data), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def read(run: Run, folder: str) -> pa.Table:
    paths = sorted((Path(run.uri) / folder).glob("*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths)


def probs_of(run: Run) -> np.ndarray:
    return np.array(read(run, "infer")["pred_probs"].to_pylist(), np.float32)


def own(run: Run, step: str) -> dict[str, np.ndarray]:
    return run.context("infer", run.layout()).own(step)


def fitted(
    table: pa.Table, states: np.ndarray, fold: np.ndarray, **how: Any
) -> tuple[CellHeads, np.ndarray]:
    """Return networks fitted to items in the order of their hashes, and that order."""
    order = np.argsort(hash_strings(table["item_id"].to_pylist()))
    x = np.array(table["features"].to_pylist(), np.float32)
    return fit_cells(x[order], states[order], fold[order], n_folds=5, **how), order


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ((), {"loss": "ll-r"}),
        (
            ("infer.missing_loss=epr", "infer.missing_hidden=0", "infer.labels_per_item=1.5"),
            {"loss": "epr", "hidden": 0, "expected": 1.5},
        ),
        (("infer.missing_loss=splc", "infer.missing_hidden=8"), {"loss": "splc", "hidden": 8}),
    ],
)
def test_network__and_its_log_are_those_fitted_directly(
    tmp_path: Path, settings: Sequence[str], how: dict[str, Any]
) -> None:
    table, given, _ = source()
    found = run(tmp_path, table, UNKNOWN, NETWORK, *settings)
    fold = read(found, "infer")["fold"].to_numpy().astype(np.int64)
    heads, order = fitted(table, np.where(given, 1, -1), fold, **how)
    x = np.array(table["features"].to_pylist(), np.float32)
    assert np.array_equal(probs_of(found), predict_cells(heads, x, fold))
    log = read(found, "infer_recalls")
    wanted = {
        (f"item-{order[row]:05d}", k, f"class {k}", epoch + 1, p)
        for row, k, p, epoch in zip(*(a.tolist() for a in heads.recalls), strict=True)
    }
    columns = ("item_id", "class_id", "class_name", "epoch", "p_present")
    rows = list(zip(*(log[name].to_pylist() for name in columns), strict=True))
    assert len(rows) == len(wanted) > 50
    assert set(rows) == wanted
    # In the order of the items, then by epoch and class.
    assert [(i, e, k) for i, k, _, e, _ in rows] == sorted((i, e, k) for i, k, _, e, _ in rows)
    networks, n = own(found, "networks"), [row[3] for row in rows]
    assert networks["recalled"].tolist() == [n.count(e) for e in range(1, EPOCHS + 1)]
    assert int(networks["first"].sum()) == len({row[:2] for row in rows})
    assert networks["last"].tolist() == [
        sum(row[1] == k and row[3] == EPOCHS for row in rows) for k in range(K)
    ]


def test_log__is_what_a_loop_over_epochs_and_cells_recalls(tmp_path: Path) -> None:
    """What the network of an item's fold says is added up by hand, the largest are counted off."""
    table, given, true = source()
    rng = np.random.default_rng(3)
    ruled_out = ~true & (rng.random(true.shape) < 0.05)
    table = table.append_column("labels_negative", listed(ruled_out))
    found = run(tmp_path, table, NETWORK)
    states = np.where(given, 1, np.where(ruled_out, 0, -1))
    fold = read(found, "infer")["fold"].to_numpy().astype(np.int64)
    heads, _ = fitted(table, states, fold)
    net = heads.networks[0]
    x = np.array(table["features"].to_pylist(), np.float32).astype(float)
    x = (x - net.center) / net.scale
    log: dict[int, dict[tuple[str, int], float]] = {}
    rows = read(found, "infer_recalls").to_pylist()
    for row in rows:
        log.setdefault(row["epoch"], {})[row["item_id"], row["class_id"]] = row["p_present"]
    for epoch in range(EPOCHS):
        said = {}
        for i in range(N):
            f = fold[i]
            inner = np.maximum(x[i] @ net.into[epoch, f] + net.into_bias[epoch, f], 0)
            z = inner @ net.out[epoch, f] + net.out_bias[epoch, f]
            for k in range(K):
                if states[i, k] == -1:
                    said[f"item-{i:05d}", k] = 1 / (1 + math.exp(-z[k]))
        n = math.ceil(N * K * epoch / 500 - 1e-9)
        largest = sorted(said.values(), reverse=True)[:n]
        mine = log.get(epoch + 1, {})
        assert len(mine) == n
        # Items that repeat others tie; which of them are taken may differ, but not how probable.
        np.testing.assert_allclose(sorted(mine.values(), reverse=True), largest, atol=1e-5)
        for cell, p in mine.items():
            assert said[cell] == pytest.approx(p, abs=1e-5)


def test_recalled_classes__are_mostly_those_that_were_left_unsaid(tmp_path: Path) -> None:
    table, given, true = source(seed=1)
    log = read(run(tmp_path, table, UNKNOWN, NETWORK), "infer_recalls")
    mask = np.zeros((EPOCHS, N, K), bool)
    item = [int(name[5:]) for name in log["item_id"].to_pylist()]
    mask[log["epoch"].to_numpy() - 1, item, log["class_id"].to_numpy()] = True
    parts = [log_recalls(m, np.ones((N, K)), epoch=e) for e, m in enumerate(mask)]
    states = np.where(given, 1, -1)
    last = found_by_epoch(parts[-1], states, true, epochs=EPOCHS)
    hidden = true & ~given
    assert last.precision[-1] > 4 * hidden.sum() / (~given).sum()
    assert not given[item, log["class_id"].to_numpy()].any()


def test_unknown_as_negative__is_bit_for_bit_what_known_lists_give(tmp_path: Path) -> None:
    table, _, _ = source()
    heads = "infer.heads=['linear', 'nearest', 'trees']"
    known = run(tmp_path / "known", table, heads)
    unknown = run(tmp_path / "unknown", table, heads, UNKNOWN)
    assert np.array_equal(probs_of(known), probs_of(unknown))
    for step in ("weights", "calibration"):
        a, b = own(known, step), own(unknown, step)
        assert int(b.pop("n_counted", 0)) == (K if step == "calibration" else 0)
        assert all(np.array_equal(a[name], b[name]) for name in {*a, *b})
    assert not (Path(unknown.uri) / "infer_recalls").exists()
    # All that is known is given: whoever ignores the rest has nothing to tell classes by.
    ignoring = probs_of(run(tmp_path / "ignoring", table, UNKNOWN, "infer.unknown=ignore"))
    assert ignoring.min() > 0.9


def test_defaults__are_by_how_often_a_class_is_ruled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "WORTHWHILE_CELLS", 0)
    table, given, true = source()
    rng = np.random.default_rng(0)
    heads, weights = ["linear", "nearest"], dict[str, dict[str, np.ndarray]]()
    for name, shares in {"enough": [0.4] * K, "mixed": [0.4, 0.4, 0.4, 0.05, 0.0]}.items():
        ruled_out = ~true & (rng.random(true.shape) < shares)
        both = table.append_column("labels_negative", listed(ruled_out))
        found = run(tmp_path / name, both)
        weights[name] = own(found, "weights")
        if name == "enough":
            old = run(tmp_path / "ignoring", both, "infer.unknown=ignore")
            assert np.array_equal(probs_of(found), probs_of(old))
    assert weights["enough"]["heads"].tolist() == heads
    assert weights["mixed"]["heads"].tolist() == [*heads, "network"]
    # Class by class: only unknown cells of those two are absent.
    linear = run(tmp_path / "linear", both, "infer.heads=['linear']", "infer.l2=0.01")
    counted = np.where(given, 1, np.where(ruled_out | (np.arange(K) >= 3), 0, -1))
    x = np.array(table["features"].to_pylist(), np.float32)
    fold = read(linear, "infer")["fold"].to_numpy().astype(np.int64)
    direct = fit_binary_heads(
        lambda: [Block(x, from_states(counted), fold)],
        n_features=x.shape[1],
        n_classes=K,
        n_folds=5,
        l2=0.01,
        tolerance=1e-8,
    )
    wanted = predict(direct, x, fold, link="sigmoid")
    np.testing.assert_allclose(probs_of(linear), wanted, atol=0.02)
    assert int(own(linear, "calibration")["n_counted"]) == 2


def test_many_items__networks_are_fitted_to_the_first_and_say_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, given, _ = source()
    monkeypatch.setattr(shallow, "MAX_CELLS", 60 * 5 * K)
    found = run(tmp_path, table, UNKNOWN, NETWORK)
    assert int(own(found, "networks")["n"]) == 60
    order = np.argsort(hash_strings(table["item_id"].to_pylist()))
    first = {f"item-{i:05d}" for i in order[:60]}
    logged = set(read(found, "infer_recalls")["item_id"].to_pylist())
    assert logged
    assert logged <= first
    assert int(own(found, "networks")["n_unknown"]) == (~given[order[:60]]).sum()
    assert len({p.tobytes() for p in probs_of(found)}) > 60
    # By a threshold all cells may be recalled in every epoch: so fewer items.
    found = run(tmp_path / "fixed", table, UNKNOWN, NETWORK, "infer.missing_loss=an")
    assert int(own(found, "networks")["n"]) == 60 * 5 // EPOCHS


def test_rare_classes__are_said_and_nothing_is_found_of_those_without_any(tmp_path: Path) -> None:
    table, given, _ = source()
    given[:, 3], given[:, 4] = False, np.arange(N) == 7
    table = table.set_column(2, "labels", listed(given))
    found = run(tmp_path, table, UNKNOWN, f"data.classes={CLASSES}", page=True)
    assert found.notices() == [
        "1 of 5 classes have one given item: 'class 4'; whether other items have them is told from "
        "that one.",
        "1 of 5 classes have no given item: 'class 3'; nothing is learned of them, and no item is "
        "found to have them.",
    ]
    assert probs_of(found)[:, 3].max() < 0.05
    report = collect(found.uri)
    titles = [finding.title for finding in section(report, "recalls").findings]
    assert titles == ["1 class given to no item: 'class 3'", "1 class given to one item: 'class 4'"]


@pytest.mark.parametrize("negative", [False, True])
def test_nothing_given__is_refused(tmp_path: Path, negative: bool) -> None:
    table, given, _ = source()
    table = table.set_column(2, "labels", listed(given & False))
    if negative:
        table = table.append_column("labels_negative", listed(given))
    with pytest.raises(DataError, match="items with labels were expected, all lists in 'labels'"):
        run(tmp_path, table, UNKNOWN, f"data.classes={CLASSES}")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_items__are_legal(tmp_path: Path, n: int) -> None:
    table = source()[0].slice(0, 2).set_column(2, "labels", listed(np.eye(2, K) > 0))
    x = np.array(table["features"].to_pylist(), np.float32)
    x[n:] = np.nan
    table = table.set_column(1, "features", vectors(x))
    settings = (UNKNOWN, f"data.classes={CLASSES}", "data.max_bad_share=1.0")
    found = run(tmp_path, table, *settings, page=True)
    assert len(read(found, "infer")) == n
    assert np.isfinite(probs_of(found)).all()
    # A share of the cells, rounded up.
    assert len(read(found, "infer_recalls")) == (19 if n else 0)


def test_names_of_losses__are_those_there_are() -> None:
    assert get_args(MissingLoss) == tuple(LOSSES)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            (NETWORK,),
            "heads among ['linear', 'nearest', 'trees'] were expected for items with lists of "
            "labels, got ['network']. Leave heads out, or set data.absent_labels = 'unknown' if "
            "given classes are not all",
        ),
        (
            ("infer.unknown=negative",),
            "lists with unknown classes were expected for unknown = 'negative', got some that rule "
            "out what they do not give. Set data.absent_labels = 'unknown', or leave it out",
        ),
        (
            (UNKNOWN, "infer.missing_loss=role", "infer.labels_per_item=5.5"),
            "labels_per_item up to the 5 classes was expected, got 5.5",
        ),
        ((UNKNOWN, "infer.heads=['prototypes']"), "heads among ['linear', 'nearest', 'network',"),
    ],
)
def test_settings_that_do_not_fit_the_data__are_refused(
    tmp_path: Path, settings: Sequence[str], why: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(why)):
        run(tmp_path, source()[0], *settings)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (("infer.labels_per_item=2.0",), "used by missing_loss = epr and role only, got 'll-r'"),
        (("infer.missing_loss=focal",), "'an', 'wan'"),
        (("infer.missing_hidden=-1",), "greater than or equal to 0"),
        (("infer.missing_loss=epr", "infer.labels_per_item=0"), "greater than 0"),
        (("infer.unknown=absent",), "'ignore' or 'negative'"),
    ],
)
def test_settings_that_mean_nothing__are_refused(settings: Sequence[str], why: str) -> None:
    with pytest.raises(LabelopsError, match=re.escape(why)):
        parse_recipe(STAGES, name="test", overrides=settings)


def test_product__has_the_given_labels_and_the_page_says_what_is_not_known(tmp_path: Path) -> None:
    table, _, _ = source()
    data = write_shards(tmp_path / "src", table, even(N, 2))
    recipe = load_recipe("multilabel", [UNKNOWN, NETWORK])
    pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "out"))
    product = read(load_run(str(tmp_path / "out")), "dataset")
    assert product["labels_clean"].to_pylist() == table["labels"].to_pylist()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "and how many are missing, is not known: no class was ruled out." in card
    assert " were recalled as possibly present (loss ll-r); none was added." in card


# -- the page --------------------------------------------------------------------------------------


NAMES = [*(HOSTILE[i] for i in (0, 1, 3, 6)), "plain"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Run:
    table, given, _ = source()
    table = table.set_column(2, "labels", listed(given, NAMES))
    names = f"data.classes={json.dumps(NAMES)}"
    return run(tmp_path_factory.mktemp("page"), table, UNKNOWN, names, NETWORK, page=True)


def test_report__counts_what_the_log_has_and_lists_the_most_probable(shown: Run) -> None:
    report, log = collect(shown.uri), read(shown, "infer_recalls").to_pylist()
    rows = table_of(report, "recalls", "Epoch", "Recalled", "For the first time")
    seen: set[tuple[str, int]] = set()
    for epoch, n, n_first in rows:
        now = {(row["item_id"], row["class_id"]) for row in log if row["epoch"] == epoch}
        assert (n, n_first) == (len(now), len(now - seen))
        seen |= now
    assert len(rows) == EPOCHS
    last = [row for row in log if row["epoch"] == EPOCHS]
    groups = worst_groups(report, "recalls")
    assert set(groups) == {row["class_name"] for row in last}
    for name, items in groups.items():
        mine = {row["item_id"]: row["p_present"] for row in last if row["class_name"] == name}
        assert [item.score for item in items] == sorted(mine.values(), reverse=True)[: len(items)]
        assert all(mine[item.item_id] == item.score for item in items)
    by_class = table_of(report, "recalls", "Class", "Recalled")
    names = [row["class_name"] for row in last]
    assert dict(by_class) == {name: names.count(name) for name in groups}
    said = str(section(report, "recalls").blocks[0])
    unknown = N * K - sum(map(len, source()[0]["labels"].to_pylist()))
    assert f"Of {unknown} item-class pairs of 200 items" in said
    assert f"{len(last)} (" in said
    assert "It is no label: none was added" in said
    calibration = str(section(report, "calibration").blocks[0])
    assert "unknown ones of 5 classes that hardly any item rules out count as not given" in (
        calibration
    )


def test_page__shows_hostile_names_as_text(shown: Run) -> None:
    html = render(collect(shown.uri))
    seen = Page(html)
    assert not seen.errors
    part = html[html.index('<section id="recalls"') :]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in part
    assert not [tag for tag in seen.tags if tag in ("img", "script")]
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert not set(re.findall(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", html))
