"""Worker processes, and the processes that they started, end when their parent ends, in any way."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

PARENT = """
import os, pathlib, signal, subprocess, sys, time

from zoo.host.processes import ProcessPool
from zoo.host.worker import Task

def busy(folder):
    if not folder:
        return 0.0
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(folder, "pids.new").write_text(f"{os.getpid()} {child.pid}")
    os.rename(pathlib.Path(folder, "pids.new"), pathlib.Path(folder, "pids"))
    time.sleep(600)

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup`, under which tests may run, would have it ignore
pool = ProcessPool(busy, 1)
pool.map([Task(("",), None, False)], None)
if sys.argv[2] == "fork" and os.fork() == 0:  # it lives on, and keeps the parent's end of the worker's streams open
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    time.sleep(20)
    os._exit(0)
pool.map([Task((sys.argv[1],), None, False)], None)
"""

NAMES = ("SIGTERM", "SIGHUP", "SIGKILL", "fork")


def is_running(pid):
    """Returns whether a process is running. A process that has ended but was not waited for does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """Starts processes with busy workers, all at once.

    Returns the processes, and the folders with their process ids.
    """
    script = tmp_path_factory.mktemp("script") / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    processes = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        processes[name] = subprocess.Popen([sys.executable, script, folder, name], stderr=subprocess.PIPE), folder
    yield processes
    for process, _ in processes.values():
        process.kill()


@pytest.mark.parametrize("name", NAMES)
def test_workers_and_their_children_end_with_the_parent(name, parents):
    parent, folder = parents[name]
    wait_for((folder / "pids").exists)
    pids = [int(pid) for pid in (folder / "pids").read_text().split()]
    assert all(map(is_running, pids))
    parent.send_signal(getattr(signal, name, signal.SIGKILL))
    assert parent.wait(60) < 0
    wait_for(lambda: not any(map(is_running, pids)), 15)
    _, errors = parent.communicate(timeout=60)  # no process holds its standard error open
    assert errors == b""
