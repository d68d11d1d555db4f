"""From a run folder to the page: the right items, counts and pictures, however the data is cut."""

import io
import re
from collections import Counter
from collections.abc import Iterator
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
from pipelines.report.model import Change, Estimate, Item, Picture, Report
from tests.datasets import even, write_shards
from tests.pipelines import report_stages as planted
from tests.pipelines.shown import drawn, items_of, section, table_of, worst_groups
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


def changes_of(report: Report) -> tuple[Change, ...]:
    shown: tuple[Change, ...] = drawn(report, "changes", "changes.html.j2")
    return shown


def test_flags__are_counted_and_worst_items_listed_by_score_then_hash(report: Report) -> None:
    issues = [number for number in LIVE if planted.is_issue(number)]
    (flagged,) = (t for t in section(report, "classes").tiles if t.name == "Flagged")
    assert flagged.value == str(len(issues))
    groups = worst_groups(report)
    assert set(groups) == set(planted.NAMES)
    for name, items in groups.items():
        mine = [n for n in issues if planted.NAMES[planted.given_of(n)] == name]
        assert ids(items) == smallest(mine, "score_of", 12)
        for item in items:
            number = int(item.item_id[5:])
            assert item.given == name
            assert item.believed == planted.NAMES[planted.predicted_of(number)]
            assert item.score == pytest.approx(planted.score_of(number))
    # The class of which nothing is left in the estimates has flagged items, too.
    found = dict(table_of(report, "classes", "Class", "Flagged"))
    assert found == {
        name: sum(planted.NAMES[planted.given_of(n)] == name for n in issues) for name in found
    }


def test_pictures__belong_to_their_items(report: Report) -> None:
    shown = [item for items in worst_groups(report).values() for item in items]
    shown += [change.item for change in changes_of(report)]
    assert len(shown) > 60
    for item in shown:
        assert isinstance(item.picture, Picture)
        image = Image.open(io.BytesIO(item.picture.data)).convert("RGB")
        assert image.getpixel((5, 5)) == colour_of(int(item.item_id[5:]))


def test_outliers__are_the_most_unusual_and_those_without_score_come_last(report: Report) -> None:
    numbers = [number for number in LIVE if planted.is_outlier(number)]
    assert str(section(report, "outliers").blocks[0]).startswith(f"{len(numbers)} items far from")
    known = [number for number in numbers if planted.outlier_score_of(number) is not None]
    expected = smallest(known, "outlier_score_of", 48)
    assert ids(items_of(section(report, "outliers").blocks))[: len(expected)] == expected


def test_duplicates__are_those_that_contradict_each_other(report: Report) -> None:
    groups = [g for g in range(N // 30) if not set(planted.members_of(g)[:2]) - set(LIVE)]
    members = [n for n in LIVE if planted.set_of(n) is not None]
    conflicts = [n for n in members if planted.is_conflict(n)]
    n_sets = len({planted.set_of(n) for n in conflicts})
    said = str(section(report, "duplicates").blocks[0])
    assert said.startswith(f"{n_sets} sets with {len(conflicts)} items that look the same")
    assert f"In all, {len(members)} items have a duplicate." in said
    sets = drawn(report, "duplicates", "parts/duplicates.html.j2")
    shown = {frozenset(ids(one.items)) for one in sets}
    for group in groups:
        assert frozenset(planted.item_id(n) for n in planted.members_of(group)[:2]) in shown
    kinds = [one.kind for one in sets]
    assert kinds == sorted(kinds)
    assert set(kinds) == {"identical", "nearly identical"}


def test_changes__shown_are_the_least_certain_ones(report: Report) -> None:
    changed = [n for n in LIVE if planted.decision_of(n) == "relabel"]
    assert str(section(report, "changes").blocks[0]).startswith(f"{len(changed)} labels were")
    shown = changes_of(report)
    assert ids(tuple(change.item for change in shown)) == smallest(changed, "confidence_of", 60)
    for change in shown:
        number = int(change.item.item_id[5:])
        assert change.removed == (planted.NAMES[planted.given_of(number)],)
        assert change.added == (planted.NAMES[planted.predicted_of(number)],)
        assert change.kept is None
        assert change.confidence == pytest.approx(planted.confidence_of(number))
        assert change.reason == "because of relabel"
    pairs = Counter((planted.given_of(n), planted.predicted_of(n)) for n in changed)
    by_pair = table_of(report, "changes", "From → to", "Labels")
    assert {(planted.NAMES.index(a), planted.NAMES.index(b)): n for (a, b), n in by_pair} == dict(
        pairs.most_common(12)
    )
    decided = Counter(planted.decision_of(n) for n in LIVE if planted.is_issue(n))
    reasons = dict(table_of(report, "changes", "Reason", "Items"))
    assert reasons == {f"because of {word}": n for word, n in decided.items()}


def test_estimates__are_those_of_the_stages(report: Report) -> None:
    classes = section(report, "classes")
    assert classes.headline == "About <em>19</em> of 300 labels look wrong."
    assert "From 12 to 27 may be wrong" in classes.lead
    # The class without items has no quality, and the worst comes first.
    rows = table_of(report, "classes", "Class", "Estimated wrong", "Items", "Labelled otherwise")
    assert [name[-1] for name, *_ in rows] == ["D", "A", "B"]
    assert rows[0][1] == Estimate(10 / 75, 0.08, 0.2)
    assert [items for *_, items, _ in rows] == [75, 75, 75]
    assert [hidden for *_, hidden in rows] == [1, 10, 4]
    heads = ("Given → believed", "Estimated items", "Flagged")
    (given, believed), items, n_flagged = table_of(report, "confusion", *heads)[0]
    assert (given[-1], believed[-1], items) == ("D", "A", 9)
    flagged = Counter(
        (planted.given_of(n), planted.predicted_of(n)) for n in LIVE if planted.is_issue(n)
    )
    assert n_flagged == flagged[3, 0]
    heat = drawn(report, "confusion", "parts/heat.html.j2")
    assert np.array_equal(heat.items, planted.JOINT)


def test_gate__says_what_shipped_and_why_not(report: Report) -> None:
    shipped, held = drawn(report, "rules", "gate.html.j2")
    assert (shipped.name, shipped.proposed, shipped.shipped) == ("relabel-0.9", 40, 38)
    assert shipped.verdict == "shipped in part"
    assert (
        "2 not changed: max_change_share, or what the estimate supports, is reached" in shipped.why
    )
    assert shipped.meaning
    assert (held.proposed, held.shipped, held.verdict) == (30, 0, "held back")
    assert held.gain == Estimate(0.8, -0.1, 1.0)
    tiles = {tile.name: (tile.value, tile.under) for tile in section(report, "changes").tiles}
    assert tiles["Expected fixed"] == ("36", "of 38 changed")
    assert tiles["Expected broken"] == ("1", "of 38 changed")


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
    assert f"{decided['relabel']} labels were changed" in str(section(report, "changes").blocks[0])
    facts = dict(drawn(report, "repeat", "repeat.html.j2")["facts"])
    assert facts["Left out of the dataset"] == ", ".join(("relabel-0.95", *items))


def test_quarantine__names_reason_source_file_and_row(report: Report) -> None:
    ((reason, stage, n, examples),) = table_of(
        report, "quarantine", "Reason", "Stage", "Rows", "Examples: item, shard and row"
    )
    assert (reason, stage) == ("cannot be decoded", "infer")
    assert n == N - len(LIVE)
    assert len(examples) == 5
    for row in examples:
        assert row.shard.startswith("part-000")
        assert planted.is_bad(int(row.item_id[5:]))


def test_report__is_the_same_however_the_data_is_cut(runs: dict[str, str]) -> None:
    def neutral(report: Report) -> str:
        sections = [s for s in report.sections if s.rank < 130]
        return re.sub(r"shard=\d+", "", repr((report.ledger, sections)))

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
    assert [len(items) for items in worst_groups(report).values()] == [2, 2, 2]
    assert "1 more class with flagged items" in repr(section(report, "worst").blocks[-1])
    assert len(items_of(section(report, "outliers").blocks)) == 4
    assert len(drawn(report, "duplicates", "parts/duplicates.html.j2")) == 2
    assert len(changes_of(report)) == 5
    ((examples,),) = table_of(report, "quarantine", "Examples: item, shard and row")
    assert len(examples) == 1
    assert len(table_of(report, "confusion", "Flagged")) == 2


def test_settings__are_those_of_the_recipe(report: Report) -> None:
    shown = dict(table_of(report, "repeat", "Setting", "Value"))
    assert shown["confident.knob"] == "3"
    assert shown["data.max_bad_share"] == "0.2"
    timings = [name for ((name, _),) in table_of(report, "timings", "Stage")]
    assert timings == ["source", "infer", "confident", "neighbours", "decide", "All"]


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
