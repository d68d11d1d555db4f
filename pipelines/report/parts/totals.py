"""What is said of bags and their totals."""

from collections.abc import Iterator

from markupsafe import Markup

from labelops import __version__
from pipelines.bags.findings import bags_folder
from pipelines.core.state import Run
from pipelines.report import model as m
from pipelines.report.part import Part
from pipelines.report.parts.bags import Bags, read_bags
from pipelines.report.text import count, decimal, marked, named, percent, plural, times, verb

DISPERSED = 10.0
"""Variance of totals, in that which the model allows, beyond which something must be wrong."""

UNSETTLED = 0.1
"""Nats that another step may gain: less does not move what is believed by what can be seen."""


class Totals(Part):
    """What stage `proportions` found, over all its rounds."""

    def sections(self) -> Iterator[m.Section]:
        """Return how well totals are predicted, and what is believed."""
        bags = read_bags(self.run.run, self.limits)
        if bags is not None:
            yield totals(bags, whole_card=whole_card(bags, self.run.run))


def totals(b: Bags, *, whole_card: str = "") -> m.Section:
    """Return what is said of bags; ``whole_card`` where that is what the run was for."""
    sizes = b.smallest if b.smallest == b.largest else f"{b.smallest:,} to {b.largest}"
    return m.Section(
        name="bags",
        title="Bags and their totals",
        short="Bags",
        rank=60,
        blocks=(
            " ".join(_sizes(b)),
            *_order(b),
            *_how_good(b),
            m.Text("What is believed", "h3"),
            marked(" ".join(_believed(b))),
            _tables(b),
            m.Text("Totals that contradict what their items look like", "h3"),
            *_improbable(b),
        ),
        headline=f"{plural(b.items + b.others, 'item')} in {plural(b.count, 'bag')} of known "
        "totals.",
        eyebrow="Labels from totals",
        tiles=(
            m.Tile("Bags", count(b.count), f"of {sizes} {verb(b.largest, 'item', 'items')}"),
            m.Tile(
                "Improbable totals",
                count(b.improbable),
                "at most about 5\u202f% by chance",
                "wrong",
            ),
        ),
        findings=tuple(m.Finding(*said, "bags", rank=10) for said in _concerns(b)),
        card=card(b),
        whole_card=whole_card,
        artifacts=(("bags", b.shown),),
        n_classes=b.n_classes,
    )


def _sizes(b: Bags) -> Iterator[str]:
    each = (
        f"{count(b.smallest)} to each"
        if b.smallest == b.largest
        else f"{count(b.smallest)} to {count(b.largest)} to a bag, median {b.median:g}"
    )
    yield f"{plural(b.count, 'bag')} with {plural(b.items, 'item')}, {each}."
    if b.others:
        has, them = verb(b.others, "has", "have"), verb(b.others, "it", "them")
        yield f"{plural(b.others, 'item')} {has} no total: for {them}, only the model is evidence."
    if b.incomplete:
        has = verb(b.incomplete, "has", "have")
        yield (
            f"{plural(b.incomplete, 'bag')} {has} fewer items in the data than n says, by no more "
            "than went to quarantine; what is left of "
            f"{verb(b.incomplete, 'its total', 'their totals')} is not known."
        )
    if b.absent:
        are = verb(b.absent, "is", "are")
        yield f"{plural(b.absent, 'bag')} of the table {are} not in the data."
    if b.missing:
        yield f"Of {plural(b.missing, 'item')} a feature is missing; the mean stands in for it."
    if b.rounded:
        yield (
            f"Totals of {plural(b.rounded, 'bag')} were no whole numbers and were rounded, by up "
            f"to {decimal(b.residual, 2)}."
        )


def _order(b: Bags) -> Iterator[m.Block]:
    if len(b.order) == 2:
        first, second = map(named, b.order)
        yield Markup(
            "<code>positives</code> was taken to count {1}, the second of the classes {0} and {1} "
            "(<code>counts</code>: both, in this order). If the table counts {0}, every belief is "
            "inverted: put n&#8239;−&#8239;positives into it."
        ).format(first, second)
    elif b.order:
        yield marked(
            "`counts` was taken to be in the order of the classes, as in the table “Items by "
            "class”."
        )


def _how_good(b: Bags) -> Iterator[m.Block]:
    if b.is_constant and b.is_learned:
        yield marked(
            f"**{CONSTANT}**: a model that predicts this share fits every total, and no better "
            "one could be checked. Nothing was learned."
        )
    elif b.is_told:
        yield marked(" ".join([_losses(b), *_warning(b)]))


DOUBT = "do not rely on single beliefs."

CONSTANT = (
    "All bags have the same share of every class, or there is but one. That share is all that can "
    "be known of any item"
)


def _losses(b: Bags) -> str:
    who = (
        "A model that has not seen held-out totals"
        if b.is_learned
        else "The model, before it saw totals,"
    )
    said = (
        f"{who} misses them by {decimal(b.loss_model or 0.0)} nats a bag, one share for all bags "
        f"by {decimal(b.loss_constant or 0.0)}, over {plural(b.held_out, 'bag')}. (Items of a bag "
        "times the divergence of its counted shares from the expected ones; 0 would be exact.)"
    )
    if b.is_learned:
        said += (
            " No label of an item was used to choose or to check it, so the share of right labels "
            "is not known."
        )
    return said


def _warning(b: Bags) -> Iterator[str]:
    if b.is_no_better:
        yield f"**The model predicts totals no better than one share for all bags: {DOUBT}**"
    elif b.is_doubtful:
        yield (
            "**Over all bags, each predicted by a model that was not fitted to it, the difference "
            "may be chance: do not rely on single beliefs.**"
        )


def _believed(b: Bags) -> Iterator[str]:
    yield (f"Beliefs of all items are in `{b.last}/` (`topk_ids`, `topk_probs`, `tail_prob`).")
    if b.sureness is not None:
        yield (
            "The most probable class of an item has a probability of "
            f"{percent(b.sureness)} on average."
        )
    if b.is_contrary:
        yield "**No total was used: all bags together contradict given labels and model.**"
        return
    if b.left_out:
        yield (
            f"Totals of {plural(b.left_out, 'bag')} were not used, since they are "
            "improbable under given labels and model."
        )
    if b.moved is not None:
        yield f"Totals moved belief by {count(b.moved)} labels in all."
    if b.approximated:
        yield (
            f"What totals make of the items of {plural(b.approximated, 'bag')} was approximated by "
            "a saddle point: there are too many ways to meet their counts to go through all. On "
            "average the error is small; single items can be off by 0.1, most so where a class is "
            "rare in a bag."
        )


def _tables(b: Bags) -> m.Block:
    n_shown = len(b.classes.rows)
    some = f" The first {n_shown} of {count(b.n_classes)} classes are shown."
    without = "without those left out, " if b.left_out else ""
    left: tuple[m.Block, ...] = (
        b.classes,
        m.Text(
            f"By totals: items that the bags’ counts add up to; {without}beliefs add up to as "
            "many. Most probable: items of which it is the most probable class. Where these are "
            "fewer, items are in doubt and the doubt goes to other "
            f"classes.{some if n_shown < b.n_classes else ''}"
        ),
        b.shares,
        m.Text(
            marked(
                "Spread: standard deviation over bags. By chance: what it would be if bags were "
                "filled at random. "
                f"{VARIATIONS[b.variation] if b.is_learned and not b.is_constant else ''}"
            )
        ),
        *((b.rounds, m.Text(ROUNDS)) if b.is_learned else ()),
    )
    return m.Pair(left, (m.Drawing("parts/bags.html.j2", b.plot),) if b.plot else ())


VARIATIONS = {
    "less": "**Shares differ far less than by chance, as if bags had been filled to have the same "
    "one. Such totals hardly distinguish labels, so little or nothing can be learned from "
    "them.**",
    "more": "Bags differ by more than chance: such totals are the most informative.",
    "chance": "Bags differ about as much as by chance: little can be learned from one such bag, so "
    "many are needed, or small ones.",
}


ROUNDS = (
    "Weight of neighbours: how strongly similar items are expected to have the same label; the "
    "largest one tried with which held-out totals are clearly predicted better. None: there was "
    "no such weight, and every bag is a group by itself. Connected groups: bags joined by "
    "neighbours. Not converged: groups whose beliefs were still changing at the end."
)


def _improbable(b: Bags) -> Iterator[m.Block]:
    folder = bags_folder(b.last)
    if b.dispersion > 1:
        yield (
            f"The variance of totals is {times(b.dispersion)} times what the model allows. "
            "q-values allow for it, so that only totals which stand out even so are listed."
        )
    n_shown = len(b.shown.rows)
    if not n_shown:
        given = ", given this variance" if b.dispersion > 1 else ""
        yield m.Text(
            marked(f"No total is improbable{given}. All bags are in `{folder}/`."), "intro fine"
        )
        return
    some = f" The first {n_shown} are shown." if n_shown < b.improbable else ""
    are, them = verb(b.improbable, "is", "are"), verb(b.improbable, "it", "them")
    yield marked(
        f"{plural(b.improbable, 'total')} {are} improbable under a model that was not fitted to "
        f"{them}; at most about 5\u202f% of such findings are by chance.{some} The count may be "
        f"wrong, or the items, or the model. All bags are in `{folder}/`, the most improbable "
        "first."
    )
    yield b.shown
    variance = ", and for their variance" if b.dispersion > 1 else ""
    yield m.Text(
        "p-value: how probable a count at least so far off is, if the model is right. q-value: the "
        "share of findings by chance among all totals with at most this q; it allows for how many "
        f"totals were looked at{variance}."
    )


# -- findings --------------------------------------------------------------------------------------


def _concerns(b: Bags) -> Iterator[tuple[str, str]]:
    if b.is_constant and b.is_learned:
        yield (
            "Totals cannot distinguish labels",
            "All bags have the same share of every class, so that share is the belief of "
            "every item. Bags with different shares are needed.",
        )
    if b.is_contrary:
        yield (
            "Totals contradict given labels, and were left out",
            "One share for all bags predicts them better than labels and model do. They are "
            "probably wrong, of other bags, or their classes in another order. If instead the "
            "labels are wrong, set proportions.improbable to impose.",
        )
    elif b.is_no_better:
        yield (
            "The model predicts totals no better than one share for all bags",
            f"Do not rely on single beliefs. {_why(b)}",
        )
    elif b.is_doubtful:
        yield (
            "It may be chance that the model predicts totals better than one share for all bags",
            f"Do not rely on single beliefs. {_why(b)} Or there are too few bags.",
        )
    elif b.dispersion > DISPERSED:
        yield (
            f"Totals vary {times(b.dispersion)} times as much as the model allows",
            f"{_why(b)} Until that is known, do not rely on single beliefs, nor on the list of "
            "improbable totals: it allows for such variance.",
        )
    if b.improbable:
        yield (
            f"{plural(b.improbable, 'total')} {verb(b.improbable, 'contradicts', 'contradict')} "
            "what their items look like",
            "The count may be wrong, the bag may hold other items than its table says, or the "
            "model is wrong about such bags.",
        )
    if b.unsettled is not None and b.unsettled > UNSETTLED:
        yield (
            "The model of totals did not converge",
            f"Another step would have gained {b.unsettled:.2g} nats. Features that are nearly "
            "copies of each other, or far apart in size, make this hard: leave some out.",
        )
    if b.not_settled:
        yield (
            f"{plural(b.not_settled, 'group')} of bags did not converge",
            f"Beliefs of their items in {b.last} are those after the last exchange of messages. "
            f"More sweeps may help: raise {b.last}.max_sweeps.",
        )


def _why(b: Bags) -> str:
    if b.is_learned and b.variation == "less":
        return (
            "Shares differ far less between bags than by chance, so totals hardly distinguish "
            "labels. Bags with different shares are needed."
        )
    if b.is_learned:
        return (
            "The totals are probably wrong, or those of other bags; or the features do not "
            "distinguish these classes."
        )
    return (
        "The totals, or the order of their classes, are probably wrong; or the model knows little "
        "of these items."
    )


# -- data card -------------------------------------------------------------------------------------


def card(b: Bags) -> str:
    """Return what totals added where labels were cleaned, or where they are all there is."""
    folder = bags_folder(b.last)
    if b.is_learned:
        return (
            f"{b.count:,} bags with {b.items:,} items; {b.improbable:,} totals are improbable, "
            f"{b.not_settled:,} groups of bags did not converge."
        )
    n = b.count - b.left_out
    said = (
        f"Totals of {n:,} of {b.count:,} bags were used for the beliefs of single items; "
        f"{b.improbable:,} totals are improbable (`{folder}/`)."
    )
    if b.is_contrary:
        said += " All were left out: together they contradict given labels and model."
    elif b.left_out:
        said += " Those left out contradict given labels and model."
    if b.approximated and n:
        said += f" For {b.approximated:,} bags they were approximated."
    return "\n\n".join([said, *_card_warnings(b)])


def _card_warnings(b: Bags) -> Iterator[str]:
    yield from _warning(b)
    if b.dispersion > 1:
        yield (
            f"The variance of totals is {times(b.dispersion)} times what the model allows; "
            "q-values allow for it."
        )


BELIEFS = """\
| column | meaning |
|---|---|
| `item_id` | the item, as in the source |
| `topk_ids`, `topk_probs`, `tail_prob` | what is believed: the most probable classes, their \
probabilities, and that of all others together, to be spread evenly over them |
| `bag_residual` | by how much the total of the item's bag was rounded; null for items without a \
total |"""

LEARNED = """
| `bag_logits`, `bag_held_logits`, `bag_embedding` | what a next round begins with: logits, logits \
without held-out bags, last layer of the network |"""


def whole_card(b: Bags, run: Run) -> str:
    """Return the card of beliefs from totals."""
    folder, in_all = b.last, run.source.n_items
    rows = (
        ("bags with a total", b.count),
        ("items in them", b.items),
        ("items without a total", b.others),
        ("items that could not be used (`quarantine/`)", in_all - b.items - b.others),
        ("bags whose total was rounded", b.rounded),
        ("groups of bags that did not converge", b.not_settled),
        ("bags whose total was used by approximation", b.approximated),
        (f"improbable totals (`{bags_folder(folder)}/`)", b.improbable),
    )
    good = [CONSTANT + "."]
    if not (b.is_constant and b.is_learned):
        good = ["There are too few bags to hold any out, so the quality of beliefs is not known."]
        if b.is_told:
            good = [_losses(b), *_card_warnings(b)]
    if len(b.order) == 2:
        good.append(
            "`positives` was taken to count the second of the two classes. If it counts the first, "
            "every belief is inverted."
        )
    paragraphs = [
        "---\ntags:\n- labelops\nconfigs:\n- config_name: default\n"
        f"  data_files: {folder}/part-*.parquet\n- config_name: bags\n"
        f"  data_files: {bags_folder(folder)}/part-00000.parquet\n---",
        "# Labels from totals",
        f"Made by labelops {__version__}, run `{run.key[:16]}`, from {len(run.source.shards)} "
        f"shards with {in_all:,} items. Nothing in the source was changed.",
        "\n".join(["| | |", "|---|---:|", *(f"| {name} | {n:,} |" for name, n in rows)]),
        *good,
        " ".join([*_believed(b), "Those of a bag's items add up to its total."]),
        BELIEFS + (LEARNED if b.is_learned else ""),
    ]
    return "\n\n".join(paragraphs)
