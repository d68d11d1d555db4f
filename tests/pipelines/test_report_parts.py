"""The report's small parts: choosing rows, thumbnails, confusions, axes, words."""

import io
import itertools
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.report import charts, text
from pipelines.report.limits import Limits
from pipelines.report.names import Names
from pipelines.report.parts import confusion
from pipelines.report.select import Groups, Shortlist, Tally, by_count, count_pairs
from pipelines.report.thumbnails import thumbnail

# -- choosing rows ---------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40),
    st.integers(1, 5),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_shortlist__is_a_sorted_list_cut_off_however_the_rows_are_cut(
    entries: list[tuple[int, int]], n: int, cuts: list[int]
) -> None:
    rows = [(group, float(key), position) for position, (group, key) in enumerate(entries)]
    hashes = np.arange(len(rows), dtype=np.uint64) * np.uint64(977) % np.uint64(1000)
    found = Shortlist(4, n)
    for a, b in itertools.pairwise([0, *sorted(cuts), len(rows)]):
        part = rows[a:b] if a < b else []
        frame = SimpleNamespace(index=5, array=lambda name: hashes)
        found.add(
            frame,  # type: ignore[arg-type]
            np.array([r[2] for r in part], np.int64),
            np.array([r[0] for r in part], np.int64),
            np.array([r[1] for r in part], np.float64),
        )
    assert found.count.sum() == len({r for a, b in seen(cuts, rows) for r in rows[a:b]})
    for group in range(4):
        mine = sorted((r for r in rows if r[0] == group), key=lambda r: (r[1], r[2] * 977 % 1000))
        assert found.of(group) == {(5, r[2]): r[1] for r in mine[:n]}
    assert by_count(np.array([2, 0, 5, 2]), 3) == [2, 0, 3]


def seen(cuts: list[int], rows: list[tuple[int, float, int]]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in itertools.pairwise([0, *sorted(cuts), len(rows)]) if a < b]


def test_pairs__are_counted_as_a_loop_would() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, (2, 300))
    counted = count_pairs(a, b)
    for pair in itertools.product(range(5), repeat=2):
        assert counted[pair] == sum(1 for x in zip(a, b, strict=True) if x == pair)


def test_tally__holds_few_texts_and_loses_no_count() -> None:
    tally = Tally(most=3)
    for position in range(10):
        tally.add(f"reason {position}", position + 1)
    ranked = tally.ranked(2)
    assert ranked[:2] == (("reason 2", 3), ("reason 1", 2))
    assert sum(count for _, count in ranked) == 55


# -- thumbnails ------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["WEBP"]).convert("RGB")


def test_thumbnail__of_a_small_image_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    picture = thumbnail(encoded(Image.fromarray(pixels), "PNG"))
    assert picture is not None
    assert (picture.width, picture.height, picture.media) == (28, 28, "image/webp")
    assert np.array_equal(np.asarray(opened(picture.data))[:, :, 1], pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "1", "RGBA", "LA", "I;16"])
def test_thumbnail__is_made_of_any_kind_of_image(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(300 * 200, dtype=np.uint16).reshape(200, 300))
    else:
        image = Image.new("RGB", (300, 200), (200, 30, 30)).convert(mode)
    picture = thumbnail(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert picture is not None
    assert (picture.width, picture.height) == (96, 64)


def test_thumbnail__turns_an_image_as_its_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (200, 100)), "JPEG", exif=exif)
    picture = thumbnail(data)
    assert picture is not None
    assert (picture.width, picture.height) == (48, 96)


def test_thumbnail__carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    data = encoded(Image.new("RGB", (40, 40)), "JPEG", exif=exif, comment=b"secret place")
    assert b"secret place" in data
    picture = thumbnail(data)
    assert picture is not None
    assert b"secret place" not in picture.data


def bomb(side: int) -> bytes:
    """Make a PNG of a few kB whose header promises side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        encoded(Image.new("RGB", (200, 200)), "PNG")[:60],
        bomb(9_000),
        bomb(60_000),
    ],
    ids=["empty", "text", "postscript", "svg", "truncated", "large bomb", "huge bomb"],
)
def test_thumbnail__of_what_cannot_be_shown_is_none(data: bytes) -> None:
    assert thumbnail(data) is None


def test_thumbnail__beyond_its_share_of_bytes_is_left_out() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "PNG")
    assert thumbnail(data, Limits(thumbnail_bytes=500)) is None


# -- confusions ------------------------------------------------------------------------------------


def test_confusions__are_ranked_as_a_loop_ranks_them() -> None:
    joint = np.random.default_rng(5).integers(0, 30, (7, 7)).astype(float)
    found = confusion.ranked(joint, 10)
    pairs = [
        (-joint[i, j], i, j)
        for i, j in itertools.product(range(7), repeat=2)
        if i != j and joint[i, j] >= 0.5
    ]
    assert found == [(i, j, -n) for n, i, j in sorted(pairs)[:10]]


@pytest.mark.parametrize("k", [2, 30, 31, 130, 1000])
def test_confusion_table_and_map__hold_every_item_once(k: int) -> None:
    rng = np.random.default_rng(k)
    joint = rng.random((k, k)) * (rng.random((k, k)) < 0.02) * 10 + np.diag(rng.random(k) * 100)
    names = [f"c{i}" for i in range(k)]
    table = confusion.table(joint, names, Limits())
    assert np.isclose(np.sum(table.items), joint.sum())
    assert len(table.items) == len(table.classes) == (k if k <= 30 else 25)
    coarse = confusion.coarse(joint, Limits())
    assert (coarse is None) == (k <= 30)
    if coarse is not None:
        assert len(coarse.wrong) <= 50
        assert np.isclose(np.sum(coarse.wrong), joint.sum() - np.trace(joint))


def test_confusion_table__of_many_classes_shows_the_ones_most_confused() -> None:
    joint = np.eye(100) * 50
    joint[97, 3] = joint[41, 97] = 9
    joint[60, 61] = 8
    table = confusion.table(joint, [f"c{i}" for i in range(100)], Limits(part_classes=5))
    assert table.classes == ("c3", "c41", "c60", "c61", "c97", "95 others")


# -- axes and words --------------------------------------------------------------------------------


@given(st.floats(0, 1))
def test_axis__is_round_and_holds_the_largest_value(largest: float) -> None:
    axis = charts.axis(largest)
    assert largest <= axis.top + 1e-9
    assert axis.top <= 1.5 * largest + 0.01
    assert 2 <= len(axis.ticks) <= 6
    assert axis.ticks[0] == 0
    assert axis.ticks[-1] == axis.top


@given(st.text())
def test_clean__leaves_nothing_that_hides_or_reorders(shown: str) -> None:
    cleaned = text.clean(shown)
    cleaned.encode("utf-8")
    assert all(char.isprintable() or char in "\u00a0\u202f\u200c\u200d" for char in cleaned)


def test_words__are_those_a_person_would_say() -> None:
    assert text.percent(0.1234) == "12.3\u202f%"
    assert text.percent(0.0) == "0\u202f%"
    assert text.percent(1e-7) == "<\u202f0.01\u202f%"
    assert text.percent(0.99996) == ">\u202f99.9\u202f%"
    assert text.seconds(7325) == "2\u202fh 2\u202fmin"
    assert text.seconds(59.99) == "1\u202fmin 0\u202fs"
    assert text.plural(1, "item") == "1 item"
    assert text.plural(1234.4, "item") == "1,234 items"
    assert text.decimal(float("nan")) == "not defined"


# -- names and groups ------------------------------------------------------------------------------


def test_names__are_found_for_ids_and_for_labels_of_every_type() -> None:
    by_text = Names(["cat", "dog"], ())
    assert by_text.ids(pa.array(["dog", None, "cow", "cat"])).tolist() == [1, -1, -1, 0]
    assert by_text.ids(pa.array(["dog", "cat"]).dictionary_encode()).tolist() == [1, 0]
    assert [by_text.name(k) for k in (0, 1, -1, 2)] == ["cat", "dog", "", ""]
    assert [by_text.label(value) for value in ("dog", None)] == ["dog", ""]
    by_number = Names(["ten", "four"], [10, 4])
    assert by_number.ids(pa.array([4, None, 7, 10], pa.int16())).tolist() == [1, -1, -1, 0]
    assert [by_number.label(value) for value in (4, 10, 7, None)] == ["four", "ten", "", ""]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=30),
    st.integers(0, 30),
    st.integers(1, 8),
)
def test_groups__keep_the_largest_key_of_each_however_the_rows_are_cut(
    rows: list[tuple[int, int]], cut: int, n: int
) -> None:
    groups, largest = Groups(), dict[int, int]()
    for part in (rows[:cut], rows[cut:]):
        groups.add(
            np.array([group for group, _ in part], np.uint64),
            np.array([key for _, key in part], np.float64),
        )
    for group, key in rows:
        largest[group] = max(key, largest.get(group, 0))
    expected = sorted(largest, key=lambda group: (largest[group], group))[:n]
    found, keys = groups.smallest(n)
    assert found.tolist() == expected
    assert keys.tolist() == [largest[group] for group in expected]
