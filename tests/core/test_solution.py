"""Solutions from users: distinguished from initialisers, finite, and in the problem's structure."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.core.solution import check_start, start_or_initialiser

KEY = jax.random.key(0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Line:
    """A callable pytree with parameters."""

    slope: Any
    offset: Any

    def __call__(self, x):
        return self.slope * x + self.offset

    def like(self, key):
        return Line(jnp.asarray(self.slope), jax.random.normal(key))


@dataclasses.dataclass
class Unregistered:
    slope: Any = 1

    def __call__(self, x):
        return self.slope * x


class Module(eqx.Module):
    """A module whose methods are pytrees that contain its arrays."""

    scale: Any

    def draw(self, key):
        return self.scale * jax.random.normal(key)


class Draw:
    """A plain callable object without arrays."""

    def __call__(self, key):
        return jax.random.normal(key, (2,))


class Holder:
    """A plain callable object that holds arrays."""

    def __init__(self):
        self.weights = {"w": np.ones(2)}

    def __call__(self, x):
        return x


LINE = Line(jnp.asarray(2.0), jnp.asarray(-1.0))
LINEAR = eqx.nn.Linear(2, 1, key=KEY)


def squares(solution):
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(solution))


def on_host(solution):
    return float(sum(np.sum(x**2) for x in jax.tree.leaves(solution)))


@pytest.mark.parametrize("module", [LINE, LINEAR, nnx.Linear(2, 1, rngs=nnx.Rngs(0)), Line(2.0, 1.0)], ids=type)
def test_modules_that_can_be_called_are_solutions(module):
    (start,) = start_or_initialiser(module).values()
    assert jax.tree.structure(start) == jax.tree.structure(module)
    for make, fn in ((zoo.from_function, squares), (zoo.from_python, on_host)):
        problem = make(fn, module)
        assert problem.init_fn is None
        assert type(problem.initial_solution(KEY)) is type(module)


def test_a_run_of_a_module():
    problem = zoo.from_function(lambda line: (line(1.0) - 3) ** 2 + (line(0.0) - 1) ** 2, LINE)
    result = zoo.run("snes", problem, num_generations=30)
    assert isinstance(result.mean, Line)
    assert result.score < result.scores["fitness"][0] == 8
    again = zoo.minimize(problem.fn, LINE, "snes", num_generations=30)
    np.testing.assert_array_equal(again.mean.slope, result.mean.slope)
    there = zoo.run("snes", problem, num_generations=30, solution=LINE)
    np.testing.assert_array_equal(there.mean.slope, result.mean.slope)


@pytest.mark.parametrize(
    "function",
    [
        lambda key: jax.random.normal(key, (2,)),
        functools.partial(jax.random.normal, shape=(2,)),
        jax.tree_util.Partial(lambda scale, key: scale * jax.random.normal(key), jnp.ones(2)),
        jax.jit(lambda key: jax.random.normal(key, (2,))),
        eqx.filter_jit(lambda key: jax.random.normal(key, (2,))),
        LINE.like,
        Module(jnp.ones(2)).draw,
        Draw(),
        Line,
    ],
    ids=lambda function: type(function).__name__,
)
def test_functions_are_initialisers(function):
    assert start_or_initialiser(function) == {"init_fn": function}


@pytest.mark.parametrize("value", [Unregistered(), Holder(), flax.linen.Dense(1)], ids=type)
def test_what_might_be_both_is_refused(value):
    for make in (zoo.from_function, zoo.from_python):
        with pytest.raises(TypeError, match=rf"^A {type(value).__name__} can be called, .* lambda key: module\(key\)"):
            make(on_host, value)
    with pytest.raises(TypeError, match="Solutions are pytrees of floating-point arrays"):
        check_start(value)


PROBLEM = zoo.from_function(squares, {"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
START = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
ENTRIES = {
    "run": lambda x: zoo.run("snes", PROBLEM, num_generations=1, solution=x),
    "estimator_statistics": lambda x: zoo.estimator_statistics("open_es", PROBLEM, x, progress=False),
    "interpolate, one": lambda x: zoo.interpolate(PROBLEM, x, START),
    "interpolate, other": lambda x: zoo.interpolate(PROBLEM, START, x),
    "flatness": lambda x: zoo.flatness(PROBLEM, x),
    "prune_at_init": lambda x: zoo.prune_at_init(PROBLEM, 0.5, solution=x),
}
MORE = {
    "from_function": lambda x: zoo.from_function(squares, x),
    "from_python": lambda x: zoo.from_python(on_host, x),
    "minimize": lambda x: zoo.minimize(squares, x, num_generations=1),
    "Optimizer": lambda x: zoo.Optimizer("snes", x),
    "init": lambda x: zoo.make_strategy("snes").init(KEY, x),
}

UNFIT = [
    ({**START, "w": jnp.ones((3, 2))}, r"expected shape \(2, 3\) in w, got \(3, 2\)"),
    ({**START, "b": jnp.ones(())}, r"expected shape \(3,\) in b, got \(\)"),
    ({"w": START["w"]}, r"expected shape \(3,\) in b, got only w\."),
    ({**START, "c": jnp.ones(1)}, r"expected only b, w, got shape \(1,\) in c\."),
    (jnp.ones(9), r"expected a dict, got shape \(9,\)\."),
    (
        dict.fromkeys("abcdefg", jnp.ones(3)),
        r"expected shape \(2, 3\) in w, got only a, b, c, d, e and 2 more\.",
    ),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_solution_of_another_shape_is_refused(entry):
    name = entry.partition(", ")[2] or "solution"
    for solution, message in UNFIT:
        with pytest.raises(ValueError, match=rf"^{name} must have the \w+ of the problem's solution: .*{message}"):
            ENTRIES[entry](solution)
    with pytest.raises(TypeError, match=r"\['b'\] is int"):
        ENTRIES[entry]({**START, "b": jnp.ones(3, int)})


@pytest.mark.parametrize("entry", [*ENTRIES, *MORE])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_a_start_that_is_not_finite_is_refused(entry, value, dtype):
    solution = {"w": np.asarray([[1, 2, 3], [4, value, value]], dtype), "b": np.ones(3, dtype)}
    with pytest.raises(ValueError, match=r"^\w+ must be finite, but 2 of 6 entries of \['w'\] are NaN or infinite"):
        {**ENTRIES, **MORE}[entry](solution)


def test_a_start_that_is_drawn_is_looked_at_before_the_loop():
    problem = zoo.from_function(squares, lambda key: {"w": jnp.ones(2), "b": jnp.log(-jax.random.uniform(key, (2,)))})
    results = zoo.benchmark(["snes"], {"p": problem}, num_seeds=2, num_steps=8, progress=False)
    message = "The initial solution must be finite, but 4 of 4 entries of ['b'] are NaN or infinite."
    assert message in results.pairs[0].info["error"]


def test_same_leaves_in_another_structure():
    with pytest.raises(
        ValueError, match=r"^x must have the structure of the problem's solution: expected a tuple, got a list\.$"
    ):
        check_start([jnp.ones(2)], (jnp.ones(2),), "x")


def test_values_that_are_not_known_are_taken():
    jax.jit(check_start)(jnp.asarray([np.nan]))
