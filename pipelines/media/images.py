"""Encoded pictures to pixels; whatever is wrong with one is said in words and fails no shard."""

import io
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Decoded by libraries only; Pillow would hand PostScript to a program."""

ORIENTATION = 0x0112
EXIF_KEYS = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
"""Where Pillow keeps what it reads the orientation from; asking it for nothing takes 20 µs."""

TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the EXIF orientation tag: what brings the picture upright."""

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before it is decoded.

    Attributes
    ----------
    max_bytes : largest encoded size.
    max_pixels : largest width × height; a 10 kB file can claim 300 MB of them.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000


class BadImageError(ValueError):
    """A picture that cannot be used; its text is the reason."""


_lock = threading.Lock()


def _strict() -> None:
    """Make Pillow's warnings errors in this process.

    Not by `catch_warnings`: that swaps the filters of all threads. This one filter names Pillow's
    own modules and is added once.
    """
    entry = ("error", Warning, r"PIL\.")
    with _lock:
        present = any(
            (action, category, getattr(module, "pattern", None)) == entry
            for action, _, category, module, _ in warnings.filters
        )
        if not present:
            warnings.filterwarnings("error", category=Warning, module=r"PIL\.")


def decode(data: bytes, limits: Limits, *, at_least: int | None = None) -> np.ndarray:
    """Return a picture's pixels, upright, in RGB.

    Parameters
    ----------
    data
        An encoded picture: PNG, JPEG, WebP, GIF, BMP or TIFF. Of several frames the first counts.
    limits
        What is refused by its size alone.
    at_least
        Where a JPEG may be decoded smaller as long as both sides keep so many pixels; faster by a
        multiple for photographs. None: as it is.

    Returns
    -------
    uint8, shape (3, H, W). What is transparent is laid on white; 16 bits are cut to 8.

    Raises
    ------
    BadImageError
        With the reason: empty, too many bytes or pixels, not a picture, damaged.
    """
    if not data:
        raise BadImageError("image is empty: 0 bytes")
    if len(data) > limits.max_bytes:
        raise BadImageError(
            f"image has too many bytes: {len(data)}, at most {limits.max_bytes} are decoded"
        )
    _strict()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, limits)
            if at_least is not None and image.format == "JPEG":
                image.draft("RGB", (at_least, at_least))
            # First: some formats keep the orientation behind the pixels, TIFF applies it itself.
            image.load()
            orientation = _orientation(image)
            pixels = _rgb(image)
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise BadImageError(
            f"image has too many pixels: more than {limits.max_pixels} are not decoded"
        ) from err
    except UnidentifiedImageError as err:
        raise BadImageError(
            f"image does not decode: {len(data)} bytes that are none of {', '.join(FORMATS)}"
        ) from err
    # Pillow's decoders raise whatever the damage leads them to; none of it is an error of ours.
    except (Exception, Warning) as err:
        raise BadImageError(f"image does not decode: {_first_line(err)}") from err
    if orientation in TRANSPOSED:
        pixels = pixels.transpose(TRANSPOSED[orientation])
    # A copy: what Pillow hands out may be read-only and is rows of pixels, not planes.
    return np.ascontiguousarray(np.asarray(pixels).transpose(2, 0, 1))


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadImageError(
            f"image has too many pixels: {width} x {height}, at most {limits.max_pixels} are "
            "decoded"
        )
    if width < 1 or height < 1:
        raise BadImageError(f"image has no pixels: {width} x {height}")


def _orientation(image: Image.Image) -> int:
    """Return a loaded picture's EXIF orientation; 1 where there is none or it cannot be read.

    Photographs with damaged EXIF data are common (ImageNet has some) and decode well.
    """
    try:
        if image.format != "TIFF" and not EXIF_KEYS & image.info.keys():
            return 1
        return int(image.getexif().get(ORIENTATION, 1))
    except (Exception, Warning):
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImageError("image has floating-point pixels: their range is not known")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _first_line(err: BaseException) -> str:
    text = str(err).splitlines()
    return f"{type(err).__name__} {text[0][:120] if text else ''}".rstrip()


def encoded(images: pa.Array) -> list[bytes | str]:
    """Return each picture's bytes, or why there are none.

    Parameters
    ----------
    images
        Structs with `bytes` (and `path`) as in Hugging Face data sets, or binary.
    """
    if pa.types.is_struct(images.type):
        return [_bytes_of(value) for value in images.to_pylist()]
    return [_bytes_of({"bytes": value}) for value in images.to_pylist()]


def _bytes_of(value: dict[str, Any] | None) -> bytes | str:
    if value is None or (value.get("bytes") is None and not value.get("path")):
        return "image is null: neither bytes nor a path"
    data = value.get("bytes")
    if data is None:
        return (
            f"image has a path only, and no file of the data's folder is there: {value['path']!r}; "
            "store its bytes in the shard, or put the file beside it"
        )
    return bytes(data)


def check_type(kind: pa.DataType) -> None:
    """Refuse a column that cannot hold encoded pictures.

    Raises
    ------
    TypeError
        If it is neither struct{bytes, path} nor binary.
    """
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        kind = kind.field("bytes").type if "bytes" in names else kind
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise TypeError(
            f"column 'image' must be a struct with 'bytes' and 'path', or binary, got {kind}. "
            "datasets.Dataset.to_parquet writes it so"
        )
