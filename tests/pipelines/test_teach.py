"""Oracles: the paper's store written view by view in Python's own numbers, beliefs asked for apart,
networks opened by hand and shown crops that Pillow's arrays were cut into, and planted damage."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy.special import softmax
from torchvision.transforms.v2 import functional as v2

import pipelines.run
from labelops.distill.regions import Thresholds, judge_views
from labelops.nn.classifier import new_classifier
from labelops.soft.views import decode
from labelops.top_belief import TopBelief, log_beliefs
from pipelines.core.reader import frames
from pipelines.core.results import load_result
from pipelines.core.state import Run, load_run
from pipelines.errors import RecipeError, RunError
from pipelines.recipe import parse_recipe
from pipelines.report import collect
from pipelines.soft.columns import (
    METADATA,
    SoftFacts,
    ViewRows,
    from_table,
    parquet_options,
    take_rows,
    to_table,
)
from pipelines.soft.recompute import Recomputed, recompute
from pipelines.soft.settings import Config
from pipelines.stages.teach import TAILS
from pipelines.verify import verify_run
from tests.datasets import blobs, even, vectors, write_shards
from tests.oracles import soft_views as slow
from tests.pipelines.inferred import pictures

BELIEFS = "source infer confident teach"
NETWORKS = (
    *("infer.train=scratch", "infer.embedder=shufflenet_v2_x0_5", "infer.image_size=32"),
    *("infer.folds=2", "infer.epochs=8", "infer.learning_rate=0.05", "teach.teacher=networks"),
)
N, K = 60, 6


def probs() -> np.ndarray:
    """Return probabilities with ties, an exact 1, and rows where the given class is not near."""
    found = np.random.default_rng(0).dirichlet(np.ones(K) * 0.6, N).astype(np.float32)
    found[0], found[1] = np.eye(K)[2], 1 / K
    return found


def items() -> pa.Table:
    table = blobs(N, n_classes=K).append_column("pred_probs", vectors(probs()))
    return table.drop_columns(["features"])


def teach(
    folder: Path, table: pa.Table, sizes: list[int], *settings: str, stages: str = BELIEFS
) -> Run:
    data = write_shards(folder / "data", table, sizes)
    recipe = parse_recipe(f"stages = {stages.split()}", name="test", overrides=settings)
    out = folder / "out"
    pipelines.run.run(recipe, data=str(data), out=str(out))
    return load_run(str(out))


def files(run: Run, folder: str = "soft_labels") -> list[Path]:
    return sorted((Path(run.uri) / folder).glob("part-*.parquet"))


def table_of(run: Run, folder: str = "soft_labels") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in files(run, folder)])


def stored(run: Run) -> tuple[ViewRows, SoftFacts]:
    return from_table(table_of(run), {})


def believed(run: Run) -> np.ndarray:
    """Return the beliefs that stage `decide` would read, asked for by hand; float64, (N, K)."""
    ctx = run.context("teach", run.layout(before="teach"))
    reads = ["item_hash", *ctx.asked.reads(ctx.columns)]
    return np.concatenate(
        [
            belief.belief
            for frame in frames(run, reads, before="teach")
            for _, belief in ctx.asked.blocks(frame, ctx, K, np.full(frame.n, -1))
        ]
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = ["teach.k=2", "teach.number=f32"]
    return teach(tmp_path_factory.mktemp("plain"), items(), [25, 0, 35], *settings)


def hand_stored(p: list[float], given: int, k: int) -> tuple[list[int], list[float], float, float]:
    """Return ids, their probabilities, that of the given class, and what all others have."""
    top, kept = slow.stored_classes(p, given, k)
    return top, [p[c] for c in top], p[given], sum(q for c, q in enumerate(p) if c not in kept)


def test_beliefs__are_stored_as_the_slow_loop_would(plain: Run) -> None:
    rows, facts = stored(plain)
    table = blobs(N, n_classes=K)
    given = [int(name.removeprefix("class ")) for name in table["label"].to_pylist()]
    assert rows.item_id.to_pylist() == table["item_id"].to_pylist()
    assert facts.classes == tuple(f"class {c}" for c in range(K))
    assert (facts.kind, facts.number, facts.k, facts.epsilon) == ("prob", "f32", 2, None)
    assert facts.teachers[0].name == "beliefs of stage 'confident'"
    dense = believed(plain)
    lost = table_of(plain, "teach")["soft_loss"].to_pylist()
    n_outside = 0
    for i in range(N):
        p = dense[i].tolist()
        ids, values, own, tail = hand_stored(p, given[i], 2)
        assert rows.labels.ids[i].tolist() == ids
        np.testing.assert_allclose(rows.labels.values[i], values, rtol=1e-6)
        np.testing.assert_allclose(rows.labels.given_value[i], own, rtol=1e-6, atol=1e-44)
        np.testing.assert_allclose(rows.labels.tail[i], tail, atol=1e-7)
        kept = slow.stored_classes(p, given[i], 2)[1]
        assert lost[i] == pytest.approx(slow.divergence(p, slow.smoothed(p, kept)), abs=1e-6)
        n_outside += given[i] not in ids
    assert n_outside > 0


def test_sidecar_and_totals__are_counts_of_what_is_stored(plain: Run) -> None:
    dense, side = believed(plain), table_of(plain, "teach").to_pylist()
    given = np.array([int(x[6:]) for x in blobs(N, n_classes=K)["label"].to_pylist()])
    for row, p, g in zip(side, dense, given, strict=True):
        assert row["teacher_label"] == f"class {p.argmax()}"
        assert row["n_views"] == 1
        assert row["teacher_max"] == pytest.approx(p.max())
        assert row["teacher_given"] == pytest.approx(p[g])
        entropy = -sum(q * np.log(q) for q in p if q > 0)
        assert row["teacher_entropy"] == pytest.approx(entropy, abs=1e-6)
    totals = load_result(plain.store, "teach", "totals")
    assert (totals["n_items"], totals["n_views"]) == (N, N)
    assert totals["n_given"] == (dense.argmax(axis=1) == given).sum()
    tails = [row["soft_tail"] for row in side]
    edges = [-1.0, *TAILS, 2.0]
    wanted = [sum(a <= t < b for t in tails) for a, b in pairwise(edges)]
    assert totals["tails"].tolist() == wanted
    loss = float(totals["loss"].item()) / 2**32
    assert loss == pytest.approx(sum(row["soft_loss"] for row in side), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "off"),
    [
        ("number=u8", 0.064),
        ("number=f16", 2e-3),
        ("kind=logprob number=f32", 1e-6),
        ("kind=logit number=f32 temperature=2", 1e-6),
        ("kind=prob temperature=3", 2e-3),
    ],
)
def test_every_coding__decodes_to_beliefs_at_its_temperature(
    tmp_path: Path, settings: str, off: float
) -> None:
    chosen = [f"teach.{one}" for one in (*settings.split(), f"k={K}")]
    run = teach(tmp_path, items(), [N], *chosen)
    rows, facts = stored(run)
    z = np.log(np.maximum(believed(run), 2.0**-149))
    wanted = softmax(z / facts.temperature, axis=1)
    np.testing.assert_allclose(decode(rows.labels, coding=facts.coding), wanted, atol=off)
    assert recompute(run.uri, N).is_same


CORNERS = {
    "k above K": (items, [N], "teach.k=50"),
    "one item of many": (items, [N - 1, 1], ""),
    "empty shards": (items, [0, N, 0], "teach.calibrate=true"),
    "two classes": (lambda: blobs(30, n_classes=2), [30], "teach.k=1"),
    "a class of no item": (items, [N], f"data.classes={[f'class {c}' for c in range(K)]}"),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners__have_whole_stores(name: str, tmp_path: Path) -> None:
    make, sizes, setting = CORNERS[name]
    table = make()
    run = teach(tmp_path, table, sizes, *([setting] if setting else []))
    rows, facts = stored(run)
    assert rows.item_id.to_pylist() == table["item_id"].to_pylist()
    assert [pq.read_metadata(path).num_rows for path in files(run)] == sizes
    assert facts.k == min(facts.k, len(facts.classes)) == rows.labels.ids.shape[1]
    np.testing.assert_allclose(decode(rows.labels, coding=facts.coding).sum(axis=1), 1)
    assert recompute(run.uri, 1000).is_same


def test_items_without_a_label__are_in_quarantine_and_not_in_the_store(tmp_path: Path) -> None:
    table = items()
    label = table["label"].to_pylist()
    label[5] = None
    table = table.set_column(table.column_names.index("label"), "label", pa.array(label))
    run = teach(tmp_path, table, [20, 40], "data.max_bad_share=0.5")
    ids = stored(run)[0].item_id.to_pylist()
    assert ids == [item for i, item in enumerate(table["item_id"].to_pylist()) if i != 5]
    assert recompute(run.uri, 100).is_same


def test_reviewed_items__have_what_the_reviewer_said(tmp_path: Path) -> None:
    table = items()
    ids, true = table["item_id"].to_pylist()[3:6], ["class 5", "class 0", "class 1"]
    pq.write_table(pa.table({"item_id": ids, "true_label": true}), tmp_path / "r.parquet")
    run = teach(
        tmp_path, table, [30, 30], f"decide.reviewed={tmp_path / 'r.parquet'}", "teach.k=1",
        stages="source infer confident neighbours decide dataset teach",
    )  # fmt: skip
    rows, _ = stored(run)
    assert [f"class {c}" for c in rows.labels.ids[3:6, 0]] == true
    assert rows.labels.values[3:6, 0].tolist() == [1, 1, 1]
    assert recompute(run.uri, N).is_same


def test_listed_beliefs__share_what_is_left() -> None:
    ids = np.array([[0, 3, 5], [1, 2, 4]])
    found = TopBelief(
        ids, np.array([[0.5, 0.2, 0], [0.25, 0.25, 0.3]]), None, np.array([0.3, 0.2]), 5
    )
    want = [[0.5, 0.1, 0.1, 0.2, 0.1], [0.1, 0.25, 0.25, 0.1, 0.3]]
    np.testing.assert_allclose(np.exp(log_beliefs(found)), want)


# -- views of pictures -----------------------------------------------------------------------------


def uneven(n: int = 24) -> pa.Table:
    """Return pictures of different sizes, some turned by their EXIF data, some JPEG."""
    table = pictures(n)
    rng, rows = np.random.default_rng(3), table["image"].to_pylist()
    for i, row in enumerate(rows):
        with Image.open(io.BytesIO(row["bytes"])) as image:
            turned = image.resize((int(rng.integers(33, 150)), int(rng.integers(33, 150))))
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 4 == 0 else 1
        buffer = io.BytesIO()
        turned.save(buffer, "JPEG" if i % 2 == 0 else "PNG", exif=exif)
        row["bytes"] = buffer.getvalue()
    return table.set_column(1, "image", pa.array(rows, table.schema.field("image").type))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = ["teach.views=5", "teach.k=2", "teach.number=f32", "teach.calibrate=true"]
    return teach(tmp_path_factory.mktemp("views"), uneven(), [7, 1, 0, 16], *NETWORKS, *settings)


def upright(data: bytes) -> np.ndarray:
    """Return the pixels as a viewer shows them, (H, W, 3)."""
    from PIL import ImageOps

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def networks(run: Run) -> list[torch.nn.Module]:
    ctx = run.context("teach", run.layout(before="teach")).of("infer")
    found = []
    for fold in range(2):
        net = new_classifier("shufflenet_v2_x0_5", n_classes=3, seed=1)
        net.load_state_dict(load_file(ctx.artifact("train", f"fold-{fold}.safetensors")))
        found.append(net.eval())
    return found


def seen(pixels: np.ndarray, box: np.ndarray, *, is_flipped: bool) -> torch.Tensor:
    """Cut rows and columns out of an array, then scale, then mirror, then normalise."""
    top, left, height, width = (int(x) for x in box)
    part = np.array(pixels[top : top + height, left : left + width])
    small = v2.resize(torch.from_numpy(part).permute(2, 0, 1), [32, 32], antialias=True)
    if is_flipped:
        small = small.flip(2)
    mean, std = (
        torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (small / 255 - mean) / std


def test_views__are_what_the_network_says_that_was_not_trained_on_the_item(views: Run) -> None:
    rows, facts = stored(views)
    files = [row["bytes"] for row in uneven()["image"].to_pylist()]
    fold = table_of(views, "infer")["fold"].to_pylist()
    nets = networks(views)
    assert len(set(fold)) == 2
    p = decode(rows.labels, coding=facts.coding)
    own, other = np.empty((len(p), 3)), np.empty((len(p), 3))
    for v, item in enumerate(rows.item_id.to_pylist()):
        pixels = upright(files[item])
        assert rows.size[v].tolist() == list(pixels.shape[:2])
        picture = seen(pixels, rows.box[v], is_flipped=bool(rows.is_flipped[v]))[None]
        with torch.no_grad():
            own[v], other[v] = (
                nets[f](picture)[0, -3:].numpy() for f in (fold[item], 1 - fold[item])
            )
    # Both k and the given class are stored, so that of three classes at most one is left.
    np.testing.assert_allclose(p, softmax(own, axis=1), atol=2e-4)
    assert np.abs(p - softmax(other, axis=1)).max() > 0.01
    top = rows.labels.values[:, 0]
    assert (top == 0).all()
    second = np.sort(own, axis=1)[:, 1] - own.max(axis=1)
    np.testing.assert_allclose(rows.labels.values[:, 1], second, atol=1e-3)


def test_views__are_numbered_and_lie_where_they_say(views: Run) -> None:
    rows, facts = stored(views)
    assert rows.view_id.tolist() == list(range(5)) * 24
    assert rows.item_id.to_pylist() == np.arange(24).repeat(5).tolist()
    first = rows.view_id == 0
    assert not rows.is_flipped[first].any()
    assert 0.3 < rows.is_flipped[~first].mean() < 0.7
    short = rows.size[first].min(axis=1)
    assert (rows.box[first][:, 2:] == short[:, None]).all()
    share = rows.box[~first][:, 2:].prod(axis=1, dtype=float) / rows.size[~first].prod(axis=1)
    assert share.min() > 0.07
    assert share.std() > 0.15
    assert facts.teachers[0].input_size == 32
    assert facts.teachers[0].mean == (0.485, 0.456, 0.406)


def test_first_view__is_what_stage_infer_predicted(tmp_path: Path) -> None:
    """As far as single precision tells; these are not so large as to be decoded smaller."""
    run = teach(tmp_path, pictures(20), [20], *NETWORKS, "teach.kind=logprob", "teach.number=f32")
    rows, _ = stored(run)
    said = table_of(run, "infer")["pred_probs"].combine_chunks()
    wanted = said.flatten().to_numpy().reshape(20, 3)
    found = np.zeros((20, 3))
    np.put_along_axis(found, rows.labels.ids.astype(int), rows.labels.values.astype(float), axis=1)
    np.testing.assert_allclose(np.exp(found), wanted, rtol=1e-6)


def test_views__are_the_same_for_other_teachers_and_fewer_classes(
    views: Run, tmp_path: Path
) -> None:
    other = ["infer.epochs=1", "teach.views=3", "teach.k=1", "teach.kind=prob"]
    run = teach(tmp_path, uneven(), [24], *NETWORKS, *other)
    (rows, _), (whole, _) = stored(run), stored(views)
    same = take_rows(whole, np.flatnonzero(whole.view_id < 3))
    for name in ("box", "size", "is_flipped", "view_id"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(same, name))
    seeded = teach(tmp_path / "s", uneven(), [24], *NETWORKS, *other, "teach.seed=1")
    assert (stored(seeded)[0].box != rows.box).any(axis=1).sum() >= 45


def test_verdicts__are_those_of_the_paper_on_thresholds_over_all_views(views: Run) -> None:
    rows, facts = stored(views)
    said = decode(rows.labels, coding=facts.coding).max(axis=1)
    ordered = np.sort(said)
    wanted = Thresholds(*(ordered[int(np.ceil(q * 120)) - 1] for q in (0.05, 0.25, 0.995)))
    found = load_result(views.store, "teach", "thresholds")["thresholds"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    item = np.array(rows.item_id.to_pylist())
    judged = judge_views(said, item, thresholds=Thresholds(*found))
    assert (rows.verdict == judged.verdict).mean() > 0.98
    totals = load_result(views.store, "teach", "totals")
    assert totals["verdicts"].tolist() == np.bincount(rows.verdict, minlength=3).tolist()
    assert facts.epsilon == 0.1
    assert set(item[rows.verdict < 2].tolist()) == set(range(24))


# -- made again ------------------------------------------------------------------------------------


def damaged(
    run: Run, folder: Path, change: Callable[[pa.Table], pa.Table], at: int = 0
) -> Recomputed:
    """Copy a run, change one file of its store, and make the store again."""
    shutil.copytree(run.uri, folder / "copy")
    path = files(run)[at]
    table = change(pq.read_table(path))
    pq.write_table(table, folder / "copy" / "soft_labels" / path.name, **parquet_options())
    assert verify_run(str(folder / "copy")).damage
    return recompute(str(folder / "copy"), 10_000)


def of_rows(change: Callable[[ViewRows, SoftFacts], tuple[ViewRows, SoftFacts]]) -> Any:
    return lambda table: to_table(*change(*from_table(table, {})))


def with_facts(**other: Any) -> Any:
    """Say something else of the same numbers."""

    def change(table: pa.Table) -> pa.Table:
        facts = replace(SoftFacts.of(table.schema), **other)
        return table.replace_schema_metadata({METADATA: facts.to_json()})

    return change


def set_value(rows: ViewRows, facts: SoftFacts) -> tuple[ViewRows, SoftFacts]:
    """Change the last bit of one number."""
    values = rows.labels.values.copy()
    values[2, 1] = np.nextafter(values[2, 1], np.float32(2))
    return rows._replace(labels=rows.labels._replace(values=values)), facts


def swap_ids(rows: ViewRows, facts: SoftFacts) -> tuple[ViewRows, SoftFacts]:
    ids = rows.labels.ids[:, ::-1].copy()
    return rows._replace(labels=rows.labels._replace(ids=ids)), facts


def reversed_names(table: pa.Table) -> pa.Table:
    return with_facts(classes=SoftFacts.of(table.schema).classes[::-1])(table)


def other_teacher(table: pa.Table) -> pa.Table:
    (one,) = SoftFacts.of(table.schema).teachers
    return with_facts(teachers=(replace(one, sha256="cd" * 32),))(table)


DAMAGE = {
    "a bit": (of_rows(set_value), "1 stored otherwise, 0 with other classes"),
    "classes swapped": (of_rows(swap_ids), "25 stored otherwise, 25 with other classes"),
    "temperature": (with_facts(temperature=2.0), "temperature = 1.0 was expected, got 2.0"),
    "class order": (reversed_names, "6 classes, number 0 'class 0' was expected, got 6 classes"),
    "k": (with_facts(k=1), "k = 2 was expected, got 1"),
    "kind": (with_facts(kind="logprob"), "kind = prob was expected, got logprob"),
    "teacher": (other_teacher, "cdcdcd"),
    "a row less": (lambda table: table.slice(1), "every view of 25 items, once and in order"),
    "order of rows": (lambda table: table.take(list(range(25))[::-1]), "once and in order"),
    "no footer": (lambda table: table.replace_schema_metadata(None), "a schema with the metadata"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_stores__are_found_and_it_is_said_what_it_is(
    plain: Run, tmp_path: Path, name: str
) -> None:
    change, words = DAMAGE[name]
    found = damaged(plain, tmp_path, change)
    assert not found.is_same
    assert words in found.text()
    assert "Remedy: delete" in found.text()
    # The files that are not damaged are compared all the same.
    assert found.n >= 35


def test_other_regions_and_verdicts__are_found(views: Run, tmp_path: Path) -> None:
    def moved(rows: ViewRows, facts: SoftFacts) -> tuple[ViewRows, SoftFacts]:
        box = rows.box.copy()
        box[1, 2] -= 1
        return rows._replace(box=box), facts

    found = damaged(views, tmp_path / "box", of_rows(moved))
    assert "1 views have other regions" in found.text()
    assert found.n_differ == 1

    def pardoned(rows: ViewRows, facts: SoftFacts) -> tuple[ViewRows, SoftFacts]:
        return rows._replace(verdict=np.zeros_like(rows.verdict)), facts

    found = damaged(views, tmp_path / "calib", of_rows(pardoned), at=3)
    assert "verdicts (calib) of views are others" in found.text()
    assert found.n_differ == 0


def test_figures__are_those_of_the_damage(plain: Run, tmp_path: Path) -> None:
    def halved(rows: ViewRows, facts: SoftFacts) -> tuple[ViewRows, SoftFacts]:
        values = rows.labels.values.copy()
        values[0] /= 2
        return rows._replace(labels=rows.labels._replace(values=values)), facts

    shutil.copytree(plain.uri, tmp_path / "copy")
    path = tmp_path / "copy" / "soft_labels" / files(plain)[0].name
    before = from_table(pq.read_table(path), {})
    after = halved(*before)
    pq.write_table(to_table(*after), path)
    p, q = (decode(rows.labels, coding=facts.coding)[0] for rows, facts in (before, after))
    found = recompute(str(tmp_path / "copy"), N)
    assert (found.n, found.n_differ) == (N, 1)
    assert found.most == pytest.approx(np.abs(p - q).max(), rel=1e-5)
    tiny = 2.0**-149
    kl = sum(a * np.log(max(a, tiny) / max(b, tiny)) for a, b in zip(p, q, strict=True)) / N
    assert found.divergence == pytest.approx(kl, rel=1e-4)
    assert recompute(str(tmp_path / "copy"), N, tolerance=found.most * 1.01).is_same
    assert not recompute(str(tmp_path / "copy"), N, tolerance=found.most * 0.99).is_same


def test_some_views__are_drawn_and_each_at_most_once(views: Run) -> None:
    assert [recompute(views.uri, n, seed=0).n for n in (1, 17, 1000)] == [1, 17, 120]
    assert recompute(views.uri, 1000).is_same
    with pytest.raises(ValueError, match="n ≥ 1 and tolerance ≥ 0 expected"):
        recompute(views.uri, 0)


def test_runs_without_a_store__are_refused(tmp_path: Path) -> None:
    run = teach(tmp_path, items(), [N], stages="source infer confident")
    with pytest.raises(RunError, match="a run with stage 'teach' finished was expected"):
        recompute(run.uri, 5)


# -- cuts, report, refusals ------------------------------------------------------------------------


def test_store__is_the_same_for_every_cut(views: Run, tmp_path: Path) -> None:
    settings = ["teach.views=5", "teach.k=2", "teach.number=f32", "teach.calibrate=true"]
    other = teach(tmp_path, uneven(), even(24, 5), *NETWORKS, *settings)
    a, b = table_of(views).combine_chunks(), table_of(other).combine_chunks()
    assert a.equals(b)
    assert a.schema.metadata == b.schema.metadata


def test_report__says_how_many_of_whom_and_how_large(views: Run) -> None:
    section = collect(views.uri).section("soft-labels")
    assert section is not None
    n_bytes = sum(path.stat().st_size for path in files(views)) / 120
    said = str(section.blocks[0])
    assert "120 soft labels of 24 items, by shufflenet_v2_x0_5, 2 networks, out of fold" in said
    assert f"in {n_bytes:.1f} bytes" in said
    assert "soft_labels/` has 120 soft labels of 24 items" in section.card
    page = (Path(views.uri) / "report.html").read_text()
    assert "Soft labels for a student" in page
    assert "Verdicts on views" in page


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 2}, "views = 1 was expected with teacher = 'beliefs', got 2"),
        ({"number": "u8", "kind": "prob"}, "logprob in u8, were expected, got prob in u8"),
        ({"area": (0.5, 0.2)}, "area must be a range above 0 and up to 1, got 0.5 to 0.2"),
        ({"area": (0.5, 1.2)}, "area must be a range"),
        ({"aspect": (0.0, 1.0)}, "aspect must be a range above 0"),
        ({"quantiles": (0.3, 0.2, 0.9)}, "quantiles must ascend from 0 to 1"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"k": 0}, "greater than or equal to 1"),
    ],
)
def test_settings__that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(**settings)


def test_networks__that_nobody_trained_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="that trains networks on them, were expected"):
        teach(tmp_path / "a", items(), [N], "teach.teacher=networks")
    with pytest.raises(RecipeError, match="it used 'image' with train = 'heads'"):
        teach(tmp_path / "b", pictures(30), [30], "teach.teacher=networks")


def test_other_labels__are_left_alone(tmp_path: Path) -> None:
    lists = items().drop_columns(["label"])
    lists = lists.append_column(
        "labels", pa.array([["class 0"], ["class 1", "class 2"]] * (N // 2))
    )
    settings = [f"data.classes={[f'class {c}' for c in range(K)]}", "data.absent_classes=allow"]
    run = teach(tmp_path, lists, [N], *settings, stages="source infer teach")
    assert run.entry("teach").skipped == "items do not have one given label each"
