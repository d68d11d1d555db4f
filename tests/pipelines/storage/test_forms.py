"""Values in whichever form give the same answer; what is carried through keeps its type."""

import datetime
import decimal
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.state import load_run
from pipelines.errors import DataError, LabelopsError
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.run import run
from pipelines.storage import forms
from pipelines.storage.source import open_source
from tests.datasets import vectors
from tests.memory import peak_kb

N, K = 60, 3
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, K, N)
GIVEN = np.where(RNG.random(N) < 0.1, (TRUE + 1) % K, TRUE)
LOGITS = (RNG.normal(size=(N, K)) + 3 * np.eye(K)[TRUE]).astype(np.float32)
PROBS = (np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)).astype(np.float32)
IDS = [f"item-{i:03d}" for i in range(N)]
READY = load_recipe("audit")
QUICK = parse_recipe('stages = ["source", "infer", "confident", "decide", "dataset"]', name="quick")


def audited(folder: Path, name: str, **columns: object) -> pa.Table:
    """Return what confident learning says of a data set of these columns."""
    data = folder / name
    data.mkdir()
    pq.write_table(pa.table(columns), data / "a.parquet")
    run(QUICK, data=str(data), out=str(folder / f"{name}-out"))
    table = pq.read_table(folder / f"{name}-out" / "confident")
    return table.select(["is_label_issue", "label_score", "rank"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("plain")
    return audited(folder, "plain", item_id=IDS, label=GIVEN, pred_probs=vectors(PROBS))


def tensor(array: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


FORMS_OF_PROBS: dict[str, Callable[[], pa.Array]] = {
    "list": lambda: pa.array(PROBS.tolist(), pa.list_(pa.float32())),
    "large list": lambda: pa.array(PROBS.tolist(), pa.large_list(pa.float32())),
    "list view": lambda: pa.array(PROBS.tolist(), pa.list_view(pa.float32())),
    "large list view": lambda: pa.array(PROBS.tolist(), pa.large_list_view(pa.float32())),
    "tensor": lambda: tensor(PROBS),
    "nested": lambda: pa.array([[row] for row in PROBS.tolist()], pa.list_(pa.list_(pa.float32()))),
}


@pytest.mark.parametrize("form", FORMS_OF_PROBS)
def test_probabilities__in_any_form_of_list_give_the_same(
    tmp_path: Path, plain: pa.Table, form: str
) -> None:
    column = FORMS_OF_PROBS[form]()
    assert audited(tmp_path, "data", item_id=IDS, label=GIVEN, pred_probs=column) == plain


def test_doubles_and_halves__are_probabilities_too(tmp_path: Path, plain: pa.Table) -> None:
    for name, kind in (("double", pa.float64()), ("half", pa.float16())):
        column = pa.array(PROBS.astype(kind.to_pandas_dtype()).tolist(), pa.list_(kind))
        found = audited(tmp_path, name, item_id=IDS, label=GIVEN, pred_probs=column)
        assert found["is_label_issue"] == plain["is_label_issue"]


FORMS_OF_LABELS: dict[str, Callable[[], pa.Array]] = {
    "int8": lambda: pa.array(GIVEN, pa.int8()),
    "uint64": lambda: pa.array(GIVEN, pa.uint64()),
    "whole float": lambda: pa.array(GIVEN, pa.float64()),
    "half": lambda: pa.array(GIVEN.astype(np.float16)),
    "decimal": lambda: pa.array([decimal.Decimal(int(k)) for k in GIVEN], pa.decimal128(38, 0)),
    "short decimal": lambda: pa.array(
        [decimal.Decimal(int(k)) for k in GIVEN], pa.decimal128(5, 1)
    ),
    "dictionary of numbers": lambda: pa.array(GIVEN).dictionary_encode(),
    "from 1": lambda: pa.array(GIVEN + 1),
    "ascending": lambda: pa.array(10 * GIVEN + 7),
    "text": lambda: pa.array([str(k) for k in GIVEN]),
    "large text": lambda: pa.array([str(k) for k in GIVEN], pa.large_string()),
    "text view": lambda: pa.array([str(k) for k in GIVEN], pa.string_view()),
    "bytes": lambda: pa.array([str(k).encode() for k in GIVEN], pa.binary()),
    "dictionary of text": lambda: pa.array([str(k) for k in GIVEN]).dictionary_encode(),
    "alphabetical": lambda: pa.array([("ape", "bee", "cat")[k] for k in GIVEN]),
}


@pytest.mark.parametrize("form", FORMS_OF_LABELS)
def test_labels__in_any_form_give_the_same_and_come_back_in_theirs(
    tmp_path: Path, plain: pa.Table, form: str
) -> None:
    column = FORMS_OF_LABELS[form]()
    found = audited(tmp_path, "data", item_id=IDS, label=column, pred_probs=vectors(PROBS))
    assert found == plain
    product = pq.read_table(tmp_path / "data-out" / "dataset")
    given = pq.read_table(tmp_path / "data" / "a.parquet")["label"]
    assert product.schema.field("label").type == given.type
    rows = product.select(["label", "label_clean", "decision"]).to_pylist()
    kept = [row for row in rows if row["decision"] == "keep"]
    assert len(kept) > N // 2
    assert [row["label_clean"] for row in kept] == [row["label"] for row in kept]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("from 1", "labels are numbered from 1 to 3"),
        ("ascending", "labels are the numbers '7', '17', '27'"),
        ("alphabetical", "alphabetical order of the labels ('ape', 'bee', 'cat')"),
        ("text", "order of the labels ('0', '1', '2')"),
    ],
)
def test_guessed_order__is_said_in_report_and_card(tmp_path: Path, form: str, said: str) -> None:
    columns = {"item_id": IDS, "label": FORMS_OF_LABELS[form](), "pred_probs": vectors(PROBS)}
    audited(tmp_path, "data", **columns)
    out = tmp_path / "data-out"
    assert any(said in notice for notice in load_run(str(out)).notices())
    page = (out / "report.html").read_text()
    assert "What was assumed or left out" in page
    assert "What was assumed or left out" in (out / "README.md").read_text()


def test_labels_in_the_middle_of_their_numbers__are_guessed_like_sorted_ones(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    text = [str(k + 8) for k in range(4)] * 10  # '8', '9', '10', '11'
    table = pa.table({"label": text, "pred_probs": vectors(np.tile(np.eye(4), (10, 1)))})
    pq.write_table(table, data / "a.parquet")
    with pytest.raises(DataError, match=r"order of numbers or of text \('10', '11', '8', '9'\)"):
        run(QUICK, data=str(data), out=str(tmp_path / "out"))


def test_probabilities_in_another_order__are_refused_with_the_likelier_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    label = np.array(["cat", "ape", "bee"])[GIVEN]
    table = pa.table({"item_id": IDS, "label": label, "pred_probs": vectors(PROBS)})
    pq.write_table(table, data / "a.parquet")
    with pytest.raises(DataError, match=r"'ape' in column 1, 'bee' in column 2, 'cat' in column 0"):
        run(QUICK, data=str(data), out=str(tmp_path / "out"))
    named = parse_recipe(
        'stages = ["source", "infer", "confident"]\n[data]\nclasses = ["cat", "ape", "bee"]',
        name="named",
    )
    run(named, data=str(data), out=str(tmp_path / "named"))
    assert not load_run(str(tmp_path / "named")).notices()


FORMS_OF_IDS: dict[str, Callable[[], pa.Array]] = {
    "dictionary": lambda: pa.array(IDS).dictionary_encode(),
    "large": lambda: pa.array(IDS, pa.large_string()),
    "view": lambda: pa.array(IDS, pa.string_view()),
    "bytes": lambda: pa.array([i.encode() for i in IDS], pa.binary()),
    "number": lambda: pa.array(range(N), pa.int32()),
    "whole float": lambda: pa.array(range(N), pa.float64()),
    "uint64": lambda: pa.array(range(N), pa.uint64()),
    "uuid": lambda: pa.array([uuid.UUID(int=i).bytes for i in range(N)], pa.uuid()),
}


@pytest.mark.parametrize("form", FORMS_OF_IDS)
def test_ids__in_any_form_name_items(tmp_path: Path, form: str) -> None:
    column = FORMS_OF_IDS[form]()
    audited(tmp_path, "data", item_id=column, label=GIVEN, pred_probs=vectors(PROBS))
    found = pq.read_table(tmp_path / "data-out" / "confident")["item_id"].to_pylist()
    plain = column.dictionary_decode() if form == "dictionary" else column
    expected = [i.decode() if isinstance(i, bytes) else i for i in plain.to_pylist()]
    assert found == [str(i) if form == "uuid" else i for i in expected]
    product = pq.read_table(tmp_path / "data-out" / "dataset")
    given = pq.read_table(tmp_path / "data" / "a.parquet")["item_id"]
    assert product.schema.field("item_id").type == given.type


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([2**63 + i for i in range(N)], pa.uint64()), "fit into 64 bits"),
        (pa.array(np.arange(N) + 0.5), "'item_id' must hold whole numbers"),
        (pa.array([2.0**60] * N), "beyond 2**53"),
        (pa.array([b"\xff"] * N), "'item_id' must hold UTF-8 text"),
        (pa.array([[1]] * N), "'item_id' must be string or integer"),
        (pa.array([True] * N), "'item_id' must be string or integer"),
    ],
    ids=["beyond int64", "fractions", "beyond exact floats", "no text", "lists", "truth values"],
)
def test_ids_that_cannot_be__are_refused_by_name(
    tmp_path: Path, column: pa.Array, said: str
) -> None:
    with pytest.raises(DataError) as refused:
        audited(tmp_path, "data", item_id=column, label=GIVEN, pred_probs=vectors(PROBS))
    assert said in str(refused.value)


def test_truth_values_as_labels__are_two_classes(tmp_path: Path) -> None:
    two = np.stack([PROBS[:, 0], 1 - PROBS[:, 0]], axis=1)
    label = pa.array(GIVEN != 0)
    audited(tmp_path, "data", item_id=IDS, label=label, pred_probs=vectors(two))
    product = pq.read_table(tmp_path / "data-out" / "dataset")
    assert product.schema.field("label_clean").type == pa.bool_()
    out = load_run(str(tmp_path / "data-out"))
    assert out.context("confident", out.layout()).classes == ("false", "true")


def test_fractions_as_labels__are_refused_and_may_be_ratings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no whole numbers.*ratings, they go into 'score_mean'"):
        audited(tmp_path, "data", item_id=IDS, label=GIVEN + 0.5, pred_probs=vectors(PROBS))


def test_minus_one_with_named_classes__is_no_label(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    label = GIVEN.copy()
    label[:5] = -1
    table = pa.table({"item_id": IDS, "label": label, "pred_probs": vectors(PROBS)})
    pq.write_table(table, data / "a.parquet")
    recipe = parse_recipe(
        'stages = ["source"]\n[data]\nclasses = ["a", "b", "c"]\nmax_bad_share = 0.2', name="x"
    )
    run(recipe, data=str(data), out=str(tmp_path / "out"))
    reasons = pq.read_table(tmp_path / "out" / "quarantine")["reason"].to_pylist()
    assert reasons == ["no label: label is -1"] * 5


def test_minus_one_without_names__is_a_class(tmp_path: Path) -> None:
    features = vectors(np.stack([TRUE, TRUE], axis=1).astype(np.float32))
    label = np.where(GIVEN == 0, -1, 1)
    audited(tmp_path, "data", item_id=IDS, label=label, features=features)
    out = load_run(str(tmp_path / "data-out"))
    assert out.context("confident", out.layout()).classes == ("-1", "1")


def test_vectors_of_another_length__are_set_aside_and_the_others_used(tmp_path: Path) -> None:
    rows = LOGITS.tolist()
    rows[7], rows[9] = rows[7][:2], None
    data = tmp_path / "data"
    data.mkdir()
    column = pa.array(rows, pa.list_(pa.float32()))
    table = pa.table({"item_id": IDS, "label": GIVEN, "features": column})
    pq.write_table(table, data / "a.parquet")
    recipe = parse_recipe('stages = ["source", "infer"]\n[data]\nmax_bad_share = 0.1', name="x")
    run(recipe, data=str(data), out=str(tmp_path / "out"))
    bad = pq.read_table(tmp_path / "out" / "quarantine")
    assert bad["row"].to_pylist() == [7, 9]
    assert any("vectors of 3 numbers" in said for said in open_source(str(data)).notices)


# -- 0/1 vectors -----------------------------------------------------------------------------------

CELLS = (RNG.random((N, 5)) < 0.4) | (np.eye(5, dtype=bool)[np.arange(N) % 5])


@pytest.mark.parametrize(
    "column",
    [
        vectors(CELLS.astype(np.int64)),
        vectors(CELLS),
        pa.array(CELLS.astype(int).tolist()),
        pa.array(CELLS.astype(float).tolist()),
        pa.array(CELLS.tolist()),
    ],
    ids=["fixed ints", "fixed truth values", "ints", "floats", "truth values"],
)
def test_indicators__are_read_as_the_lists_that_they_mean(tmp_path: Path, column: pa.Array) -> None:
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.table({"item_id": IDS, "labels": column}), data / "a.parquet")
    source = open_source(str(data))
    assert any("0/1 indicator vectors" in said for said in source.notices)
    run(parse_recipe('stages = ["source"]', name="x"), data=str(data), out=str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out" / "source")["given_ids"].to_pylist()
    assert found == [np.flatnonzero(row).tolist() for row in CELLS]


@pytest.mark.parametrize(
    "rows", [[[0], [1], [0, 1]], [[0, 1], [1, 0]], [[0, 2], [1, 2]], [["0", "1"], ["1", "0"]]]
)
def test_lists_of_ids__are_no_indicators(rows: list[list[object]]) -> None:
    assert not forms.is_indicator(pa.array(rows))


# -- what is carried -------------------------------------------------------------------------------

DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 12, 30)
CARRIED: dict[str, tuple[pa.DataType, object]] = {
    "bool": (pa.bool_(), True),
    "uint8": (pa.uint8(), 1),
    "half": (pa.float16(), np.float16(1.5)),
    "decimal128": (pa.decimal128(10, 2), decimal.Decimal("1.50")),
    "decimal256": (pa.decimal256(50, 2), decimal.Decimal("1.50")),
    "date32": (pa.date32(), DAY),
    "time64": (pa.time64("us"), datetime.time(1, 2)),
    "timestamp": (pa.timestamp("us"), MOMENT),
    "timestamp with zone": (pa.timestamp("us", "Europe/Paris"), MOMENT),
    "duration": (pa.duration("us"), datetime.timedelta(1)),
    "binary": (pa.binary(), b"\x00\xff"),
    "large binary": (pa.large_binary(), b"x"),
    "binary view": (pa.binary_view(), b"x" * 20),
    "fixed binary": (pa.binary(2), b"ab"),
    "string view": (pa.string_view(), "x" * 20),
    "large string": (pa.large_string(), "x"),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), "x"),
    "list": (pa.list_(pa.int64()), [1, None, 3]),
    "large list": (pa.large_list(pa.int8()), [1]),
    "list view": (pa.list_view(pa.string_view()), ["x", None, "y"]),
    "large list view": (pa.large_list_view(pa.int8()), [1, 2]),
    "lists of views": (pa.list_(pa.list_view(pa.string_view())), [["x"], [], None]),
    "fixed list": (pa.list_(pa.int16(), 2), [1, 2]),
    "fixed list of views": (pa.list_(pa.string_view(), 2), ["a", "b"]),
    "map": (pa.map_(pa.string(), pa.int32()), [("k", 1)]),
    "map of views": (pa.map_(pa.string(), pa.string_view()), [("k", "v"), ("l", None)]),
    "struct": (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), {"a": 1, "b": ["x"]}),
    "struct of views": (
        pa.struct([("a", pa.string_view()), ("b", pa.list_view(pa.int8()))]),
        {"a": "x", "b": [1, 2]},
    ),
    "null": (pa.null(), None),
    "uuid": (pa.uuid(), uuid.UUID(int=5).bytes),
    "json": (pa.json_(), '{"a": 1}'),
    "bool8": (pa.bool8(), 1),
    "tensor": (pa.fixed_shape_tensor(pa.float32(), [2]), [1.0, 2.0]),
    "matrix": (pa.fixed_shape_tensor(pa.int8(), [2, 2], permutation=[1, 0]), [1, 2, 3, 4]),
}


def carried(kind: pa.DataType, value: object) -> pa.Array:
    """Return a column that has a value and a null in turn."""
    values = [value, None] * (N // 2)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def as_python(column: pa.ChunkedArray) -> list[object]:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks])
    return column.to_pylist()


@pytest.mark.parametrize("name", CARRIED)
def test_carried_columns__keep_type_and_values_through_quarantine_and_division(
    tmp_path: Path, name: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    label: list[object] = GIVEN.tolist()
    label[4] = None
    columns = {"item_id": IDS, "label": label, "pred_probs": vectors(PROBS)}
    table = pa.table({**columns, "extra": carried(*CARRIED[name])})
    pq.write_table(table, data / "a.parquet")
    as_read = pq.read_table(data / "a.parquet")["extra"]
    recipe = parse_recipe(
        'stages = ["source", "infer", "confident", "decide", "dataset"]\n'
        "[data]\nmax_bad_share = 0.1",
        name="x",
    )
    run(recipe, data=str(data), out=str(tmp_path / "out"))
    parts = [pq.read_table(tmp_path / "out" / part) for part in ("dataset", "set_aside")]
    expected = dict(zip(IDS, as_python(as_read), strict=True))
    found: dict[str, object] = {}
    for part in parts:
        assert part.schema.field("extra").type == as_read.type
        found |= zip(part["item_id"].to_pylist(), as_python(part["extra"]), strict=True)
    assert found == {item: expected[item] for item in IDS if item != IDS[4]}


def test_shards_that_differ_in_nullability_or_are_all_null__are_one_data_set(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = pa.table({"item_id": IDS, "label": GIVEN, "pred_probs": vectors(PROBS)})
    table = table.append_column("note", pa.array(["x"] * N))
    strict = table.schema.set(0, table.schema.field(0).with_nullable(False))
    pq.write_table(table.slice(0, 20), data / "a.parquet")
    pq.write_table(table.slice(20, 20).cast(strict), data / "b.parquet")
    nulls = table.slice(40).set_column(3, "note", pa.nulls(20))
    pq.write_table(nulls, data / "c.parquet")
    run(READY, data=str(data), out=str(tmp_path / "out"))
    parts = [pq.read_table(tmp_path / "out" / part) for part in ("dataset", "set_aside")]
    notes = pa.concat_tables(parts).sort_by("item_id")["note"]
    assert notes.type == pa.string()
    assert notes.to_pylist() == ["x"] * 40 + [None] * 20
    assert any("no type in 1 of 3 shards" in said for said in open_source(str(data)).notices)


def test_partitions_and_splits__are_columns_of_the_product(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for k in range(K):
        for split in ("train", "test"):
            (data / f"label={k}" / split).mkdir(parents=True)
    rows = pa.table({"item_id": IDS, "pred_probs": vectors(PROBS)})
    for k in range(K):
        mine = np.flatnonzero(k == GIVEN)
        for split, part in (("train", mine[::2]), ("test", mine[1::2])):
            path = data / f"label={k}" / split / "0.parquet"
            pq.write_table(rows.take(pa.array(part)), path)
    run(READY, data=str(data), out=str(tmp_path / "out"))
    parts = [pq.read_table(tmp_path / "out" / part) for part in ("dataset", "set_aside")]
    found = pa.concat_tables(parts)
    assert found.num_rows == N
    for item, label, split, shard in zip(
        *(found[name].to_pylist() for name in ("item_id", "label", "split", "shard")), strict=True
    ):
        assert label == GIVEN[IDS.index(item)]
        assert shard == f"label={label}/{split}/0.parquet"


@pytest.mark.parametrize("name", ["x", "label", "item_id"])
def test_doubled_column_names__are_refused_at_once(tmp_path: Path, name: str) -> None:
    columns = {"item_id": pa.array(IDS), "label": pa.array(GIVEN), "x": pa.array(GIVEN)}
    arrays = [*columns.values(), columns[name]]
    table = pa.Table.from_arrays(arrays, names=[*columns, name])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"got \['{name}'\] more than once"):
        open_source(str(tmp_path))


def test_class_names_in_another_order_in_a_later_shard__are_refused(tmp_path: Path) -> None:
    for shard, names in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        features = {"label": {"_type": "ClassLabel", "names": names}}
        info = json.dumps({"info": {"features": features}})
        table = pa.table({"label": [0, 1]}).replace_schema_metadata({"huggingface": info})
        pq.write_table(table, tmp_path / f"{shard}.parquet")
    with pytest.raises(DataError, match=r"same order.*'cat', 'dog'.*a\.parquet.*b\.parquet"):
        open_source(str(tmp_path))


HUGE = 1 << 28


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32(), HUGE),
        pa.list_(pa.string(), HUGE),
        pa.list_(pa.list_(pa.int8(), 1 << 14), 1 << 14),
        pa.binary(HUGE),
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.bool_(), HUGE))]),
        pa.dictionary(pa.int8(), pa.binary(HUGE)),
        pa.run_end_encoded(pa.int32(), pa.binary(HUGE)),
        pa.fixed_shape_tensor(pa.float32(), (1 << 14, 1 << 14)),
    ],
    ids=str,
)
def test_types_that_claim_huge_values__are_refused_before_any_is_made(kind: pa.DataType) -> None:
    before = peak_kb()

    with pytest.raises(DataError, match="values of at most 16 MiB were expected, but each of col"):
        forms.check_carried(pa.schema([("label", pa.int64()), ("big", kind)]), "data")

    assert peak_kb() - before < 50_000


def test_every_refusal__is_one_of_ours(tmp_path: Path) -> None:
    for i, kind in enumerate([pa.int64(), pa.string(), pa.list_(pa.string()), pa.bool_()]):
        for name in ("features", "pred_probs", "image"):
            folder = tmp_path / f"{i}-{name}"
            folder.mkdir()
            table = pa.table({"item_id": IDS, "label": GIVEN, name: pa.nulls(N, kind)})
            pq.write_table(table, folder / "a.parquet")
            with pytest.raises(LabelopsError, match=r"expected|must|usable"):
                run(READY, data=str(folder), out=str(tmp_path / f"out-{i}-{name}"))
