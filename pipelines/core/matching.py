"""Whether the ids that people named are in the data: counted once, said, and refused if none is."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.stage import Arrays, C, Context, Reduce
from pipelines.errors import DataError
from pipelines.storage.frame import Frame
from pipelines.storage.wording import several, shown

MATCHED = "matched"
"""Name of the step."""

EXAMPLES = 3


def match_step(
    *,
    keys: Callable[[Context[C]], pa.Array],
    setting: str,
    what: str,
    notes: Callable[[Context[C]], Sequence[str]] = lambda ctx: (),
) -> Reduce[C]:
    """Return a step that counts which ids of a setting are ids of items.

    Parameters
    ----------
    keys
        The ids, as text, each once.
    setting
        Which setting of the stage names them; the step is left out where it is not set.
    what
        What they are, in the plural, for people.
    notes
        Further sentences on the table, to be shown with what was found.
    """

    def summarize(frame: Frame, ctx: Context[C]) -> Arrays:
        ids = frame["item_id"].cast(pa.string())
        is_there = pc.is_in(keys(ctx), value_set=ids).to_numpy(zero_copy_only=False)
        first = ids.take(pc.select_k_unstable(ids, EXAMPLES, [("item_id", "ascending")]))
        # As messages show them: arrays of text would drop a NUL at the end.
        examples = np.array([shown(item) for item in first.to_pylist()], dtype=np.str_)
        return {"found": np.packbits(is_there), "examples": examples}

    def finish(summary: Arrays, ctx: Context[C]) -> Arrays:
        listed = keys(ctx)
        is_there = np.unpackbits(summary["found"], count=len(listed)).astype(bool)
        n, n_found = len(listed), int(is_there.sum())
        sentences = list(notes(ctx))
        if not n:
            sentences.append(f"{ctx.stage}.{setting}: there are no {what}")
        elif n_found < n:
            lost = listed.take(pa.array(np.flatnonzero(~is_there)[:EXAMPLES])).to_pylist()
            names = several(lost, EXAMPLES, n - n_found)
            said = f"{n_found} of {n} {what} are in the data; first not found: {names}"
            if not n_found:
                raise DataError(
                    f"{ctx.stage}.{setting}: {what} were expected to be ids of items, got {said}; "
                    f"ids in the data are like {', '.join(summary['examples'].tolist())}. Does it "
                    "belong to other data? Spaces, leading zeros and upper case count; items in "
                    "quarantine are not in the data"
                )
            sentences.append(f"{ctx.stage}.{setting}: {said}")
        result: Arrays = {"n_listed": np.array(n), "n_found": np.array(n_found)}
        if sentences:
            result["notices"] = np.array(sentences, dtype=np.str_)
        return result

    return Reduce(
        name=MATCHED,
        reads=["item_id"],
        summarize=summarize,
        merge=merge_matches,
        finish=finish,
        when=lambda ctx: bool(getattr(ctx.config, setting)),
    )


def merge_matches(a: Arrays, b: Arrays) -> Arrays:
    """Return what is found in either, and the first examples of both."""
    return {
        "found": a["found"] | b["found"],
        "examples": np.union1d(a["examples"], b["examples"])[:EXAMPLES],
    }
