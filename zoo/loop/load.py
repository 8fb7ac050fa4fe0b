"""Measures how busy the machine is with other work, because timings depend on it."""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

_PROC = pathlib.Path("/proc")
_TOLERANCE = 0.05  # of a core: the times of a kernel are whole ticks of a hundredth of a second


class Usage(NamedTuple):
    """What has been computed until now."""

    seconds: float  # on a clock
    busy: float  # seconds of cores that worked for any process
    own: float  # seconds of cores that worked for this process and those that it started
    cores: int


class Load:
    """Measures the load from when it is made.

    Args:
        read: Returns the usage until now. With `None` as the usage, the load is not known.
    """

    def __init__(self, read: Callable[[], Usage | None] | None = None):
        self._read = read or _read_usage
        self._start = self._read()

    def measure(self) -> dict[str, Any]:
        """Returns the load since the start.

        Returns:
            `cores`, the number of cores of the machine, and `busy_others`, the mean number of cores that other
            processes kept busy. It is `None` where it cannot be known: without Linux's `/proc`, or where this shows
            less work of all processes than of this one, as it may in a container. Processes that were started by this
            one do not count as others, unless they outlive the one that started them.
        """
        start, end = self._start, self._read()
        if start is None or end is None or end.seconds <= start.seconds:
            return {"cores": os.cpu_count(), "busy_others": None}
        others = ((end.busy - start.busy) - (end.own - start.own)) / (end.seconds - start.seconds)
        is_known = others >= -_TOLERANCE * end.cores
        return {"cores": end.cores, "busy_others": max(0.0, round(others, 3)) if is_known else None}


def _read_usage() -> Usage | None:
    """Returns the usage until now from `/proc`, or `None` if there is none."""
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        lines = [line.split() for line in (_PROC / "stat").read_text().splitlines() if line.startswith("cpu")]
        user, nice, system, _idle, _iowait, *interrupts = map(int, lines[0][1:9])
        seconds = time.monotonic()
        return Usage(seconds, (user + nice + system + sum(interrupts)) / ticks, _own_ticks() / ticks, len(lines) - 1)
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _own_ticks() -> int:
    """Returns the processor time, in ticks, of this process and of all processes below it."""
    parents, times = {}, {}
    for path in _PROC.iterdir():
        if not path.name.isdecimal():
            continue
        try:
            # The name of the program, in brackets, may hold anything.
            fields = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        # Its own time and that of its children that have ended.
        parents[int(path.name)], times[int(path.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    here, own = os.getpid(), 0
    for process in times:
        above = process
        while above != here and above in parents:
            above = parents[above]
        own += times[process] if above == here else 0
    return own
