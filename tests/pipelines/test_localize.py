"""Oracles: pictures of known content, the models called by hand, other cuts of the same data."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy.special import expit, softmax

from labelops.label_maps import densify, pool, whole_boxes
from labelops.nn import architecture
from labelops.nn.label_pooling import pool_labels, to_batch
from labelops.nn.localized import CropPolicy, LocalizedCrops
from labelops.nn.score_maps import squash
from pipelines.core.results import load_result
from pipelines.core.state import Run
from pipelines.errors import DataError, RecipeError
from pipelines.maps.columns import MapFacts, maps_of
from pipelines.maps.settings import Config
from pipelines.media.images import Limits, decode
from pipelines.stages.localize import skip
from tests.datasets import even
from tests.pipelines.inferred import drawing, matrix, png, quarantine, sidecar
from tests.pipelines.localized import (
    COLOURS,
    PLAIN,
    colour_net,
    localize,
    mosaics,
    read,
    save_program,
    single_labelled,
    table_of,
)

SHUFFLE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_program(tmp_path_factory.mktemp("program") / "colours.pt2", colour_net()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, program: str) -> Run:
    table, _ = single_labelled()
    folder = tmp_path_factory.mktemp("whole")
    return localize(folder, table, [60], f"localize.classifier={program}", "localize.k=2", *PLAIN)


def test_localize__one_label_becomes_all_contents_and_their_places(whole: Run) -> None:
    found, (_, classes) = read(whole), single_labelled()
    for i in range(60):
        row = found.slice(i, 1).to_pylist()[0]
        assert sorted(row["present_ids"]) == np.unique(classes[i]).tolist()
        assert row["present_scores"] == sorted(row["present_scores"], reverse=True)
        for class_id, cell in zip(row["present_ids"], row["present_cells"], strict=True):
            y, x = divmod(cell, 4)
            assert classes[i, y // 2, x // 2] == class_id
    totals, cutoffs = (load_result(whole.store, "localize", s) for s in ("totals", "cutoffs"))
    holds = [(classes == c).any(axis=(1, 2)).sum() for c in range(3)]
    assert totals["n_present"].tolist() == holds
    sizes = [len(np.unique(one)) for one in classes]
    assert totals["n_items_with"].tolist() == np.bincount(sizes, minlength=4).tolist()
    assert cutoffs["rule"] == "recall^2 / found"
    assert cutoffs["n_known_present"].sum() == cutoffs["n_items"] == 60


def test_localize__maps_say_which_colour_is_where(whole: Run) -> None:
    maps, (_, classes) = maps_of(read(whole)), single_labelled()
    assert maps.ids.shape == (60, 2, 4, 4)
    assert maps.ids.dtype == np.uint16
    assert maps.scores.dtype == np.float16
    assert np.array_equal(maps.ids[:, 0], classes.repeat(2, axis=1).repeat(2, axis=2))
    # Twenty where the colour is, nothing for the others: the net's own figures.
    assert (maps.scores[:, 0] == 20).all()
    assert not maps.scores[:, 1].any()
    assert not maps.rest.any()


def test_localize__logs_every_class_added_confirmed_and_not_seen(whole: Run) -> None:
    _, classes = single_labelled()
    log, given = read(whole, "map_decisions"), single_labelled()[0]["label"].to_pylist()
    rows = {(r["item_id"], r["label_id"]): r for r in log.to_pylist()}
    assert len(rows) == len(log) == sum(len(np.unique(one)) for one in classes)
    for (item, class_id), row in rows.items():
        is_given = given[item] == COLOURS[class_id]
        assert class_id in classes[item]
        assert row["rule"] == ("map-agrees" if is_given else "map-seen")
        assert row["action"] == ("keep" if is_given else "add")
        assert row["before"] == (COLOURS[class_id] if is_given else None)
        assert row["after"] == row["evidence"]["believed"] == COLOURS[class_id]
        assert row["p_correct"] > 0.9
        assert row["actor"] == "stage localize"


@pytest.mark.parametrize("unknown", [False, True])
def test_localize__lists_of_labels_are_completed_and_contradicted(
    program: str, tmp_path: Path, unknown: bool
) -> None:
    """Some contents are kept back, absent colours given; with three states some are ruled out."""
    pixels, classes = mosaics(60, seed=3)
    holds = [np.unique(one).tolist() for one in classes]
    given = [h[1:] if i % 4 == 1 or i % 7 == 0 else h for i, h in enumerate(holds)]
    wrong = [next((c for c in range(3) if c not in h), None) for h in holds]
    for i in range(0, 60, 5):
        given[i] = given[i] + ([wrong[i]] if wrong[i] is not None else [])
    named = [[COLOURS[c] for c in g] for g in given]
    table = table_of([png(one) for one in pixels], named, "labels")
    absent = [[c for c in range(3) if c not in {*h, *g}] for h, g in zip(holds, given, strict=True)]
    ids = [a + ([holds[i][0]] if i % 7 == 0 else []) for i, a in enumerate(absent)]
    no = [[COLOURS[c] for c in listed] for listed in ids]
    if unknown:
        table = table.append_column("labels_negative", pa.array(no, pa.list_(pa.string())))
    settings = [f"localize.classifier={program}", "localize.output=softmax", *PLAIN]
    run = localize(tmp_path, table, [25, 35], *settings)
    rows = {(r["item_id"], r["label_id"]): r for r in read(run, "map_decisions").to_pylist()}
    expected = {}
    for i, (h, g) in enumerate(zip(holds, given, strict=True)):
        for c in {*h, *g}:
            if c in g:
                rule = "map-agrees" if c in h else "map-unseen"
            else:
                rule = "map-contradicts" if unknown and i % 7 == 0 else "map-seen"
            expected[i, c] = rule
    assert {key: row["rule"] for key, row in rows.items()} == expected
    assert {"map-unseen", "map-seen"} <= set(expected.values())
    for row in rows.values():
        if row["rule"] == "map-contradicts":
            assert (row["action"], row["before"], row["after"]) == ("review", None, None)
        if row["rule"] == "map-unseen":
            assert row["action"] == "keep"
            assert row["p_correct"] < 0.1
    rule = load_result(run.store, "localize", "cutoffs")["rule"]
    assert rule == "f1"


@pytest.mark.parametrize("sizes", [[31, 29], even(60, 7), [0, 1, 0, 59]])
def test_localize__does_not_depend_on_the_cut(
    whole: Run, program: str, tmp_path: Path, sizes: list[int]
) -> None:
    table = single_labelled()[0].take(pa.array(np.random.default_rng(1).permutation(60)))
    run = localize(tmp_path, table, sizes, f"localize.classifier={program}", "localize.k=2", *PLAIN)
    assert read(run).equals(read(whole))
    for step in ("cutoffs", "totals"):
        one, two = (load_result(r.store, "localize", step) for r in (run, whole))
        assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def upright_but_for_the_tag(pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    # Turned to the left, with the tag that says: turn to the right.
    Image.fromarray(np.rot90(pixels)).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def cmyk(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "TIFF")
    return buffer.getvalue()


def test_localize__pictures_of_every_kind_are_seen_alike(program: str, tmp_path: Path) -> None:
    pixels, classes = mosaics(2, seed=4)
    # Bright where the first picture is red; as grey, in 8 and in 16 bits.
    grey = np.where(classes[0] == classes[0, 0, 0], 255, 0).astype(np.uint8)
    grey = grey.repeat(16, axis=0).repeat(16, axis=1)
    deep = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * 257).save(deep, "PNG")
    # Not square: squashed, so that halves stay halves.
    wide = pixels[0].repeat(3, axis=1)
    images = [png(pixels[0]), upright_but_for_the_tag(pixels[0]), cmyk(pixels[0]), png(wide),
              png(grey), deep.getvalue(), png(np.repeat(grey[..., None], 3, axis=2))]  # fmt: skip
    table = table_of(images, [COLOURS[i % 3] for i in range(len(images))])
    run = localize(tmp_path, table, [len(images)], f"localize.classifier={program}", *PLAIN)
    scores = densify(maps_of(read(run)))
    # Squashed pictures are blurred where halves meet: a cell of eight pixels by two of them.
    np.testing.assert_allclose(scores[3], scores[0], atol=2.5)
    for i in (1, 2):
        np.testing.assert_array_equal(scores[i], scores[0])
    for i in (4, 5):
        np.testing.assert_array_equal(scores[i], scores[6])
    assert scores[6].max() == 20
    assert scores[6].min() == 0


def test_localize__bad_pictures_go_to_quarantine(program: str, tmp_path: Path) -> None:
    table, _ = single_labelled()
    images = [row["bytes"] for row in table.column("image").to_pylist()[:6]]
    images[2], images[4] = b"garbage", None
    bad = table_of(images, table.column("label").to_pylist()[:6])
    run = localize(tmp_path, bad, [3, 3], f"localize.classifier={program}", *PLAIN)
    assert read(run).column("item_id").to_pylist() == [0, 1, 3, 5]
    reasons = {int(item): why for item, why in quarantine(run).items()}
    assert reasons[2].startswith("image does not decode")
    assert reasons[4] == "image is null: neither bytes nor a path"


def test_localize__cutoffs_are_chosen_on_a_reference(program: str, tmp_path: Path) -> None:
    table, classes = single_labelled()
    known = [[COLOURS[c] for c in np.unique(one)] for one in classes[:20]]
    ids = [str(i) for i in range(20)]
    pq.write_table(pa.table({"item_id": ids, "true_labels": known}), tmp_path / "known.parquet")
    (tmp_path / "known.csv").write_text(
        "item_id,true_labels\n"
        + "".join(f"{i},{'; '.join(k)}\n" for i, k in zip(ids, known, strict=True))
    )
    runs = [
        localize(
            tmp_path / kind, table, [50, 10], f"localize.classifier={program}", *PLAIN,
            f"localize.reference={tmp_path / f'known.{kind}'}",
        )
        for kind in ("parquet", "csv")
    ]  # fmt: skip
    one, two = (load_result(run.store, "localize", "cutoffs") for run in runs)
    assert one["rule"] == "f1"
    assert one["n_items"] == 20
    assert one["n_known_present"].tolist() == [
        sum(COLOURS[c] in k for k in known) for c in range(3)
    ]
    assert np.array_equal(one["cutoff"], two["cutoff"])
    assert ((one["cutoff"] > 0.01) & (one["cutoff"] < 0.99)).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item_id,label\n1,red\n", "columns item_id and true_labels were expected"),
        ("item_id,true_labels\n1,red;pink\n", "labels among the 3 classes .* got 'pink'"),
        ("item_id,true_labels\n1,red\n1,green\n", "1 items with more, such as '1'"),
        (
            "item_id,true_labels,true_labels_negative\n1,red,red\n",
            "1 in both, the first 'red' of item '1'",
        ),
    ],
)
def test_localize__reference_that_does_not_fit_is_refused(
    program: str, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "known.csv").write_text(text)
    settings = [f"localize.classifier={program}", f"localize.reference={tmp_path / 'known.csv'}"]
    with pytest.raises(DataError, match=said):
        localize(tmp_path, single_labelled()[0].slice(0, 6), [6], *settings, *PLAIN)


# -- models of stage infer, and classifiers of torchvision -----------------------------------------


def drawn(n: int = 60) -> pa.Table:
    rng = np.random.default_rng(0)
    images = [png(drawing(i % 3, rng)) for i in range(n)]
    return table_of(images, [COLOURS[i % 3] for i in range(n)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(3)
    save_file(architecture.build(SHUFFLE, n_classes=3).state_dict(), path)
    return path


WAYS = {
    "heads": ["infer.image_size=64", "infer.folds=3"],
    "scratch": ["infer.image_size=64", "infer.train=scratch", "infer.epochs=1", "infer.folds=2"],
}


@pytest.mark.parametrize("way", WAYS)
def test_localize__whole_picture_is_what_stage_infer_says_of_it(
    weights: Path, tmp_path: Path, way: str
) -> None:
    """All three classes stored, so that nothing is lost but to half precision."""
    settings = [*WAYS[way], f"infer.embedder={SHUFFLE}", "localize.classifier=infer"]
    if way == "heads":
        settings += [f"infer.weights={weights}", "infer.heads=['linear']"]
    run = localize(tmp_path, drawn(), [25, 35], *settings, stages="infer")
    maps = maps_of(read(run))
    assert maps.ids.shape == (60, 3, 2, 2)
    got = softmax(pool(maps, whole_boxes(60)), axis=1)
    want = matrix(sidecar(run), "pred_probs")
    # A logit of 4 is stored to within 0.002, and a probability moves by a quarter of that.
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert np.ptp(want, axis=0).max() > 0.005


def test_localize__heads_of_lists_of_labels_judge_each_class_by_itself(
    weights: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = [png(drawing(i % 3, rng)) for i in range(60)]
    lists = [[COLOURS[i % 3], *([COLOURS[2]] if i % 3 < 2 and i % 2 else [])] for i in range(60)]
    settings = [*WAYS["heads"], f"infer.embedder={SHUFFLE}", f"infer.weights={weights}"]
    run = localize(
        tmp_path, table_of(images, lists, "labels"), [25, 35], *settings,
        "infer.heads=['linear']", "localize.classifier=infer", stages="infer",
    )  # fmt: skip
    maps, facts = maps_of(read(run)), MapFacts.of(read(run).schema)
    assert facts.output == "logistic"
    got = expit(pool(maps, whole_boxes(60)))
    want = matrix(sidecar(run), "pred_probs")
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert np.ptp(want.sum(axis=1)) > 0.1


def test_localize__of_a_torchvision_classifier(weights: Path, tmp_path: Path) -> None:
    settings = [f"localize.classifier={SHUFFLE}", f"localize.weights={weights}"]
    run = localize(tmp_path, drawn(4), [4], *settings, "localize.image_size=64")
    maps, facts = maps_of(read(run)), MapFacts.of(read(run).schema)
    assert facts == MapFacts(2, 2, 3, 3, "softmax", 64)
    model = architecture.load_classifier(SHUFFLE, load_file(weights), n_classes=3)

    data = drawn(4).column("image").to_pylist()
    pixels = np.stack([squash(decode(row["bytes"], Limits()), 64) for row in data])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (Config().mean, Config().std))
    with torch.no_grad():
        want = model((torch.from_numpy(pixels) / 255 - mean) / std).numpy()
    np.testing.assert_allclose(pool(maps, whole_boxes(4)), want, atol=2e-3 * np.abs(want).max())


# -- crops -----------------------------------------------------------------------------------------


def test_crops__come_from_what_the_stage_wrote(whole: Run) -> None:
    """A crop of one colour has that label; any other the mean of what is in it."""
    table, _ = single_labelled()
    maps = maps_of(read(whole))
    images = [row["bytes"] for row in table.column("image").to_pylist()]
    crops = LocalizedCrops(
        lambda i: decode(images[i], Limits()), maps, CropPolicy(side=24, flip=0.0), seed=0
    )
    n_pure = 0
    for i in range(60):
        pixels, label = crops[i]
        shown = pixels.to(torch.float32).mean(dim=(1, 2)) / 255
        if shown.max() > 0.999:
            n_pure += 1
            assert label.argmax() == shown.argmax()
        # What is most of a crop is most of its label, unless it is nearly even.
        elif shown.topk(2).values.diff().abs() > 0.5:
            assert label.argmax() == shown.argmax()
    assert n_pure >= 5


@pytest.mark.parametrize("box", [[0.0, 0.0, 1.2, 1.0], [-0.1, 0.0, 1.0, 1.0], [0.5, 0, 0.5, 1]])
def test_crops__of_boxes_outside_the_picture_are_refused(whole: Run, box: list[float]) -> None:
    maps = to_batch(maps_of(read(whole).slice(0, 1)))
    with pytest.raises(ValueError, match="Were pixels passed"):
        pool_labels(maps, torch.tensor([box]))


# -- maps of another size --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height": 5}, r"'map_ids' must hold 40 values a picture, for 5 × 4 cells .* holds 32"),
        ({"k": 3}, "must hold 48 values"),
        ({"n_classes": 2}, "classes must lie in 0…1; picture [0-9]+ has 2"),
    ],
)
def test_maps__that_are_not_as_the_metadata_say_are_refused(
    whole: Run, change: dict[str, int], said: str
) -> None:
    table = read(whole)
    facts = MapFacts.of(table.schema)._replace(**change)
    with pytest.raises(DataError, match=said):
        maps_of(table, facts)


def test_maps__without_metadata_with_nulls_and_of_lists_of_any_length(whole: Run) -> None:
    table = read(whole)
    with pytest.raises(DataError, match=r"the metadata 'labelops.label_maps' was expected"):
        maps_of(table.replace_schema_metadata({}))
    facts = MapFacts.of(table.schema)
    at = table.column_names.index("map_rest")
    kind = table.schema.field(at).type
    holes = pa.array([None] * len(table), kind)
    with pytest.raises(DataError, match="'map_rest' has 60 nulls"):
        maps_of(table.set_column(at, "map_rest", holes), facts)
    loose = table.column("map_rest").cast(pa.list_(pa.float16()))
    with pytest.raises(DataError, match="it holds list"):
        maps_of(table.set_column(at, "map_rest", loose), facts)
    assert len(maps_of(table.slice(0, 0), facts).ids) == 0


# -- what is refused before work starts ------------------------------------------------------------


def test_localize__models_without_maps_are_refused(program: str, tmp_path: Path) -> None:
    table = drawn(9)
    with pytest.raises(RecipeError, match=r"averages over cells .* got 'pixels'"):
        localize(tmp_path / "a", table, [9], "localize.classifier=infer", stages="infer")
    two = save_program(tmp_path / "two.pt2", colour_net(2))
    with pytest.raises(RecipeError, match=r"of the 3 classes was expected .* it has 2"):
        localize(tmp_path / "b", table, [9], f"localize.classifier={two}", *PLAIN)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3)).eval()
    dense = save_program(tmp_path / "dense.pt2", flat)
    with pytest.raises(RecipeError, match="mean over cells and one linear layer was expected"):
        localize(tmp_path / "c", table, [9], f"localize.classifier={dense}", *PLAIN)


def test_localize__without_labels_or_reference_is_refused(program: str, tmp_path: Path) -> None:
    bare = drawn(4).drop_columns(["label"])
    with pytest.raises(DataError, match="labels or a reference were expected"):
        localize(tmp_path, bare, [4], f"localize.classifier={program}", *PLAIN)


def test_config__of_settings_that_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="'resnet18' needs weights"):
        Config(classifier="resnet18")
    with pytest.raises(ValidationError, match="weights are not used with classifier = 'infer'"):
        Config(classifier="infer", weights="w.pt")
    with pytest.raises(ValidationError, match="std must be positive"):
        Config(std=(1, 0, 1))


def test_skip__where_nothing_is_named_or_there_are_no_pictures() -> None:
    assert skip(Config(), frozenset({"image"})) == "no classifier is named (localize.classifier)"
    named = Config(classifier="infer")
    assert skip(named, frozenset({"features"})) == "there is no column 'image'"
    assert skip(named, frozenset({"image"})) is None
