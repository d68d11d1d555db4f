"""All that a kind of label needs, in one file: items with a mood, of which a poll knows better."""

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from labelops import decisions as lo
from labelops.top_belief import all_classes
from pipelines.core.stage import Beliefs, Blocks, Context, Map, Output, Stage, Tables
from pipelines.decisions.engine import Decider, Proposed, deciding_stage
from pipelines.decisions.limits import Limits
from pipelines.labels.single import Single
from pipelines.report import model, part
from pipelines.storage.frame import Frame

SPACE = Single("mood", "given_mood", "mood_clean")
RULES = (*lo.COMMON, lo.Rule("unsure", "few agree"), lo.Rule("sure", "most agree", changes=True))


class Config(BaseModel, frozen=True, extra="forbid"):
    sure: float = 0.8


def ask(frame: Frame, ctx: Context) -> Tables:
    said = np.exp(3 * frame.array("features")[:, : ctx.n_classes])
    said = (said / said.sum(axis=1, keepdims=True)).astype(np.float32)
    opinion = pa.FixedSizeListArray.from_arrays(said.ravel(), ctx.n_classes)
    return {"poll": pa.table({"item_id": frame["item_id"], "opinion": opinion})}


def poll(config: Config, ctx: Context) -> list[Map]:
    kinds = {"item_id": ctx.types["item_id"], "opinion": pa.list_(pa.float32(), ctx.n_classes)}
    writes = {"poll": Output(schema=pa.schema(kinds))}
    return [Map(name="ask", reads=["item_id", "features"], writes=writes, apply=ask)]


def believe(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    yield slice(0, frame.n), all_classes(frame.array("opinion").astype(np.float64))


POLL = Stage(
    name="poll",
    version=1,
    doc="asks around",
    config=Config,
    steps=poll,
    reads=lambda config, columns: ["item_id", "features", "given_mood"],
    writes=lambda config, columns: ["item_id", "opinion"],
    beliefs=Beliefs(kind="mood", reads=lambda columns: ["opinion"], blocks=believe),
)


def propose(frame: Frame, ctx: Context) -> Proposed:
    ((_, found),) = ctx.asked.blocks(frame, ctx, 1, np.full(frame.n, -1))
    belief, given = found.belief, frame.array("given_mood").astype(np.int64)
    rule = np.where(belief.argmax(1) == given, lo.NO_ISSUE, 2 + (belief.max(1) >= ctx.config.sure))
    action = np.array([lo.Action.KEEP, lo.Action.KEEP, lo.Action.REVIEW, lo.Action.RELABEL])[rule]
    return Proposed(lo.labels(belief, given, action, rule))


DECIDE = deciding_stage(
    Decider(
        name="decide_moods",
        doc="follows the poll",
        config=Config,
        clean=SPACE,
        asks="mood",
        propose=propose,
        rules=lambda ctx: RULES,
        limits=lambda config: Limits(max_change_share=0.3, max_review=5),
    )
)


class Moods(part.Part):
    def sections(self) -> list[model.Section]:
        new = model.column("Changed to it", self.ctx.own("outcome")["added"])
        columns = (model.column("Mood", self.ctx.classes, "name"), new)
        said = ("As polled.", model.Table(caption="Moods", columns=columns))
        return [model.Section(name="moods", title="Moods", blocks=said, card="A poll.")]
