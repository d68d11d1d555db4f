"""Tables of what `benchmarks/proportions.py` measured: means with 95 % intervals over seeds."""

import numpy as np
from scipy.stats import t as student

Results = dict[str, dict[str, dict[str, float]]]

NEAR = 0.001
"""A method whose mean is this near to the best is tied with it, whatever the seeds say."""


def values_of(results: Results, kind: str, figure: str) -> dict[str, dict[int, dict[str, list]]]:
    """Return figures by set, size of bag and method, one a seed; only seeds that all have."""
    values: dict[str, dict[int, dict[str, list]]] = {}
    for key in sorted(results, key=lambda key: int(key.split("/")[3])):
        what, name, size, _ = key.split("/")
        if what == kind:
            for method, figures in results[key].items():
                row = values.setdefault(name, {}).setdefault(int(size), {}).setdefault(method, [])
                row.append(figures[figure])
    return values


def half_width(values: np.ndarray) -> float:
    if len(values) < 2:
        return float("nan")
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def tied_best(rows: dict[str, list]) -> list[str]:
    """Return the best method, and those whose paired difference to it may be 0."""
    rows = {name: row for name, row in rows.items() if name != "supervised"}
    longest = max(map(len, rows.values()))
    whole = {name: np.array(row) for name, row in rows.items() if len(row) == longest}
    best = max(whole, key=lambda name: whole[name].mean())
    tied = [best]
    for name, row in whole.items():
        lost = whole[best] - row
        if name != best and (lost.mean() <= NEAR or lost.mean() - half_width(lost) <= 0):
            tied.append(name)
    return tied


def print_accuracy(results: Results) -> None:
    for figure, title in (
        ("auc", "AUC on test items"),
        ("accuracy", "accuracy on test items"),
        ("bag_accuracy", "labels of the items in bags that are right, the k_b most believed"),
    ):
        for name, sizes in values_of(results, "accuracy", figure).items():
            print(f"\n{name}: {title}")
            methods = list(dict.fromkeys(m for rows in sizes.values() for m in rows))
            print(f"{'bag':22}" + "".join(f"{size:>16}" for size in sorted(sizes)))
            for method in methods:
                cells = []
                for size in sorted(sizes):
                    values = np.array(sizes[size].get(method, []))
                    cells.append(
                        f"{values.mean():.4f} ± {half_width(values):.4f}" if len(values) else ""
                    )
                print(f"{method:22}" + "".join(f"{cell:>16}" for cell in cells))
            for size in sorted(sizes):
                top, *ties = tied_best(sizes[size])
                print(f"  bag {size}: best {top}" + (f"; tied {', '.join(ties)}" if ties else ""))


def print_repair(results: Results) -> None:
    for name, sizes in values_of(results, "repair", "bag_accuracy").items():
        print(f"\n{name}: labels that are right, a fifth flipped")
        print(f"{'bag':36}" + "".join(f"{size:>16}" for size in sorted(sizes)))
        for method in dict.fromkeys(m for rows in sizes.values() for m in rows):
            cells = []
            for size in sorted(sizes):
                values = np.array(sizes[size].get(method, []))
                cells.append(f"{values.mean():.4f} ± {half_width(values):.4f}")
            print(f"{method:36}" + "".join(f"{cell:>16}" for cell in cells))
