"""Benchmarks computed by Ray's workers: the numbers are the same, even if a worker dies."""

import os
import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import psutil
import pytest
import ray

import zoo
from zoo.benchmarking import ray_executor
from zoo.core.keys import is_key

SEARCH = zoo.make_strategy("random_search", population_size=4)
SNES = zoo.make_strategy("snes", population_size=4)
TINY = {"num_seeds": 2, "num_steps": 8, "num_scores": 2, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with ray_executor._cluster(ray):
        yield


def on_ray(strategies, problems, **settings):
    return zoo.benchmark(strategies, problems, executor="ray", **{**TINY, **settings})


def make_problem(fn, *data):
    return zoo.from_function(fn, lambda key: jax.random.normal(key, (3,)), data=data)


def square(x):
    return jnp.sum(x**2)


def logged(log, act=lambda count: None):
    """Returns a fitness that counts its traces in a file, and acts depending on the count."""

    def fitness(x):
        with log.open("a") as file:
            file.write("x")
        act(log.stat().st_size)
        return square(x)

    return fitness


def key_data(leaf):
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def assert_same(results, expected):
    """Asserts that everything except times and load is equal."""
    assert [(p.strategy, p.problem) for p in results.pairs] == [(p.strategy, p.problem) for p in expected.pairs]
    clock = ("date", "seconds", "compile_seconds", "load")
    for pair, other in zip(results.pairs, expected.pairs, strict=True):
        assert {k: v for k, v in pair.info.items() if k not in clock} == {
            k: v for k, v in other.info.items() if k not in clock
        }
        for frame in ("curve", "runtimes"):
            frames = (getattr(each, frame).drop(columns="seconds", errors="ignore") for each in (pair, other))
            pd.testing.assert_frame_equal(*frames, check_exact=True)
        solution, other_solution = jax.tree.map(key_data, (pair.solution, other.solution))
        jax.tree.map(np.testing.assert_array_equal, solution, other_solution)


def test_other_machines_cannot_reach_it():
    """All processes that Ray started, workers included, listen to this machine only."""
    ray.get(ray.remote(square).remote(2.0))
    processes = psutil.Process().children(recursive=True)
    listening = [
        (process.name(), connection.laddr.ip)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {ip.removeprefix("::ffff:") for _, ip in listening} == {"127.0.0.1"}
    assert ray_executor._CLUSTERS not in os.environ


def test_same_results_in_the_same_order(tmp_path):
    """Also for classes that are defined here, with leaves that have defaults."""

    @flax.struct.dataclass
    class Weights:
        w: jax.Array

    class Bowl(zoo.Problem):
        center: jax.Array | float = zoo.leaf(0.0)
        power: int = zoo.static(2)

        def initial_solution(self, key):
            return Weights(jax.random.normal(key, (3,)))

        def fitness(self, key, solution):
            return jnp.sum((solution.w - self.center) ** self.power)

    class Shifted(Bowl):
        shift: float = zoo.number(0.0)

        def fitness(self, key, solution):
            return super().fitness(key, Weights(solution.w - self.shift))

    class Search(type(SEARCH)):
        pass

    problems = {
        "ball": zoo.make_problem("blackbox/sphere", num_dims=3),  # has runtimes
        "bowl": Shifted(center=jnp.arange(3.0), power=4, shift=1.0),
    }
    strategies = {"snes": SNES, "search": Search(population_size=4)}
    expected = zoo.benchmark(strategies, problems, **TINY)
    results = on_ray(strategies, problems, out=tmp_path)
    assert_same(results, expected)
    assert isinstance(results.pair("snes", "bowl").solution["mean"].w, np.ndarray)
    assert ray.is_initialized()  # the benchmark does not end a cluster that it did not start
    loaded = zoo.Results.load(tmp_path)
    assert [pair.info["error"] for pair in loaded.pairs] == [None] * 4
    pd.testing.assert_frame_equal(loaded.final.drop(columns="seconds"), expected.final.drop(columns="seconds"))


def test_double_precision_arrives(x64):
    result = on_ray({"search": SEARCH}, {"square": make_problem(square)})
    assert_same(result, zoo.benchmark({"search": SEARCH}, {"square": make_problem(square)}, **TINY))
    assert result.pairs[0].solution["mean"].dtype == np.float64


def test_workers_that_die_and_errors(tmp_path):
    """A pair whose worker dies is tried again. Failed pairs are recorded, and only they are computed again later."""
    logs = {name: tmp_path / f"{name}.log" for name in ("good", "unlucky", "deadly", "wrong")}
    switch = tmp_path / "fixed"

    def die(count):
        if count == 1:
            os._exit(1)

    def always_die(count):
        if not switch.exists():
            os._exit(1)

    def fail(count):
        raise RuntimeError("out of luck")

    acts = {"good": lambda count: None, "unlucky": die, "deadly": always_die, "wrong": fail}
    problems = {name: make_problem(logged(logs[name], act)) for name, act in acts.items()}
    folder = tmp_path / "out"

    def benchmark(**settings):
        before = {name: log.stat().st_size if log.exists() else 0 for name, log in logs.items()}
        results = on_ray({"search": SEARCH}, problems, out=folder, **settings)
        return results, {name: log.stat().st_size - before[name] for name, log in logs.items()}

    results, traces = benchmark(ray_options={"max_retries": 1})
    assert [pair.problem for pair in results.pairs] == list(logs)  # "wrong" arrives before "deadly"
    errors = dict(zip(results.failures.problem, results.failures.error, strict=True))
    assert set(errors) == {"deadly", "wrong"}
    assert traces["deadly"] == 2
    assert traces["unlucky"] == traces["good"] + 1
    assert "worker that computed this pair died" in errors["deadly"]
    assert errors["wrong"] == "RuntimeError: out of luck"
    assert traces["wrong"] == 2  # one for its identity and one for its run; it is not tried again
    assert "in fail" in results.pair("search", "wrong").info["traceback"]
    plain = zoo.benchmark({"search": SEARCH}, {"plain": make_problem(square)}, **TINY).scores("search", "plain")
    for name in ("good", "unlucky"):
        np.testing.assert_array_equal(results.scores("search", name), plain)
    assert len(zoo.Results.load(folder).failures) == 2

    switch.touch()
    results, traces = benchmark()
    assert results.failures.problem.tolist() == ["wrong"]
    assert traces["good"] == traces["unlucky"] == 2  # for their identity
    assert traces["deadly"] > 0
    np.testing.assert_array_equal(results.scores("search", "deadly"), plain)


def test_what_cannot_travel_fails_alone(tmp_path):
    class Picky(zoo.FunctionProblem):
        def __reduce__(self):
            raise TypeError("not today")

    picky = Picky(fn=square, solution=jnp.ones(3))
    results = on_ray({"search": SEARCH}, {"picky": picky, "square": make_problem(square)}, out=tmp_path)
    assert results.failures.to_dict("records") == [
        {"strategy": "search", "problem": "picky", "error": "TypeError: not today"}
    ]
    assert [pair.problem for pair in results.pairs] == ["picky", "square"]


def test_what_a_worker_computed_is_used_again(tmp_path, caplog):
    """Functions and classes that were sent to a worker have the same identity as those in this process."""
    factor = 2.0

    class Task:
        shift = 1.0

        def __call__(self, x):
            return float(np.sum(shifted(x) * factor))

    def shifted(x):
        return x - Task.shift

    problems = {
        "traced": make_problem(lambda x: jnp.sum(x - factor)),
        "host": zoo.from_python(Task(), np.zeros(3)),
    }
    with caplog.at_level("INFO", logger="zoo"):
        on_ray({"search": SEARCH}, problems, out=tmp_path)
        assert not caplog.messages
        zoo.benchmark({"search": SEARCH}, problems, out=tmp_path, **TINY)
    assert caplog.messages[0].startswith("2 pairs reused from ")


def test_an_interrupt_keeps_what_is_finished_and_ends_the_rest(tmp_path, monkeypatch):
    def wait_forever(count):
        import time

        time.sleep(600)

    problems = {"endless": make_problem(logged(tmp_path / "log", wait_forever)), "square": make_problem(square)}
    save_metadata = zoo.Results.save_metadata

    def save_and_interrupt(results, folder):
        save_metadata(results, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo.Results, "save_metadata", save_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        on_ray({"search": SEARCH}, problems, out=tmp_path)
    assert [pair.problem for pair in zoo.Results.load(tmp_path).pairs] == ["square"]
    # Both cores are free again.
    assert len(on_ray({"search": SEARCH}, {"square": problems["square"]}, ray_options={"num_cpus": 2}).failures) == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"executor": "slurm"}, ValueError, "local, ray.*'slurm'"),
        ({"executor": "local", "ray_options": {"num_cpus": 2}}, ValueError, "ray_options"),
        ({"executor": "ray", "ray_options": {"num_gpu": 1}}, ValueError, "num_gpu"),
    ],
)
def test_mistakes_show_before_anything_runs(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        zoo.benchmark({"search": SEARCH}, {"square": make_problem(square)}, out=tmp_path, **{**TINY, **settings})
    assert list(tmp_path.iterdir()) == []


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"es-zoo\[ray\]"):
        on_ray({"search": SEARCH}, {"square": make_problem(square)})
