"""Compiled programs on disk."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

import zoo
from zoo.loop.cache import _tidy

RUN = """
    import jax
    counts = {"cache_hits": 0, "cache_misses": 0}
    def count(event, **_):
        name = event.rpartition("/")[2]
        counts[name] = counts.get(name, 0) + 1
    jax.monitoring.register_event_listener(count)
    import zoo
    folder = zoo.use_compilation_cache()
    result = zoo.run("random_search", "blackbox/sphere", num_generations=3)
    print(counts["cache_hits"], counts["cache_misses"], result.score, folder)
"""
RUN_ANOTHER = """
    zoo.run("random_search", "blackbox/rastrigin", num_generations=3)
"""


def start(code, folder):
    """Starts a process that keeps its programs in `folder`, separate from the cache of this suite."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "ZOO_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def result_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    hits, misses, score, folder = out.split()
    return int(hits), int(misses), score, folder


def test_the_next_process_compiles_nothing(tmp_path):
    """A third process finds all programs of two processes that started at once, and all get the same numbers."""
    at_once = [result_of(process) for process in [start(RUN, tmp_path) for _ in range(2)]]
    assert max(misses for _, misses, *_ in at_once) > 0  # the later one may find all programs of the other
    (inside,) = tmp_path.iterdir()
    assert inside.stat().st_mode & 0o77 == 0  # anyone who can write there can run code
    before = {path: path.stat().st_size for path in inside.glob("*-cache")}
    limited = RUN.replace("use_compilation_cache()", f"use_compilation_cache(max_bytes={sum(before.values())})")
    hits, misses, score, folder = result_of(start(limited + RUN_ANOTHER, tmp_path))
    assert (hits > 0, misses) == (True, 0)
    assert {score} == {each[2] for each in at_once}
    assert str(inside) == folder
    # The cache is full, so programs that were unused for longest made room for the new ones.
    after = {path: path.stat().st_size for path in inside.glob("*-cache")}
    assert after.keys() - before.keys()
    assert sum(after.values()) <= sum(before.values())


def test_where_jax_has_been_told_of_another_folder_that_is_used(tmp_path, monkeypatch):
    """If JAX already has a cache folder, as in this suite, it is used."""
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    assert str(zoo.use_compilation_cache()) == os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert not list(tmp_path.iterdir())


def test_what_is_half_written_goes_and_so_do_old_versions(tmp_path):
    """Half-written programs are removed.

    (A killed process leaves them without an access time, and JAX would keep them.)
    """
    here, old, recent = (tmp_path / f"jaxlib-{name}" for name in ("here", "old", "recent"))
    for folder in (here, old, recent):
        folder.mkdir()
        for name in ("whole-cache", "whole-atime", "half-cache"):
            (folder / name).write_bytes(b"12345678")
    long_ago = time.time() - 40 * 86_400
    for path in (*old.iterdir(), old):
        os.utime(path, (long_ago, long_ago))
    _tidy(tmp_path, here)
    assert {path.name for path in here.iterdir()} - {".lockfile"} == {"whole-cache", "whole-atime"}
    assert not old.exists()
    assert len(list(recent.iterdir())) == 3


def test_mistakes(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be kept in .*file: .*Name another folder"):
        zoo.use_compilation_cache(tmp_path / "file")
    for wrong in (0, -1, 1.5, True, None):
        with pytest.raises(ValueError, match="max_bytes must be a positive whole number"):
            zoo.use_compilation_cache(tmp_path, max_bytes=wrong)
