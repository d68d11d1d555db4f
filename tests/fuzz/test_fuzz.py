"""A little of the fuzzing with every run of the tests; `make fuzz` does the rest."""

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import fuzz


@pytest.mark.parametrize(("kind", "n"), [("parquet", 120), ("recipes", 300), ("pictures", 400)])
def test_damaged_input__is_read_or_refused_with_a_message_of_ours(kind: str, n: int) -> None:
    tried = fuzz(kind, 0, n)
    assert tried.bad == {}
    assert tried.n_ok + tried.n_refused == n
    # Damage that is always noticed, or never, would be no test.
    assert min(tried.n_ok, tried.n_refused) > n // 50


def test_harness__sees_deaths_hangs_and_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "DEADLINE_S", 15.0)
    for limits in (harness.MEMORY, harness.PEAK_KB):
        monkeypatch.setitem(limits, "faulty", 4 << 30)
    tried = fuzz("faulty", 0, 6)
    assert sorted(tried.bad) == [1, 2, 3]
    assert "died (-11)" in tried.bad[1] or "died (-6)" in tried.bad[1]
    assert "hung for more than 15 s" in tried.bad[2]
    assert tried.bad[3].startswith("KeyError: 'x'")
    assert (tried.n_ok, tried.n_refused) == (2, 1)
