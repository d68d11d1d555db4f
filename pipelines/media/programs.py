"""torch.export programs, repacked before they are opened so that no pickle in them is ever run.

`torch.export.load` unpickles sample inputs, tensor subclasses and custom objects, and evaluates
symbolic sizes as Python. Here the archive is read as plain zip and JSON, checked, and only graph
and raw tensors are handed on. It stays a program: run those that you trust.
"""

import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any, cast

from pipelines.errors import LabelopsError, RecipeError
from pipelines.media.models import refuse_unsafe_loading
from pipelines.storage.wording import why

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"
RAW = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
PLAIN = {"archive_format", "archive_version", "byteorder", MODEL, WEIGHTS_CONFIG, CONSTANTS_CONFIG}
IGNORED = re.compile(r"\.data/|data/sample_inputs/|extra/|\.format_version$|\.storage_alignment$")

SIZE_WORDS = (
    "Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|Where|"
    "Relational|Equality|Unequality|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|And|Or|"
    "Not|Eq|Ne|positive|nonnegative|integer|real|True|False|oo|int_oo|true|false"
)
SIZE_EXPRESSION = re.compile(
    rf"(?>'[suz][a-z]*\d+'|[suz][a-z]*\d+|(?:{SIZE_WORDS})\b|[\d\s()+\-*/,<>=])*+"
)
MADE_FOR = "labelops.made_for"
"""Where a module keeps the shape of the pictures that it was exported for."""

TOKENIZER = "labelops.tokenizer.json"
"""A program of texts has in this extra file what turns them into tokens."""

MAX_ARCHIVE_BYTES = 16 * 2**30


def load_program(path: str, device: "torch.device") -> "nn.Module":
    """Open a torch.export program on a device.

    Raises
    ------
    RecipeError
        If it is none, was made by another format, or holds anything but a graph and plain tensors.
    """
    refuse_unsafe_loading()
    records = _read(path)
    try:
        for config in (WEIGHTS_CONFIG, CONSTANTS_CONFIG):
            _check_payload(path, config, records)
        _check_sizes(path, json.loads(records[MODEL]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise _refuse(path, "one whose description is damaged") from err
    import torch

    try:
        program = torch.export.load(_repack(records))
    except Exception as err:
        raise RecipeError(
            f"infer: a program of this version of torch ({torch.__version__}) was expected at "
            f"{path}, got: {why(err)}. Export it again with this version"
        ) from err
    shape = _input_shape(program)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module: Any = program.module(check_guards=False)
    if shape is not None:
        module.meta[MADE_FOR] = shape
    return cast("nn.Module", module)


def tokenizer_of(path: str) -> str | None:
    """Return the description of the tokenizer that a program of texts has; None of others.

    Raises
    ------
    RecipeError
        If the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.partition("/")[2] == f"extra/{TOKENIZER}":
                    return archive.read(entry).decode()
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as err:
        raise _refuse(path, why(err)) from err
    return None


def _input_shape(program: "torch.export.ExportedProgram") -> tuple[int | None, ...] | None:
    """Return the shape of the pictures that a program was made for; None where any will do."""
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.name in names and hasattr(value, "shape"):
            return tuple(size if isinstance(size, int) else None for size in value.shape)
    return None


def unusable(model: Any, err: Exception, *, stage: str, path: str, side: int) -> RecipeError:
    """Return the error for a program that failed on pictures of some pixels a side.

    `model` is the program as far as it could be opened; `image_size` of the stage sets the side.
    """
    shape = None if model is None else getattr(model, "meta", {}).get(MADE_FOR)
    what, remedy = f"one that fails: {why(err)}", "Export the model again for such pictures"
    if shape is not None and len(shape) == 4:
        sizes = " × ".join("any" if size is None else str(size) for size in shape)
        what = f"one made for pictures of shape {sizes} ({why(err)})"
        if None not in shape[2:] and shape[2] == shape[3] != side:
            remedy = f"Set {stage}.image_size = {shape[2]}, or export the model again"
        elif shape[0] is not None:
            remedy = "Export the model again with a first dimension of any size (torch.export.Dim)"
    return RecipeError(
        f"stage {stage!r}: a program for any number of pictures of {side} × {side} pixels in three "
        f"colours was expected at {path}, got {what}. {remedy}"
    )


def _refuse(path: str, what: str) -> RecipeError:
    return RecipeError(
        f"infer: a torch.export program of a graph and plain tensors was expected at {path}, got "
        f"{what}. Export the model again: torch.export.save(torch.export.export(model, …), path)"
    )


def _read(path: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_ARCHIVE_BYTES:
                raise _refuse(path, f"more than {MAX_ARCHIVE_BYTES} bytes")
            records: dict[str, bytes] = {}
            for entry in archive.infolist():
                # All records lie in one folder, whose name is free.
                name = entry.filename.partition("/")[2]
                if name in PLAIN or RAW.fullmatch(name):
                    records[name] = archive.read(entry)
                elif not IGNORED.match(name):
                    raise _refuse(path, f"a record {name!r} that is neither")
    except LabelopsError:
        raise
    except OSError as err:
        raise _refuse(path, why(err)) from err
    except Exception as err:  # what is damaged makes zipfile and zlib raise half a dozen kinds
        raise _refuse(path, f"no whole archive ({why(err)})") from err
    for name in ("archive_format", MODEL, WEIGHTS_CONFIG, CONSTANTS_CONFIG):
        if name not in records:
            raise _refuse(path, f"an archive without {name!r}")
    return records


def _check_payload(path: str, config: str, records: dict[str, bytes]) -> None:
    folder = config.rpartition("/")[0]
    for name, entry in json.loads(records[config])["config"].items():
        raw = f"{folder}/{entry['path_name']}"
        if entry["use_pickle"] or not RAW.fullmatch(raw):
            raise _refuse(path, f"{name!r}, which is stored as a pickle ({entry['path_name']})")
        if raw not in records:
            raise _refuse(path, f"an archive without {raw!r}")


def _check_sizes(path: str, value: Any) -> None:
    """Refuse size expressions that are more than arithmetic: they are evaluated."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str" and not SIZE_EXPRESSION.fullmatch(str(inner)):
                raise _refuse(path, f"a size {str(inner)[:60]!r} that is not arithmetic")
            _check_sizes(path, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_sizes(path, inner)


def _repack(records: dict[str, bytes]) -> io.BytesIO:
    """Return an archive of checked records, with no sample inputs."""
    from torch.export.pt2_archive._package import PT2ArchiveWriter

    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, data in {**records, SAMPLE_INPUTS: b""}.items():
            writer.write_bytes(name, data)
    buffer.seek(0)
    return buffer
