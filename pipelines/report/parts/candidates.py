"""Which of an item's candidates is believed, and where none is."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from labelops.belief import UNIT
from labelops.partial.candidates import LEAST_LABELS
from labelops.ragged import owners
from pipelines.core.stage import Context
from pipelines.labels.classes import some
from pipelines.labels.columns import flat
from pipelines.report import model as m
from pipelines.report.look import Reader
from pipelines.report.part import Part, flags, floats
from pipelines.report.select import Place, Shortlist, by_count
from pipelines.report.text import clean, count, decimal, percent, plural, verb
from pipelines.storage.frame import Frame

DOUBTFUL, DISBELIEVED = range(2)

WRONG = 0.02
"""Share of sets without the true class from which on it is worth a word."""

TAKEN, LEAST_SPOKEN = 0.2, 10
"""A class of enough items by its sets is hardly ever believed below this part of them."""

BEWARE = (
    "Heads learned by the likelihood of whole sets (infer.candidates = cc). Where some classes are "
    "candidates beside others more often than by chance, that likelihood is highest for wrong "
    "answers, and nothing in the data tells: compare with rc"
)


def _checked(n_labels: int) -> str:
    """Say what the expectation rests on."""
    if n_labels < LEAST_LABELS:
        return (
            f"Only {plural(n_labels, 'item')} of these {verb(n_labels, 'has', 'have')} one "
            "candidate, too few to check it: where some classes are candidates beside others more "
            "often than by chance, less is right."
        )
    return (
        f"The {count(n_labels)} of one candidate checked it, to which sets of others were lent; "
        "where these are easier than others, less is right."
    )


class Candidates(Part):
    """What stage `partial` found."""

    reads = (
        *("item_hash", "candidate_ids", "predicted", "p_predicted"),
        *("p_none", "is_unbelieved"),
    )

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        self.listed = Shortlist(2, run.limits.outliers)
        self.n = self.n_sole = self.n_candidates = 0
        self.n_believed = np.zeros(len(run.names), np.int64)
        self.spoken_for = np.zeros(len(run.names), np.int64)
        """Of each class, how many items it would have if all candidates were alike; likewise."""
        self.right = np.zeros(len(run.names), np.int64)
        """Of each class, items with several candidates of which it is the most believed, and the
        sum of what is believed, in units of 2⁻³²."""

    def scan(self, frame: Frame) -> None:
        """Count, and remember the most doubtful."""
        size = np.diff(flat(frame["candidate_ids"])[1])
        predicted, p, none = (
            frame.array("predicted"),
            floats(frame, "p_predicted"),
            floats(frame, "p_none"),
        )
        self.n += frame.n
        self.n_candidates += int(size.sum())
        self.n_sole += int(np.count_nonzero(size == 1))
        several = np.flatnonzero(size > 1)
        np.add.at(self.n_believed, predicted[several], 1)
        ids, start = flat(frame["candidate_ids"])
        share = np.rint(UNIT / np.maximum(size, 2)).astype(np.int64) * (size > 1)
        class_id = ids.to_numpy(zero_copy_only=False).astype(np.int64)
        np.add.at(self.spoken_for, class_id, share[owners(start)])
        np.add.at(self.right, predicted[several], np.rint(p[several] * UNIT).astype(np.int64))
        is_none = none > 0.5
        is_none[flags(frame, "is_unbelieved")] = True
        doubtful, disbelieved = several[~is_none[several]], np.flatnonzero(is_none)
        for group, rows, key in (
            (DOUBTFUL, doubtful, p[doubtful]),
            (DISBELIEVED, disbelieved, -none[disbelieved]),
        ):
            self.listed.add(frame, rows, np.full(rows.size, group), key)

    def places(self) -> Iterable[Place]:
        """Return where the most doubtful are."""
        yield from self.listed.of(DOUBTFUL)
        yield from self.listed.of(DISBELIEVED)

    def sections(self) -> Iterator[m.Section]:
        """Return how many can be told, by class, and which cannot."""
        n_several, fit = int(self.n_believed.sum()), self.ctx.own("fit")
        right, n_none = int(self.right.sum()) / UNIT, int(self.listed.count[DISBELIEVED])
        share = right / max(n_several, 1)
        said = (
            f"{plural(self.n, 'item')} {verb(self.n, 'has', 'have')} "
            f"{decimal(self.n_candidates / max(self.n, 1), 1)} candidates on average, "
            f"{count(self.n_sole)} of them only one. Of the {count(n_several)} others the most "
            f"believed candidate is expected to be right for {count(right)} ({percent(share)}), by "
            "heads that have not seen the item. How sure they are was fitted to the sets of "
            f"{plural(int(fit['n']), 'item')}: nobody said which candidate is true. "
            f"{_checked(int(fit['n_labels']))}"
        )
        wrong = float(fit["wrong"])
        lacking = (
            f"An estimated {percent(wrong)} of sets lack the true class; that is rough, since "
            "heads that learn from wrong sets come to find them probable. Of "
            f"{plural(n_none, 'item')} none of the candidates is believed more than by chance."
        )
        blocks: list[m.Block] = [said, *self._rival(), lacking]
        findings = []
        if self._is_limited():
            findings.append(
                m.Finding(
                    "Sets do not tell which candidates are true",
                    self._rival()[0],
                    "candidates",
                    rank=20,
                )
            )
        if self._is_likelihood():
            blocks.append(f"{BEWARE}.")
            findings.append(
                m.Finding("Labels rest on the likelihood of sets", f"{BEWARE}.", "candidates", 20)
            )
        if taken := self._taken_over():
            names = some([clean(self.run.names.name(c), 40) for c in taken])
            findings.append(
                m.Finding(
                    f"{plural(len(taken), 'class', 'classes')} hardly ever believed: {names}",
                    "Of their sets another class is believed nearly always, which may have taken "
                    f"them over.{self._compare()}",
                    "candidates",
                    rank=25,
                )
            )
        if wrong > WRONG:
            findings.append(
                m.Finding(
                    f"About {percent(wrong)} of candidate sets lack the true class",
                    "No choice among their candidates is right. Those of which none is believed "
                    "are set aside for review.",
                    "candidates",
                    rank=30,
                )
            )
        blocks.append(self._classes())
        for group, caption in (
            (DISBELIEVED, "No candidate is believed"),
            (DOUBTFUL, "Most doubtful choices"),
        ):
            if self.listed.count[group]:
                blocks += [m.Text(caption, "h3"), self._items(group, caption)]
        yield m.Section(
            name="candidates",
            title="Candidates",
            rank=60,
            blocks=tuple(blocks),
            headline=f"Of {plural(n_several, 'item')} with several candidates, {count(right)} "
            "labels are expected to be found.",
            eyebrow="Labels from candidates",
            tiles=(
                m.Tile(
                    "Expected right", percent(share), f"of {count(n_several)} choices", "believed"
                ),
                m.Tile("No candidate believed", count(n_none), "", "wrong"),
            ),
            findings=tuple(findings),
            card=f"{self.n:,} items had {self.n_candidates:,} candidates; of {n_several:,} with "
            f"several, the most believed one is expected to be right for {share:.1%}. An estimated "
            f"{wrong:.1%} of sets lack the true class."
            + (f" {BEWARE}." if self._is_likelihood() else ""),
            artifacts=(("candidates", self._classes()),),
        )

    def _rival(self) -> list[str]:
        """Say what came of learning from the other candidates first, if that was done."""
        rival = self.ctx.own("rival")
        if "agreement" not in rival:
            return []
        agree = percent(float(rival["agreement"]))
        said = (
            "As a check, heads learned once more, first from all candidates but those that had "
            f"been found most probable; for {agree} of items they came back to the same ones."
        )
        if not rival["is_as_good"]:
            return [f"{said} They explain the sets less well, so the first answer stands."]
        limited = ", and fewer labels are chosen" if self._is_limited() else ""
        return [
            f"{said} They explain the sets about as well: no more is expected to be right than "
            f"both agree on{limited}."
        ]

    def _is_limited(self) -> bool:
        """Return whether a rival took certainty back."""
        return bool(self.ctx.own("rival")["power"] < self.ctx.own("fit")["power"])

    def _is_likelihood(self) -> bool:
        name = self.run.stages().get("infer")
        return (
            name is not None and getattr(self.run.run.entry(name).config, "candidates", "") == "cc"
        )

    def _compare(self) -> str:
        """Say what to try, where no head was balanced."""
        steps = (self.run.result("infer", step) for step in ("heads", "networks"))
        methods = [str(found["method"]) for found in steps if found and "method" in found]
        is_balanced = "rc_balanced" in methods
        return "" if is_balanced else " Compare with infer.candidates = rc_balanced."

    def _taken_over(self) -> list[int]:
        """Return the classes that are believed far less often than sets speak for them."""
        spoken_for = self.spoken_for / UNIT
        is_less = self.n_believed < TAKEN * spoken_for
        return np.flatnonzero(is_less & (spoken_for >= LEAST_SPOKEN)).tolist()

    def _classes(self) -> m.Table:
        of = self.run.result("source", "census")
        assert of is not None, "stage `source` counts candidates"
        shown = by_count(of["n_given"], self.limits.most_classes)
        n = self.n_believed[shown]
        return m.Table(
            caption="Candidates by class",
            is_titled=True,
            columns=(
                m.column("Class", map(self.run.names.name, shown), "name"),
                m.column("Candidate of", of["n_given"][shown]),
                m.column("Believed of several", n, "count", "strong"),
                m.column(
                    "Expected right",
                    (
                        r / UNIT / k if k else None
                        for r, k in zip(self.right[shown], n, strict=True)
                    ),
                    "percent",
                ),
            ),
            n_open=self.limits.class_rows,
            more="classes",
        )

    def _items(self, group: int, caption: str) -> m.Items:
        # Where no set is thought to be wrong, it is 0 of all of them.
        of_none = "p_none" if float(self.ctx.own("fit")["wrong"]) > 0 else ""
        score = "p_predicted" if group == DOUBTFUL else of_none
        items = (self.run.item(place, score) for place in self.listed.of(group))
        if group == DISBELIEVED:
            items = (replace(item, believed="") for item in items)
        return m.Items(
            caption=caption,
            items=tuple(items),
            score="probability" if group == DOUBTFUL else "probability of none",
            n_open=self.limits.open_outliers,
        )
