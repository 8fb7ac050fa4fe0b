"""The load of a machine: work of other processes, without that of this one."""

import multiprocessing
import os
import pathlib
import subprocess
import sys

import pytest

from zoo.loop.load import Load, Usage, _read_usage


def load_between(*usages):
    return Load(iter(usages).__next__).measure()


def test_work_of_others_is_what_is_left():
    start = Usage(seconds=10.0, busy=100.0, own=30.0, cores=8)
    end = Usage(seconds=14.0, busy=112.0, own=36.0, cores=8)
    assert load_between(start, end) == {"cores": 8, "busy_others": 1.5}
    assert load_between(start, end._replace(own=42.1))["busy_others"] == 0.0  # ticks are not exact
    assert load_between(start, end._replace(own=48.0))["busy_others"] is None
    assert load_between(start, end._replace(busy=100.0))["busy_others"] is None  # a container that hides the machine
    unknown = {"cores": os.cpu_count(), "busy_others": None}
    assert load_between(None, end) == load_between(start, None) == load_between(start, start) == unknown


def test_what_counts_as_work(tmp_path, monkeypatch):
    """Waiting does not count, and processes below this one count with the time of their children that ended."""
    monkeypatch.setattr("zoo.loop.load._PROC", tmp_path)
    assert _read_usage() is None
    (tmp_path / "stat").write_text("cpu  1 2 4 1000 2000 8 16 32 4000 8000\ncpu0 0\ncpu1 0\ncpu2 0\nintr 5\n")
    here = os.getpid()
    for process, parent, ticks in (
        (here, 1, (1, 2, 4, 8)),
        (7, here, (16, 0, 0, 0)),
        (8, 7, (0, 32, 0, 64)),
        (9, 1, (5,)),
    ):
        (tmp_path / str(process)).mkdir()
        times = " ".join(map(str, ticks))
        (tmp_path / str(process) / "stat").write_text(f"{process} (a) b) S {parent} {'0 ' * 9}{times} 0 0 0 0 0 0")
    (tmp_path / "10").mkdir()  # a process that has just ended
    usage, second = _read_usage(), os.sysconf("SC_CLK_TCK")
    assert usage is not None
    assert (usage.busy * second, usage.own * second, usage.cores) == (pytest.approx(63), pytest.approx(127), 3)


WAIT = "\nimport sys\nprint('done', flush=True)\nsys.stdin.read()"
BUSY = "import time\nwhile time.process_time() < 0.3: pass"


@pytest.mark.skipif(not pathlib.Path("/proc/stat").exists(), reason="needs /proc")
def test_processes_that_this_one_started_are_not_others():
    """A child that ended, and one that still works, count as this process, and so does their time before they end."""
    load, start = Load(), _read_usage()
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    ended = _read_usage()
    assert start is not None
    assert ended is not None
    assert ended.own - start.own > 0.25
    with subprocess.Popen([sys.executable, "-c", BUSY + WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"done\n"
        assert _read_usage().own - ended.own > 0.25  # while it lives
        one.communicate(b"")
    assert _read_usage().own - ended.own > 0.25  # after it has ended
    assert _read_usage().busy - start.busy > 0.5
    assert load.measure()["cores"] == multiprocessing.cpu_count()
