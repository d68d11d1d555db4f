"""Budgets for labels: what a pilot file says, and the purchase that follows from it."""

import csv
import io
import tomllib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, model_validator

from labelops.distill.budget import Accuracy, Plan, label_worth, plan_budget, weak_accuracy
from labelops.distill.learning_curves import Runs
from pipelines.errors import DataError
from pipelines.recipe import check_table
from pipelines.storage.address import check_secrets
from pipelines.storage.files import RECIPE_BYTES, open_named
from pipelines.storage.wording import did_you_mean, shown, why

MOST = 2**53
"""Numbers of labels and items are below it, and exact as floats."""

REGIMES = {
    "quantity": "cheap labels only",
    "mixed": "both kinds, the student learns from the cheap ones first",
    "quality": "an expert's labels only",
}

Table = dict[str, Any]


class Prices(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Of a label."""

    weak: float = Field(gt=0, description="Of a cheap label.")
    expert: float = Field(gt=0, description="Of an expert's.")


class Training(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A run of the pilot: a student trained on some labels and tested on the held-out items."""

    weak: int = Field(default=0, ge=0, lt=MOST, description="Cheap labels it was trained on.")
    expert: int = Field(
        default=0, ge=0, lt=MOST, description="An expert's labels, of other items, after those."
    )
    error: float = Field(ge=0, le=1, description="Share of the held-out items it got wrong.")


class Checked(BaseModel, frozen=True, extra="forbid"):
    """Cheap labels of items that an expert labelled, too."""

    labels: int = Field(ge=1, lt=MOST, description="How many.")
    right: int = Field(ge=0, lt=MOST, description="How many of them the expert agrees with.")

    @model_validator(mode="after")
    def _check(self) -> "Checked":
        if self.right > self.labels:
            raise ValueError(
                f"at most as many right as labels were expected, got {self.right} of {self.labels}"
            )
        return self


class Pilot(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A pilot, and what may be bought."""

    budget: float = Field(gt=0, description="What may be spent on labels from now on.")
    currency: str = Field(default="", description="For people, such as EUR.")
    items: int = Field(ge=1, lt=MOST, description="Items that may be labelled, each once.")
    held_out: int = Field(
        ge=1, lt=MOST, description="Items with an expert's labels that errors were counted on."
    )
    prices: Prices
    runs: tuple[Training, ...]
    checked: Checked | None = None


@dataclass(frozen=True)
class BudgetPlan:
    """What to buy, with what it was planned from.

    Attributes
    ----------
    pilot : as it was read.
    plan : the best purchase, and what is known of it.
    accuracy : of cheap labels, where some were checked.
    """

    pilot: Pilot
    plan: Plan
    accuracy: Accuracy | None

    def text(self) -> str:
        """Return the plan for a terminal."""
        plan, prices = self.plan, self.pilot.prices
        unit = self.pilot.currency or "unit of money"
        lines = [
            f"for {self._money(plan.best.budget)}, a cheap label at {self._money(prices.weak)}, an "
            f"expert's at {self._money(prices.expert)}, of {self.pilot.items:,} items at most",
            f"buy {plan.best.n_weak:,} cheap labels and {plan.best.n_expert:,} of an expert: "
            f"{REGIMES[plan.regime]}",
            f"  expected accuracy  {plan.best.accuracy:.3f}, 95 % interval {plan.low:.3f} … "
            f"{plan.high:.3f}",
            f"  how sure           {plan.support:.0%} of pilots drawn like this one say the same "
            "kind of purchase",
            f"  one {unit} more brings {plan.more_weak:+.2g} accuracy by cheap labels, "
            f"{plan.more_expert:+.2g} by an expert's",
            f"  break-even         {self._break_even()}",
            *self._of_checked(),
        ]
        if plan.is_extrapolated:
            lines.append(
                "  note: more or fewer labels of a kind than in any run of the pilot; how curves "
                "go on there, the interval does not know. Buy a part, train, add the run to the "
                "pilot, and plan again"
            )
        lines.append(f"  {'budget':>12} {'cheap':>10} {'expert':>10}  accuracy")
        lines += [
            f"  {p.budget:>12,.2f} {p.n_weak:>10,} {p.n_expert:>10,}  {p.accuracy:.3f}"
            for p in plan.frontier
            if p.n_weak + p.n_expert
        ]
        return "\n".join(lines)

    def _money(self, sum_: float) -> str:
        return f"{sum_:,.10g} {self.pilot.currency}".rstrip()

    def _break_even(self) -> str:
        found, most = self.plan.break_even, self.pilot.prices.expert
        if found == 0:
            return "cheap labels are bought at no price"
        if found >= most:
            return "cheap labels are bought up to the price of an expert's"
        return f"cheap labels are bought up to {self._money(float(f'{found:.3g}'))} each"

    def _of_checked(self) -> list[str]:
        found, prices = self.accuracy, self.pilot.prices
        if found is None:
            return []
        share, low, high = (float(x[0]) for x in found[1:])
        worth = float(label_worth(np.array(1 - share)))
        return [
            f"  cheap labels       {share:.3f} are right ({low:.3f} … {high:.3f}, of "
            f"{found.n[0]:,}); of two classes and wrong by chance, one is worth {worth:.2f} of an "
            f"expert's, at {prices.weak / prices.expert:.2g} of the price"
        ]

    def to_dict(self) -> Table:
        """Return the plan for programs, as JSON has it."""
        plan, found = self.plan, self.accuracy
        curves = {
            name: {
                "floor": float(curve.floor[0]),
                "rise": float(curve.rise[0]),
                "power": float(curve.power[0]),
                "first": curve.first,
            }
            for name, curve in (("weak", plan.pilot.weak), ("expert", plan.pilot.expert))
        }
        return {
            **plan.best._asdict(),
            "regime": plan.regime,
            "accuracy_low": plan.low,
            "accuracy_high": plan.high,
            "support": plan.support,
            "is_extrapolated": bool(plan.is_extrapolated),
            "break_even": plan.break_even,
            "accuracy_per_money": {"weak": plan.more_weak, "expert": plan.more_expert},
            "frontier": [purchase._asdict() for purchase in plan.frontier],
            "curves": {**curves, "lasting": float(plan.pilot.lasting[0])},
            "weak_labels_right": None
            if found is None
            else {name: x[0].item() for name, x in found._asdict().items()},
            "prices": self.pilot.prices.model_dump(),
            "currency": self.pilot.currency,
        }


def read_pilot(path: str) -> Pilot:
    """Read a pilot from TOML; its runs may stand in a CSV file beside it.

    Parameters
    ----------
    path
        Of the file, or its address.

    Raises
    ------
    DataError
        If it cannot be read, or runs are no table with columns weak, expert and error.
    RecipeError
        If a key is not known, is missing, or has a value that cannot be.
    """
    check_secrets(path, "pilot")
    try:
        tables = tomllib.loads(_read(path, "TOML"))
    except (ValueError, RecursionError) as err:
        raise DataError(f"pilot: TOML was expected in {path}, got: {why(err)}") from err
    runs = tables.get("runs")
    if isinstance(runs, str):
        tables["runs"] = _csv_rows(_beside(path, runs))
    pilot: Pilot = check_table(Pilot, tables, "pilot", path)
    return pilot


def plan_pilot(path: str) -> BudgetPlan:
    """Read a pilot from `path` and say what to buy.

    Raises
    ------
    DataError, RecipeError
        As `read_pilot`; or if nothing can be learned from the runs, or the budget buys no label.
    """
    pilot = read_pilot(path)
    runs = Runs(
        np.array([run.weak for run in pilot.runs], np.int64),
        np.array([run.expert for run in pilot.runs], np.int64),
        np.array([run.error for run in pilot.runs], np.float64),
    )
    try:
        plan = plan_budget(
            runs,
            n_test=pilot.held_out,
            budget=pilot.budget,
            price_weak=pilot.prices.weak,
            price_expert=pilot.prices.expert,
            n_items=pilot.items,
            rng=np.random.default_rng(0),
        )
    except ValueError as err:
        raise DataError(f"{err}; in {path}") from err
    found = None
    if pilot.checked is not None:
        right = np.arange(pilot.checked.labels) < pilot.checked.right
        found = weak_accuracy(right, np.zeros(len(right), np.int64), n_groups=1)
    return BudgetPlan(pilot, plan, found)


def _read(path: str, kind: str) -> str:
    try:
        store, leaf = open_named(path, most=RECIPE_BYTES)
        return store.read_bytes(leaf).decode("utf-8-sig")
    except Exception as err:
        # Every file system has errors of its own.
        raise DataError(
            f"pilot: a readable {kind} file was expected at {path}, got: {why(err)}"
        ) from err


def _beside(path: str, name: str) -> str:
    """Return where a file lies that another one names."""
    if "://" in name or name.startswith("/"):
        return name
    folder = path.rpartition("/")[0]
    return f"{folder}/{name}" if folder or path.startswith("/") else name


def _csv_rows(path: str) -> list[Table]:
    """Return rows of text by the names of their columns; empty cells are left out."""
    known = list(Training.model_fields)
    if PurePosixPath(path).suffix.lower() != ".csv":
        raise DataError(
            f"pilot: runs, or the name of a .csv file, were expected, got {shown(path)}"
        )
    check_secrets(path, "pilot")
    reader = csv.DictReader(io.StringIO(_read(path, "CSV")), skipinitialspace=True, strict=True)
    try:
        rows = list(reader)
    except csv.Error as err:
        raise DataError(f"pilot: CSV was expected in {path}, got: {why(err)}") from err
    for name in reader.fieldnames or ():
        if name not in known:
            raise DataError(
                f"pilot: columns {known} were expected, got {shown(name)}"
                f"{did_you_mean(name, known)} In {path}"
            )
    for number, row in enumerate(rows, 1):
        if None in row:
            raise DataError(f"pilot: row {number} of {path} has more cells than there are columns")
    return [{name: cell for name, cell in row.items() if cell} for row in rows]
