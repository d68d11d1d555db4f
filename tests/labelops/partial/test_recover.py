"""What is proposed about unlabelled items, case by case."""

import numpy as np

from labelops.decisions import UNSAID, WHOLE, Action
from labelops.partial.recover import RecoverPolicy, propose, rules

POLICY = RecoverPolicy(0.9, 0.5)


def said(p: float, cautious: float, state: int = -1, *, is_weak: bool = False) -> tuple[str, str]:
    found = propose(
        np.array([p]), np.array([cautious]), np.array([state]), is_weak=is_weak, policy=POLICY
    )
    return Action(found.action[0]).name, rules(POLICY)[found.rule[0]].name


def test_every_case() -> None:
    assert said(0.99, 0.99) == ("RELABEL", "recover-0.99")
    assert said(0.99, 0.95) == ("RELABEL", "recover-0.95")
    assert said(0.99, 0.9) == ("RELABEL", "recover-0.9")
    assert said(0.99, 0.89) == ("RELABEL", "recover-unsure")
    assert said(0.89, 0.89) == ("REVIEW", "positive-unsure")
    assert said(0.99, 0.99, is_weak=True) == ("REVIEW", "positive-weak")
    assert said(0.5, 0.0) == ("REVIEW", "positive-unsure")
    assert said(0.49, 0.0) == ("KEEP", "no-issue")
    assert said(1.0, 1.0, 1) == ("KEEP", "no-issue")
    assert said(0.0, 0.0, 0) == ("KEEP", "no-issue")


def test_proposals__promise_what_the_cautious_probability_does() -> None:
    found = propose(
        np.array([0.97, 0.6, 1.0]),
        np.array([0.93, 0.2, 1.0]),
        np.array([-1, -1, 1]),
        is_weak=False,
        policy=POLICY,
    )
    np.testing.assert_allclose(found.p_after, [0.93, 0.6, 1.0])
    np.testing.assert_allclose(found.p_before, [0.07, 0.4, 1.0])
    assert found.slot.tolist() == [WHOLE] * 3
    assert found.before.tolist() == [UNSAID, UNSAID, 1]
    assert found.after.tolist() == [1, 1, 1]


def test_no_item() -> None:
    none = np.zeros(0)
    assert len(propose(none, none, none, is_weak=False, policy=POLICY).row) == 0
