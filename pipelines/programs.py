"""torch.export programs, repacked before they are opened so that no pickle in them is ever run.

`torch.export.load` unpickles sample inputs, tensor subclasses and custom objects, and evaluates
symbolic sizes as Python. Here the archive is read as plain zip and JSON, checked, and only graph
and raw tensors are handed on. It stays a program: run those that you trust.
"""

import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from pipelines.errors import RecipeError
from pipelines.models import refuse_unsafe_loading

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
    for config in (WEIGHTS_CONFIG, CONSTANTS_CONFIG):
        _check_payload(path, config, records)
    _check_sizes(path, json.loads(records[MODEL]))
    import torch

    try:
        program = torch.export.load(_repack(records))
    except Exception as err:
        first = str(err).splitlines()[0][:200] if str(err) else ""
        raise RecipeError(
            f"infer: a program of this version of torch ({torch.__version__}) was expected at "
            f"{path}, got {type(err).__name__}: {first}. Export it again with this version"
        ) from err
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module(check_guards=False)


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
            found: dict[str, bytes] = {}
            for entry in archive.infolist():
                # All records lie in one folder, whose name is free.
                name = entry.filename.partition("/")[2]
                if name in PLAIN or RAW.fullmatch(name):
                    found[name] = archive.read(entry)
                elif not IGNORED.match(name):
                    raise _refuse(path, f"a record {name!r} that is neither")
    except (OSError, zipfile.BadZipFile) as err:
        raise _refuse(path, f"{type(err).__name__}: {err}") from err
    for name in ("archive_format", MODEL, WEIGHTS_CONFIG, CONSTANTS_CONFIG):
        if name not in found:
            raise _refuse(path, f"an archive without {name!r}")
    return found


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
