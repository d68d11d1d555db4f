"""Oracles: every byte of a checkpoint matters; refusals name what differs."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from labelops.nn.checkpoints import (
    MAGIC,
    Progress,
    TornError,
    differences,
    dump,
    load,
    newest_whole,
    restore,
)

RECIPE = {"seed": 0, "batch_rows": 32, "about": {"loss": "kd"}}


def progress(step: int = 0, *, n_classes: int = 2, tied: bool = False, **changes: Any) -> Progress:
    """A training whose every number depends on how many steps it has taken."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, n_classes))
    if tied:
        model[2].weight = model[0].weight
    adamw = torch.optim.AdamW(model.parameters(), lr=0.1)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    x = torch.arange(6.0).reshape(3, 2)
    for _ in range(step):
        adamw.zero_grad()
        model(x).square().sum().backward()
        adamw.step()
    average = {name: value / 3 for name, value in model.state_dict().items()}
    recipe = {**RECIPE, **changes}
    return Progress(
        model=model, optimiser=adamw, average=average, recipe=recipe, n_steps=9, step=step
    )


@pytest.mark.parametrize("tied", [False, True])
def test_restore__brings_back_every_tensor_bit_for_bit(tied: bool) -> None:
    before = progress(3, tied=tied)
    data = dump(before)
    now = progress(tied=tied)
    restore(now, load(data))
    assert now.step == 3
    assert dump(now) == data
    assert b"pickle" not in data
    state = now.optimiser.state_dict()["state"]
    assert float(state[0]["step"]) == 3
    assert torch.equal(state[0]["exp_avg"], before.optimiser.state_dict()["state"][0]["exp_avg"])


def test_load__refuses_any_changed_byte_and_any_cut() -> None:
    data = dump(progress(1))
    for at in np.linspace(0, len(data) - 1, 40).astype(int):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(TornError):
            load(bytes(changed))
        with pytest.raises(TornError):
            load(data[:at])
    with pytest.raises(TornError, match=r"that fit their checksum were expected, these \d+ do not"):
        load(data[:-1])
    with pytest.raises(TornError, match=r"got 0 that begin otherwise$"):
        load(b"")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff" * 20, safetensors.torch.save({"model.a": torch.zeros(1)})],
    ids=["empty", "no tensors", "no recipe"],
)
def test_load__refuses_what_has_a_checksum_and_nothing_else(body: bytes) -> None:
    with pytest.raises(TornError, match=r"tensors and a recipe were expected, got "):
        load(MAGIC + hashlib.sha256(body).digest() + body)


def test_newest_whole__takes_the_one_before_a_torn_one_and_reads_no_further() -> None:
    newest, before = dump(progress(3)), dump(progress(2))
    read = []

    def stored() -> Any:
        for data in (newest[: len(newest) // 2], before, b"never read"):
            read.append(len(data))
            yield data

    found = newest_whole(stored())
    assert found is not None
    assert found.step == 2
    assert len(read) == 2
    assert newest_whole([]) is None


def test_restore__names_what_differs_in_the_recipe() -> None:
    now = progress(batch_rows=64, about={"loss": "ce"}, flip=True)
    with pytest.raises(ValueError, match=r"^resume: the recipe of the checkpoint") as refused:
        restore(now, load(dump(progress(1))))
    said = str(refused.value)
    assert (
        'about: {"loss": "kd"} → {"loss": "ce"}; batch_rows: 32 → 64; flip: absent → true' in said
    )
    assert "seed" not in said
    assert now.step == 0


def test_restore__names_what_differs_in_the_model() -> None:
    now = progress(n_classes=4)
    assert now.average is not None
    now.average |= {"more": torch.zeros(1), "most": torch.zeros(1)}
    before = load(dump(progress(1)))
    with pytest.raises(ValueError, match=r"model\.2\.bias: \[2\] → \[4\]; .* and 1 more$"):
        restore(now, before)
    assert now.step == 0


def test_differences__sees_what_json_sees() -> None:
    recipe = {"rate": 0.1, "betas": (0.9, 0.999), "name": "Zürich"}
    assert differences(json.loads(json.dumps(recipe)), recipe) == []
    assert differences(recipe, {**recipe, "rate": 0.1 + 2**-58}) == []
    assert differences(recipe, {**recipe, "rate": 0.1 + 2**-56})[0].startswith("rate: 0.1 → 0.1000")


def test_dump__a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(progress(rate=float("nan")))
