"""Python functions as problems: equal to the same functions in JAX, and what happens to members that fail."""

import functools
import operator
import os
import pathlib
import signal
import sys
import threading
import time
import warnings

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.host.processes import ProcessPool
from zoo.host.worker import Task
from zoo.strategies.perturbations import Seeded
from zoo.testing import loop

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # otherwise workers would import this module, and JAX

START = {"a": jnp.full((2, 3), 1.0), "b": jnp.float32(0.5)}


def bowl(xp, x):
    """Returns sums of multiples of 1/64, which floating point adds exactly in any order."""
    return xp.sum(xp.round(8 * x["a"]) ** 2) / 64 + xp.round(8 * x["b"]) ** 2 / 64


def batched_bowl(xs):
    return np.array([bowl(np, {"a": a, "b": b}) for a, b in zip(xs["a"], xs["b"], strict=True)])


IN_JAX = zoo.from_function(functools.partial(bowl, jnp), START)
TRAPS = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.float32)
OPEN = zoo.make_strategy("open_es", population_size=6, sigma=0.5)
start, generation = jax.jit(loop.start), jax.jit(loop.generation)


def make(fn, solution=0.0, **settings):
    return zoo.from_python(fn, solution, **settings)


def evaluate(problem, population, *, groups=None):
    groups = zoo.Groups.of(len(population)) if groups is None else zoo.Groups(groups)
    state = problem.init(jax.random.key(0), groups, population[0])
    return problem.evaluate(jax.random.key(1), population, state)[0]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def in_python():
    """Returns the bowl in three forms: in this process by member, in two processes, and in two processes in chunks."""

    scale = np.float32(1)

    def closure(x):
        assert isinstance(x["a"], np.ndarray)
        assert isinstance(x["b"], np.ndarray)
        x["a"] *= scale  # a member can be written to
        return bowl(np, x)

    return [
        make(closure, START),
        make(closure, lambda key: START, num_processes=2, timeout=60),
        make(batched_bowl, START, batched=True, num_processes=2),
    ]


# Against the same function in JAX


@pytest.mark.parametrize("index", range(3))
def test_a_run_is_that_of_the_function_in_jax(index, in_python):
    result, expected = (
        zoo.run(OPEN, problem, num_generations=4, num_scores=2) for problem in (in_python[index], IN_JAX)
    )
    assert_equal(result.mean, expected.mean)
    assert_equal(result.history, expected.history)
    assert result.score == expected.score


@pytest.mark.parametrize("index", [0, 2])
def test_the_loop_by_hand_and_several_seeds(index, in_python, key):
    states = []
    for problem in (in_python[index], IN_JAX):
        loop = start(OPEN, problem, key)
        for k in jax.random.split(key, 2):
            loop, _ = generation(OPEN, problem, loop, k)
        results = zoo.benchmark([OPEN], {"p": problem}, num_seeds=2, num_steps=18, num_scores=2, progress=False)
        states.append((loop.state, results.scores("OpenES", "p")))
    assert_equal(*states)


def test_all_members_of_all_seeds_are_one_batch(key):
    sizes = []

    def fn(xs):
        sizes.append(len(xs))
        return xs.sum(axis=1)

    problem = make(fn, np.zeros(2, np.float32), batched=True)
    population = jax.random.normal(key, (3, 5, 2))
    state = problem.init(key, zoo.Groups.of(5), population[0, 0])
    seeds = jax.jit(jax.vmap(lambda p: problem.evaluate(key, p, state)[0]))(population)
    np.testing.assert_allclose(seeds.fitness, population.sum(axis=2), rtol=1e-6)
    assert sizes == [15]
    assert seeds.steps.tolist() == [5, 5, 5]
    assert evaluate(problem.replace(member_batch_size=2), population[0]).fitness.shape == (5,)
    assert sizes[1:] == [2, 2, 1]


def test_large_populations_do_not_block():
    """A compiled loop does not block, although the arguments of a callback may not have arrived yet."""
    problem = make(lambda x: x @ x, np.zeros(10_000, np.float32))
    strategy = zoo.make_strategy("open_es", population_size=300, sigma=1.0)
    result = zoo.run(strategy, problem, num_generations=3, num_scores=1)
    assert 9_000 < result.history["mean_fitness"][0] < 11_000


def test_populations_that_are_not_arrays(key):
    """Members given by seeds arrive as plain arrays."""
    strategy = zoo.make_strategy("open_es", population_size=4, perturbation=Seeded())
    fitness = []
    for problem in (
        make(lambda x: np.sum(x**2), jnp.ones((3, 4))),
        zoo.from_function(lambda x: jnp.sum(x**2), jnp.ones((3, 4))),
    ):
        fitness.append(generation(strategy, problem, start(strategy, problem, key), key)[1])
    np.testing.assert_allclose(*fitness, rtol=1e-5)


# Seeds and steps


@pytest.mark.parametrize("batched", [False, True])
def test_seeds_are_those_of_the_group(batched):
    problem = make(lambda seed, x: seed % 1000 + 0 * x, takes_seed=True, batched=batched)
    groups = np.array([0, 1, 0, 2, 1])
    fitness = np.asarray(evaluate(problem, jnp.arange(5.0), groups=groups).fitness)
    assert [len(set(fitness[groups == g])) for g in range(3)] == [1, 1, 1]
    assert len(set(fitness)) == 3
    scores = [float(problem.score(jax.random.key(k), 0.0)["fitness"]) for k in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_steps_are_what_the_function_says():
    problem = make(lambda x: (x, int(x) + 2), returns_steps=True)
    evaluation = evaluate(problem, jnp.arange(4.0))
    assert evaluation.steps == 2 + 3 + 4 + 5
    with pytest.warns(RuntimeWarning, match=r"must return \(fitness, num_steps\), because returns_steps=True, got 1.0"):
        assert np.isnan(problem.replace(fn=float).score(jax.random.key(0), 1.0)["fitness"])


# Members that fail


def trap(x):
    """Returns its argument, or fails if it is one of the traps."""
    kind = int(x)
    if kind == 1:
        os._exit(7)
    if kind == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == 3:
        time.sleep(60)
    if kind == 4:
        raise LookupError("four")
    return {5: "five", 6: np.nan}.get(kind, float(x))


def traps(xs):
    return np.array([trap(x) for x in xs], float)


@pytest.mark.parametrize(("fn", "batched"), [(trap, False), (traps, True)])
def test_members_that_fail_rank_last(fn, batched):
    problem = make(fn, batched=batched, num_processes=2, timeout=0.4)
    population = jnp.concatenate([TRAPS, 10 + jnp.arange(3.0)])
    with pytest.warns(RuntimeWarning, match=r"6 of 10 evaluations of 'traps?' failed.*\n.*exit code 7") as caught:
        evaluation = evaluate(problem, population)
    assert len(caught) == 1
    expected = [0, *[np.nan] * 6, 10, 11, 12]
    np.testing.assert_array_equal(evaluation.fitness, expected)
    assert evaluation.steps == 10
    with warnings.catch_warnings():  # the second call gives no warning, and workers still answer
        warnings.simplefilter("error")
        np.testing.assert_array_equal(evaluate(problem, population[::-1]).fitness, expected[::-1])


def forks(x):
    if x > 0:
        import subprocess

        subprocess.run([sys.executable, "-c", "import time; time.sleep(30)"], check=False)
    return float(x)


def test_timeout_ends_what_the_function_started():
    """A timeout also ends the processes that the function started. They would keep the worker's streams open."""
    problem = make(forks, num_processes=1, timeout=1.0)
    evaluate(problem, jnp.zeros(1))  # starts the worker
    clock = time.perf_counter()
    with pytest.warns(RuntimeWarning, match="no result after 1 s"):
        np.testing.assert_array_equal(evaluate(problem, jnp.array([0.0, 1.0])).fitness, [0, np.nan])
    assert time.perf_counter() - clock < 20


def test_a_run_survives_its_workers():
    def deadly(x):
        if x > 0:
            os._exit(1)
        return float(x) ** 2

    results = []
    for problem in (make(deadly, num_processes=2), zoo.from_function(lambda x: jnp.where(x > 0, jnp.nan, x**2), 0.0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(zoo.run("cma_es", problem, num_generations=4, num_scores=2))
    assert np.isfinite(results[0].best_fitness)
    np.testing.assert_allclose(*(result.history["best_fitness"] for result in results), rtol=1e-5)


def test_a_first_generation_of_failures_is_an_error():
    def broken(x):
        return operator.index(x)

    for num_processes in (None, 1):
        problem = make(broken, num_processes=num_processes)
        with (
            pytest.warns(RuntimeWarning, match="1 of 1"),
            pytest.raises(ValueError, match="all 6 evaluations") as error,
        ):
            zoo.run(OPEN, problem, num_generations=1)
        assert str(error.value).startswith("TypeError: only integer")  # the user's own error comes first
        assert "the first error of 'broken'" in str(error.value)
        assert len(str(error.value).splitlines()) == 1
        (note,) = error.value.__notes__
        assert "test_problem.py" in note
        assert "<dynamic-code>" not in note
        assert "in broken\n" in note
        pair = zoo.benchmark([OPEN], {"p": problem}, num_seeds=1, num_steps=6, num_scores=1, progress=False).pairs[0]
        assert pair.info["error"] == f"ValueError: {error.value}"
        assert "in broken\n" in pair.info["traceback"]
    # After a first success, failures only give a warning.
    problem = make(lambda x: 1.0 if x < 3 else "x")
    assert np.all(np.isfinite(evaluate(problem, jnp.zeros(3)).fitness))
    with pytest.warns(RuntimeWarning, match="3 of 3"):
        assert np.all(np.isnan(evaluate(problem, jnp.full(3, 4.0)).fitness))


def test_what_cannot_be_loaded_in_a_worker_is_said(tmp_path, monkeypatch):
    path = tmp_path / "only_here.py"
    path.write_text("def fn(x):\n    return 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    fn = __import__("only_here").fn
    path.unlink()
    with pytest.raises(Exception, match="cannot be loaded in a worker process") as error:
        evaluate(make(fn, num_processes=1), jnp.zeros(2))
    assert "No module named 'only_here'" in str(error.value)
    with pytest.raises(TypeError, match=r"cannot be sent to worker processes: .*lock.*inside the function"):
        evaluate(make(functools.partial(print, threading.Lock()), num_processes=1), jnp.zeros(2))


@pytest.fixture
def interrupts():
    """Sets Python's own handler, because a program started in the background of a shell ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_the_evaluation_and_is_not_lost(tmp_path):
    """The interrupt comes only after the function has started, however busy the machine is."""
    running = tmp_path / "running"
    interrupted = threading.Event()

    def slow(x):
        pathlib.Path(running).touch()
        time.sleep(600)

    def interrupt():
        while not running.exists():
            time.sleep(0.1)
        interrupted.set()
        os.kill(os.getpid(), signal.SIGINT)

    def benchmark():
        with pytest.raises(Exception, match="KeyboardInterrupt"):  # recorded as the failure of a pair
            evaluate(make(slow, num_processes=1), jnp.zeros(2))
        end = time.perf_counter() + 60
        while time.perf_counter() < end:  # the benchmark goes on to the next pair
            pass

    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        benchmark()
    assert interrupted.is_set()
    assert time.perf_counter() < begin + 300  # nothing waited for the function to end


# Worker processes


def test_workers_import_no_more_than_they_need(tmp_path):
    """Workers import neither JAX nor the script that started them, and their prints do not disturb the protocol."""

    def loaded(path):
        import sys

        print("noise")
        pathlib.Path(path).write_text(" ".join({"jax", "zoo", "__main__"} & set(sys.modules)))
        return float(sys.modules["__main__"].__file__.endswith("worker.py")), os.environ["JAX_PLATFORMS"] == "cpu"

    pool = ProcessPool(loaded, 1)
    (answer,) = pool.map([Task((str(tmp_path / "loaded"),), None, True)], None)
    assert (answer.error, answer.fitness, answer.steps) == (None, [1.0], [1])
    assert (tmp_path / "loaded").read_text() == "__main__"


def test_workers_are_shared_by_equal_problems_and_end_when_others_are_used():
    def pid(x):
        return float(os.getpid())

    problems = [make(pid, np.float32(x), num_processes=1) for x in (0.0, 1.0)]
    pids = [int(evaluate(problem, jnp.zeros(1)).fitness[0]) for problem in problems]
    assert pids[0] == pids[1]
    for _ in range(4):
        ProcessPool(abs, 1).map([Task((-1,), None, False)], None)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert evaluate(problems[0], jnp.zeros(1)).fitness[0] != pids[0]


# Settings


def test_settings_tell_problems_apart():
    def problem(slope, **settings):
        return make(lambda x: slope * x, np.zeros(2), **settings)

    describe = zoo.loop.provenance.describe_settings
    assert describe(problem(1.0)) == describe(problem(1.0)) != describe(problem(2.0))
    assert describe(problem(1.0)) != describe(problem(1.0, takes_seed=True))


def test_there_is_no_gradient():
    with pytest.raises(TypeError, match="needs a surrogate gradient, and this problem has none"):
        zoo.run("bptt", make(float), num_generations=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make(3), TypeError, "expects a function of one solution, got int"),
        (lambda: make(float, 1), TypeError, "floating-point arrays, but the solution is int"),
        (
            lambda: make(functools.partial(float), num_processes=-1),
            ValueError,
            "num_processes must be at least 0, got -1",
        ),
        (lambda: make(float, timeout=1.0), ValueError, r"timeout=1 needs worker processes.*num_processes=1 or more"),
        (lambda: make(float, timeout=0, num_processes=1), ValueError, "timeout must be a positive number of seconds"),
        (lambda: make(type("F", (), {"__call__": abs, "__hash__": None})()), TypeError, "unhashable F.*__hash__"),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_vector_is_no_fitness():
    for batched, message in (
        (False, r"must return a number \(fitness\), got shape \(3,\)"),
        (True, r"shape \(1,\), one"),
    ):
        with pytest.raises(Exception, match=message):
            evaluate(make(lambda x: np.zeros(3), batched=batched), jnp.zeros(4))


def test_every_call_counts():
    """A generation that exceeds the budget is not started, and a score is taken only at the end."""
    calls, looks = [], []

    def fn(x):
        calls.append(x)
        return float(np.sum(x**2))

    problem = zoo.from_python(fn, np.ones(2))
    strategy = zoo.make_strategy("snes", population_size=6)
    result = zoo.run(strategy, problem, num_steps=20, callback=lambda progress: looks.append(progress.steps))
    assert result.num_steps == len(calls) - 2 == 18
    assert result.scores["steps"].tolist() == [0, 18]
    assert looks == [6, 12, 18]
    # A score along the way needs a reason: `num_scores`, `target` or a callback.
    for settings, steps in (({"num_scores": 3}, [0, 12, 18]), ({"target": -1.0}, [0, 6, 12, 18])):
        assert zoo.run(strategy, problem, num_steps=20, **settings).scores["steps"].tolist() == steps
    stopped = zoo.run(strategy, problem, num_steps=20, callback=lambda progress: progress.steps == 12)
    assert stopped.scores["steps"].tolist() == [0, 12]
