"""Seals: no bit of a sealed file can change unnoticed, and what is sealed stays what it was."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.results import (
    artifact_name,
    check_result,
    load_result,
    result_name,
    save_result,
)
from pipelines.errors import CorruptShardError
from pipelines.storage.seal import (
    JSON,
    PAGE,
    Form,
    SealError,
    check_seal,
    dump_sealed,
    load_sealed,
    make_seal,
)
from pipelines.storage.store import LocalStore

VALUES = [{}, {"a": 1}, {"b": {"c": [1, 2, {}]}, "a": "é \u2028"}, {"nested": {}}]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("value", VALUES)
def test_sealed_json__is_json_and_comes_back(value: dict[str, object], indent: int | None) -> None:
    data = dump_sealed(value, indent=indent)
    assert load_sealed(data) == value
    plain = json.loads(data)
    assert len(plain.pop("seal")) == 64
    assert plain == value
    assert data == dump_sealed(dict(reversed(value.items())), indent=indent)


@pytest.mark.parametrize("form", [JSON, PAGE])
def test_every_flipped_bit_and_every_cut__is_noticed(form: Form) -> None:
    head = b'{"a": 1,\n'
    good = head + make_seal(head, form)
    check_seal(good, form)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            check_seal(bytes(bad), form)
    for end in range(len(good)):
        with pytest.raises(SealError):
            check_seal(good[:end], form)
    with pytest.raises(SealError):
        check_seal(good + b"\n", form)


def test_unsealed_json__is_damaged() -> None:
    with pytest.raises(SealError):
        load_sealed(b'{"a": 1}\n')


def test_sealed_result__opens_with_numpy_and_no_bit_of_it_can_flip(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    arrays = {"x": np.arange(5.0), "empty": np.zeros((0, 3), np.int8)}
    digest = save_result(store, "stage", "step", arrays)
    good = store.read_bytes(result_name("stage", "step"))
    with np.load(io.BytesIO(good), allow_pickle=False) as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            name: array.tolist() for name, array in arrays.items()
        }
    assert check_result(store, "stage", "step") == (digest, {})
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            check_seal(bytes(bad), JSON)
    store.write_atomic(result_name("stage", "step"), bytes(bad))
    with pytest.raises(CorruptShardError, match=r"delete the folder .*/stage and give"):
        load_result(store, "stage", "step")


def test_result_of_another_step__is_not_taken_for_the_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    save_result(store, "stage", "one", {"x": np.zeros(2)})
    save_result(store, "stage", "other", {"x": np.ones(2)})
    store.write_atomic(result_name("stage", "one"), store.read_bytes(result_name("stage", "other")))
    with pytest.raises(CorruptShardError, match="it is the result of stage/other"):
        load_result(store, "stage", "one")


def test_result__the_first_one_written_counts(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = save_result(store, "stage", "step", {"x": np.zeros(2)})
    assert save_result(store, "stage", "step", {"x": np.ones(2)}) == first
    assert load_result(store, "stage", "step")["x"].tolist() == [0, 0]


def test_artifact__is_named_by_its_content_in_the_comment(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    save_result(store, "stage", "step", {}, {"net.pt": "ab" * 16})
    with zipfile.ZipFile(io.BytesIO(store.read_bytes(result_name("stage", "step")))) as archive:
        assert json.loads(archive.comment)["artifacts"] == {"net.pt": "ab" * 16}
    target = artifact_name("stage", "step", "net.pt", "ab" * 16)
    with pytest.raises(CorruptShardError, match=f"{target} was written with .* found no file"):
        check_result(store, "stage", "step")
