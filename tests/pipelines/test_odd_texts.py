"""Ids and labels of odd characters: kept apart, refused or said. Oracle: Python's strings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipelines.run
from pipelines.core.state import load_run
from pipelines.errors import DataError, LabelopsError
from pipelines.labels.classes import distinct, merge_labels
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.storage.texts import LONGEST, alike, pack, unpack
from tests.datasets import vectors, write_shards

N = 40
SOURCE = 'stages = ["source"]\n'


@given(st.lists(st.text(alphabet="a\0\x1fÀ漢\u200b", max_size=4)), st.lists(st.text(max_size=3)))
def test_texts__come_back_as_they_went_and_merge_as_sets(a: list[str], b: list[str]) -> None:
    assert unpack(pack(a)) == sorted(set(a))
    labels = [pa.array(x, pa.string()) for x in (a, b)]
    merged = merge_labels(distinct(labels[0]), distinct(labels[1]))
    assert unpack(merged) == sorted({*a, *b})


def run(folder: Path, table: pa.Table, recipe: str = SOURCE) -> Path:
    data, out = write_shards(folder / "data", table, [15, N - 15]), folder / "out"
    pipelines.run.run(parse_recipe(recipe, name="x"), data=str(data), out=str(out))
    return out


def refusal(folder: Path, table: pa.Table, recipe: str = SOURCE) -> str:
    with pytest.raises(LabelopsError) as caught:
        run(folder, table, recipe)
    message = str(caught.value)
    assert len(message) < 1000
    assert message.isprintable()
    return message


def ids(*first: str) -> list[str]:
    return [*first, *(f"i{k}" for k in range(N - len(first)))]


ODD = ["a", "a\0", "a\0\0", "\0", "a\x1f", "\x1f", "a\x1fb", "a\nb", " a", "\u202ea", "\u200b", "é",
       "e\u0301", "\ufeff", "x" * 10**5]  # fmt: skip


def test_ids__of_any_characters_are_different_items(tmp_path: Path) -> None:
    table = pa.table({"item_id": ids(*ODD), "label": [0, 1] * (N // 2)})
    found = pq.read_table(run(tmp_path, table) / "source")
    assert sorted(found["item_id"].to_pylist()) == sorted(ids(*ODD))
    assert len(set(found["item_hash"].to_pylist())) == N


@pytest.mark.parametrize("twice", ODD)
def test_ids__that_are_there_twice_are_named_whatever_is_in_them(
    tmp_path: Path, twice: str
) -> None:
    listed = ids(*ODD)
    listed[-1] = twice
    message = refusal(tmp_path, pa.table({"item_id": listed, "label": [0, 1] * (N // 2)}))
    assert "got 1 id(s) more than once: " in message
    at = ODD.index(twice)
    assert f" at part-00000.parquet, row {at} and part-00001.parquet, row {N - 16}. " in message
    assert repr(twice)[:60].rstrip("'") in message


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ("cat\0", r"that do not end in a NUL character were expected, got 'cat\x00'"),
        ("\0", r"that do not end in a NUL character were expected, got '\x00'"),
        ("x" * (LONGEST + 1), f"of at most {LONGEST} characters were expected, got 'xxx"),
        ("y" * 10**6, f"of at most {LONGEST} characters were expected, got 'yyy"),
    ],
)
@pytest.mark.parametrize("form", ["label", "labels"])
def test_labels__that_are_no_names_are_refused_unless_classes_are_named(
    tmp_path: Path, label: str, what: str, form: str
) -> None:
    labels: list[object] = [label if k == 30 else ("cat", "dog")[k % 2] for k in range(N)]
    if form == "labels":
        labels = [[one] for one in labels]
    table = pa.table({"item_id": ids(), form: labels})
    message = refusal(tmp_path / "a", table)
    assert f"source: names of classes {what}" in message
    # Of named classes it is none: that row alone is bad.
    named = SOURCE + '[data]\nclasses = ["cat", "dog"]\nmax_bad_share = 0.1\n'
    out = run(tmp_path / "b", table, named)
    bad = pq.read_table(out / "quarantine").to_pylist()
    assert [(row["item_id"], row["reason"][:26]) for row in bad] == [
        ("i30", "class out of range: label ")
    ]
    assert len(bad[0]["reason"]) < 300


def test_labels__of_names_that_no_text_has_are_refused(tmp_path: Path) -> None:
    feature = (
        '{"info": {"features": {"label": {"names": ["a", "\\ud800"], "_type": "ClassLabel"}}}}'
    )
    table = pa.table({"item_id": ids(), "label": [0, 1] * (N // 2)})
    message = refusal(tmp_path, table.replace_schema_metadata({"huggingface": feature}))
    assert r"names of classes in Unicode were expected, got '\ud800'" in message


def test_labels__that_are_named_twice_are_refused(tmp_path: Path) -> None:
    table = pa.table({"item_id": ids(), "label": [0, 1] * (N // 2)})
    message = refusal(tmp_path, table, SOURCE + '[data]\nclasses = ["a", "a"]')
    assert message == "source: class names must differ, got 'a' twice. Correct data.classes"


def test_labels__that_look_alike_are_kept_apart_and_said(tmp_path: Path) -> None:
    names = ["cat", "Cat", "cat ", "c\u200bat", "dog", "caf\u00e9", "cafe\u0301", "ﬁn", "fin"]
    labels = [names[k % len(names)] for k in range(N)]
    out = run(tmp_path, pa.table({"item_id": ids(), "label": labels}))
    run_ = load_run(str(out))
    assert run_.context("source", run_.layout()).classes == tuple(sorted(names))
    assert run_.notices()[-1].startswith(
        "5 of 9 classes differ from another only by case, spaces or marks: "
    )


def test_alike__says_nothing_of_names_that_differ() -> None:
    assert alike(["a", "b", "a b c", "1", "10"]) == []


@pytest.mark.parametrize("column", ["item_id", "label"])
def test_text__that_is_no_unicode_is_said_to_be_none(tmp_path: Path, column: str) -> None:
    odd = pa.array([b"\xff\xfe" if k == 20 else b"a%d" % (k % 2) for k in range(N)])
    bad = pa.Array.from_buffers(pa.string(), N, odd.buffers())
    plain = {"item_id": pa.array(ids()), "label": pa.array([0, 1] * (N // 2))}
    message = refusal(tmp_path, pa.table({**plain, column: bad}))
    assert "Error" not in message


def test_product__of_odd_labels_has_them_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["\u202eabc", "a\nb", "<b>", "=1+1", "\x1f"]
    true = np.arange(N) % 5
    probs = np.full((N, 5), 0.02, np.float32) + rng.random((N, 5)).astype(np.float32) * 0.001
    probs[np.arange(N), true] = 0.9
    probs /= probs.sum(axis=1, keepdims=True)
    given = [sorted(names)[k] for k in true]
    table = pa.table({"item_id": ids(), "label": given, "pred_probs": vectors(probs)})
    data = write_shards(tmp_path / "data", table, [15, N - 15])
    out = tmp_path / "out"
    pipelines.run.run(load_recipe("audit"), data=str(data), out=str(out))
    assert pq.read_table(out / "dataset")["label_clean"].to_pylist() == given
    card = (out / "README.md").read_text()
    assert "\u202e" not in card or r"\u202e" in card


def test_bags__that_end_in_nul_are_refused(tmp_path: Path) -> None:
    from pipelines.bags.table import open_table

    rows = {"bag_id": ["a", "a\0"], "n": [2, 2], "positives": [1, 1]}
    pq.write_table(pa.table(rows), tmp_path / "bags.parquet")
    with pytest.raises(DataError, match=r"do not end in a NUL character .* got 'a\\x00'"):
        open_table(str(tmp_path / "bags.parquet"))
