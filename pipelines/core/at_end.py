"""Files that stages leave beside their tables when a run ends, for people and other programs.

They say in a common form what results say in ours; nothing of this run reads them.
"""

from pipelines.core.state import Entry, Run
from pipelines.errors import RunError
from pipelines.storage.folders import folders_of


def write_at_end(run: Run) -> list[str]:
    """Write them; returns their names.

    Raises
    ------
    RunError
        If one is to lie in a folder that its stage did not declare.
    """
    names = []
    for entry in run.entries:
        if entry.skipped is None and entry.stage.files_at_end is not None:
            context = run.context(entry.name, run.layout())
            for leaf, data in entry.stage.files_at_end(context).items():
                names.append(_name(entry, leaf))
                run.store.write_atomic(names[-1], data)
    return names


def may_be_at_end(run: Run, name: str) -> bool:
    """Say whether a file may be one of them: in a folder of a stage that leaves some, no table."""
    folder = name.partition("/")[0]
    return not name.endswith(".parquet") and any(
        folder in folders_of(entry.name, entry.stage)
        for entry in run.entries
        if entry.skipped is None and entry.stage.files_at_end is not None
    )


def _name(entry: Entry, leaf: str) -> str:
    name = leaf if "/" in leaf else f"{entry.name}/{leaf}"
    folders = folders_of(entry.name, entry.stage)
    if name.rpartition("/")[0] not in folders:
        raise RunError(
            f"stage {entry.name!r}: a file in a folder of its own was expected "
            f"({', '.join(folders)}), got {name!r}. Declare it in the stage's folders"
        )
    return name
