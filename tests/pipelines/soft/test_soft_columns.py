"""Oracles: arrays that were never in columns, and readers that know pyarrow or pandas alone."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax

from labelops.soft.views import Coding, check_written, decode, encode
from pipelines.errors import DataError
from pipelines.soft.columns import (
    METADATA,
    SoftFacts,
    Teacher,
    ViewRows,
    fewer,
    from_table,
    soft_schema,
    stored_probabilities,
    to_table,
    whole_views,
)

KINDS = [("prob", "f16"), ("prob", "f32"), ("logprob", "u8"), ("logprob", "f16"), ("logit", "f16"),
         ("logit", "f32")]  # fmt: skip
TEACHER = Teacher(name="resnet18", sha256="ab" * 32, input_size=224, resize="squash",
                  mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))  # fmt: skip


def some(kind: str, number: str, n: int = 40, n_classes: int = 7, k: int = 3):
    rng = np.random.default_rng(0)
    z, given = rng.normal(size=(n, n_classes)) * 2, np.arange(n) % n_classes
    facts = SoftFacts(
        classes=tuple(f"class {c}" for c in range(n_classes)),
        kind=kind, number=number, temperature=2.0, k=k, teachers=(TEACHER,),
    )  # fmt: skip
    labels = encode(z, given, coding=facts.coding, k=k)
    size = np.column_stack([rng.integers(20, 60, n), rng.integers(20, 60, n)])
    box = np.column_stack([rng.integers(0, 10, (n, 2)), rng.integers(1, 10, (n, 2))])
    size[3], box[3] = 0, 0
    ids = pa.array([f"item-{i // 4}" for i in range(n)])
    rows = ViewRows(ids, np.arange(n) % 4, labels, box, size, np.arange(n) % 2 > 0)
    return z, rows, facts


@pytest.mark.parametrize(("kind", "number"), KINDS)
def test_views__come_back_from_parquet_as_they_were(tmp_path, kind, number):
    z, rows, facts = some(kind, number)
    path = tmp_path / "part.parquet"
    pq.write_table(to_table(rows, facts), path)
    back, found = from_table(pq.read_table(path), {"k": 3, "temperature": 2.0})
    assert found == facts
    for got, want in zip(back.labels, rows.labels, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(back.box, rows.box)
    np.testing.assert_array_equal(back.size, rows.size)
    np.testing.assert_array_equal(back.is_flipped, rows.is_flipped)
    np.testing.assert_array_equal(back.view_id, rows.view_id)
    assert back.item_id == rows.item_id
    check_written(z, back.labels, coding=found.coding)


@pytest.mark.parametrize(("kind", "number"), KINDS[:4])
def test_plain_readers__need_the_columns_and_the_footer_only(tmp_path, kind, number):
    z, rows, facts = some(kind, number)
    path = tmp_path / "part.parquet"
    pq.write_table(to_table(rows, facts), path)
    table = pq.read_table(path)
    got = np.array(stored_probabilities(table).to_pylist())
    p = softmax(z / 2.0, axis=1)
    want = np.take_along_axis(p, np.array(table["topk_ids"].to_pylist()), axis=1)
    np.testing.assert_allclose(got, want, atol=0.032)
    dense = decode(rows.labels, coding=facts.coding)
    frame = table.to_pandas()
    assert frame["box_tlhw"][3] is None
    assert (np.stack(frame["topk_ids"])[:, 0] == dense.argmax(axis=1)).all()
    said = json.loads(table.schema.metadata[METADATA])
    assert said["num_classes"] == 7
    assert said["teachers"][0]["sha256"] == "ab" * 32
    with pytest.raises(DataError, match="probabilities were expected, got logits"):
        stored_probabilities(to_table(*some("logit", "f16")[1:]))


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"temperature": 1.0}, "temperature = 1.0 was expected, got 2.0"),
        ({"k": 5}, "k = 5 was expected, got 3"),
        ({"kind": "logit"}, "kind = logit was expected, got prob"),
        ({"classes": ("class 1", "class 0")}, "2 classes, number 0 'class 1' was expected, got 7"),
        ({"classes": tuple(f"class {c}" for c in range(8))}, "8 classes, number 7 'class 7'"),
        ({"teachers": (replace(TEACHER, sha256="cd" * 32),)}, "cdcdcd"),
    ],
)
def test_readers__are_refused_what_they_do_not_expect(expected, words):
    table = to_table(*some("prob", "f16")[1:])
    with pytest.raises(DataError, match=words):
        from_table(table, expected)


def test_tables__without_soft_labels_and_of_other_formats_are_refused():
    with pytest.raises(DataError, match="Read a Parquet file of stored soft labels"):
        from_table(pa.table({"item_id": [1]}), {})
    table = to_table(*some("prob", "f16")[1:])
    facts = json.loads(table.schema.metadata[METADATA]) | {"format_version": 9}
    other = table.replace_schema_metadata({METADATA: json.dumps(facts)})
    with pytest.raises(DataError, match="format 1 was expected, got 9"):
        from_table(other, {})


def test_views__outside_their_pictures_and_of_other_codings_are_refused():
    _, rows, facts = some("prob", "f16")
    rows.box[5] = (15, 15, 50, 50)
    with pytest.raises(ValueError, match="for view 4"):
        to_table(rows, facts)
    _, rows, facts = some("prob", "f16")
    for other in (replace(facts, number="f32"), replace(facts, k=2)):
        with pytest.raises(DataError, match="Encode them with the coding of the facts"):
            to_table(rows, other)


@pytest.mark.parametrize(("kind", "number"), KINDS)
def test_fewer__classes_and_views_are_what_would_have_been_written(kind, number):
    z, rows, facts = some(kind, number)
    less, found = fewer(rows, facts, k=2, views=3)
    chosen = np.flatnonzero(np.arange(40) % 4 < 3)
    given = (np.arange(40) % 7)[chosen]
    wanted = encode(z[chosen], given, coding=Coding(kind, number, 7, 2.0), k=2)
    np.testing.assert_array_equal(less.labels.ids, wanted.ids)
    np.testing.assert_array_equal(less.labels.values, wanted.values)
    np.testing.assert_allclose(
        less.labels.tail.astype(float), wanted.tail.astype(float), atol=0.06, rtol=2e-3
    )
    assert found.k == 2
    assert less.item_id.to_pylist() == [f"item-{i // 4}" for i in chosen]
    assert to_table(less, found).num_rows == 30
    with pytest.raises(ValueError, match="at least one view"):
        fewer(rows, facts, views=0)


def test_items__that_are_no_pictures_have_one_whole_view():
    _, rows, facts = some("prob", "f16")
    table = to_table(whole_views(rows.item_id, rows.labels), facts)
    assert table["box_tlhw"].null_count == 40
    assert table["view_id"].to_pylist() == [0] * 40
    back, _ = from_table(table, {})
    assert not back.box.any()


def test_no_view__is_a_table():
    _, rows, facts = some("logit", "f16")
    table = to_table(rows, facts).slice(0, 0)
    back, _ = from_table(table, {})
    assert decode(back.labels, coding=facts.coding).shape == (0, 7)
    assert table.schema.equals(soft_schema(facts, pa.string()))
