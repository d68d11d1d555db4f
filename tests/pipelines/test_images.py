"""Oracles: pixels that were drawn; files that were damaged in a known way."""

import io
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.media.images import BadImageError, Limits, check_type, decode, encoded

LIMITS = Limits()
ROOT = Path(__file__).resolve().parents[2]


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours() -> np.ndarray:
    """2 × 3 pixels, each of another colour."""
    flat = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9], [250, 240, 10], [90, 0, 90]]
    return np.array(flat, np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_decode__lossless_formats_give_the_pixels_back(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(save(Image.fromarray(colours()), kind, **options), LIMITS)
    assert (found.shape, found.dtype) == ((3, 2, 3), np.uint8)
    assert np.array_equal(found.transpose(1, 2, 0), colours())
    assert found.flags.writeable


@pytest.mark.parametrize(("orientation", "turn"), [
    (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]),
    (4, lambda a: a[::-1]), (5, lambda a: a.transpose(1, 0, 2)),
    (6, lambda a: np.rot90(a, -1)), (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
    (8, lambda a: np.rot90(a)), (99, lambda a: a),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_decode__turns_pictures_upright(orientation: int, turn: Any, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Whole blocks of one colour, which a JPEG keeps.
    large = colours().repeat(16, axis=0).repeat(16, axis=1)
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(save(Image.fromarray(large), kind, exif=exif, **options), LIMITS)
    expected = turn(large)
    assert found.shape[1:] == expected.shape[:2]
    middle = np.abs(found.transpose(1, 2, 0).astype(int) - expected)[4::8, 4::8]
    assert middle.max() <= (12 if kind == "JPEG" else 0)


def test_decode__damaged_exif_data_do_no_harm() -> None:
    data = save(Image.fromarray(colours()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(decode(data, LIMITS).transpose(1, 2, 0), colours())


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "I;16", "I"])
def test_decode__every_mode_becomes_rgb(mode: str) -> None:
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "I") else "PNG"
    if mode in ("I;16", "I"):
        deep = grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257
        image = Image.fromarray(deep)
    else:
        image = Image.fromarray(grey).convert(mode)
    found = decode(save(image, kind), LIMITS)
    assert found.shape == (3, 2, 2)
    assert np.array_equal(found, np.stack([grey] * 3))


def test_decode__jpeg_in_cmyk_is_near_the_colours() -> None:
    flat = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    data = save(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data, LIMITS).mean(axis=(1, 2)) - (200, 40, 90)).max() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_decode__what_is_transparent_is_white(mode: str) -> None:
    hidden = np.zeros((2, 2, 4), np.uint8)
    hidden[0, 0] = (7, 7, 7, 255)
    image = Image.fromarray(hidden)
    if mode == "P":
        data = save(image.quantize(4), "PNG", transparency=bytes([0, 255, 0, 0]))
        assert (decode(data, LIMITS) >= 0).all()
        return
    found = decode(save(image.convert(mode), "PNG"), LIMITS)
    assert found[0].tolist() == [[7, 255], [255, 255]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_decode__of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black", "red")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(data, LIMITS) == 255).all()


def jpeg(side: int = 64) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return save(Image.fromarray(noise), "JPEG")


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "image is empty: 0 bytes"),
    (b"\x89PNG", "image does not decode: 4 bytes that are none of PNG, JPEG, WEBP, GIF, BMP, TIFF"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image does not decode: 24 bytes that are none of PNG, JPEG"),
    (b"garbage" * 100, "image does not decode: 700 bytes that are none of PNG"),
    (jpeg()[:900], "image does not decode: OSError image file is truncated"),
    (jpeg()[:20], "image does not decode: "),
    (save(Image.fromarray(colours()), "PNG")[:-30], "image does not decode: "),
], ids=["empty", "short", "postscript", "garbage", "cut jpeg", "header", "cut png"])  # fmt: skip
def test_decode__damage_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError) as found:
        decode(data, LIMITS)
    assert str(found.value).startswith(reason)


def test_decode__too_many_bytes_are_not_looked_at() -> None:
    with pytest.raises(BadImageError, match=r"^image has too many bytes: 100, at most 99 are dec"):
        decode(b"x" * 100, Limits(max_bytes=99))


def test_decode__too_many_pixels_are_named() -> None:
    data = save(Image.new("1", (200, 100)), "PNG")
    with pytest.raises(BadImageError) as found:
        decode(data, Limits(max_pixels=19_999))
    reason = "image has too many pixels: 200 x 100, at most 19999 are decoded"
    assert str(found.value) == reason
    assert decode(data, Limits(max_pixels=20_000)).shape == (3, 100, 200)


def test_decode__bombs_are_refused_without_allocating_them() -> None:
    """In a process of its own, whose peak of memory is measured: 88, 169 and 196 megapixels."""
    code = """
        import io, warnings
        warnings.simplefilter("error")
        import numpy as np
        from PIL import Image
        from pipelines.media.images import BadImageError, Limits, decode
        from tests.memory import peak_kb
        import zlib, struct

        def bomb(width, height):
            def chunk(kind, data):
                crc = struct.pack(">I", zlib.crc32(kind + data))
                return struct.pack(">I", len(data)) + kind + data + crc
            head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
            rows = zlib.compress(bytes((width // 8 + 2) * 64))
            return (b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows)
                    + chunk(b"IEND", b""))

        decode(bomb(8, 8), Limits())
        before = peak_kb()
        for side in (9381, 13000, 14000):
            try:
                decode(bomb(side, side), Limits())
            except BadImageError as err:
                print(str(err).split(":")[0])
        print(peak_kb() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *reasons, grown_kb = done.stdout.split("\n")[:-1]
    assert reasons == ["image has too many pixels"] * 3
    assert int(grown_kb) < 4096


def test_decode__photographs_may_be_decoded_smaller() -> None:
    ramp = np.tile(np.linspace(0, 255, 512, dtype=np.uint8), (512, 1))
    data = save(Image.fromarray(ramp), "JPEG", quality=95)
    small = decode(data, LIMITS, at_least=64)
    assert small.shape == (3, 64, 64)
    expected = np.asarray(Image.fromarray(ramp).resize((64, 64), Image.Resampling.BOX))
    assert np.abs(small[0].astype(int) - expected).max() < 6
    assert decode(data, LIMITS).shape == (3, 512, 512)


def test_decode__threads_give_what_one_gives() -> None:
    files = [jpeg(16 + i) for i in range(20)] + [b"garbage"] * 20

    def attempt(data: bytes) -> Any:
        try:
            return decode(data, LIMITS).tobytes()
        except BadImageError as err:
            return str(err)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, files)) == [attempt(data) for data in files]


def test_encoded__says_what_is_missing() -> None:
    rows = [{"bytes": b"a", "path": "x"}, {"bytes": None, "path": "/etc/passwd"}, None,
            {"bytes": None, "path": None}]  # fmt: skip
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert encoded(pa.array(rows, kind)) == [
        b"a",
        "image has a path only, and no file of the data's folder is there: '/etc/passwd'; store "
        "its bytes in the shard, or put the file beside it",
        "image is null: neither bytes nor a path",
        "image is null: neither bytes nor a path",
    ]
    assert encoded(pa.array([b"a", None])) == [b"a", "image is null: neither bytes nor a path"]


def test_check_type__refuses_what_holds_no_pictures() -> None:
    check_type(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    check_type(pa.large_binary())
    with pytest.raises(TypeError) as found:
        check_type(pa.int64())
    assert str(found.value) == (
        "column 'image' must be a struct with 'bytes' and 'path', or binary, got int64. "
        "datasets.Dataset.to_parquet writes it so"
    )
