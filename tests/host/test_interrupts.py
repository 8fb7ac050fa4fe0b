"""Ctrl-C and errors of host functions, in the main thread and where JAX calls back from its own thread."""

import os
import pathlib
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.host.interrupts import native_errors

SOLUTIONS = {"main": np.zeros(2, np.float32), "other": np.zeros(100_000, np.float32)}  # large programs run elsewhere
OPEN = zoo.make_strategy("open_es", population_size=6, sigma=0.5)
BUDGET = {"num_generations": 1000, "num_scores": 1}  # one program, which Ctrl-C must end in the middle


@pytest.fixture(autouse=True)
def default_handler():
    """Sets Python's own handler, because a program started in the background of a shell ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting:
    """A function that interrupts its process in a late call, and counts its calls and threads."""

    def __init__(self, at=20):
        self.at, self.calls, self.threads = at, 0, set()

    def __call__(self, x):
        self.threads.add(threading.current_thread() is threading.main_thread())
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        if self.at <= self.calls < self.at + 3:
            time.sleep(0.2)
        return float(np.sum(x))


@pytest.mark.parametrize("thread", SOLUTIONS)
def test_an_interrupt_ends_a_run(thread, capfd):
    fn = Interrupting()
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    with pytest.raises(KeyboardInterrupt):
        zoo.run(OPEN, zoo.from_python(fn, SOLUTIONS[thread]), **BUDGET)
    assert thread == "main" or False in fn.threads  # otherwise this tests less than it says
    assert fn.calls <= fn.at + 2
    assert signal.set_wakeup_fd(wakeup) == wakeup
    assert "Traceback" not in capfd.readouterr().err  # JAX's own traceback
    # The interrupt leaves nothing behind.
    assert zoo.run(OPEN, zoo.from_python(fn, SOLUTIONS["main"]), num_generations=1, num_scores=1).num_generations == 1


def test_an_interrupt_ends_a_run_in_worker_processes(tmp_path):
    running, parent = tmp_path / "running", os.getpid()

    def slow(x):
        pathlib.Path(running).touch()
        if x[0] != 0:  # not the score of the initial solution
            os.kill(parent, signal.SIGINT)
            time.sleep(600)
        return float(x[0])

    clock = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        zoo.run(OPEN, zoo.from_python(slow, SOLUTIONS["other"], num_processes=1), **BUDGET)
    assert running.exists()
    assert time.perf_counter() - clock < 300


def test_an_interrupt_ends_a_benchmark_and_what_was_finished_is_kept(tmp_path):
    bowl = zoo.from_function(lambda x: jnp.sum(x**2), jnp.ones(2))
    fn = Interrupting()
    problems = {"first": bowl, "second": zoo.from_python(fn, SOLUTIONS["main"]), "third": bowl}
    options = {"num_seeds": 1, "num_steps": 60, "num_scores": 1, "progress": False, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        zoo.benchmark([OPEN], problems, **options)
    (pair,) = zoo.Results.load(tmp_path).pairs
    assert (pair.problem, pair.info["error"]) == ("first", None)
    assert len(zoo.benchmark([OPEN], problems, **options).pairs) == 3


def test_users_may_handle_interrupts_themselves():
    """With a handler that raises nothing, the run continues."""
    fn, seen = Interrupting(at=5), []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    result = zoo.run(OPEN, zoo.from_python(fn, SOLUTIONS["other"]), num_generations=2, num_scores=1)
    assert result.num_generations == 2
    assert seen == [1]


def test_runs_raise_what_a_host_function_raises(capfd):
    """The error keeps its type, and JAX adds no text."""

    def fails(x):
        if np.any(x != 0):
            raise LookupError("diverged at seven")
        return np.float32(0)

    host = zoo.from_numpy(fails, result=jax.ShapeDtypeStruct((), jnp.float32))
    with pytest.raises(LookupError, match=r"^diverged at seven$") as error:
        zoo.run(OPEN, zoo.from_function(host, jnp.zeros(2)), **BUDGET)
    assert error.traceback[-1].name == "fails"
    assert error.value.__suppress_context__
    assert "Traceback" not in capfd.readouterr().err


def test_other_threads_may_run():
    """`native_errors` works in other threads, where no Ctrl-C arrives and Python handles no signals."""
    entered = []

    def run():
        with native_errors():
            entered.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered
