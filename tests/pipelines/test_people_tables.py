"""Tables that people wrote: what does not fit the data is counted, said, and refused if all of it.

Oracle: small data sets with ids and labels written by hand, the counts by eye.
"""

import gzip
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines.core.matching import MATCHED
from pipelines.core.results import load_result, result_name
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError, LabelopsError
from pipelines.labels.reference import ONE, reference_sets
from pipelines.recipe import load_recipe
from pipelines.stages.decide import Config
from tests.datasets import even, tagged, vectors, write_shards

N = 60
NAMES = ("cat", "dog", "eel")


def items(ids: Sequence[object] | None = None, labels: pa.Array | None = None) -> pa.Table:
    """Return items of three classes that take turns, one in ten labelled wrong."""
    rng = np.random.default_rng(0)
    true = np.arange(N) % 3
    given = np.where(np.arange(N) % 10 == 7, (true + 1) % 3, true)
    probs = np.full((N, 3), 0.05) + rng.random((N, 3)) * 0.01
    probs[np.arange(N), true] = 0.9
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    return pa.table(
        {
            "item_id": ids if ids is not None else [f"i{k}" for k in range(N)],
            "label": labels if labels is not None else [NAMES[k] for k in given],
            "pred_probs": vectors(probs),
        }
    )


def audit(
    folder: Path,
    table: pa.Table,
    *settings: str,
    recipe: str = "audit",
    cuts: Sequence[int] = (N,),
) -> Run:
    data = folder / "data"
    if not data.exists():
        write_shards(data, table, list(cuts))
    out = folder / "out"
    pipelines.run.run(load_recipe(recipe, settings), data=str(data), out=str(out))
    return load_run(str(out))


def csv(folder: Path, text: str | bytes, name: str = "r.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def notices(run: Run, stage: str = "decide") -> list[str]:
    return load_result(run.store, stage, MATCHED).get("notices", np.array([])).tolist()  # type: ignore[no-any-return]


def classes(path: str, names: Sequence[str] = NAMES, values: Sequence[int] = ()) -> list[int]:
    """Return what a table of reviews says of items i0, i1, …, without a run."""
    ctx = SimpleNamespace(
        stage="decide",
        config=Config(reviewed=path),
        classes=names,
        class_values=values,
        n_classes=len(names),
        columns=frozenset(["given"]),
    )
    ids, found = pa.array([f"i{k}" for k in range(N)]), np.full(N, -1)
    rows, sets = reference_sets("reviewed", ids, ctx, wanted=ONE)  # type: ignore[arg-type]
    found[rows] = sets.ids
    return found.tolist()  # type: ignore[no-any-return]


def refusal(path: str, names: Sequence[str] = NAMES, values: Sequence[int] = ()) -> str:
    with pytest.raises(DataError) as caught:
        classes(path, names, values)
    return str(caught.value)


# -- ids -------------------------------------------------------------------------------------------


def test_reviewed__ids_that_match_nothing_are_counted_and_the_first_are_named(
    tmp_path: Path,
) -> None:
    text = "item_id,true_label\ni0,cat\n i1,dog\nI2,eel\ni3,cat\ni99,cat\n"
    for name, cuts in (("one", [N]), ("seven", even(N, 7)), ("empty", [0, 1, 0, N - 1])):
        folder = tmp_path / name
        folder.mkdir()
        run = audit(folder, items(), f"decide.reviewed={csv(folder, text)}", cuts=cuts)
        assert notices(run) == [
            "decide.reviewed: 2 of 5 reviewed ids are in the data; first not found: ' i1', 'I2', "
            "'i99'"
        ]


def test_reviewed__that_are_all_in_the_data_need_no_word(tmp_path: Path) -> None:
    path = csv(tmp_path, "item_id,true_label\ni0,cat\ni1,dog\n")
    run = audit(tmp_path, items(), f"decide.reviewed={path}")
    assert notices(run) == []
    found = load_result(run.store, "decide", MATCHED)
    assert (int(found["n_listed"]), int(found["n_found"])) == (2, 2)


def test_reviewed__without_the_setting_nothing_is_counted(tmp_path: Path) -> None:
    run = audit(tmp_path, items())
    assert not run.store.exists(result_name("decide", MATCHED))


@pytest.mark.parametrize(
    ("ids", "listed", "shown"),
    [
        ([f"i{k}" for k in range(N)], [f" i{k}" for k in range(50)], "' i0', ' i1', ' i2', …"),
        (np.arange(N), ["007", "008"], "'007', '008'"),
        (np.arange(N), ["7.0"], "'7.0'"),
        ([f"{k:03}" for k in range(N)], ["7", "8"], "'7', '8'"),
        ([f"i{k}" for k in range(N)], ["i1\x00"], r"'i1\x00'"),
        ([f"i{k}" for k in range(N)], ["\u202ei1"], r"'\u202ei1'"),
        ([f"i{k}\x00" for k in range(N)], ["i1"], "'i1'"),
    ],
)
def test_reviewed__none_of_which_is_in_the_data_is_refused_with_ids_of_both(
    tmp_path: Path, ids: Sequence[object], listed: list[str], shown: str
) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"item_id": listed, "true_label": ["cat"] * len(listed)}), path)
    table = items(ids)
    there = sorted(table["item_id"].cast(pa.string()).to_pylist())
    smallest = ", ".join(map(repr, there[:3]))
    with pytest.raises(DataError) as caught:
        audit(tmp_path, table, f"decide.reviewed={path}")
    assert str(caught.value).startswith(
        f"decide.reviewed: reviewed ids were expected to be ids of items, got 0 of {len(listed)} "
        f"reviewed ids are in the data; first not found: {shown}; ids in the data are like "
        f"{smallest}. "
    )


@pytest.mark.parametrize(
    "listed",
    [
        pa.array([3, 4]),
        pa.array([3, 4], pa.uint8()),
        pa.array([3.0, 4.0]),
        pa.array(["3", "4"], pa.large_string()),
        pa.array(["3", "4"]).dictionary_encode(),
    ],
)
@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.string()])
def test_reviewed__whole_numbers_match_whatever_their_type(
    tmp_path: Path, listed: pa.Array, kind: pa.DataType
) -> None:
    pq.write_table(pa.table({"item_id": listed, "true_label": ["eel"] * 2}), tmp_path / "r.parquet")
    table = items(pa.array(range(N)).cast(kind))
    run = audit(tmp_path, table, f"decide.reviewed={tmp_path / 'r.parquet'}")
    assert notices(run) == []
    clean = pq.read_table(Path(run.uri) / "dataset")["label_clean"].to_pylist()
    assert clean[3:5] == ["eel", "eel"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([3.5, 4.0]), "text or whole numbers were expected in column 'item_id', got "),
        (pa.array([b"\xff", b"a"]), "got binary; at "),
        (pa.array([[1], [2]]), "got list<"),
        (pa.array([3, 4], pa.timestamp("s")), "got timestamp[ms]; at "),
        (pa.array([1e300, 2.0]), "got double ("),
        (pa.array(["i1", None]), "got 1 without one, the first in row 2; at "),
        (pa.array([None, None], pa.string()), "got 2 without one, the first in row 1; at "),
    ],
)
def test_reviewed__ids_that_are_none_are_refused(
    tmp_path: Path, column: pa.Array, message: str
) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"item_id": column, "true_label": ["cat", "dog"]}), path)
    found = refusal(str(path))
    assert found.startswith("decide.reviewed: ")
    assert message in found


def test_reviewed__rows_without_a_label_are_not_reviewed_and_said(tmp_path: Path) -> None:
    path = csv(tmp_path, "item_id,true_label\ni0,cat\ni1,\n,\n")
    assert notices(audit(tmp_path, items(), f"decide.reviewed={path}")) == [
        "decide.reviewed: 2 rows have no true_label and count as not reviewed"
    ]


def test_reviewed__an_empty_list_of_reviews_is_said(tmp_path: Path) -> None:
    path = csv(tmp_path, "item_id,true_label\n")
    run = audit(tmp_path, items(), f"decide.reviewed={path}")
    assert notices(run) == ["decide.reviewed: there are no reviewed ids"]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("i1,cat\ni1,dog\n", "1 items with more, such as 'i1' with true_label 'cat' and 'dog'"),
        ("i1,cat\ni1,cat\n", "1 items with more, such as 'i1' with true_label 'cat' and 'cat'"),
        ("i2,cat\ni1,cat\ni2,cat\ni1,eel\n", "2 items with more, such as "),
    ],
)
def test_reviewed__items_named_twice_are_refused_with_what_is_said_of_them(
    tmp_path: Path, rows: str, what: str
) -> None:
    assert what in refusal(csv(tmp_path, f"item_id,true_label\n{rows}"))


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("Cat", "got 'Cat'; at "),
        (" cat", "got ' cat'; at "),
        ("c\u0430t", "got 'cаt'; at "),
        ("0", "got '0'; at "),
        ("x" * 10**6, "(1000000 characters); at "),
    ],
)
def test_reviewed__labels_that_are_no_class_are_refused(
    tmp_path: Path, label: str, message: str
) -> None:
    found = refusal(csv(tmp_path, f"item_id,true_label\ni1,{label}\n"))
    assert message in found
    assert len(found) < 1000
    assert "labels among the 3 classes were expected" in found
    assert "Classes: 'cat', 'dog', 'eel'" in found


def test_reviewed__the_class_that_was_meant_is_suggested(tmp_path: Path) -> None:
    found = refusal(csv(tmp_path, "item_id,true_label\ni1,Dog\ni2,dogs\ni3,cat\n"))
    assert "got 'Dog' and 1 more; " in found
    assert found.endswith("did you mean 'dog'?")


def test_reviewed__a_label_that_is_one_class_by_number_and_another_by_name_is_refused(
    tmp_path: Path,
) -> None:
    named = ["1", "2", "3"], [0, 1, 2]
    found = refusal(csv(tmp_path, "item_id,true_label\ni0,1\n"), *named)
    assert "got '1', which is the number of one class and the name of another; at " in found
    # As numbers they are clear; a name that is no number is, too.
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"item_id": ["i0"], "true_label": [1]}), path)
    assert classes(str(path), *named)[:2] == [1, -1]
    assert classes(csv(tmp_path, "item_id,true_label\ni0,3\n"), *named)[0] == 2


@pytest.mark.parametrize("label", ["dog", "1"])
def test_reviewed__labels_go_by_number_or_by_name(tmp_path: Path, label: str) -> None:
    path = csv(tmp_path, f"item_id,true_label\ni0,{label}\n")
    assert classes(path, NAMES, [0, 1, 2])[0] == 1


# -- files -----------------------------------------------------------------------------------------

GOOD = "item_id,true_label\ni1,dog\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        b"note,true_label,item_id\n\xff,dog,i1\n",
        b'item_id,note,true_label\ni1,"two\nlines",dog\n',
        GOOD.encode() + b"\n\n",
        b"item_id,n,true_label\ni1," + b"1" * 5000 + b",dog\n",
    ],
)
def test_reviewed__csv_of_other_programs_is_read(tmp_path: Path, content: bytes) -> None:
    assert classes(csv(tmp_path, content))[:3] == [-1, 1, -1]


def test_reviewed__csv_may_be_packed(tmp_path: Path) -> None:
    assert classes(csv(tmp_path, gzip.compress(GOOD.encode(), mtime=0), "r.csv.gz"))[:3] == [
        -1,
        1,
        -1,
    ]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (GOOD.replace(",", ";"), "r.csv", "Its columns are separated by ';': write commas, or"),
        (GOOD.replace(",", "\t"), "r.csv", r"Its columns are separated by '\t': write commas, or"),
        (GOOD.encode("utf-16"), "r.csv", "a Parquet or CSV file with columns item_id and"),
        (
            "item_id,true_label\ni1,é\n".encode("latin-1"),
            "r.csv",
            "Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8'), or as Parquet",
        ),
        ("Item_ID,true_label\ni1,dog\n", "r.csv", "did you mean 'Item_ID'?"),
        ("item_id ,true_label\ni1,dog\n", "r.csv", "got 'item_id ', 'true_label'; at "),
        ("item_id,item_id,true_label\na,b,c\n", "r.csv", "got 'item_id' more than once; at "),
        ("item_id,true_label\ni1\n", "r.csv", "got CSV parse error: Expected 2 columns, got 1"),
        ("", "r.csv", "got an empty file; at "),
        ("\n", "r.csv", "got CSV parse error: Empty CSV file"),
        (GOOD, "r.parquet", "a Parquet or CSV file with columns item_id and true_label was"),
        (GOOD, "r.csv.gz", "got Not a gzipped file"),
        (
            gzip.compress(GOOD.encode(), mtime=0)[:-9],
            "r.csv.gz",
            "a Parquet or CSV file with columns",
        ),
        (b"PAR1" + b"\0" * 64 + b"PAR1", "r.parquet", "a Parquet or CSV file with columns"),
    ],
)
def test_reviewed__files_that_cannot_be_read_are_refused_with_the_cause(
    tmp_path: Path, content: str | bytes, name: str, message: str
) -> None:
    path = csv(tmp_path, content, name)
    found = refusal(path)
    assert message in found
    assert f"at {path}" in found
    assert "Error" not in found


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("setting", ["decide.reviewed", "proportions.bags"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: os.mkfifo(path), "a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("/proc/version"), "an empty file"),
        (lambda path: path.symlink_to("/proc/self/mem"), "an empty file"),
        (lambda path: path.symlink_to("nowhere"), "no such file or directory"),
        (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
        (bind, "a socket"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**41), "2,097,152.0 MiB"),
    ],
)
def test_tables__what_is_no_regular_file_of_a_bounded_size_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, make: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    assert callable(make)
    make(Path("r.csv"))
    table = items().append_column("bag_id", pa.array(np.arange(N) // 6))
    with pytest.raises(LabelopsError) as caught:
        audit(tmp_path, table, f"{setting}=r.csv")
    assert not (tmp_path / "out").exists()
    assert re.search(rf"(?i)got {re.escape(message)}", str(caught.value))


# -- lists of labels, and ids to leave out ---------------------------------------------------------


def listed(folder: Path, *settings: str) -> Run:
    table = tagged(N, n_classes=3)[0].drop_columns(["features"])
    probs = np.random.default_rng(0).uniform(0.05, 0.95, (N, 3)).astype(np.float32)
    table = table.append_column("pred_probs", vectors(probs))
    return audit(folder, table, *settings, recipe="multilabel", cuts=even(N, 2))


def test_lists__ids_and_empty_lists_are_counted_and_said(tmp_path: Path) -> None:
    text = "item_id,true_labels\nitem-00001,class 0;class 1\nitem-00002,\n item-00003,class 0\n"
    path = csv(tmp_path, text)
    run = listed(tmp_path, f"decide_labels.reviewed={path}", f"evaluate.reference={path}")
    for stage, setting, what in (
        ("decide_labels", "reviewed", "reviewed ids"),
        ("evaluate", "reference", "ids of the reference"),
    ):
        assert notices(run, stage) == [
            f"{stage}.{setting}: 1 rows have an empty list, which says that the items have none of "
            "the classes",
            f"{stage}.{setting}: 2 of 3 {what} are in the data; first not found: ' item-00003'",
        ]


@pytest.mark.parametrize("setting", ["decide_labels.reviewed", "evaluate.reference"])
def test_lists__of_which_no_id_is_in_the_data_are_refused(tmp_path: Path, setting: str) -> None:
    path = csv(tmp_path, "item_id,true_labels\n1,class 0\n2,class 0\n")
    with pytest.raises(DataError) as caught:
        listed(tmp_path, f"{setting}={path}")
    message = str(caught.value)
    assert message.startswith(f"{setting}: ")
    assert "are in the data; first not found: '1', '2'; ids in the data are like 'item-00000'" in (
        message
    )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array(["class 0"]),
            "of labels were expected in column 'true_labels', got string",
        ),
        (pa.array([[b"\xff"]]), "text or whole numbers were expected in column 'true_labels', got"),
        (
            pa.array([["class 0", None]]),
            "were expected in the lists of column 'true_labels', got 1 nulls",
        ),
        (pa.array([["class 9"]]), "labels among the 3 classes were expected, got 'class 9'; at "),
    ],
)
def test_lists__that_are_none_are_refused(tmp_path: Path, column: pa.Array, message: str) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"item_id": ["item-00001"], "true_labels": column}), path)
    with pytest.raises(DataError, match=re.escape(message)):
        listed(tmp_path, f"evaluate.reference={path}")


def test_lists__a_label_in_both_lists_is_named_with_its_item(tmp_path: Path) -> None:
    head = "item_id,true_labels,true_labels_negative\nitem-00000,class 0,class 1\n"
    path = csv(tmp_path, f"{head}item-00004,class 2;class 1,class 0;class 1\n")
    with pytest.raises(DataError, match="got 1 in both, the first 'class 1' of item 'item-00004'"):
        listed(tmp_path, f"decide_labels.reviewed={path}")


def test_lists__of_one_length_and_large_ones_are_read(tmp_path: Path) -> None:
    for k, kind in enumerate((pa.list_(pa.string(), 1), pa.large_list(pa.large_string()))):
        folder = tmp_path / str(k)
        folder.mkdir()
        rows = pa.array([["class 0"], ["class 1"]], kind)
        table = pa.table({"item_id": ["item-00001", "item-00002"], "true_labels": rows})
        pq.write_table(table, folder / "r.parquet")
        run = listed(folder, f"evaluate.reference={folder / 'r.parquet'}")
        assert int(load_result(run.store, "evaluate", "measures")["n_items"]) == 2


def test_leave_out__ids_that_match_nothing_are_counted_and_all_of_them_refused(
    tmp_path: Path,
) -> None:
    run = audit(tmp_path, items(), 'dataset.leave_out_items=["i1", "i2", "i2", "7"]')
    assert notices(run, "dataset") == [
        "dataset.leave_out_items: 2 of 3 ids to leave out are in the data; first not found: '7'"
    ]
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"got 0 of 1 ids to leave out are in the data; .* '7'"):
        audit(tmp_path / "b", items(), 'dataset.leave_out_items=["7"]')
