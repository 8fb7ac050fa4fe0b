"""The log of a run: a CSV file that is exact, also after interruptions."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import zoo
from tests.faults import read_only
from tests.loop.examples import BOWL, BUDGET, PAIRS, SNES, Walk, assert_same_run
from tests.loop.test_diagnosis import CIRCLE
from zoo.loop.lock import UnwritableError

FIRST = ["generation", "steps", "seconds", "best_fitness", "mean_fitness", "std_fitness", "worst_fitness", "failed"]
DIAGNOSIS = ["sigma", "step_norm", "condition_number"]


def frame_of(path):
    return pd.read_csv(path, float_precision="round_trip")


def without_seconds(path):
    return frame_of(path).drop(columns="seconds")


def assert_is_log_of(path, result):
    """Checks that a file holds the history and the scores of a run, to the last bit."""
    frame = frame_of(path)
    metrics = [f"score/{name}" for name in result.metrics]
    aux = [name for name in result.history if name.startswith("aux/")]
    assert list(frame) == [*FIRST, *aux, *metrics, *DIAGNOSIS, "run"]
    assert frame.generation.tolist() == list(range(1, result.num_generations + 1))
    for name, values in result.history.items():
        np.testing.assert_array_equal(frame[name], values)
    scored = frame[frame[metrics[0]].notna()]
    assert scored.generation.tolist() == result.scores["generation"][1:].tolist()
    for name in (*result.metrics, *DIAGNOSIS):
        column = f"score/{name}" if name in result.metrics else name
        np.testing.assert_array_equal(scored[column], result.scores[name][1:])
    assert (np.diff(frame.seconds, prepend=0) > 0).all()
    assert frame.run.nunique() == 1


def test_a_log_has_the_numbers_of_the_run_and_changes_none(result, tmp_path):
    path = tmp_path / "new" / "log.csv"
    other = zoo.run(SNES, BOWL, 0, log=path, callback_every=3, **BUDGET)
    assert_same_run(other, result)
    assert_is_log_of(path, result)
    frame = frame_of(path)
    np.testing.assert_array_equal(frame.seconds[1::2], other.scores["seconds"][1:])
    again = zoo.run(SNES, BOWL, 0, log=str(path), **BUDGET)  # the same run may write its file again
    assert_is_log_of(path, again)
    zoo.minimize(CIRCLE.fn, CIRCLE.solution, SNES, has_aux=True, log=tmp_path / "aux.csv", **BUDGET)
    assert_is_log_of(tmp_path / "aux.csv", zoo.run(SNES, CIRCLE, 0, **BUDGET))


def test_rows_are_there_while_the_run_runs(tmp_path):
    path, seen = tmp_path / "log.csv", []
    zoo.run(SNES, BOWL, 0, log=path, callback=lambda p: seen.append((p.generation, len(frame_of(path)))), **BUDGET)
    assert seen == [(k, k) for k in (2, 4, 6, 8, 10)]


def test_the_score_of_a_run_that_is_stopped_between_scorings(tmp_path):
    path = tmp_path / "log.csv"
    result = zoo.run(
        SNES, BOWL, 0, log=path, callback=lambda p: p.generation >= 3, callback_every=1, **{**BUDGET, "num_scores": 2}
    )
    assert (result.stopped_by, result.num_generations) == ("callback", 3)
    assert_is_log_of(path, result)
    zoo.run(SNES, BOWL, 0, log=path, **BUDGET)
    walk = zoo.run(PAIRS, Walk(), 0, num_steps=40, num_scores=7, log=tmp_path / "walk.csv")
    assert_is_log_of(tmp_path / "walk.csv", walk)


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("every", [None, 1])
def test_an_interrupted_log_is_continued_exactly(every, walk, tmp_path, monkeypatch):
    """A run is killed at each change of a file: of the log, or of a checkpoint. A write may have been half done."""
    budget = {"num_generations": 12, "num_scores": 6, "callback_every": every}
    calls, limit = [], 0

    def counted(call, is_write=False):
        def killing(*args, **kwargs):
            calls.append(call)
            if len(calls) >= limit:
                if is_write and len(calls) == limit:
                    call(args[0], args[1][: len(args[1]) // 2])
                raise KilledError
            return call(*args, **kwargs)

        return killing

    full = tmp_path / "full.csv"
    zoo.run(PAIRS, Walk(), 0, log=full, **budget)
    monkeypatch.setattr("os.fsync", lambda file: None)
    for limit in range(1, 200, 1 if every is None else 2):
        folder = tmp_path / str(limit)
        was_killed = False
        for _ in range(2):
            calls.clear()
            with monkeypatch.context() as patch:
                patch.setattr("os.write", counted(os.write, is_write=True))
                patch.setattr(pathlib.Path, "replace", counted(pathlib.Path.replace))
                patch.setattr("os.ftruncate", counted(os.ftruncate))
                try:
                    result = zoo.run(PAIRS, Walk(), 0, checkpoint=folder, log=folder / "log.csv", **budget)
                    break
                except KilledError:
                    was_killed = True
        else:
            result = zoo.run(PAIRS, Walk(), 0, checkpoint=folder, log=folder / "log.csv", **budget)
        assert_same_run(result, walk)
        pd.testing.assert_frame_equal(without_seconds(folder / "log.csv"), without_seconds(full))
        assert (np.diff(frame_of(folder / "log.csv").seconds, prepend=0) > 0).all()
        if not was_killed:
            return
    pytest.fail("every run was interrupted")


KILLED_RUN = """
import sys, zoo
zoo.run("snes", "blackbox/sphere", 3, num_generations=100_000, num_scores=1_000, checkpoint=sys.argv[1],
        log=sys.argv[1] + "/log.csv", callback_every=30)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_writing_the_log(tmp_path):
    path = tmp_path / "log.csv"
    process = subprocess.Popen([sys.executable, "-c", KILLED_RUN, str(tmp_path)], env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.stat().st_size < 50_000:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    reached = path.read_bytes().count(b"\n")
    budget = {"num_generations": reached + 300, "num_scores": 10}
    result = zoo.run("snes", "blackbox/sphere", 3, checkpoint=tmp_path, log=path, **budget)
    frame = frame_of(path)
    for name, values in result.history.items():
        np.testing.assert_array_equal(frame[name], values)


def test_a_result_continues_its_log(result, tmp_path):
    path = tmp_path / "log.csv"
    half = zoo.run(SNES, BOWL, 0, num_generations=6, num_scores=3, log=path)
    before = path.read_bytes()
    whole = zoo.run(start=half, log=path, **BUDGET)
    assert_same_run(whole, result)
    assert_is_log_of(path, whole)
    assert path.read_bytes().startswith(before)
    zoo.run(start=half, log=tmp_path / "other.csv", **BUDGET)  # earlier rows come from the result
    pd.testing.assert_frame_equal(without_seconds(tmp_path / "other.csv"), without_seconds(path))
    slower = SNES.replace(mean_learning_rate=0.5)
    with pytest.raises(ValueError, match=r"log\.csv is of another run, from generation 7 on"):
        zoo.run(slower, start=half, log=path, **BUDGET)
    path.write_bytes(before)
    zoo.run(slower, start=half, log=path, **BUDGET)
    assert path.read_bytes().startswith(before)
    assert frame_of(path).run.nunique() == 2


def compute(*_args, **_kwargs):
    raise AssertionError


def test_other_files_are_refused_before_anything_is_computed(tmp_path, monkeypatch):
    path, target = tmp_path / "log.csv", tmp_path / "mine.txt"
    zoo.run(SNES, BOWL, 1, log=path, **BUDGET)
    target.write_text("my notes\n")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "link.csv").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("zoo.loop.compiled.start", compute)
    for name, message in (
        ("log.csv", r"log\.csv is of another run, from generation 1 on\. Choose another file, or delete this one"),
        ("mine.txt", r"mine\.txt holds something else than the log of a run"),
        ("link", r"log must be the path of a file, and .*link is not: it is a link"),
        ("link.csv", r"log must be the path of a file, and .*link\.csv is not: it is a link"),
        ("pipe", r"log must be the path of a file, and .*pipe is not"),
        (".", "log must be the path of a file, but .* is a folder"),
        ("mine.txt/log.csv", r"run\(log=\.\.\.\) needs to write .*log\.csv, and cannot"),
        ("x" * 300, r"run\(log=\.\.\.\) needs to write .*, and cannot: File name too long"),
    ):
        before = path.read_bytes(), target.read_text()
        with pytest.raises(ValueError, match=message):
            zoo.run(SNES, BOWL, 0, log=tmp_path / name, **BUDGET)
        assert (path.read_bytes(), target.read_text()) == before
    read_only(monkeypatch)
    with pytest.raises(UnwritableError, match=r"needs to write .*log\.csv, and cannot: Read-only file system"):
        zoo.run(SNES, BOWL, 0, log=tmp_path / "new" / "log.csv", **BUDGET)


def test_damaged_rows_are_written_again(result, tmp_path):
    path = tmp_path / "log.csv"
    zoo.run(SNES, BOWL, 0, log=path, checkpoint=tmp_path / "run", **BUDGET)
    lines = path.read_bytes().splitlines(keepends=True)
    run = lines[1].rpartition(b",")[2]
    for damaged in (
        b"",
        b"".join(lines[:4]),
        b"".join(lines)[:-5],
        b"".join([*lines[:3], b"7" + lines[3], *lines[4:]]),
        b"".join([*lines[:3], lines[3].removesuffix(run) + b"?\n", *lines[4:]]),
        b"".join([*lines, b"11,66,nonsense," + run]),
    ):
        path.write_bytes(damaged)
        zoo.run(SNES, BOWL, 0, log=path, checkpoint=tmp_path / "run", **BUDGET)
        assert_is_log_of(path, result)
    os.link(path, tmp_path / "hard")
    zoo.run(SNES, BOWL, 0, log=path, **BUDGET)
    assert (tmp_path / "hard").read_bytes() == b"".join(lines[:1]) + (tmp_path / "hard").read_bytes()[len(lines[0]) :]
    assert path.stat().st_nlink == 1


def test_a_log_that_another_run_writes(tmp_path):
    path, errors = tmp_path / "log.csv", []

    def callback(progress):
        with pytest.raises(ValueError, match=r"Another process is writing .*log\.csv\. Wait until it is done") as error:
            zoo.run(SNES, BOWL, 0, log=path, **BUDGET)
        errors.append(error)

    result = zoo.run(SNES, BOWL, 0, log=path, callback=callback, **BUDGET)
    assert len(errors) == 5
    assert_is_log_of(path, result)


class Odd(zoo.Problem):
    """A problem whose metric has a name that a table must quote."""

    headline = 'a,"b"\n'

    def initial_solution(self, key):
        return BOWL.solution

    def fitness(self, key, solution):
        return BOWL.fitness(key, solution)

    def score(self, key, solution):
        return {self.headline: self.fitness(key, solution)}


def test_names_that_a_table_must_quote(tmp_path):
    for _ in range(2):
        result = zoo.run(SNES, Odd(), 0, log=tmp_path / "log.csv", **BUDGET)
    frame = frame_of(tmp_path / "log.csv")
    np.testing.assert_array_equal(frame['score/a,"b"'].dropna(), result.scores[Odd.headline][1:])
