"""From a run folder to the page: the right items, counts and pictures, however the data is cut."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import pipelines.run
from pipelines import registry
from pipelines.core.graph import open_workers
from pipelines.recipe import Recipe, parse_recipe
from pipelines.report import collect, write_report
from pipelines.report.limits import Limits
from pipelines.report.model import Estimate, Item, Picture, Report
from tests.datasets import even, write_shards
from tests.pipelines import report_stages as planted
from tests.pipelines.test_report_render import Page

N = 300
LIVE = [n for n in range(N) if not planted.is_bad(n)]
CUTS = {"one": [N], "four": [1, 0, 160, N - 161], "thirty": even(N, 30)}
RECIPE = """
stages = ["source", "infer", "confident", "neighbours", "decide"]
[data]
max_bad_share = 0.2
"""
LEFT_OUT = """
[dataset]
leave_out_rules = ["relabel-0.95"]
leave_out_items = ["item-00002", "item-00010", "item-00016"]
"""


def colour_of(number: int) -> tuple[int, int, int]:
    """Let the picture of each item say which one it is."""
    return (number % 256, number // 256 * 40, 77)


def source() -> pa.Table:
    images = []
    for number in range(N):
        out = io.BytesIO()
        Image.new("RGB", (12, 9), colour_of(number)).save(out, "PNG")
        images.append({"bytes": out.getvalue(), "path": None})
    return pa.table(
        {
            "item_id": [planted.item_id(number) for number in range(N)],
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": [planted.NAMES[planted.given_of(number)] for number in range(N)],
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Finished runs of the planted stages, by cut."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("infer", "confident", "neighbours", "decide", "dataset"):
            target = f"tests.pipelines.report_stages:{name.upper()}"
            patch.setitem(registry.STAGES, name, target)
        for cut, sizes in CUTS.items():
            data = folder / cut / "planted"
            write_shards(data, source(), sizes)
            make_run(parse_recipe(RECIPE, name="audit"), str(data), str(folder / cut / "out"))
        recipe = parse_recipe(
            RECIPE.replace('"decide"', '"decide", "dataset"') + LEFT_OUT, name="audit"
        )
        make_run(recipe, str(folder / "four" / "planted"), str(folder / "left out"))
        yield {cut: str(folder / cut / "out") for cut in CUTS} | {"left": str(folder / "left out")}


def make_run(recipe: Recipe, data: str, out: str) -> None:
    """Run the stages, and write what of the end of a run the report reads."""
    run = pipelines.run.open_run(recipe, data=data, out=out)
    with open_workers() as pool:
        for entry in run.entries:
            pipelines.run.run_stage(run, entry.name, pool)
    write_report(run.uri)


@pytest.fixture(scope="module", params=list(CUTS))
def report(request: pytest.FixtureRequest, runs: dict[str, str]) -> Report:
    return collect(runs[request.param])


def ids(items: tuple[Item, ...]) -> list[str]:
    return [item.item_id for item in items]


def smallest(numbers: list[int], key: str, n: int) -> list[str]:
    """Return ids of the n smallest numbers by a planted value, ties by hash."""
    value = getattr(planted, key)
    ordered = sorted(numbers, key=lambda number: (value(number), planted.hash_of(number)))
    return [planted.item_id(number) for number in ordered[:n]]


def test_ledger__counts_every_item_once(report: Report) -> None:
    decided = Counter(planted.decision_of(number) for number in LIVE)
    ledger = report.ledger
    assert ledger.is_balanced
    assert (ledger.source, ledger.quarantined) == (N, N - len(LIVE))
    assert (ledger.kept, ledger.relabelled) == (decided["keep"], decided["relabel"])
    assert (ledger.dropped, ledger.review) == (decided["drop"], decided["review"])


def test_flags__are_counted_and_worst_items_listed_by_score_then_hash(report: Report) -> None:
    issues = [number for number in LIVE if planted.is_issue(number)]
    assert report.flagged == len(issues)
    assert {group.name for group in report.worst} == set(planted.NAMES)
    for group in report.worst:
        mine = [n for n in issues if planted.NAMES[planted.given_of(n)] == group.name]
        assert group.flagged == len(mine)
        assert ids(group.items) == smallest(mine, "score_of", 12)
        for item in group.items:
            number = int(item.item_id[5:])
            assert item.given == group.name
            assert item.believed == planted.NAMES[planted.predicted_of(number)]
            assert item.score == pytest.approx(planted.score_of(number))


def test_pictures__belong_to_their_items(report: Report) -> None:
    shown = [item for group in report.worst for item in group.items]
    shown += [change.item for change in report.changes.shown] if report.changes else []
    assert len(shown) > 60
    for item in shown:
        assert isinstance(item.picture, Picture)
        image = Image.open(io.BytesIO(item.picture.data)).convert("RGB")
        assert image.getpixel((5, 5)) == colour_of(int(item.item_id[5:]))


def test_outliers__are_the_most_unusual_and_those_without_score_come_last(report: Report) -> None:
    numbers = [number for number in LIVE if planted.is_outlier(number)]
    assert report.outliers is not None
    assert report.outliers.count == len(numbers)
    known = [number for number in numbers if planted.outlier_score_of(number) is not None]
    expected = smallest(known, "outlier_score_of", 48)
    assert ids(report.outliers.shown)[: len(expected)] == expected


def test_duplicates__are_those_that_contradict_each_other(report: Report) -> None:
    groups = [g for g in range(N // 30) if not set(planted.members_of(g)[:2]) - set(LIVE)]
    found = report.duplicates
    assert found is not None
    members = [n for n in LIVE if planted.set_of(n) is not None]
    assert found.duplicate_items == len(members)
    assert found.conflict_items == sum(1 for n in members if planted.is_conflict(n))
    assert found.conflict_sets == len(
        {planted.set_of(n) for n in members if planted.is_conflict(n)}
    )
    shown = {frozenset(ids(group.items)) for group in found.shown}
    for group in groups:
        assert frozenset(planted.item_id(n) for n in planted.members_of(group)[:2]) in shown
    kinds = [group.kind for group in found.shown]
    assert kinds == sorted(kinds)
    assert set(kinds) == {"identical", "nearly identical"}


def test_changes__shown_are_the_least_certain_ones(report: Report) -> None:
    changed = [n for n in LIVE if planted.decision_of(n) == "relabel"]
    found = report.changes
    assert found is not None
    assert found.count == len(changed)
    assert ids(tuple(change.item for change in found.shown)) == smallest(
        changed, "confidence_of", 60
    )
    for change in found.shown:
        number = int(change.item.item_id[5:])
        assert change.before == planted.NAMES[planted.given_of(number)]
        assert change.after == planted.NAMES[planted.predicted_of(number)]
        assert change.confidence == pytest.approx(planted.confidence_of(number))
        assert change.reason == "because of relabel"
    pairs = Counter((planted.given_of(n), planted.predicted_of(n)) for n in changed)
    assert Counter(
        {(planted.NAMES.index(a), planted.NAMES.index(b)): n for a, b, n in found.by_pair}
    ) == dict(pairs.most_common(12))
    decided = Counter(planted.decision_of(n) for n in LIVE if planted.is_issue(n))
    assert dict(found.by_reason) == {f"because of {word}": n for word, n in decided.items()}


def test_estimates__are_those_of_the_stages(report: Report) -> None:
    assert report.wrong == Estimate(19, 12, 27)
    assert report.wrong_share == Estimate(19 / 225, 0.05, 0.12)
    # The class without items has no quality, and the worst comes first.
    assert [c.name[-1] for c in report.classes] == ["D", "A", "B"]
    assert report.classes[0].wrong_share == Estimate(10 / 75, 0.08, 0.2)
    assert [c.items for c in report.classes] == [75, 75, 75]
    assert [c.hidden for c in report.classes] == [1, 10, 4]
    first = report.confusions[0]
    assert (first.given[-1], first.believed[-1], first.items) == ("D", "A", 9)
    flagged = Counter(
        (planted.given_of(n), planted.predicted_of(n)) for n in LIVE if planted.is_issue(n)
    )
    assert first.flagged == flagged[3, 0]
    assert report.confusion_table is not None
    assert np.array_equal(report.confusion_table.items, planted.JOINT)


def test_gate__says_what_shipped_and_why_not(report: Report) -> None:
    shipped, held = report.rules
    assert (shipped.name, shipped.proposed, shipped.shipped) == ("relabel-0.9", 40, 38)
    assert shipped.verdict == "shipped in part"
    assert "2 not changed: max_change_share is reached" in shipped.why
    assert shipped.meaning
    assert (held.proposed, held.shipped, held.verdict) == (30, 0, "held back")
    assert held.gain == Estimate(0.8, -0.1, 1.0)
    assert report.fixed == Estimate(35.5)
    assert report.broken == Estimate(1.25)


def test_decisions_left_out__are_not_counted_as_made(runs: dict[str, str]) -> None:
    report = collect(runs["left"])
    items = ("item-00002", "item-00010", "item-00016")
    done = [
        n
        for n in LIVE
        if planted.is_issue(n)
        and planted.rule_of(n) != "relabel-0.95"
        and planted.item_id(n) not in items
    ]
    decided = Counter(planted.decision_of(n) for n in done)
    assert planted.decision_of(10) == "review"
    assert planted.decision_of(16) != "keep"
    assert report.ledger.is_balanced
    assert report.ledger.relabelled == decided["relabel"]
    assert report.ledger.dropped == decided["drop"]
    assert report.ledger.review == decided["review"]
    assert report.changes is not None
    assert report.changes.count == decided["relabel"]
    facts = {fact.name: fact.value for fact in report.facts}
    assert facts["Left out of the dataset"] == ", ".join(("relabel-0.95", *items))


def test_quarantine__names_reason_source_file_and_row(report: Report) -> None:
    (found,) = report.quarantine
    assert (found.reason, found.stage) == ("cannot be decoded", "infer")
    assert found.count == N - len(LIVE)
    assert len(found.examples) == 5
    for row in found.examples:
        assert row.shard.startswith("part-000")
        assert row.detail == f"<b>{int(row.item_id[5:])}</b>"


def test_report__is_the_same_however_the_data_is_cut(runs: dict[str, str]) -> None:
    def neutral(report: Report) -> Report:
        def item(found: Item) -> Item:
            return replace(found, shard=0)

        assert report.outliers
        assert report.duplicates
        assert report.changes
        return replace(
            report,
            timings=(),
            finished="",
            facts=(),
            quarantine=(),
            worst=tuple(
                replace(group, items=tuple(map(item, group.items))) for group in report.worst
            ),
            outliers=replace(report.outliers, shown=tuple(map(item, report.outliers.shown))),
            duplicates=replace(
                report.duplicates,
                shown=tuple(
                    replace(group, items=tuple(map(item, group.items)))
                    for group in report.duplicates.shown
                ),
            ),
            changes=replace(
                report.changes,
                shown=tuple(
                    replace(change, item=item(change.item)) for change in report.changes.shown
                ),
            ),
        )

    first, *others = (neutral(collect(runs[cut])) for cut in CUTS)
    for other in others:
        assert other == first


def test_write_report__gives_the_same_bytes_and_leaves_nothing_else(runs: dict[str, str]) -> None:
    folder = Path(runs["four"])
    before = {path.name for path in folder.iterdir()}
    page = (folder / "report.html").read_bytes()
    assert write_report(str(folder)) == str(folder / "report.html")
    assert (folder / "report.html").read_bytes() == page
    assert {path.name for path in folder.iterdir()} == before
    assert not Page(page.decode()).errors


def test_report__names_no_place_of_the_machine(runs: dict[str, str]) -> None:
    page = Path(runs["one"], "report.html").read_text()
    assert str(Path(runs["one"]).parent) not in page
    assert "planted" in page
    assert not re.search(r"/tmp/|/home/|/work/", page)


def test_limits__hold_for_every_list(runs: dict[str, str]) -> None:
    limits = Limits(
        worst_per_class=2,
        worst_classes=3,
        outliers=4,
        duplicate_sets=2,
        changes=5,
        quarantine_examples=1,
        confusions=2,
    )
    report = collect(runs["four"], limits)
    assert [len(group.items) for group in report.worst] == [2, 2, 2]
    assert report.worst_left_out == 1
    assert report.outliers is not None
    assert len(report.outliers.shown) == 4
    assert report.duplicates is not None
    assert len(report.duplicates.shown) == 2
    assert report.changes is not None
    assert len(report.changes.shown) == 5
    assert len(report.quarantine[0].examples) == 1


def test_settings__are_those_of_the_recipe(report: Report) -> None:
    shown = {(s.table, s.key): s.value for s in report.settings}
    assert shown["confident", "knob"] == "3"
    assert shown["data", "max_bad_share"] == "0.2"
    assert [timing.name for timing in report.timings] == [
        "source", "infer", "confident", "neighbours", "decide",
    ]  # fmt: skip


def test_source_rows__reads_only_the_row_groups_needed(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from pipelines.report.look import source_rows
    from pipelines.storage.frame import ColumnRef, FileRef

    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"x": np.arange(100)}), path, row_group_size=7, use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(3).column(0).data_page_offset
    damaged[place : place + 20] = bytes(20)
    path.write_bytes(damaged)
    ref = FileRef(uri=str(tmp_path), name="part.parquet", rows=100, rejects=((0, 50), (3,)))
    live = [n for n in range(100) if n not in (0, 50, 4)]
    wanted = [0, 5, 40, 41, 96]
    found = list(source_rows(ref, {"x": ColumnRef("", "x")}, wanted))
    assert [row["x"] for row in found] == [live[row] for row in wanted]
