"""Whether the planner of labels buys well, on real tables with cheap labels by a small model.

    python benchmarks/budget.py --tables FOLDER [--sets magic adult spambase] [--seeds 10]
        [--prices 0.02 0.1 0.5] [--budgets 50 200 800]

FOLDER has the tables of `harm.py` and `magic`. Tasks have two classes; cheap labels are those of
histogram trees that were trained on 150 items; the student is a logistic regression of scaled
features, held back toward zero on cheap labels, then toward what it learned from them on an
expert's. The pilot is one training of each of 5 sizes of cheap labels (80 … 1 280), 4 of an
expert's (20 … 160), and 4 with both, tested on 1 000 items. Then, for every price of a cheap label
(an expert's costs 1) and budget, the purchase that `plan_budget` recommends is bought of other
items, and so are others of the same cost: an expert's labels only, cheap ones only, half of the
money each; and, with hindsight, the best of those and of 5, 20, 80 and 95 % of the money for cheap
ones. All are tested on the same 3 000 other items, and trained three times.

Printed, over seeds, ± half a 95 % interval: accuracies of the purchases, and how often the
planner's interval holds the accuracy of what it bought.
"""

import argparse
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import read_table, trees

from labelops.distill.budget import plan_budget
from labelops.distill.learning_curves import Runs

WEAK, EXPERT = (80, 160, 320, 640, 1280), (20, 40, 80, 160)
PILOT = [(w, 0) for w in WEAK] + [(0, o) for o in EXPERT]
PILOT += [(160, 20), (160, 80), (640, 40), (640, 160)]
SHARES = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
N_TAUGHT, N_PILOT, N_TEST, REPEATS = 150, 1000, 3000, 3
STRENGTH = 3.0


def fit(x: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return a logistic regression held back toward a start, by Newton steps of bounded length."""
    w = start.copy()
    for _ in range(25):
        p = expit(x @ w)
        slope = x.T @ (p - y) + STRENGTH * (w - start)
        step = np.linalg.solve(
            (x * (p * (1 - p))[:, None]).T @ x + STRENGTH * np.eye(len(w)), slope
        )
        w = w - step * min(1.0, 5.0 / (np.linalg.norm(step) + 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    return w


def table(folder: Path, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scaled numbers with a constant, and which of the two classes."""
    x, y = read_table(folder, name, seed, 20_000)
    x = x.astype(np.float64)
    std = x.std(axis=0)
    x = np.clip((x[:, std > 0] - x[:, std > 0].mean(axis=0)) / std[std > 0], -5, 5)
    return np.column_stack([x, np.ones(len(x))]), (y == y.max()).astype(np.float64)


class Market:
    """Items of one table, in an order of their own, with both kinds of label."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        x, y = table(folder, name, seed)
        order = self.rng.permutation(len(x))
        ends = np.cumsum([N_TAUGHT, N_PILOT, min(N_TEST, len(x) // 4)])
        taught, self.pilot, self.test, self.pool = np.split(order, ends)
        teacher = trees().fit(x[taught], y[taught])
        self.x, self.y, self.weak = x, y, teacher.predict(x)

    def error(self, n_weak: int, n_expert: int, test: np.ndarray) -> float:
        """Return the error of a student with so many labels of items drawn anew."""
        rows = self.rng.permutation(self.pool)[: n_weak + n_expert]
        w = np.zeros(self.x.shape[1])
        for part, label in ((rows[:n_weak], self.weak), (rows[n_weak:], self.y)):
            if len(part):
                w = fit(self.x[part], label[part], w)
        return float(((self.x[test] @ w > 0) != self.y[test]).mean())


def measure(market: Market, price: float, budget: float, runs: Runs) -> dict[str, float]:
    """Return accuracies of purchases."""
    n_items = len(market.pool)
    plan = plan_budget(
        runs, n_test=N_PILOT, budget=budget, price_weak=price, price_expert=1.0, n_items=n_items,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    bought = {"planned": (plan.best.n_weak, plan.best.n_expert)}
    for share in SHARES:
        n_weak = min(int(share * budget / price), n_items)
        bought[f"{share:.0%} weak"] = (n_weak, min(int((1 - share) * budget), n_items - n_weak))
    found = {
        name: 1 - float(np.mean([market.error(*n, market.test) for _ in range(REPEATS)]))
        for name, n in bought.items()
    }
    best = max(value for name, value in found.items() if name != "planned")
    kept = {k: found[k] for k in ("planned", "0% weak", "50% weak", "100% weak")}
    return {
        **kept,
        "hindsight": best,
        "held": float(plan.low <= found["planned"] <= plan.high),
        "width": plan.high - plan.low,
        plan.regime: 1.0,
    }


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["magic", "adult", "spambase"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--prices", nargs="+", type=float, default=[0.02, 0.1, 0.5])
    parser.add_argument("--budgets", nargs="+", type=float, default=[50, 200, 800])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    everything = []
    for name in args.sets:
        rows = defaultdict(list)
        for seed in range(args.seeds):
            market = Market(args.tables, name, seed)
            errors = [market.error(*n, market.pilot) for n in PILOT]
            runs = Runs(
                *(np.array(column) for column in zip(*PILOT, strict=True)), np.array(errors)
            )
            right = float((market.weak == market.y)[market.pool].mean())
            for price in args.prices:
                for budget in args.budgets:
                    row = measure(market, price, budget, runs)
                    rows[price, budget].append({**row, "teacher": right})
        for (price, budget), cell in rows.items():
            show(f"{name}, price {price:g}, budget {budget:g}", cell)
            everything += cell
    show("all", everything)


def show(title: str, rows: list[dict[str, float]]) -> None:
    """Print means with intervals."""
    whole = pd.DataFrame(rows).fillna(0.0)
    half = stats.t.ppf(0.975, max(len(whole) - 1, 1)) * whole.sem()
    print(f"\n{title}: {len(whole)} plans")
    print("   ", "  ".join(f"{c} {whole[c].mean():.3f} ± {half[c]:.3f}" for c in whole), flush=True)


if __name__ == "__main__":
    main()
