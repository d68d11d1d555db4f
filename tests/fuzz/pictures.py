"""Mutated pictures, and some that claim to be huge: decoded, or refused with a reason."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.errors import DataError
from pipelines.media.images import BadImageError, Limits, decode
from tests.fuzz.mutate import NUMBERS, damaged


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def _bomb(width: int, height: int) -> bytes:
    """Return a PNG of few bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        ends = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(kind + data))
        return ends[0] + kind + data + ends[1]

    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1 << 20))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@cache
def seeds() -> tuple[bytes, ...]:
    """Return small valid pictures of all formats and modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), np.uint8)
    rgba = Image.fromarray(pixels)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    found = [_saved(rgb, form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    found += [_saved(rgba, form) for form in ("PNG", "WEBP", "TIFF", "BMP")]
    found += [_saved(grey, form) for form in ("PNG", "JPEG", "GIF")]
    exif = Image.Exif()
    exif[0x0112] = 6
    found += [
        _saved(rgb.convert("CMYK"), "JPEG"),
        _saved(rgb, "JPEG", progressive=True, exif=exif),
        _saved(rgb.convert("P"), "PNG", transparency=3),
        _saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), "PNG"),
        _saved(rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)]),
        _saved(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]),
        _saved(rgb, "WEBP", lossless=True),
        *(_saved(rgb, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg")),
        _saved(grey.convert("1"), "TIFF", compression="group4"),
        _saved(grey.convert("F"), "TIFF"),
        _bomb(7000, 7000),
        _bomb(70000, 70000),
    ]
    return tuple(found)


def batch(numbers: range) -> Iterator[tuple[int, Any]]:
    """Yield the mutated picture of each seed."""
    for seed in numbers:
        rng = random.Random(seed)
        if rng.random() < 0.02:
            yield seed, (_bomb(rng.choice(NUMBERS), rng.choice(NUMBERS)), None)
            continue
        # Headers say sizes and kinds: damage is more telling there.
        data = rng.choice(seeds())
        head = rng.choice((64, 256, len(data)))
        made = damaged(data[:head], rng, seeds()) + data[head:]
        yield seed, (made, rng.choice((None, 16)))


def work(made: tuple[bytes, int | None], folder: Path) -> None:
    """Decode a picture."""
    data, at_least = made
    try:
        pixels = decode(data, Limits(), at_least=at_least)
    except BadImageError as err:
        if not str(err).startswith("image "):
            raise AssertionError(f"a reason was expected, got {str(err)[:200]!r}") from err
        raise DataError(str(err)) from err
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or len(pixels) != 3:
        raise AssertionError(f"uint8 (3, H, W) was expected, got {pixels.dtype} {pixels.shape}")
