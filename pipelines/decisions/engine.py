"""Stages that decide: propose → review → gate → limits → settle → log, for every kind of label.

A `Decider` says what is proposed, by which rules and within which limits; `deciding_stage` makes a
stage of it. The log `decisions/` has a row for every slot that is not simply kept; the product
follows from it (`pipelines.decisions.ledger`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

import numpy as np
import pyarrow as pa

from labelops import decisions as lo
from labelops.confident.selection import Elements
from labelops.decisions import Proposals, Rule
from labelops.multilabel.sampling import cell_hash
from pipelines.core.stage import Arrays, C, Context, Map, Output, Reduce, Stage, Step, Tables
from pipelines.decisions import gate, reviews
from pipelines.decisions.ledger import LOG_FOLDER
from pipelines.decisions.limits import NO_LIMIT, Limits
from pipelines.labels.log import EVIDENCE_FLAGS, log_rows, log_schema
from pipelines.labels.space import LabelSpace, given_columns, given_sets
from pipelines.selection.passes import SurestFirst, doubt_keys
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of

Fields = Sequence[tuple[str, pa.DataType]]

PROPOSED = (
    *(("row", pa.int32()), ("slot", pa.int32()), ("before", pa.int32()), ("after", pa.int32())),
    *(("action", pa.uint8()), ("rule", pa.uint8())),
    *(("p_after", pa.float64()), ("p_before", pa.float64()), ("p_next", pa.float64())),
    ("truth", pa.int32()),
)
"""Scratch columns: what the model proposes, and what reviewers said of the same slots."""


class Proposed(NamedTuple):
    """What a decider proposes for a shard.

    Attributes
    ----------
    proposals : ordered by item, then slot; without those that reviewers make.
    carried : columns of the sidecar that do not depend on what is decided, one value an item.
    """

    proposals: Proposals
    carried: Sequence[pa.Array] = ()


@dataclass(frozen=True, kw_only=True)
class Decider(Generic[C]):
    """What proposes changes of one kind of label.

    Attributes
    ----------
    name, doc, config, version : of the stage.
    clean : the kind of label that it writes.
    asks : the kind of beliefs that it reads, see `pipelines.core.stage.Beliefs`.
    propose : what it proposes for a shard.
    rules : every rule, `labelops.decisions.COMMON` first.
    limits : how far it may go.
    supported : how many labels are changed, and items dropped, at most, where no share is set.
    allowance : see `gate.Allowance`.
    needs : columns that it reads besides beliefs and given labels, given the settings and the
        columns there are.
    judge : whether a rule's changes are made.
    carried : names and types of `Proposed.carried`, for some number of classes.
    notes : further arrays of the result; `if_measured` and `if_expected` say in words where the
        numbers come from.
    of_any : whether items may have any kind of given label, and not only that which it writes.
    more : further steps, after those of the decisions.
    skip : of the stage.
    """

    name: str
    doc: str
    config: type[C]
    clean: LabelSpace
    asks: str
    propose: Callable[[Frame, Context[C]], Proposed]
    rules: Callable[[Context[C]], Sequence[Rule]]
    limits: Callable[[C], Limits]
    version: int = 1
    supported: Callable[[Context[C]], int] = lambda ctx: NO_LIMIT
    allowance: Callable[[Context[C]], gate.Allowance] = lambda ctx: gate.ALLOWANCES
    needs: Callable[[C, frozenset[str]], Sequence[str]] = lambda config, columns: ()
    judge: gate.Judge[C] = gate.by_reviews
    carried: Callable[[int], Fields] = lambda n_classes: ()
    notes: Callable[[Context[C]], Arrays] = field(default=lambda ctx: {})
    of_any: bool = False
    more: Callable[[Context[C]], Sequence[Step[C]]] = lambda ctx: ()
    skip: Callable[[C, frozenset[str]], str | None] = lambda config, columns: None


def decided_fields(
    decider: Decider[C], label: pa.DataType, columns: frozenset[str], n_classes: int
) -> list[tuple[str, pa.DataType]]:
    """Return the columns of the sidecar, besides the id."""
    return [
        ("decision", pa.string()),
        *decider.clean.clean_fields(label, columns),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("confidence", pa.float32()),
        ("weight", pa.float32()),
        *decider.carried(n_classes),
    ]


def deciding_stage(decider: Decider[C]) -> Stage[C]:
    """Return the stage that decides as a decider proposes."""

    def reads(config: C, columns: frozenset[str]) -> Sequence[str]:
        own = [name for name in decider.clean.given if name in columns] or decider.clean.given[:1]
        given = given_columns(columns) if decider.of_any else own
        needed = [*given, *decider.needs(config, columns)]
        return list(dict.fromkeys(["item_id", "item_hash", *needed]))

    def writes(config: C, columns: frozenset[str]) -> Sequence[str]:
        return ["item_id", *(name for name, _ in decided_fields(decider, pa.null(), columns, 2))]

    def files(config: C) -> Sequence[str]:
        reviewed = decider.limits(config).reviewed
        return [reviewed] if reviewed else []

    return Stage(
        name=decider.name,
        version=decider.version,
        doc=decider.doc,
        config=decider.config,
        steps=lambda config, ctx: Engine(decider).steps(config, ctx),
        reads=reads,
        writes=writes,
        skip=decider.skip,
        files=files,
        folders=(LOG_FOLDER,),
        decides=True,
        asks=decider.asks,
    )


@dataclass(frozen=True)
class Engine(Generic[C]):
    """The steps of a deciding stage."""

    decider: Decider[C]

    def steps(self, config: C, ctx: Context[C]) -> Sequence[Step[C]]:
        """Return the steps: reviews, proposals, gate, limits, decisions with their log, totals."""
        decider, scratch = self.decider, f"{ctx.stage}/_proposed"
        item_id = ("item_id", ctx.types["item_id"])
        given, carried = given_columns(ctx.columns), decider.carried(ctx.n_classes)
        decided = decided_fields(decider, ctx.label_type, ctx.columns, ctx.n_classes)
        log = log_schema(ctx.types["item_id"], ctx.label_type)
        needed = decider.needs(config, ctx.columns)
        beliefs = [*ctx.asked.reads(ctx.columns), *ctx.asked.files]
        first = list(dict.fromkeys(["item_id", "item_hash", *given, *needed, *beliefs]))
        narrow = ["item_hash", scratch]
        evidence = [name for name in ("label_score", *EVIDENCE_FLAGS) if name in needed]
        outputs = {scratch: Output(schema=pa.schema(PROPOSED), rows="some", ipc=True)}
        if carried:
            schema = pa.schema([("carried_" + name, kind) for name, kind in carried])
            outputs[f"{ctx.stage}/_carried"] = Output(schema=schema, ipc=True)
        return [
            *([reviews.match(decider.clean)] if decider.limits(config).reviewed else []),
            *ctx.asked.steps(ctx),
            Map(name="propose", reads=first, writes=outputs, apply=self.propose),
            Reduce(name="gate", reads=[*given, scratch], summarize=self.tally, finish=self.judge),
            *self._changes(narrow).steps(),
            *self._looks(narrow).steps(),
            Reduce(
                name="promised",
                reads=narrow,
                summarize=self.count_promised,
                when=lambda ctx: decider.allowance(ctx).least > 1,
            ),
            Map(
                name="settle",
                reads=[
                    *("item_id", "item_hash", *given, *evidence, scratch),
                    *("carried_" + name for name, _ in carried),
                ],
                writes={
                    ctx.stage: Output(schema=pa.schema([item_id, *decided])),
                    LOG_FOLDER: Output(schema=log, rows="some"),
                },
                apply=self.settle,
            ),
            Reduce(name="outcome", reads=narrow, summarize=self.count, finish=self.report),
            *decider.more(ctx),
        ]

    # -- proposals and gate ------------------------------------------------------------------------

    def propose(self, frame: Frame, ctx: Context[C]) -> Tables:
        """Write what is proposed for a shard, and what reviewers said of the same slots."""
        proposed = self.decider.propose(frame, ctx)
        decider, proposals = self.decider, proposed.proposals
        truth = np.full(len(proposals.row), lo.NOBODY)
        if decider.limits(ctx.config).reviewed:
            proposals, truth = reviews.bring_in(proposals, decider.clean, frame, ctx)
        pairs = zip((*proposals, truth), PROPOSED, strict=True)
        arrays = [pa.array(x, kind) for x, (_, kind) in pairs]
        tables = {f"{ctx.stage}/_proposed": pa.table(arrays, schema=pa.schema(PROPOSED))}
        if proposed.carried:
            names = ["carried_" + name for name, _ in decider.carried(ctx.n_classes)]
            tables[f"{ctx.stage}/_carried"] = pa.table(list(proposed.carried), names=names)
        return tables

    def tally(self, frame: Frame, ctx: Context[C]) -> Arrays:
        """Count what every rule proposes, expects and, where people looked, achieves."""
        proposals, truth = read_proposed(frame, ctx)
        n_rules = len(self.decider.rules(ctx))
        return gate.tally(proposals, truth, given_sets(frame, ctx), n_rules)

    def judge(self, summary: Arrays, ctx: Context[C]) -> Arrays:
        """Judge every rule that changes labels; see `gate.judge_rules`."""
        decider = self.decider
        return gate.judge_rules(
            summary,
            decider.rules(ctx),
            limits=decider.limits(ctx.config),
            allowance=decider.allowance(ctx),
            verdict=decider.judge,
            ctx=ctx,
        )

    # -- limits ------------------------------------------------------------------------------------

    def _changes(self, reads: Sequence[str]) -> SurestFirst[C]:
        """Return the selection of the surest changes (group 0) and drops (group 1)."""

        def quotas(ctx: Context[C]) -> np.ndarray:
            judged, limits = ctx.own("gate"), self.decider.limits(ctx.config)
            supported = self.decider.supported(ctx)
            pairs = (
                (limits.max_change_share, int(judged["sizes"].sum())),
                (limits.max_drop_share, int(judged["n"])),
            )
            return np.array([supported if part is None else int(part * n) for part, n in pairs])

        def elements(frame: Frame, ctx: Context[C]) -> Elements:
            return self._competing(frame, ctx, *self._free(frame, ctx))[0]

        return SurestFirst(
            name="limit",
            reads=reads,
            quotas=quotas,
            elements=elements,
            n_groups=2,
            at_most=lambda ctx: int(ctx.own("gate")["proposed"].sum()),
        )

    def _looks(self, reads: Sequence[str]) -> SurestFirst[C]:
        """Return the selection of the items that somebody can look at."""

        def quotas(ctx: Context[C]) -> np.ndarray:
            return np.array([self.decider.limits(ctx.config).max_review])

        def elements(frame: Frame, ctx: Context[C]) -> Elements:
            return self._waiting(frame, ctx, *self._within_shares(frame, ctx))[0]

        return SurestFirst(
            name="budget",
            reads=reads,
            quotas=quotas,
            elements=elements,
            n_groups=1,
            at_most=lambda ctx: ctx.n_items,
        )

    def _free(self, frame: Frame, ctx: Context[C]) -> tuple[Proposals, np.ndarray]:
        """Return what is proposed after reviews, and what gate and class sizes hold back."""
        proposals, judged = lo.with_reviews(*read_proposed(frame, ctx)), ctx.own("gate")
        held = lo.hold(proposals, shipping=judged["ships"], small=judged["small_classes"])
        return proposals, held

    def _competing(
        self, frame: Frame, ctx: Context[C], proposals: Proposals, held: np.ndarray
    ) -> tuple[Elements, np.ndarray]:
        """Return what competes for the room under the limits, and where it stands."""
        changes, drops = lo.competing(proposals, held)
        at = np.flatnonzero(changes | drops)
        hashes = frame.array("item_hash")[proposals.row[at]]
        is_class = proposals.slot[at] != lo.WHOLE
        hashes = np.where(is_class, cell_hash(hashes, proposals.slot[at]), hashes)
        keys = doubt_keys(lo.doubt(proposals)[at])
        return Elements(drops[at].astype(np.int64), keys, hashes), at

    def _within_shares(self, frame: Frame, ctx: Context[C]) -> tuple[Proposals, np.ndarray]:
        """Return what is proposed, and what is held back by all limits but the budget."""
        proposals, held = self._free(frame, ctx)
        elements, at = self._competing(frame, ctx, proposals, held)
        over = ~self._changes(()).is_taken(elements, ctx)
        why = np.where(elements.group == 1, lo.Held.MAX_DROP, lo.Held.MAX_CHANGE)
        held[at[over]] = why[over]
        return proposals, held

    def _waiting(
        self, frame: Frame, ctx: Context[C], proposals: Proposals, held: np.ndarray
    ) -> tuple[Elements, np.ndarray, np.ndarray]:
        """Return the items that compete for being looked at, where they stand, and their slots."""
        rules = self.decider.rules(ctx)
        pool = lo.for_review(proposals, held, rules)
        doubt = lo.item_doubt(proposals, pool, rules, frame.n)
        at = np.flatnonzero(np.isfinite(doubt))
        group = np.zeros(len(at), np.int64)
        return Elements(group, doubt_keys(doubt[at]), frame.array("item_hash")[at]), at, pool

    def count_promised(self, frame: Frame, ctx: Context[C]) -> Arrays:
        """Count the changes within all limits that only beliefs promise to be right."""
        final, _ = self._limited(frame, ctx)
        # Of items that wait nothing ships.
        waits = lo.outcome(final, frame.n).is_aside[final.row]
        return {"n": np.array(int((_is_promised(final, ctx) & ~waits).sum()))}

    def settled(self, frame: Frame, ctx: Context[C]) -> tuple[Proposals, np.ndarray]:
        """Return what is done to a shard's slots, and why not more.

        Within all limits; and nothing that beliefs alone promise, if that is too little to tell.
        """
        final, why = self._limited(frame, ctx)
        least = self.decider.allowance(ctx).least
        if least > 1 and int(ctx.own("promised")["n"]) < least:
            back = _is_promised(final, ctx)
            action = np.where(back, lo.Action.KEEP, final.action).astype(np.uint8)
            final, why = final._replace(action=action), np.where(back, lo.Held.GATE, why)
        return final, why.astype(np.uint8)

    def _limited(self, frame: Frame, ctx: Context[C]) -> tuple[Proposals, np.ndarray]:
        """Return what is done to a shard's slots within all limits, and why not more."""
        proposals, held = self._within_shares(frame, ctx)
        elements, at, pool = self._waiting(frame, ctx, proposals, held)
        in_budget = np.zeros(frame.n, bool)
        in_budget[at] = self._looks(()).is_taken(elements, ctx)
        rules, small = self.decider.rules(ctx), ctx.own("gate")["small_classes"]
        return lo.settle(proposals, held, pool, in_budget, rules=rules, small=small)

    # -- decisions ---------------------------------------------------------------------------------

    def settle(self, frame: Frame, ctx: Context[C]) -> Tables:
        """Write decisions and their log."""
        decider, rules = self.decider, self.decider.rules(ctx)
        final, held = self.settled(frame, ctx)
        items = lo.outcome(final, frame.n)
        texts, of_item = lo.reasons(final, held, items, rules)
        names = pa.array([rule.name for rule in rules])
        first = lo.of_first(final.rule, items, fill=lo.NO_ISSUE)
        columns = {
            "item_id": frame["item_id"],
            "decision": pa.array(lo.DECISIONS[items.decision]),
            **decider.clean.apply(given_sets(frame, ctx), final, items, ctx),
            "rule": names.take(pa.array(first)),
            "reason": pa.array(texts, pa.string()).take(pa.array(of_item)),
            "confidence": pa.array(items.confidence, pa.float32(), from_pandas=True),
            "weight": pa.array(items.weight.astype(np.float32)),
            **{name: frame["carried_" + name] for name, _ in decider.carried(ctx.n_classes)},
        }
        return {ctx.stage: pa.table(columns), LOG_FOLDER: self._log(frame, ctx, final, names)}

    def _log(self, frame: Frame, ctx: Context[C], final: Proposals, names: pa.Array) -> pa.Table:
        """Return one row for every slot that is not simply kept."""
        rows = np.flatnonzero(final.rule != lo.NO_ISSUE)
        model, final = (
            Proposals(*(column[rows] for column in part))
            for part in (read_proposed(frame, ctx)[0], final)
        )
        at, is_class = pa.array(final.row), final.slot != lo.WHOLE
        is_aside = np.isin(final.action, lo.ASIDE)
        after = np.where(final.is_change, final.after, final.before)
        # Where nothing is known, what was found is what speaks for the proposal.
        believed = np.where(~(model.p_after <= model.p_before), model.after, model.before)
        evidence: dict[str, pa.Array] = {
            "p_given": pa.array(model.p_before, pa.float32(), from_pandas=True),
            "p_believed": pa.array(model.p_after, pa.float32(), from_pandas=True),
            "believed": ctx.labels(believed),
            "label_score": pa.nulls(len(rows), pa.float32()),
        }
        if "label_score" in frame.reads:
            evidence["label_score"] = frame["label_score"].take(at).cast(pa.float32())
        for name in EVIDENCE_FLAGS:
            if name in frame.reads:
                evidence[name] = frame[name].take(at)
        if is_class.any() and "is_label_issue" in evidence:
            # Of a class it is asked whether that class was flagged.
            evidence["is_label_issue"] = pa.array(model.rule != lo.NO_ISSUE)
        return log_rows(
            item_id=frame["item_id"].take(at),
            label_id=pa.array(final.slot, pa.int32(), mask=~is_class),
            before=ctx.labels(final.before),
            after=ctx.labels(np.where(is_aside, -1, after)),
            action=lo.WORDS[final.action],
            p_correct=pa.array(lo.p_right(final), pa.float32(), from_pandas=True),
            rule=names.take(pa.array(final.rule)),
            evidence=evidence,
            actor=np.where(final.rule == lo.REVIEWED, "reviewer", f"stage {ctx.stage}"),
            run=ctx.run_key,
        )

    def count(self, frame: Frame, ctx: Context[C]) -> Arrays:
        """Count what was done by which rule, and what beliefs expect of it."""
        model, truth = read_proposed(frame, ctx)
        final, held = self.settled(frame, ctx)
        items, n_rules = lo.outcome(final, frame.n), len(self.decider.rules(ctx))
        return gate.count(
            model, final, held, items, truth, n_rules=n_rules, n_classes=ctx.n_classes
        )

    def report(self, summary: Arrays, ctx: Context[C]) -> Arrays:
        """Return the gate's table and what came of it; see `gate.report`."""
        table = gate.report(summary, ctx.own("gate"), self.decider.allowance(ctx))
        texts = {
            "if_measured": "Gains marked as measured come from reviewed items.",
            "if_expected": "These numbers are expected from the model's calibrated probabilities, "
            f"not measured: to measure them, give `{ctx.stage}.reviewed` a table of checked "
            "labels.",
        }
        words = {name: np.array(text) for name, text in texts.items()}
        return {**table, **words, **self.decider.notes(ctx)}


def _is_promised(final: Proposals, ctx: Context) -> np.ndarray:
    """Return which changes neither a reviewer made nor reviewed items speak for; shape (M,)."""
    is_measured = ctx.own("gate")["is_measured"][final.rule]
    return np.asarray(final.is_change & (final.rule != lo.REVIEWED) & ~is_measured)


def read_proposed(frame: Frame, ctx: Context) -> tuple[Proposals, np.ndarray]:
    """Return what the model proposes for a shard, and what reviewers said of the same slots."""
    columns = arrays_of(frame.file(f"{ctx.stage}/_proposed"))
    truth = columns.pop("truth")
    wide = {name: columns[name].astype(np.int64) for name in ("row", "slot", "before", "after")}
    return Proposals(**{**columns, **wide}), truth
