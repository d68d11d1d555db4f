"""Oracle: made-up sweeps of which is known which component swings, creeps, and settles."""

import numpy as np

from labelops.proportions.components import Swept, sweep_until_settled
from labelops.proportions.edges import Edges

SWINGS, CREEPS, SETTLES, NEVER = range(4)


def settled(*, max_sweeps):
    """Four components of two bags of one item; the change of each follows its own law."""
    start = np.arange(9)
    edges = Edges(np.arange(0, 8, 2), np.arange(1, 8, 2), np.ones(4))
    change, seen = np.ones(4), []

    def sweep(bags, damping):
        seen.append((bags.tolist(), damping.tolist()))
        of_bag = dict(zip((bags // 2).tolist(), damping.tolist(), strict=True))
        for component, held in of_bag.items():
            factor = {SWINGS: 0.5 if held >= 0.8 else 1.0, CREEPS: 0.95, SETTLES: 0.01, NEVER: 1.0}
            change[component] *= factor[component]
        return Swept(change[bags // 2], np.zeros(len(bags)))

    convergence = sweep_until_settled(
        sweep, start, edges, damping=0.5, tolerance=1e-4, max_sweeps=max_sweeps
    )
    return convergence, seen


def test_damping__goes_up_where_messages_swing_and_only_there():
    convergence, seen = settled(max_sweeps=80)
    assert convergence.converged.tolist() == [True, True, True, False]
    assert convergence.damping.tolist() == [0.8, 0.5, 0.5, 0.9]
    # 0.5¹⁴ < 1e-4 after the first 80; 0.95¹⁸⁰ < 1e-4; three at least; all three rounds.
    assert convergence.n_sweeps.tolist() == [94, 180, 3, 240]
    # What has settled is left alone.
    assert seen[3][0] == [0, 1, 2, 3, 6, 7]
    assert seen[80] == ([0, 1, 2, 3, 6, 7], [0.8, 0.8, 0.5, 0.5, 0.8, 0.8])


def test_damping__that_was_asked_for_is_never_lowered():
    start, edges = np.arange(3), Edges(np.array([0]), np.array([1]), np.ones(1))
    convergence = sweep_until_settled(
        lambda bags, _: Swept(np.ones(len(bags)), np.zeros(len(bags))),
        start,
        edges,
        damping=0.95,
        tolerance=1e-4,
        max_sweeps=4,
    )
    assert (convergence.damping.tolist(), convergence.n_sweeps.tolist()) == ([0.95], [12])
    assert not convergence.converged[0]


def test_no_bags__settle_at_once():
    convergence = sweep_until_settled(
        lambda *_: Swept(np.zeros(0), np.zeros(0)),
        np.zeros(1, np.int64),
        Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)),
        damping=0.5,
        tolerance=1e-4,
        max_sweeps=4,
    )
    assert len(convergence.converged) == len(convergence.damping) == 0
