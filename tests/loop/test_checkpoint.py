"""Checkpoints: interrupted or killed runs resume bit-identically, and no run resumes from another run's checkpoint."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.loop.examples import BOWL, BUDGET, NOISY, PAIRS, SEARCH, SNES, Walk, assert_same_run, attempt, bowl
from zoo.loop import identity
from zoo.loop.call import load_call


class InterruptionError(Exception):
    pass


def interrupt_at(generation):
    def callback(progress):
        if progress.generation >= generation:
            raise InterruptionError

    return callback


WALK_RUN = (PAIRS, Walk(), 0, {"num_generations": 12, "num_scores": 6})
NOISY_RUN = (SNES, NOISY, 3, {"num_steps": 72, "num_scores": 6})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the folder of a finished run, for tests that only read.

    Writing checkpoints takes most of the time here.
    """
    folder = tmp_path_factory.mktemp("finished")
    zoo.run(SNES, BOWL, 0, checkpoint=str(folder), **BUDGET)
    return folder


@pytest.mark.parametrize("interruptions", [(2,), (12,), (4, 6, 10)])
@pytest.mark.parametrize("run", [WALK_RUN, NOISY_RUN], ids=["walk", "noisy"])
def test_an_interrupted_run_resumes_bit_identically(run, interruptions, tmp_path):
    strategy, problem, key, budget = run
    expected = zoo.run(strategy, problem, key, **budget)
    for generation in interruptions:
        with pytest.raises(InterruptionError):
            zoo.run(strategy, problem, key, checkpoint=tmp_path, callback=interrupt_at(generation), **budget)
    seen = []
    resumed = zoo.run(strategy, problem, key, checkpoint=tmp_path, callback=seen.append, **budget)
    assert_same_run(resumed, expected)
    # Generations saved before the interruption are not repeated.
    assert [p.generation for p in seen] == list(range(interruptions[-1], 13, 2))


def test_scores_keep_their_order_and_seconds_go_on_after_a_resume(walk, tmp_path):
    with pytest.raises(InterruptionError):
        zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, callback=interrupt_at(6), **WALK_RUN[3])
    resumed = zoo.run(*WALK_RUN[:3], checkpoint=tmp_path, **WALK_RUN[3])
    columns = ["generation", "steps", "seconds", "objective", "sigma", "step_norm", "condition_number"]
    assert list(resumed.scores) == list(walk.scores) == columns
    assert list(resumed.curve()) == list(walk.curve())
    assert list(resumed.history) == list(walk.history)
    assert (np.diff(resumed.scores["seconds"]) > 0).all()


def test_a_resumed_run_does_not_compile_in_its_seconds(tmp_path, monkeypatch):
    advance, compiled_by = zoo.loop.drive.compiled.advance, []

    def count(strategy, problem, carry, keys, limits, **kwargs):
        size = advance.num_programs
        result = advance(strategy, problem, carry, keys, limits, **kwargs)
        if advance.num_programs > size:
            compiled_by.append(tuple(map(int, limits)))
        return result

    monkeypatch.setattr(zoo.loop.drive.compiled, "advance", count)
    strategy = SNES.replace(population_size=5)  # no other test compiles this program
    zoo.run(strategy, BOWL, checkpoint=tmp_path, num_generations=4, num_scores=2)
    assert compiled_by == [(0, 0, 0)]  # the call that only compiles
    zoo.run(strategy, BOWL, checkpoint=tmp_path, num_generations=8, num_scores=4)
    assert set(compiled_by) == {(0, 0, 0)}


@pytest.mark.parametrize("unit", ["num_generations", "num_steps"])
def test_a_resumed_run_goes_on_to_a_longer_budget(unit, tmp_path):
    run = (PAIRS, Walk(), 0)
    half, full = (6, 12) if unit == "num_generations" else (24, 48)
    zoo.run(*run, checkpoint=tmp_path, num_scores=3, **{unit: half})
    resumed = zoo.run(*run, checkpoint=tmp_path, num_scores=6, **{unit: full})
    assert_same_run(resumed, zoo.run(*run, num_scores=6, **{unit: full}))


def test_a_run_that_is_checkpointed_is_the_same_run_and_returns_at_once_when_finished(walk, tmp_path):
    folder = tmp_path / "new" / "folder"
    first = zoo.run(*WALK_RUN[:3], checkpoint=folder, **WALK_RUN[3])
    assert_same_run(first, walk)
    assert folder.is_dir()
    seen = []
    again = zoo.run(*WALK_RUN[:3], checkpoint=folder, callback=seen.append, **WALK_RUN[3])
    assert_same_run(again, first)
    assert seen == []
    assert again.seconds == first.seconds
    np.testing.assert_array_equal(again.scores["seconds"], first.scores["seconds"])


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"num_generations": 8}, r"done 10 generations, more than num_generations=8\. Ask for num_generations=10 or"),
        ({"num_steps": 59}, r"done 60 steps, more than num_steps=59\. Ask for num_steps=60 or more, or choose another"),
    ],
    ids=["generations", "steps"],
)
def test_a_run_that_has_done_more_than_is_asked_for_is_refused(budget, message, finished, result):
    before = (finished / "call.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        zoo.run(SNES, BOWL, 0, num_scores=1, checkpoint=finished, **budget)
    assert (finished / "call.json").read_bytes() == before
    for exact in ({"num_generations": 10}, {"num_steps": 60}):
        assert_same_run(zoo.run(SNES, BOWL, 0, num_scores=5, checkpoint=finished, **exact), result)


def test_a_run_interrupted_while_it_is_compiled_is_found(tmp_path, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zoo.loop.compiled.start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            zoo.run("snes", "blackbox/sphere", 3, num_generations=4, checkpoint=tmp_path)
    call, folder = load_call(tmp_path)
    assert (call["key"], call["budget"]["num_generations"], folder) == (3, 4, tmp_path)


def test_a_run_stopped_by_its_target_stays_stopped(result, tmp_path):
    target = float(result.scores["fitness"][3])
    first = zoo.run(SNES, BOWL, 0, target=target, checkpoint=tmp_path, **BUDGET)
    again = zoo.run(SNES, BOWL, 0, target=target, checkpoint=tmp_path, **BUDGET)
    assert first.stopped_by == again.stopped_by == "target"
    assert_same_run(first, again)
    assert again.num_generations == 6


@pytest.mark.parametrize("target", [None, -1.0])
def test_a_resumed_run_has_the_target_it_is_given(result, tmp_path, target):
    first = zoo.run(SNES, BOWL, 0, target=float(result.scores["fitness"][3]), checkpoint=tmp_path, **BUDGET)
    assert first.num_generations == 6
    resumed = zoo.run(SNES, BOWL, 0, target=target, checkpoint=tmp_path, **BUDGET)
    assert_same_run(resumed, result)


def test_a_run_stopped_by_its_callback_goes_on(result, tmp_path):
    zoo.run(SNES, BOWL, 0, callback=lambda p: p.generation >= 4, checkpoint=tmp_path, **BUDGET)
    assert_same_run(zoo.run(SNES, BOWL, 0, checkpoint=tmp_path, **BUDGET), result)


def other_bowl(x):
    return jnp.sum((x - 2) ** 2)


@pytest.mark.parametrize(
    ("strategy", "problem", "key", "solution"),
    [
        (SNES, BOWL, 1, None),
        (SNES.replace(sigma=0.6), BOWL, 0, None),
        (SEARCH, BOWL, 0, None),
        (SNES, BOWL.replace(solution=jnp.ones(3)), 0, None),
        (SNES, zoo.from_function(other_bowl, jnp.zeros(3)), 0, None),
        (SNES, BOWL, 0, jnp.ones(3)),
    ],
    ids=["key", "setting", "strategy", "data", "function", "solution"],
)
def test_another_runs_checkpoint(strategy, problem, key, solution, finished):
    with pytest.raises(ValueError, match="is of another run"):
        zoo.run(strategy, problem, key, solution=solution, checkpoint=finished, **BUDGET)


def test_a_function_of_the_same_name_is_another_run(tmp_path):
    for number in (1.0, 5.0):
        problem = zoo.from_function(lambda x, number=number: jnp.sum((x - number) ** 2), jnp.zeros(3))
        expected = zoo.run(SNES, problem, num_generations=2, num_scores=1)
        resumed, error = attempt(zoo.run, SNES, problem, num_generations=2, num_scores=1, checkpoint=tmp_path)
        if error is None:
            assert_same_run(resumed, expected)
        else:
            assert number == 5.0
            assert "is of another run" in str(error)


def test_a_checkpoint_needs_a_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        with pytest.raises(ValueError, match=r"run\(checkpoint=\.\.\.\) needs a folder, but .* is a file"):
            zoo.run(SNES, BOWL, checkpoint=path, **BUDGET)
    assert file.read_text() == "mine"


def test_the_newest_two_checkpoints_are_kept(finished):
    assert sorted(path.name for path in finished.glob("*.npz")) == [
        "checkpoint_00000008.npz",
        "checkpoint_00000010.npz",
    ]


KILLED_RUN = """
import sys, zoo
zoo.run("snes", "blackbox/sphere", 3, num_generations=100_000, num_scores=50_000, checkpoint=sys.argv[1])
"""


def newest_checkpoint(folder: pathlib.Path) -> int:
    return max((int(path.stem.removeprefix("checkpoint_")) for path in folder.glob("checkpoint_*.npz")), default=0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_writing_checkpoints(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED_RUN, str(tmp_path)], env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while newest_checkpoint(tmp_path) == 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(np.random.default_rng(0).uniform(0, 0.5))
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    reached = newest_checkpoint(tmp_path)
    budget: dict[str, Any] = {"num_generations": reached + 20, "num_scores": reached // 2 + 10}
    seen = []
    resumed = zoo.run("snes", "blackbox/sphere", 3, checkpoint=tmp_path, callback=seen.append, **budget)
    assert [p.generation for p in seen] == list(range(reached + 2, reached + 21, 2))
    assert_same_run(resumed, zoo.run("snes", "blackbox/sphere", 3, **budget))


def test_an_edited_function_is_another_run(tmp_path):
    for factor in (1.0, 2.0):
        names = {"jnp": jnp}
        exec(compile(f"def fn(x):\n    return {factor} * jnp.sum(x**2)", "user_code.py", "exec"), names)
        call = (SNES, zoo.from_function(names["fn"], jnp.ones(3)))
        if factor == 1.0:
            zoo.run(*call, checkpoint=tmp_path, **BUDGET)
        else:
            with pytest.raises(ValueError, match=r"is of another run: code of the problem\. Choose another folder"):
                zoo.run(*call, checkpoint=tmp_path, **BUDGET)


def test_another_precision_is_another_run(finished):
    with jax.enable_x64(True):
        problem = zoo.from_function(bowl, jnp.zeros(3, jnp.float32))
        with pytest.raises(ValueError, match=r"another run: .*precision: 32 there, 64 here"):
            zoo.run(SNES, problem, 0, checkpoint=finished, accept_versions=True, **BUDGET)


def test_another_version_is_another_run_unless_it_is_accepted(finished, monkeypatch):
    monkeypatch.setattr(identity, "__version__", "99")
    with pytest.raises(ValueError, match=rf"zoo: {zoo.__version__} there, 99 here\. .*accept_versions=True"):
        zoo.run(SNES, BOWL, 0, checkpoint=finished, **BUDGET)
    seen = []
    zoo.run(SNES, BOWL, 0, checkpoint=finished, accept_versions=True, callback=seen.append, **BUDGET)
    assert seen == []
