"""What the report and the card say of bags: planted findings, and runs on planted bags."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.core.state import Run
from pipelines.registry import STAGES
from pipelines.report import collect
from pipelines.report import model as m
from pipelines.report.findings import findings
from pipelines.report.limits import Limits
from pipelines.report.parts.bags import Bags, read_bags, round_table
from pipelines.report.parts.totals import card
from pipelines.report.render import render
from tests.datasets import vectors
from tests.pipelines import test_report_render as pages
from tests.pipelines.bagged import FOURIER, ONE_ROUND, Planted, beliefs_of, found_in, learn, planted
from tests.pipelines.bagged_report import (
    audited,
    bagged,
    of_bags,
    once,
    round_of,
    without_improbable,
)
from tests.pipelines.test_report_render import Page


def words(page: str) -> str:
    """Return the words of the section on bags, without marks."""
    section = page.split('<section id="bags"')[1].split("</section>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", section)).split())


def said(bags: Bags) -> str:
    return words(render(bagged(bags)))


def titles(bags: Bags) -> list[str]:
    return [finding.title for finding in findings(bagged(bags))]


@pytest.fixture(scope="module")
def two() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def learned(two: Planted, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return learn(tmp_path_factory.mktemp("learned"), two.items, two.bags, FOURIER)


def page_of(run: Run) -> str:
    return (Path(run.uri) / "report.html").read_text()


def card_of(run: Run) -> str:
    return " ".join((Path(run.uri) / "README.md").read_text().split())


# -- planted findings ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bagged, audited])
def test_page__with_bags_keeps_the_rules_of_all_pages(make: Callable[[Bags], m.Report]) -> None:
    page = render(make(of_bags()))
    pages.test_page__is_well_formed(page)
    pages.test_page__links_lead_to_sections_that_exist(page)
    pages.test_page__refers_to_nothing_outside_itself(page)
    tags = Page(page).tags
    assert tags["caption"] == tags["table"]


def test_findings_by_chance__are_a_bound_and_not_an_expectation() -> None:
    text = said(of_bags())
    assert "at most about 5 % of such findings are by chance" in text
    assert "expected to be by chance" not in text
    assert "at most about 5\u202f% by chance" in html.unescape(render(bagged(of_bags())))


@pytest.mark.parametrize("shown", [True, False])
def test_dispersion__is_said_whether_or_not_a_total_is_listed(shown: bool) -> None:
    bags = replace(of_bags(), dispersion=3.456)
    if not shown:
        bags = without_improbable(bags)
    text = said(bags)
    assert "The variance of totals is 3.46 times what the model allows" in text
    assert ("No total is improbable, given this variance" in text) is not shown
    assert "variance" not in said(of_bags())


def test_columns__are_explained() -> None:
    text = said(of_bags())
    for part in (
        "p-value: how probable a count at least so far off is, if the model is right.",
        "q-value: the share of findings by chance among all totals with at most this q",
        "nats a bag",
        "(Items of a bag times the divergence of its counted shares from the expected ones;",
        "Spread: standard deviation over bags. By chance: what it would be if",
        "Connected groups: bags joined by neighbours.",
        "Weight of neighbours: how strongly similar items are expected to have the same label;",
    ):
        assert part in text
    assert re.search(r"proportions none 40 0 proportions@2 0\.3 31 0", text)


def test_sizes__are_said_with_their_median_or_as_one() -> None:
    assert "40 bags with 400 items, 8 to 12 to a bag, median 9.5." in said(of_bags())
    equal = replace(of_bags(), smallest=10, median=10.0, largest=10)
    assert "40 bags with 400 items, 10 to each." in said(equal)
    page = render(bagged(equal))
    assert "10 to 10" not in page
    assert "of 10 items" in page


def test_accounts__of_a_run_that_decides_nothing_speak_of_no_decision() -> None:
    page = render(bagged(of_bags()))
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "400 used + 0 quarantined = 400 in the source" in text
    assert "makes no decisions" in text
    assert " kept" not in text
    decided = " ".join(re.sub(r"<[^>]+>", " ", render(audited(of_bags()))).split())
    assert re.search(r"[0-9,]+ kept \+", decided)
    assert "makes no decisions" not in decided


def test_beliefs__are_said_where_they_are_how_sure_and_beside_the_totals() -> None:
    text = said(of_bags(n_others=30))
    assert "Beliefs of all items are in proportions@2/" in text
    assert "has a probability of 81.5 % on average" in text
    assert "abnormal 200 190 0 normal 200 190 0" in text
    assert "All bags are in proportions@2_bags/" in text
    assert "All bags are in proportions@2_bags/" in said(without_improbable(of_bags()))


def test_counts__are_said_to_be_too_high_or_too_low() -> None:
    text = said(of_bags())
    assert "ward-7 normal 12 11 3.2 7.8 too high" in text
    assert "ward-8 normal 12 0 7.5 7.5 too low" in text


def test_positives__are_said_to_count_the_second_class() -> None:
    text = said(of_bags())
    assert "positives was taken to count normal , the second of the classes abnormal and" in text
    assert "If the table counts abnormal , every belief is inverted" in text
    three = said(of_bags(("a", "b", "c")))
    assert "positives" not in three
    assert "counts was taken to be in the order of the classes" in three


def test_plot__has_every_bag_once_and_marks_the_improbable() -> None:
    plot = of_bags().plot
    assert plot is not None
    assert plot.axis.top == 1.0
    assert plot.usual == ((0.25, 0.3),)
    assert plot.improbable == ((3.25 / 12, 11 / 12), (7.5 / 12, 0.0))
    page = render(bagged(of_bags()))
    assert page.count('class="bag-improbable"') == 2
    # Above the diagonal: y of the plot counts from the top.
    assert 'cx="114.4" cy="33.7"' in page
    assert "3 of 40 are drawn" in said(of_bags())
    assert "<figure>" not in render(bagged(replace(of_bags(), plot=None)))


@pytest.mark.parametrize(
    ("variation", "text"),
    [
        ("less", "Shares differ far less than by chance, as if bags had been filled to have"),
        (
            "chance",
            "Bags differ about as much as by chance: little can be learned from one such bag",
        ),
        ("more", "Bags differ by more than chance: such totals are the most informative."),
    ],
)
def test_variation__is_put_into_words(variation: str, text: str) -> None:
    assert text in said(replace(of_bags(), variation=variation))


def test_approximated_bags__are_counted() -> None:
    last = round_of(9, 0.3, approximated=7)
    rounds = round_table([("proportions", round_of(40, 0.0)), ("proportions@2", last)])
    bags = replace(of_bags(), rounds=rounds, approximated=7)
    text = said(bags)
    assert "of the items of 7 bags was approximated by a saddle point" in text
    assert "single items can be off by 0.1" in text
    assert "Bags approximated" in text
    assert "approximated" not in said(of_bags())


def test_loss__of_a_network_is_not_shown() -> None:
    page = render(bagged(of_bags()))
    assert "Loss of network" not in page
    assert "flatters" not in page
    assert "misses them by 0.250 nats a bag, one share for all bags by 0.500" in said(of_bags())


WORSE = "The model predicts totals no better than one share for all bags"


def test_model__no_better_than_a_constant_is_looked_at_first() -> None:
    bags = replace(of_bags(), loss_model=0.5)
    assert titles(bags)[0] == WORSE
    assert "do not rely on single beliefs" in said(bags)
    assert WORSE not in titles(of_bags())
    assert WORSE not in titles(replace(of_bags(), loss_model=None, loss_constant=None))


CHANCE = "It may be chance that the model predicts totals better than one share for all bags"


def test_model__better_by_chance_only_is_looked_at_first() -> None:
    bags = replace(of_bags(), is_clear=False)
    assert titles(bags)[0] == CHANCE
    assert "the difference may be chance: do not rely on single beliefs." in said(bags)
    assert CHANCE not in titles(of_bags())
    # Where it is no better at all, that is said; beliefs that were there before totals stand alone.
    assert titles(replace(bags, loss_model=0.6))[0] == WORSE
    assert CHANCE not in titles(replace(bags, is_learned=False))


def test_totals__that_were_left_out_are_counted_and_looked_at_first() -> None:
    some = replace(of_bags(), is_learned=False, moved=9.0, left_out=2)
    text = said(some)
    assert "Totals of 2 bags were not used, since they are improbable under given labels" in text
    assert "without those left out, beliefs add up to as many" in text
    contrary = replace(some, left_out=40, is_contrary=True, moved=0.0)
    text = said(contrary)
    assert "No total was used: all bags together contradict given labels and model." in text
    assert "Totals moved belief by" not in text
    assert titles(contrary)[0] == "Totals contradict given labels, and were left out"
    assert "brought in" not in said(of_bags())


def test_model__is_not_blamed_where_bags_were_filled_to_one_share() -> None:
    # The share for all has seen them, and so is exact.
    bags = replace(once(of_bags()), loss_constant=0.0)
    assert bags.is_no_better
    assert not replace(bags, variation="less").is_no_better
    assert not replace(bags, is_constant=True).is_no_better
    assert replace(bags, variation="less", is_learned=True).is_no_better


@pytest.mark.parametrize(
    ("bags", "why"),
    [
        (of_bags(), "The totals are probably wrong, or those of other bags; or the features"),
        (replace(of_bags(), variation="less"), "Bags with different shares are needed."),
        (replace(of_bags(), is_learned=False), "The totals, or the order of their classes, are"),
    ],
)
def test_dispersion__beyond_reason_is_looked_at_first(bags: Bags, why: str) -> None:
    first = findings(bagged(replace(bags, dispersion=41.7)))[0]
    assert first.title == "Totals vary 42 times as much as the model allows"
    assert why in first.detail
    assert not any("times as much" in t for t in titles(replace(bags, dispersion=9.0)))


def test_dispersion__without_bound_is_worded() -> None:
    """Half of the totals are impossible: probabilities of exactly 0 and 1 that they contradict."""
    endless = replace(of_bags(), dispersion=float("inf"))
    assert "Totals vary over a million times as much as the model allows" in titles(endless)
    assert "over a million times what the model allows" in render(bagged(endless))


def test_regression__that_did_not_converge_is_said() -> None:
    title = "The model of totals did not converge"
    assert title in titles(replace(of_bags(), unsettled=0.7))
    assert title not in titles(replace(of_bags(), unsettled=3e-4))
    assert title not in titles(of_bags())


def test_remedy__names_the_stage_whose_groups_did_not_settle() -> None:
    listed = findings(bagged(replace(of_bags(), not_settled=3)))
    (finding,) = [f for f in listed if "did not converge" in f.title]
    assert "raise proportions@2.max_sweeps" in finding.detail


def test_names__of_classes_and_bags_are_shown_as_text() -> None:
    page = render(bagged(of_bags(("<i>no</i>", "<i>yes</i>"), text="<script>alert(1)</script>")))
    assert "<i>" not in page
    assert "<script" not in page


# -- runs ------------------------------------------------------------------------------------------


def test_collect__counts_the_most_probable_classes_of_the_last_round(learned: Run) -> None:
    bags = read_bags(learned, Limits())
    assert bags is not None
    beliefs = beliefs_of(learned, 2, "proportions@2")
    likely = np.bincount(beliefs.argmax(axis=1), minlength=2)
    assert bags.classes.values("Most probable") == tuple(likely.tolist())
    assert "… without a total" not in [column.head for column in bags.classes.columns]
    assert bags.sureness == pytest.approx(beliefs.max(axis=1).mean())
    assert (bags.last, bags.order) == ("proportions@2", ("negative", "positive"))
    census = found_in(learned, "census")
    assert bags.classes.values("By totals") == tuple(census["counts"].sum(axis=0).tolist())


def test_collect__has_the_points_of_all_bags_or_of_some(learned: Run) -> None:
    bags = read_bags(learned, Limits())
    assert bags is not None
    census, found = found_in(learned, "census"), found_in(learned)
    wanted = {
        (float(e / n), float(k / n))
        for k, n, e in zip(
            census["counts"][:, 1], census["sizes"], found["expected"][:, 1], strict=True
        )
    }
    plot = bags.plot
    assert plot is not None
    points = [*plot.improbable, *plot.usual]
    drawn = np.array(sorted(points)) * plot.axis.top
    np.testing.assert_allclose(drawn, sorted(wanted), rtol=1e-12)
    assert len(points) == plot.n_points == 24
    few = read_bags(learned, Limits(points=5))
    assert few is not None
    assert few.plot is not None
    assert few.plot.improbable == plot.improbable[:5]
    assert len({*few.plot.improbable, *few.plot.usual}) == 5


def test_page_and_card__of_a_run_say_how_good_beliefs_are(learned: Run) -> None:
    page, card = page_of(learned), card_of(learned)
    assert "Beliefs of all items are in proportions@2/" in words(page)
    network = f"{float(found_in(learned)['loss_network']):.3f}"
    assert network not in words(page)
    assert network not in card
    assert "A model that has not seen held-out totals misses them by" in card
    assert "The most probable class of an item has a probability of" in card
    assert "`positives` was taken to count the second of the two classes." in card
    assert "| bags whose total was used by approximation | 0 |" in card
    assert "do not rely" not in card


def test_items__without_a_total_are_counted_by_themselves(two: Planted, tmp_path: Path) -> None:
    ids = [None if b == "bag-004" else b for b in two.items["bag_id"].to_pylist()]
    items = two.items.set_column(1, "bag_id", pa.array(ids))
    bags = two.bags.filter(pa.array([b != "bag-004" for b in two.bags["bag_id"].to_pylist()]))
    run = learn(tmp_path, items, bags, recipe=ONE_ROUND)
    found = read_bags(run, Limits())
    assert found is not None
    top = beliefs_of(run, 2).argmax(axis=1)
    is_other = np.array([b is None for b in ids])
    for c in (0, 1):
        _, _, with_total, without = found.classes.rows[c]
        assert with_total == ((top == c) & ~is_other).sum()
        assert without == ((top == c) & is_other).sum()
    assert "… without a total" in words(page_of(run))


def test_shares__that_hardly_differ_are_why_nothing_is_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bag, k = np.repeat(np.arange(40), 10), np.tile([4, 5], 20)
    features = vectors(rng.normal(size=(400, 3)).astype(np.float32))
    items = pa.table({"item_id": np.arange(400), "bag_id": bag, "features": features})
    bags = pa.table({"bag_id": np.arange(40), "n": [10] * 40, "positives": k})
    run = learn(tmp_path, items, bags, recipe=ONE_ROUND)
    found = read_bags(run, Limits())
    assert found is not None
    assert found.variation == "less"
    assert "so little or nothing can be learned from them" in words(page_of(run))


def test_noise__that_happens_to_tell_held_out_totals_is_doubted(
    learned: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    features = vectors(rng.normal(size=(600, 4)).astype(np.float32))
    bag = np.repeat(np.arange(60), 10)
    items = pa.table({"item_id": np.arange(600), "bag_id": bag, "features": features})
    positives = rng.integers(0, 11, 60)
    bags = pa.table({"bag_id": np.arange(60), "n": [10] * 60, "positives": positives})
    run = learn(tmp_path, items, bags, FOURIER, recipe=ONE_ROUND)
    found = read_bags(run, Limits())
    assert found is not None
    assert not found.is_clear
    assert found.is_doubtful or found.is_no_better
    assert "do not rely on single beliefs" in words(page_of(run))
    assert "do not rely on single beliefs" in card_of(run)
    sound = read_bags(learned, Limits())
    assert sound is not None
    assert sound.is_clear


@pytest.mark.parametrize("is_inverted", [False, True])
def test_totals__of_the_other_class_are_looked_at_first(tmp_path: Path, is_inverted: bool) -> None:
    rng = np.random.default_rng(1)
    n_bags, size = 60, 40
    bag = np.repeat(np.arange(n_bags), size)
    p = np.clip(rng.beta(1, 3, n_bags)[bag] + rng.normal(0, 0.05, len(bag)), 0.02, 0.98)
    k = np.bincount(bag, rng.random(len(bag)) < p).astype(int)
    probs = vectors(np.stack([1 - p, p], axis=1).astype(np.float32))
    items = pa.table({"item_id": np.arange(len(bag)), "bag_id": bag, "pred_probs": probs})
    counted = size - k if is_inverted else k
    table = pa.table({"bag_id": np.arange(n_bags), "n": [size] * n_bags, "positives": counted})
    run = learn(tmp_path, items, table, recipe=ONE_ROUND)
    found = read_bags(run, Limits())
    assert found is not None
    assert found.variation == "more"
    assert found.is_no_better is is_inverted
    assert (found.dispersion > 10) is is_inverted
    assert any(f.title == WORSE for f in findings(collect(run.uri))) is is_inverted
    assert (
        "The model predicts totals no better than one share for all" in card_of(run)
    ) is is_inverted
    assert ("The variance of totals is" in card_of(run)) is is_inverted


def test_approximated_bags__of_a_run_are_on_page_and_card(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    n_bags, size = 6, 120
    bag = np.repeat(np.arange(n_bags), size)
    probs = rng.dirichlet(np.ones(3), len(bag)).astype(np.float32)
    # More than a thousand ways to meet a count in each bag but the last, of which all is one class.
    counts = [[40, 40, 40]] * (n_bags - 1) + [[size, 0, 0]]
    items = pa.table({"item_id": np.arange(len(bag)), "bag_id": bag, "pred_probs": vectors(probs)})
    bags = pa.table({"bag_id": np.arange(n_bags), "n": [size] * n_bags, "counts": counts})
    run = learn(tmp_path, items, bags, recipe=ONE_ROUND)
    assert found_in(run, "constrain")["n_saddle_point"] == n_bags - 1
    assert f"of the items of {n_bags - 1} bags was approximated" in words(page_of(run))
    assert f"| bags whose total was used by approximation | {n_bags - 1} |" in card_of(run)


def test_audit__reads_beliefs_before_decide_writes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pipelines.test_decide_totals import decide

    monkeypatch.setitem(STAGES, "confident", "tests.fake_confident:STAGE")
    monkeypatch.setattr("pipelines.run.finish", lambda run, listen=None: "none")
    said = "item_id,true_label\ni0000,class 0\ni0001,class 1\ni0002,class 2\n"
    (tmp_path / "reviewed.csv").write_text(said)
    run = decide(tmp_path / "a", 3, f"decide.reviewed={tmp_path / 'reviewed.csv'}")
    found = read_bags(run, Limits())
    assert found is not None
    top = {s: beliefs_of(run, 3, s).argmax(axis=1) for s in ("proportions", "decide")}
    assert (top["proportions"] != top["decide"]).any()
    assert found.classes.values("Most probable") == tuple(np.bincount(top["proportions"]).tolist())


def test_card__of_an_audit_says_how_many_totals_were_brought_in() -> None:
    found = replace(of_bags(), is_learned=False, count=40, left_out=3)
    assert "Totals of 37 of 40 bags were used for" in card(found)
    assert "Those left out contradict given labels and model." in card(found)
    contrary = replace(found, left_out=40, is_contrary=True, loss_model=2.0)
    text = card(contrary)
    assert "All were left out: together they contradict given labels and model." in text
    assert "The model predicts totals no better than one share for all" in text
