"""Lists of labels of the source: three states, and what cannot be used goes with its reason."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Sequence as ListOf

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.errors import LabelopsError
from pipelines.labels.columns import flat
from pipelines.plan import plan
from pipelines.recipe import parse_recipe
from tests.datasets import even, vectors, write_shards

RECIPE = 'stages = ["source"]\n[data]\nmax_bad_share = 1.0\n'


NAMED = 'classes = ["a", "b"]\nabsent_classes = "allow"\n'


def run(data: Path, out: Path, recipe: str = RECIPE) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        pipelines.run.run(parse_recipe(recipe, name="test"), data=str(data), out=str(out))
    return load_run(str(out))


def refusal(data: Path, out: Path, recipe: str = RECIPE) -> str:
    with pytest.raises(LabelopsError) as refused:
        run(data, out, recipe)
    return str(refused.value)


def source(folder: Path, labels: object, **columns: object) -> Path:
    table = pa.table({"item_id": np.arange(len(labels)), "labels": labels, **columns})  # type: ignore[arg-type]
    return write_shards(folder, table, [table.num_rows])


def sidecar(run: Run) -> pa.Table:
    return pq.read_table(Path(run.uri) / "source").drop_columns(["item_hash"])


def reasons(run: Run) -> dict[int, str]:
    table = pq.read_table(Path(run.uri) / "quarantine")
    return dict(
        zip(map(int, table["item_id"].to_pylist()), table["reason"].to_pylist(), strict=True)
    )


def census(run: Run) -> dict[str, list[int]]:
    found = run.context("source", run.layout()).own("census")
    return {name: values.tolist() for name, values in found.items()}


def test_lists__become_ids_sorted_and_once_and_empty_ones_are_legal(tmp_path: Path) -> None:
    data = source(tmp_path / "src", [["dog", "cat", "dog"], [], ["cow"]])
    found = run(data, tmp_path / "out")
    assert sidecar(found).to_pydict() == {"item_id": [0, 1, 2], "given_ids": [[0, 2], [], [1]]}
    assert census(found) == {"n_items": 3, "n_given": [1, 1, 1], "n_ruled_out": [2, 2, 2]}


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
@pytest.mark.parametrize("value", [pa.int8(), pa.uint64()])
def test_lists__of_any_integers_name_their_classes_by_number(
    tmp_path: Path, kind: object, value: pa.DataType
) -> None:
    lists = pa.array([[7, 3], [3]], pa.list_(pa.int64())).cast(kind(pa.int64()))  # type: ignore[operator]
    array = type(lists).from_arrays(lists.offsets, lists.flatten().cast(value))
    found = run(source(tmp_path / "src", array), tmp_path / "out")
    assert sidecar(found)["given_ids"].to_pylist() == [[0, 1], [0]]
    context = found.context("source", found.layout())
    assert context.classes == ("3", "7")
    assert context.labels(np.array([1, -1])).to_pylist() == [7, None]
    assert context.label_type == value


def test_negative_lists__make_three_states_and_null_is_nothing_said(tmp_path: Path) -> None:
    data = source(tmp_path / "src", [["a"], ["b", "c"], []], labels_negative=[["b"], None, ["a"]])
    found = run(data, tmp_path / "out")
    table = sidecar(found)
    assert table["given_ids"].to_pylist() == [[0], [1, 2], []]
    assert table["given_not_ids"].to_pylist() == [[1], [], [0]]
    assert census(found) == {"n_items": 3, "n_given": [1, 1, 1], "n_ruled_out": [1, 1, 0]}


def test_absent_labels_unknown__rule_nothing_out(tmp_path: Path) -> None:
    data = source(tmp_path / "src", [["a"], ["b"]])
    recipe = RECIPE + 'absent_labels = "unknown"\n'
    found = run(data, tmp_path / "out", recipe)
    assert sidecar(found)["given_not_ids"].to_pylist() == [[], []]
    assert census(found)["n_ruled_out"] == [0, 0]
    parsed = parse_recipe(recipe, name="test")
    stage = plan(parsed, data=str(data), out=str(tmp_path / "other")).stages[0]
    assert stage.writes == ("item_id", "item_hash", "given_ids", "given_not_ids")


def test_bad_lists__go_to_quarantine_with_reasons_and_the_others_stay_in_order(
    tmp_path: Path,
) -> None:
    labels = [["a"], None, ["a", "x"], ["a", "b"], ["b", None], ["b"], []]
    negative = [["b"], ["a"], [], ["b"], [], ["y"], []]
    data = source(tmp_path / "src", labels, labels_negative=negative)
    found = run(data, tmp_path / "out", RECIPE + NAMED)
    assert reasons(found) == {
        1: "no labels: labels is null",
        2: "class out of range: label 'x' is none of the 2 classes ('a', 'b')",
        3: "contradiction: 'b' is in labels and in labels_negative",
        4: "no label: labels has a null among its labels",
        5: "class out of range: label 'y' is none of the 2 classes ('a', 'b')",
    }
    assert sidecar(found).to_pydict() == {
        "item_id": [0, 6],
        "given_ids": [[0], []],
        "given_not_ids": [[1], []],
    }


def test_classes__come_from_class_label_metadata_of_lists(tmp_path: Path) -> None:
    features = Features(
        {"item_id": Value("int64"), "labels": ListOf(ClassLabel(names=["x", "y", "z"]))}
    )
    data = Dataset.from_dict({"item_id": [0, 1], "labels": [[2], [0]]}, features=features)
    (tmp_path / "src").mkdir()
    data.to_parquet(str(tmp_path / "src" / "a.parquet"))
    found = run(tmp_path / "src", tmp_path / "out", RECIPE + 'absent_classes = "allow"\n')
    assert sidecar(found)["given_ids"].to_pylist() == [[2], [0]]
    assert found.context("source", found.layout()).classes == ("x", "y", "z")


def test_classes__come_from_the_older_form_of_the_metadata_too(tmp_path: Path) -> None:
    described = {"labels": [{"names": ["x", "y"], "_type": "ClassLabel"}]}
    table = pa.table({"labels": [[1], [0]]})
    packed = json.dumps({"info": {"features": described}}).encode()
    (tmp_path / "src").mkdir()
    pq.write_table(
        table.replace_schema_metadata({b"huggingface": packed}), tmp_path / "src" / "a.parquet"
    )
    assert run(tmp_path / "src", tmp_path / "out").source.class_names == ("x", "y")


def test_a_class_everybody_has__is_legal(tmp_path: Path) -> None:
    found = run(source(tmp_path / "src", [["a"], ["a", "b"]]), tmp_path / "out")
    assert census(found)["n_given"] == [2, 1]
    one = run(source(tmp_path / "one", [["a"], ["a"]]), tmp_path / "out one")
    assert census(one) == {"n_items": 2, "n_given": [2], "n_ruled_out": [0]}


def test_a_class_nobody_has__is_refused_unless_allowed(tmp_path: Path) -> None:
    data = source(tmp_path / "src", [["a"], ["b"]], labels_negative=[["c"], []])
    assert refusal(data, tmp_path / "out") == (
        "source: every class must have an item; 1 of 3 have none: 'c'. Leave them out of "
        "data.classes, or set data.absent_classes = 'allow' if this is intended"
    )
    allowed = run(data, tmp_path / "allowed", RECIPE + 'absent_classes = "allow"\n')
    assert census(allowed)["n_given"] == [1, 1, 0]


def test_single_and_several_labels__in_one_data_set_are_refused(tmp_path: Path) -> None:
    data = source(tmp_path / "src", [["a"], ["b"]], label=["a", "b"])
    assert refusal(data, tmp_path / "out") == (
        "source: one of the columns 'label' and 'labels' was expected, of which each holds labels "
        "of another kind, the data has both. Map the other one away, for example "
        "data.columns = { unused = 'label' }"
    )
    mapped = run(data, tmp_path / "mapped", RECIPE + "columns = { unused = 'label' }\n")
    assert "given_ids" in sidecar(mapped).column_names


def test_only_negative_lists__are_refused(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", pa.table({"labels_negative": [["a"], ["b"]]}), [2])
    assert refusal(data, tmp_path / "out") == (
        "source: column 'labels' was expected beside 'labels_negative', there is none. Map the "
        "column with the classes that items have to it in data.columns"
    )


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            ["a", "b"],
            "source: column 'labels' must hold lists of integers or strings, got string. A single "
            "class per item goes into 'label'",
        ),
        (
            [[0.5], [1.5]],
            "source: column 'labels' must hold classes, integers or strings, got double with "
            "values that are no whole numbers (Float value 0.500000 was truncated converting to "
            "int64). If they are ratings, they go into 'score_mean'; if they are classes, write "
            "them as integers or strings",
        ),
        (
            pa.array([[], []], pa.list_(pa.string())),
            "source: lists with labels were expected in 'labels', all of them are empty. Was the "
            "wrong column mapped to it? Classes that nobody has can be named in data.classes",
        ),
    ],
)
def test_what_is_no_list_of_labels__is_refused(tmp_path: Path, labels: object, said: str) -> None:
    assert refusal(source(tmp_path / "src", labels), tmp_path / "out") == said


def test_lists_of_two_kinds__are_refused(tmp_path: Path) -> None:
    data = source(tmp_path / "src", [["a"], ["b"]], labels_negative=[[1], [2]])
    assert refusal(data, tmp_path / "out") == (
        "source: columns 'labels' and 'labels_negative' must hold the same kind of labels, got "
        "list<element: string> and list<element: int64>. Convert one of them"
    )


def test_nobody_has_any_label__is_refused_though_classes_are_named(tmp_path: Path) -> None:
    data = source(tmp_path / "src", pa.array([[], []], pa.list_(pa.string())))
    recipe = RECIPE + 'classes = ["a"]\nabsent_classes = "allow"\n'
    assert refusal(data, tmp_path / "out", recipe) == (
        "source: items with labels were expected, all lists in 'labels' are empty. Was the wrong "
        "column mapped to it?"
    )


def test_probabilities_of_another_width__are_refused(tmp_path: Path) -> None:
    probs = vectors(np.full((2, 3), 0.5, np.float32))
    data = source(tmp_path / "src", [["a"], ["b"]], pred_probs=probs)
    assert refusal(data, tmp_path / "out") == (
        "source: pred_probs must have one column for each class; 2 classes were expected ('a', "
        "'b'), got 3 columns. Name the classes of the model in data.classes, in the order of its "
        "outputs"
    )


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_result__does_not_depend_on_the_shards(tmp_path: Path, shards: int) -> None:
    rng = np.random.default_rng(0)
    labels = [[f"c{k}" for k in np.flatnonzero(row)] for row in rng.random((40, 6)) < 0.3]
    table = pa.table({"item_id": np.arange(40), "labels": pa.array(labels)})
    data = write_shards(tmp_path / "src", table, even(40, shards))
    found = sidecar(run(data, tmp_path / "out"))
    assert [[f"c{k}" for k in ids] for ids in found["given_ids"].to_pylist()] == labels


def test_flat__reads_slices_nulls_and_chunks() -> None:
    whole = pa.array([[1, 2], None, [], [3]])
    chunked = pa.chunked_array([whole.slice(1, 2), whole.slice(3)])
    values, start = flat(chunked)
    assert (values.to_pylist(), start.tolist()) == ([3], [0, 0, 0, 1])
    none, start = flat(pa.chunked_array([], pa.list_(pa.int64())))
    assert (len(none), start.tolist()) == (0, [0])
