"""Whether a run can be written where it shall be without touching its source."""

import os

from pipelines.errors import AddressError
from pipelines.storage.address import is_inside, normalize, scheme_of


def check_apart(data: str, out: str) -> None:
    """Check that a run can be written where it shall be without touching its source.

    Raises
    ------
    AddressError
        If one lies in the other, however they are spelled, or a file is where a folder was meant.
    """
    out = normalize(out, "--out")
    if is_inside(out, data):
        raise AddressError(
            f"run: an --out apart from the data was expected, got {out}, which lies in the source "
            f"{normalize(data)}. The source is never written to, and all that lies in it is read; "
            "choose another folder"
        )
    if is_inside(data, out):
        raise AddressError(
            f"run: an --out apart from the data was expected, got {out}, in which the "
            "source lies. The source is never written to; choose another folder"
        )
    if not scheme_of(out):
        path = out
        while not os.path.lexists(path) and path != "/":
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            raise AddressError(
                f"run: a folder, or a name for a new one, was expected for --out, got {path}, "
                "which is a file or a link that leads nowhere. Choose another name"
            )
