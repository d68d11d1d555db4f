"""Oracles: planted learning curves in closed form, every purchase tried; words for bad files."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import DataError, LabelopsError, RecipeError
from pipelines.students.budget import BudgetPlan, plan_pilot, read_pilot

SIZES = (20, 40, 80, 160, 320)
ROOT = Path(__file__).resolve().parents[2]


def weak_error(n: np.ndarray) -> np.ndarray:
    return 0.15 + 0.8 * n**-0.5


def expert_error(n: np.ndarray) -> np.ndarray:
    return 1.5 * n**-0.5


def both_error(n_weak: np.ndarray, n_expert: np.ndarray, lasting: float) -> np.ndarray:
    """Return the planted error: cheap labels stand for so many of an expert's as are as good."""
    of_weak = np.maximum(weak_error(np.maximum(n_weak, 1)), expert_error(np.maximum(n_weak, 1)))
    of_weak = np.where(n_weak > 0, np.minimum(of_weak, 1), 1)
    worth = np.where(n_weak > 0, (1.5 / of_weak) ** 2, 0)
    total = n_expert + lasting * np.minimum(worth, n_weak)
    of_both = np.where(total > 0, np.minimum(expert_error(np.maximum(total, 1e-9)), 1), 1)
    return np.minimum(of_weak, of_both)


def planted(lasting: float | None) -> list[tuple[int, int, float]]:
    # Sizes where cheap labels are worse than as many of an expert's, so that both curves are seen.
    rows = [(4 * n, 0, float(both_error(np.array(4 * n), np.array(0), 0))) for n in SIZES]
    rows += [(0, n, float(both_error(np.array(0), np.array(n), 0))) for n in SIZES]
    if lasting is not None:
        rows += [
            (n, m, float(both_error(np.array(n), np.array(m), lasting)))
            for n in (160, 640)
            for m in (20, 80)
        ]
    return rows


def pilot(
    folder: Path,
    rows: list[tuple[int, int, float]],
    *,
    budget: float = 100,
    weak: float = 0.1,
    more: str = "",
) -> str:
    runs = ", ".join(f"{{weak = {w}, expert = {o}, error = {e!r}}}" for w, o, e in rows)
    path = folder / "pilot.toml"
    path.write_text(
        f"budget = {budget}\nitems = 2000\nheld_out = 5000\nruns = [{runs}]\n"
        f"prices = {{weak = {weak}, expert = 1.0}}\n{more}"
    )
    return str(path)


@pytest.mark.parametrize("lasting", [None, 0.0, 0.5])
@pytest.mark.parametrize(("budget", "price"), [(8, 0.1), (40, 0.1), (90, 0.02), (300, 0.3)])
def test_plan__is_the_best_of_all_purchases(
    tmp_path: Path, lasting: float | None, budget: float, price: float
) -> None:
    found = plan_pilot(pilot(tmp_path, planted(lasting), budget=budget, weak=price)).plan
    most = min(int(budget / price + 1e-9), 2000)
    w, o = np.meshgrid(np.arange(most + 1), np.arange(budget + 1), indexing="ij")
    can = (price * w + o <= budget + 1e-9) & (w + o <= 2000)
    accuracy = 1 - both_error(w[can], o[can], lasting or 0.0)
    bought = 1 - both_error(
        np.array(found.best.n_weak), np.array(found.best.n_expert), lasting or 0.0
    )
    assert found.best.n_weak * price + found.best.n_expert <= budget + 1e-9
    # Two kinds are bought only for 0.002 more than one; the fit has an error of its own.
    assert bought >= accuracy.max() - 0.0025
    assert found.best.accuracy == pytest.approx(float(bought), abs=1e-3)
    assert found.low <= float(bought) <= found.high


def test_plan__has_the_planted_curves(tmp_path: Path) -> None:
    found = plan_pilot(pilot(tmp_path, planted(0.5))).to_dict()["curves"]
    weak, expert = found["weak"], found["expert"]
    # err(n) = floor + rise (n / first)^−power
    for curve, first, floor, factor in ((weak, 80, 0.15, 0.8), (expert, 20, 0.0, 1.5)):
        assert curve["first"] == first
        assert curve["floor"] == pytest.approx(floor, abs=2e-3)
        assert curve["power"] == pytest.approx(0.5, abs=5e-3)
        assert curve["rise"] == pytest.approx(factor * first**-0.5, rel=0.02)
    assert found["lasting"] == pytest.approx(0.5, abs=0.05)


def test_plan__says_the_same_to_people_and_to_programs(tmp_path: Path) -> None:
    more = 'currency = "EUR"\nchecked = {labels = 100, right = 84}\n'
    planned = plan_pilot(pilot(tmp_path, planted(0.5), more=more))
    found, text = json.loads(json.dumps(planned.to_dict())), planned.text()
    assert f"buy {found['n_weak']:,} cheap labels and {found['n_expert']:,} of an expert" in text
    assert f"{found['accuracy']:.3f}, 95 % interval {found['accuracy_low']:.3f} … " in text
    assert "for 100 EUR, a cheap label at 0.1 EUR, an expert's at 1 EUR" in text
    # Wilson's interval of 84 of 100, as in the literature, and (1 − 2 · 0.16)².
    right = found["weak_labels_right"]
    assert (right["low"], right["high"]) == pytest.approx((0.7558, 0.8990), abs=1e-4)
    assert "0.840 are right (0.756 … 0.899, of 100)" in text
    assert "worth 0.46 of an expert's, at 0.1 of the price" in text
    assert found["frontier"][-1]["accuracy"] == pytest.approx(found["accuracy"], abs=0.002)
    accuracies = [p["accuracy"] for p in found["frontier"]]
    assert accuracies == sorted(accuracies)
    assert text.count("\n") >= 8


@pytest.mark.parametrize("n_same", [1, 2])
def test_plan__is_the_same_again(tmp_path: Path, n_same: int) -> None:
    path = pilot(tmp_path, planted(0.5) * n_same)
    assert plan_pilot(path).to_dict() == plan_pilot(path).to_dict()


def test_break_even__in_words() -> None:
    planned = plan_pilot(str(ROOT / "sample_data" / "pilot.toml"))

    def words(price: float) -> str:
        plan = planned.plan._replace(break_even=price)
        return BudgetPlan(planned.pilot, plan, None).text()

    assert "cheap labels are bought at no price" in words(0.0)
    assert "up to the price of an expert's" in words(1.0)
    assert "up to 0.123 EUR each" in words(0.12345)
    assert "are right" not in words(0.5)


def test_csv__says_what_toml_says(tmp_path: Path) -> None:
    rows = planted(0.5)
    path = Path(pilot(tmp_path, rows))
    want = read_pilot(str(path))
    text = path.read_text()
    start, end = text.index("["), text.index("]") + 1
    path.write_text(text[:start] + '"runs.csv"' + text[end:])
    lines = [f"{w or ''}, {o or ''}, {e!r}" for w, o, e in rows]
    (tmp_path / "runs.csv").write_text("\n".join(["weak, expert, error", *lines]))
    assert read_pilot(str(path)) == want


ROWS = planted(0.5)


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([], {}, "runs with cheap labels only, of at least 3 sizes, were expected, got 0"),
        ([ROWS[0], *ROWS[5:]], {}, "of at least 3 sizes, were expected, got 1"),
        ([ROWS[0]] * 5 + ROWS[5:], {}, "got 1. A learning curve has three numbers"),
        ([*ROWS, (0, 0, 0.5)], {}, "labels of at least one kind"),
        (ROWS, {"budget": 0.01}, "a budget for at least one label was expected, got 0.01"),
        (ROWS, {"budget": -5}, "'budget': input should be greater than 0, got -5"),
        (ROWS, {"budget": "inf"}, "'budget': input should be"),
        (ROWS, {"weak": -0.1}, "'prices.weak': input should be greater than 0, got -0.1"),
        (ROWS, {"weak": "nan"}, "'prices.weak': input should be"),
        ([*ROWS, (5, 0, 1.2)], {}, "'runs.14.error': input should be less than or equal to 1"),
        ([*ROWS, (-5, 0, 0.2)], {}, "'runs.14.weak': input should be greater than or equal to 0"),
        (ROWS, {"more": "curency = 'EUR'"}, "no setting 'curency'; did you mean 'currency'?"),
        (ROWS, {"more": "checked = {labels = 3, rigth = 2}"}, "'rigth' in 'checked'; did you mean "
         "'right'?"),
        (ROWS, {"more": "checked = {labels = 3, right = 4}"}, "at most as many right as labels"),
        (ROWS, {"more": "budget = 3"}, "TOML was expected"),
    ],
)  # fmt: skip
def test_pilot__that_cannot_be_is_refused(
    tmp_path: Path, rows: list, settings: dict, words: str
) -> None:
    path = pilot(tmp_path, rows, **settings)
    with pytest.raises(LabelopsError) as refused:
        plan_pilot(path)
    assert words in str(refused.value)
    assert "pilot" in str(refused.value)
    assert path in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wek,expert,error\n1,2,0.5", "got 'wek'; did you mean 'weak'?"),
        ("weak,expert,error\n1,2,0.5,7", "row 1 of"),
        ("weak,expert,error\n1,,x", "'runs.0.error': input should be a valid number"),
        ("weak,expert,error\n1.5,,0.5", "'runs.0.weak': input should be a valid integer"),
        ("weak,expert,error\n1,2,", "setting 'runs.0.error' must be given"),
        ('weak,expert,error\n"1,2,', "CSV was expected"),
    ],
)
def test_csv__that_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "pilot.toml"
    path.write_text(
        'budget = 9\nitems = 9\nheld_out = 9\nruns = "a.csv"\nprices = {weak = 1, expert = 2}\n'
    )
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(LabelopsError) as refused:
        read_pilot(str(path))
    assert words in str(refused.value)


def test_pilot__that_is_not_there_or_has_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a readable TOML file was expected at .*no such file"):
        read_pilot(str(tmp_path / "none.toml"))
    path = tmp_path / "pilot.toml"
    path.write_text("budget = 9\nitems = 9\nheld_out = 9\nprices = {weak = 1, expert = 2}\n")
    with pytest.raises(RecipeError, match="setting 'runs' must be given"):
        read_pilot(str(path))
    for runs in ('"b.csv"', '"b.txt"'):
        path.write_text(f"runs = {runs}")
        with pytest.raises(DataError, match=r"b\.(csv|txt)"):
            read_pilot(str(path))
