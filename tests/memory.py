"""How much memory a process has held."""

from pathlib import Path


def peak_kb() -> int:
    """Return the most that this process has held since it began, in KiB.

    Not ``ru_maxrss``: a child inherits it from a larger parent when it starts.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
