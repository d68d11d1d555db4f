"""Stages whose findings are planted: a few lines of arithmetic on an item's number.

So a test of the report can say what it must show without asking the stages.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from labelops.decisions import DECISIONS, Decision
from labelops.hashing import hash_strings
from pipelines.core.stage import Arrays, Context, Map, Output, Reduce, Stage, Step
from pipelines.labels.log import log_rows, log_schema
from pipelines.storage.frame import Frame

N_CLASSES = 4
NAMES = tuple(f"class {'ABCD'[k]}" for k in range(N_CLASSES))


def item_id(number: int) -> str:
    return f"item-{number:05d}"


def number_of(ids: pa.Array) -> np.ndarray:
    return np.array([int(text.removeprefix("item-")) for text in ids.to_pylist()], np.int64)


def given_of(number: int) -> int:
    return number % N_CLASSES


def is_bad(number: int) -> bool:
    return number % 53 == 5


def is_issue(number: int) -> bool:
    return number % 3 == 1


def predicted_of(number: int) -> int:
    return (number + 1 + number // 12 % 2) % N_CLASSES if is_issue(number) else given_of(number)


def score_of(number: int) -> float:
    """Full of ties, which the order of hashes must break."""
    return (number * 7 % 20) / 20 if is_issue(number) else 0.9


def is_outlier(number: int) -> bool:
    return number % 17 == 2


def outlier_score_of(number: int) -> float | None:
    return None if number % 29 == 0 else (number % 5) / 10


def set_of(number: int) -> int | None:
    """Every thirty items three copies: 0, 2 and 5 of them; the last ones are further away."""
    return number // 30 if number % 30 in (0, 2, 5) else None


def members_of(group: int) -> list[int]:
    return [30 * group + offset for offset in (0, 2, 5)]


def is_conflict(number: int) -> bool:
    """Of copies 0 and 2 the labels differ; copy 5 is not near enough to say so."""
    return number % 30 in (0, 2)


def distance_of(number: int) -> float | None:
    return None if number % 29 == 0 else 0.0 if number // 30 % 2 else (number % 30) / 1000


def decision_of(number: int) -> str:
    if not is_issue(number):
        return "keep"
    return ("relabel", "relabel", "drop", "review")[number // 3 % 4]


def rule_of(number: int) -> str:
    return f"relabel-0.9{'5' * (number % 2)}" if decision_of(number) == "relabel" else "issue"


def confidence_of(number: int) -> float:
    return 0.9 + (number * 11 % 8) / 100


JOINT = np.array([[70, 3, 2, 0], [1, 71, 2, 1], [0, 0, 0, 0], [9, 1, 0, 65]], np.int64)
ESTIMATES = {
    "calibrated_joint": JOINT,
    "noise_rate": np.array([5 / 75, 4 / 75, np.nan, 10 / 75]),
    "noise_rate_low": np.array([0.02, 0.01, 0.0, 0.08]),
    "noise_rate_high": np.array([0.1, 0.09, 1.0, 0.2]),
}
SUREST = {
    "is_flat": np.array(True),
    "n_wrong": np.array(19.0),
    "n_wrong_low": np.array(12.0),
    "n_wrong_high": np.array(27.0),
}
RULES = ("no-issue", "relabel-0.9", "relabel-0.95", "relabel-0.99")
OUTCOME = {
    "rules": np.array(RULES),
    "texts": np.array([f"for {name}" for name in RULES]),
    "changes_labels": np.array([False, True, True, True]),
    "proposed": np.array([200, 40, 30, 0]),
    "shipped": np.array([0, 38, 0, 0]),
    "expected_fixed": np.array([0.0, 37.5, 27.0, 0.0]),
    "expected_broken": np.array([0.0, 1.5, 2.0, 0.0]),
    "shipped_expected_fixed": np.array([0.0, 35.5, 0.0, 0.0]),
    "shipped_expected_broken": np.array([0.0, 1.25, 0.0, 0.0]),
    "gain": np.array([0.0, 0.9, 0.8, 0.0]),
    "gain_low": np.array([0.0, 0.7, -0.1, 0.0]),
    "gain_high": np.array([0.0, 1.0, 1.0, 0.0]),
    "is_measured": np.array([False, False, True, False]),
    "verdict": np.array(["", "expected, not measured", "measured on 3 reviewed changes", ""]),
    "held_reasons": np.array(["no", "gate", "max_change", "class_size", "max_drop", "max_review"]),
    "held": np.array([[0] * 6, [38, 0, 2, 0, 0, 0], [0, 30, 0, 0, 0, 0], [0] * 6]),
}


def planted(
    name: str,
    reads: Sequence[str],
    columns: Mapping[str, tuple[pa.DataType, Callable[[int], Any]]],
    results: Mapping[str, Arrays],
    reject: Callable[[int], bool] | None = None,
    *,
    decides: bool = False,
) -> Stage:
    class Config(BaseModel, frozen=True, extra="forbid"):
        knob: int = 3
        relabel_confidence: float = 0.9
        leave_out_rules: tuple[str, ...] = ()
        leave_out_items: tuple[str, ...] = ()

    schema = pa.schema(
        [("item_id", pa.string()), *((column, kind) for column, (kind, _) in columns.items())]
    )

    def apply(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
        numbers = number_of(frame["item_id"])
        if reject is not None:
            for row in np.flatnonzero([reject(number) for number in numbers.tolist()]):
                frame.reject([row], f"cannot be decoded: <b>{numbers[row]}</b>")
        kept = frame.kept()
        values = [numbers[row] for row in kept]
        arrays = [frame["item_id"].take(pa.array(kept, pa.int64()))]
        for kind, make in columns.values():
            arrays.append(pa.array([make(int(number)) for number in values], kind))
        found = {name: pa.table(arrays, schema=schema)}
        if decides:
            found["decisions"] = log_of([n for n in values if is_issue(n)])
        return found

    def count(frame: Frame, ctx: Context) -> Arrays:
        said = [decision_of(number) for number in number_of(frame["item_id"]).tolist()]
        decided = np.array([said.count(decision) for decision in DECISIONS])
        # All that is kept has half of its weight.
        return {"decided": decided, "softened": decided[Decision.KEEP]}

    def result(arrays: Arrays) -> Callable[[Arrays, Context], Arrays]:
        return lambda summary, ctx: {**summary, **arrays} if decides else arrays

    def steps(config: Config, ctx: Context) -> Sequence[Step]:
        return [
            Map(
                name="plant",
                reads=["item_id"],
                writes={
                    name: Output(schema=schema),
                    **({"decisions": Output(schema=LOG, rows="some")} if decides else {}),
                },
                apply=apply,
            ),
            *(
                Reduce(
                    name=step,
                    reads=["item_id"],
                    summarize=count,
                    finish=result(arrays),
                )
                for step, arrays in results.items()
            ),
        ]

    return Stage(
        name=name,
        version=1,
        doc=f"Planted {name}.",
        config=Config,
        steps=steps,
        reads=lambda config, known: [*reads],
        writes=lambda config, known: ["item_id", *columns],
        folders=("decisions",) if decides else (),
        decides=decides,
    )


LOG = log_schema(pa.string(), pa.string())


def log_of(numbers: Sequence[int]) -> pa.Table:
    """Return what was decided about items, as the log has it."""
    n = len(numbers)
    believed = pa.array([NAMES[predicted_of(k)] for k in numbers], pa.string())
    action = pa.array([decision_of(k) for k in numbers], pa.string())
    return log_rows(
        item_id=pa.array([item_id(k) for k in numbers], pa.string()),
        label_id=pa.nulls(n, pa.int32()),
        before=pa.array([NAMES[given_of(k)] for k in numbers], pa.string()),
        after=pc.if_else(pc.equal(action, "relabel"), believed, pa.nulls(n, pa.string())),
        action=action,
        p_correct=pa.array([confidence_of(k) for k in numbers], pa.float32()),
        rule=pa.array([rule_of(k) for k in numbers], pa.string()),
        evidence={
            "p_given": pa.array([score_of(k) for k in numbers], pa.float32()),
            "p_believed": pa.array([confidence_of(k) for k in numbers], pa.float32()),
            "believed": believed,
            "label_score": pa.array([score_of(k) for k in numbers], pa.float32()),
        },
        actor=pa.array(["stage decide"] * n, pa.string()),
        run="",
    )


def hash_of(number: int) -> int:
    return int(hash_strings([item_id(number)])[0])


def first_hash(number: int) -> int | None:
    group = set_of(number)
    return None if group is None else min(hash_of(n) for n in members_of(group))


BINS = 15
INFER = planted(
    "infer",
    ["item_id"],
    {"p_given": (pa.float32(), score_of)},
    {},
    reject=is_bad,
)
CONFIDENT = planted(
    "confident",
    ["item_id"],
    {
        "is_label_issue": (pa.bool_(), is_issue),
        "label_score": (pa.float32(), score_of),
        "predicted": (pa.int32(), predicted_of),
    },
    {"estimates": ESTIMATES, "surest": SUREST},
)
NEIGHBOURS = planted(
    "neighbours",
    ["item_id"],
    {
        "nn_distance": (pa.float32(), distance_of),
        "outlier_score": (pa.float32(), outlier_score_of),
        "is_outlier": (pa.bool_(), is_outlier),
        "duplicate_set": (pa.uint64(), first_hash),
        "is_duplicate_conflict": (pa.bool_(), is_conflict),
    },
    {},
)
DECIDE = planted(
    "decide",
    ["item_id"],
    {
        "decision": (pa.string(), decision_of),
        "label_clean": (pa.string(), lambda n: NAMES[predicted_of(n)]),
        "reason": (pa.string(), lambda n: f"because of {decision_of(n)}"),
        "confidence": (pa.float32(), confidence_of),
        "rule": (pa.string(), rule_of),
        "weight": (pa.float32(), lambda n: 0.0 if decision_of(n) in ("drop", "review") else 0.5),
    },
    {"outcome": OUTCOME},
    decides=True,
)
DATASET = planted("dataset", ["item_id"], {"written": (pa.bool_(), is_issue)}, {})
