"""Thumbnails: small pictures of our own making out of bytes that may be hostile."""

import io
import warnings

from PIL import Image, ImageOps

from pipelines.report.limits import Limits
from pipelines.report.model import Picture

MAX_PIXELS = 64_000_000
"""Larger pictures are left out: a few kB can unpack into many GB."""

MAX_BYTES = 64 << 20

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""No format whose decoder starts another program (EPS) or follows references."""

LOSSLESS_BELOW = 64
"""Pictures of so few pixels a side are kept exact: every pixel of a 28 × 28 image counts."""


def thumbnail(data: bytes, limits: Limits | None = None) -> Picture | None:
    """Re-encode an image as a small WebP without its metadata, or None if that is not possible.

    Transparency is laid over mid grey, so that dark and light marks both stay visible.
    """
    limits = limits or Limits()
    if not data or len(data) > MAX_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _encode(data, limits)
    # Whatever a damaged file makes the decoder raise, the page is better without that picture.
    except Exception:
        return None


def _encode(data: bytes, limits: Limits) -> Picture | None:
    side = limits.thumbnail_side
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        if file.width * file.height > MAX_PIXELS:
            return None
        file.draft("RGB", (2 * side, 2 * side))
        image: Image.Image = file
        if image.mode.startswith(("I", "F")):
            image = _eight_bits(image)
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("L", "RGB"):
            image = _opaque(image)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small = max(image.size) < LOSSLESS_BELOW
        image.save(out, "WEBP", lossless=small, quality=100 if small else 78, method=4)
        if out.tell() > limits.thumbnail_bytes:
            return None
        return Picture("image/webp", out.getvalue(), image.width, image.height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Stretch 16-bit and float greys; a plain conversion clips them to white."""
    low, high = image.getextrema()
    scale = 255.0 / max(float(high) - float(low), 1e-9)  # type: ignore[arg-type]
    offset = -float(low) * scale  # type: ignore[arg-type]
    return image.convert("F").point(lambda value: value * scale + offset).convert("L")


def _opaque(image: Image.Image) -> Image.Image:
    with_alpha = image.convert("RGBA")
    ground = Image.new("RGBA", with_alpha.size, (128, 128, 128, 255))
    return Image.alpha_composite(ground, with_alpha).convert("RGB")
