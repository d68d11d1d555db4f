"""What the report says, as plain values: no tables, no arrays, no markup.

``collect`` fills it from a finished run folder, ``render`` turns it into a page. Every number is
already final here; every string may come from the data and is treated as hostile by ``render``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; bounds are None where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail that is ready to be embedded (re-encoded by us, never the user's own bytes)."""

    media: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Neighbouring cells of a row of a label map in which a class is about equally sure."""

    x: int
    y: int
    width: int
    level: int
    """4 where a cell is surer than the cutoff of the class, 1 to 3 where it comes near."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Where in a picture a class is seen, in cells of its label map."""

    name: str
    columns: int
    rows: int
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One example, as shown on the page."""

    item_id: str
    shard: int
    given: str
    believed: str = ""
    score: float | None = None
    picture: Picture | None = None
    excerpt: str = ""
    note: str = ""
    overlay: Overlay | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Where every item of the source went; the five parts sum to ``source``."""

    source: int
    kept: int
    relabelled: int
    dropped: int
    review: int
    quarantined: int

    @property
    def is_balanced(self) -> bool:
        """Whether no item was lost or counted twice."""
        parts = self.kept + self.relabelled + self.dropped + self.review + self.quarantined
        return parts == self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """Quality of one class's given labels."""

    name: str
    items: int
    flagged: int
    wrong_share: Estimate
    hidden: float | None = None
    """Estimated number of items that belong to this class but carry another label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Items given one class that are believed to be of another."""

    given: str
    believed: str
    items: float
    share_of_given: float
    flagged: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionTable:
    """Estimated items per given (row) and believed (column) class."""

    classes: tuple[str, ...]
    items: tuple[tuple[float, ...], ...]
    is_part: bool = False
    """True when only the most confused classes are shown and the last is all others together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMap:
    """A coarse picture of a large confusion matrix: blocks of neighbouring classes."""

    n_classes: int
    classes_per_block: int
    wrong: tuple[tuple[float, ...], ...]
    """Estimated wrong labels per block of given (row) and believed (column) classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstOfClass:
    """The most suspicious items of one given class, most suspicious first."""

    name: str
    flagged: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateSet:
    """Items that look the same but were given different labels."""

    kind: str
    items: tuple[Item, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Duplicate sets of the whole data set and the conflicting ones worth a look."""

    conflict_sets: int
    conflict_items: int
    duplicate_items: int
    shown: tuple[DuplicateSet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Items that resemble nothing else, most unusual first."""

    count: int
    shown: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Items (or cells) whose confidence fell into (low, high], before or after scaling."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measure of calibration, before and after scaling (lower is better)."""

    name: str
    meaning: str
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far stated confidence is from observed agreement with the given labels."""

    temperature: float | None
    """None where items may have several labels."""
    items: int
    metrics: tuple[Metric, ...]
    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...]
    accuracy: float | None = None
    """Share of the given labels with which the model agrees."""
    decision_temperature: float | None = None
    """Temperature that decisions use, where it is another one."""
    slope: float = 1.0
    shift: float = 0.0
    """What corrects the log-odds of single classes, where items may have several labels."""
    cells: int | None = None
    """Classes of items of which it is given whether they are there; None for one label an item."""

    @property
    def excess(self) -> float:
        """By what log-odds have to be divided: above 1 where the model is too sure."""
        return 1 / max(self.slope, 1e-9) if self.temperature is None else self.temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One label that was changed."""

    item: Item
    before: str
    after: str
    confidence: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All changed labels in numbers, and those shown."""

    count: int
    by_reason: tuple[tuple[str, int], ...]
    by_pair: tuple[tuple[str, str, int], ...]
    shown: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the gate: what it proposed, what shipped, and what that is worth."""

    name: str
    meaning: str
    proposed: int
    shipped: int
    fixed: Estimate | None
    """None where nothing can be expected; so with the next two."""
    broken: Estimate | None
    gain: Estimate | None
    verdict: str
    """``shipped``, ``shipped in part`` or ``held back``."""
    why: str
    """How the gain is known, measured or only expected, and what held changes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bag:
    """A bag's total of one class, beside what a model says that has not seen it."""

    bag_id: str
    name: str
    """The class that is counted."""
    items: int
    count: int
    expected: float
    p_value: float
    q_value: float
    """Least rate of false findings at which it is one."""

    @property
    def excess(self) -> float:
        """By how much the count is higher than expected."""
        return self.count - self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class BagPoint:
    """A class's share of a bag, as counted and as expected."""

    counted: float
    expected: float
    is_improbable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BagClass:
    """Items of a class: as totals count them, and as they are believed one by one."""

    name: str
    counted: int
    likely: int
    """Items with a total of which it is the most probable class."""
    likely_others: int
    """The same of items without a total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BagShare:
    """How much the share of a class differs between bags."""

    name: str
    mean: float
    std: float
    by_chance: float
    """What the spread would be if bags had been drawn at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BagRound:
    """One round of learning from totals, or the one time that they were brought in."""

    name: str
    components: int
    not_settled: int
    """Groups of bags whose messages did not settle; their beliefs are those of the last sweep."""
    strength: float | None = None
    """How much neighbours may say, as held-out totals chose it."""
    approximated: int = 0
    """Bags whose counts had their say by a saddle point, not by counting through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """Groups of items of which the totals are known."""

    count: int
    items: int
    others: int
    """Items without a total."""
    absent: int
    incomplete: int
    smallest: int
    median: float
    largest: int
    shares: tuple[BagShare, ...]
    is_constant: bool
    """Whether all bags have one share, from which nothing can be learned."""
    is_learned: bool
    """Whether a model was learned from totals, or they were brought into what was believed."""
    held_out: int
    loss_model: float | None
    loss_constant: float | None
    rounds: tuple[BagRound, ...]
    rounded: int
    residual: float
    dispersion: float
    improbable: int
    shown: tuple[Bag, ...]
    moved: float | None = None
    missing: int = 0
    """Items of which a feature is missing."""
    unsettled: float | None = None
    """Nats that another step of the regression on totals would have gained."""
    left_out: int = 0
    """Bags whose totals were not brought in, since given labels and model contradict them."""
    is_contrary: bool = False
    """Whether that is so of all, because one share for all tells totals better."""
    is_clear: bool = True
    """Whether all totals, each told without it, are told clearly better than by one share."""
    spread: str = "chance"
    """Shares of bags differ far ``less`` than by chance, about as by ``chance``, or ``more``."""
    order: tuple[str, ...] = ()
    """Names of the first classes, in the order of their counts."""
    classes: tuple[BagClass, ...] = ()
    sureness: float | None = None
    """Probability of the most probable class, mean over items."""
    points: tuple[BagPoint, ...] = ()
    n_points: int = 0
    """How many there are; not all may be drawn."""

    @property
    def last(self) -> str:
        """The stage whose beliefs are the last ones, and the folder they are in."""
        return self.rounds[-1].name if self.rounds else "proportions"

    @property
    def not_settled(self) -> int:
        """Groups of bags that did not settle in the last round."""
        return self.rounds[-1].not_settled if self.rounds else 0

    @property
    def approximated(self) -> int:
        """Bags whose counts had their say by approximation in the last round."""
        return self.rounds[-1].approximated if self.rounds else 0

    @property
    def is_no_better(self) -> bool:
        """Whether totals are told no better by the model than by one share for all.

        Where beliefs were there before totals, that share has seen them, and bags that were filled
        to have it are told best by it, however good the model.
        """
        if self.loss_model is None or self.loss_constant is None:
            return False
        if not self.is_learned and (self.is_constant or self.spread == "less"):
            return False
        return self.loss_model >= self.loss_constant

    @property
    def is_doubtful(self) -> bool:
        """Whether held-out totals are told better, but so little that it may be chance."""
        is_told = self.loss_model is not None and self.loss_constant is not None
        return self.is_learned and is_told and not self.is_clear and not self.is_no_better


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedClass:
    """One class where items may have several: how much of it is wrong, how much is missing."""

    name: str
    given: int
    ruled_out: int
    wrong: Estimate
    """Items that were given the class and do not have it."""
    missing: Estimate
    """Items that have the class though it was ruled out."""
    flagged_wrong: int
    flagged_missing: int
    removed: int | None = None
    added: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """Items in which a class is probably missing or probably wrong, most probable first."""

    name: str
    n_missing: int
    n_wrong: int
    missing: tuple[Item, ...]
    wrong: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEdit:
    """One changed list of labels."""

    item: Item
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    confidence: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLists:
    """Labels of items that may have several."""

    given: int
    """All labels together."""
    unknown: int
    """Classes of items that nobody spoke of, together; 0 where what is not given is ruled out."""
    flagged_items: int
    wrong: Estimate
    missing: Estimate
    classes: tuple[ListedClass, ...]
    suspects: tuple[Suspects, ...]
    believed_wrong: float | None = None
    believed_missing: float | None = None
    """What beliefs add up to, which allow for a model that does not fit the given labels."""
    suspects_left_out: int = 0
    added: int | None = None
    removed: int | None = None
    by_reason: tuple[tuple[str, int], ...] = ()
    edits: tuple[ListEdit, ...] = ()
    n_edited: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenClass:
    """A class that label maps show: from which probability on, and pictures it was not given."""

    name: str
    cutoff: float | None
    """None where nothing is known of any class, and so none is found."""
    known: int
    """Items of which it is known that they have the class, among those cutoffs are chosen on."""
    found: int
    new: int
    """Pictures in which it was found though not given."""
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMapsFound:
    """What label maps show of all pictures."""

    pictures: int
    columns: int
    rows: int
    per_cell: int
    image_size: int
    rule: str
    chosen_on: int
    given_seen: float | None
    """Share of the given labels that the maps show, too."""
    by_count: tuple[tuple[int, int], ...]
    """Number of classes found, and how many pictures have so many."""
    classes: tuple[SeenClass, ...]
    classes_left_out: int = 0
    found: int = 0
    """Classes found in all pictures together."""
    found_new: int = 0
    """Those of them that were not given."""
    added: int | None = None
    """Labels added because maps show them; None where maps do not decide."""
    removed: int = 0
    by_reason: tuple[tuple[str, int], ...] = ()
    edits: tuple[ListEdit, ...] = ()
    n_edited: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table."""

    name: str
    values: tuple[str, ...]
    """Numbers as people read them; the first counts most."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of a section, in bands that have a name each; one without a name is all there is."""

    caption: str
    head: tuple[str, ...]
    bands: tuple[tuple[str, tuple[Row, ...]], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth a person's time, and where on the page it is."""

    title: str
    detail: str
    anchor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What a stage says in words and tables: on the page, in the data card and as artifacts."""

    name: str
    """Anchor on the page: letters and dashes."""
    title: str = ""
    """Without one there is nothing on the page."""
    short: str = ""
    """Title in the contents, where another one."""
    intro: str = ""
    tables: tuple[Table, ...] = ()
    headline: str = ""
    """Heads the page of a run about nothing else."""
    findings: tuple[Finding, ...] = ()
    card: str = ""
    """A paragraph of the data card, in Markdown; names from the data must be escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedRow:
    """A row that could not be used; ``shard`` is the name of its source file."""

    shard: str
    row: int
    item_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineReason:
    """All rows rejected for one reason, with a few examples."""

    reason: str
    stage: str
    count: int
    examples: tuple[QuarantinedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTiming:
    """What one stage took."""

    name: str
    doc: str
    rows: int
    shards: int
    seconds: float
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One resolved setting of the recipe, as TOML shows it."""

    table: str
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A named fact about the run, such as a version or a fingerprint."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One finished run.

    A part that the recipe has no stage for is None or empty, and its section is left out.
    """

    title: str
    recipe: str
    finished: str
    ledger: Ledger
    n_classes: int
    has_pictures: bool
    wrong: Estimate | None
    wrong_share: Estimate | None
    flagged: int | None
    doubted: float | None = None
    """Wrong labels as the beliefs in single items add up to."""
    fixed: Estimate | None = None
    broken: Estimate | None = None
    classes: tuple[ClassQuality, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    confusion_table: ConfusionTable | None = None
    confusion_map: ConfusionMap | None = None
    worst: tuple[WorstOfClass, ...] = ()
    worst_left_out: int = 0
    duplicates: Duplicates | None = None
    outliers: Outliers | None = None
    calibration: Calibration | None = None
    changes: Changes | None = None
    rules: tuple[Rule, ...] = ()
    bags: Bags | None = None
    lists: LabelLists | None = None
    maps: LabelMapsFound | None = None
    sections: tuple[Section, ...] = ()
    """What single stages say."""
    is_decided: bool = False
    """Whether it was decided what becomes of every item."""
    changed: int = 0
    """Changed labels: one an item, or any number where items have several."""
    quarantine: tuple[QuarantineReason, ...] = ()
    timings: tuple[StageTiming, ...] = ()
    facts: tuple[Fact, ...] = ()
    settings: tuple[Setting, ...] = ()
    notes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """What was left out, guessed or merged."""
