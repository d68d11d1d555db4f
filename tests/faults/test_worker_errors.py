"""Errors on worker processes: what they say reaches the user as if there were no processes."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines.registry
import pipelines.run
from pipelines.core.cluster import ClusterWorkers
from pipelines.core.failure import MAX_TEXT, record
from pipelines.core.graph import ThreadWorkers, open_workers
from pipelines.errors import LabelopsError
from pipelines.recipe import parse_recipe
from tests.datasets import blobs, write_shards
from tests.faults.chores import ERRORS, Stubborn, fail, memory

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ClusterWorkers]:
    with open_workers(workers=1) as pool:
        assert isinstance(pool, ClusterWorkers)
        yield pool


def causes(error: BaseException) -> list[BaseException]:
    """Return the chain of causes; fails where it leads back into itself."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        assert not any(cause is earlier for earlier in chain)
        chain.append(cause)
        cause = cause.__cause__
    return chain


def said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except RuntimeError:
        return f"{type(error).__name__}: {type(error).__name__}, which cannot be printed"


@pytest.mark.parametrize("kind", ERRORS)
def test_error_on_a_worker__is_that_of_a_direct_run_at_once_and_costs_no_memory(
    pool: ClusterWorkers, kind: str
) -> None:
    with pytest.raises(Exception) as direct:  # noqa: PT011
        list(ThreadWorkers(1).map(fail, [kind]))
    (before,) = pool.client.run(memory).values()
    began = time.monotonic()
    with pytest.raises(Exception) as found:  # noqa: PT011
        list(pool.map(fail, [kind] * 3))
    assert time.monotonic() - began < 30
    assert said(found.value)[: MAX_TEXT - 100] == said(direct.value)[: MAX_TEXT - 100]
    # What the command line and the flow decide by.
    for group in (LabelopsError, OSError, MemoryError, LookupError, ValueError):
        assert isinstance(found.value, group) == isinstance(direct.value, group)
        if direct.value.__cause__ is direct.value:
            continue
        assert isinstance(found.value.__cause__, group) == isinstance(direct.value.__cause__, group)
    assert getattr(found.value, "errno", None) == getattr(direct.value, "errno", None)
    causes(found.value)
    time.sleep(1.0)
    (after,) = pool.client.run(memory).values()
    # An error of 30 MB is made, and let go of.
    assert after - before < 100e6
    assert list(pool.map(len, ["next"])) == [4]


def test_error_on_a_worker__tells_those_who_mend_it_where(pool: ClusterWorkers) -> None:
    with pytest.raises(KeyError) as found:
        list(pool.map(fail, ["key"]))
    (note,) = found.value.__notes__
    assert note.startswith("on worker tls://127.0.0.1:")
    assert "chores.py" in note
    assert "raise ERRORS[kind]()" in note


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_record__of_any_chain_of_causes_is_short_and_straight(length: int) -> None:
    errors = [ValueError(f"error {i}") for i in range(length)]
    for i, error in enumerate(errors):
        error.__cause__ = errors[(i + 1) % length]
    again = record(errors[0]).error()
    assert [str(error) for error in causes(again)] == [f"error {i}" for i in range(min(length, 8))]


def test_record__holds_text_only() -> None:
    found = record(Stubborn("folder", 3))
    assert found.names[:2] == ("Stubborn", "Exception")
    assert found.text == "('folder', 3)"
    assert isinstance(found.error(), Exception)


@pytest.mark.parametrize("fail", ["io", "data", "bug"])
def test_error_in_a_direct_run__is_not_its_own_cause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fail: str
) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "nap", "tests.flows.toy:STAGE")
    recipe = parse_recipe(f'stages = ["source", "nap"]\n[nap]\nfail = "{fail}"\n', name="nap")
    data = write_shards(tmp_path / "data", blobs(60), [20, 40])
    with pytest.raises(LabelopsError) as found:
        pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "run"))
    causes(found.value)
