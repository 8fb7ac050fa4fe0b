"""What `UnrolledProblem` checks: its settings, what `step` returns, and the groups and members it receives."""

import jax
import jax.numpy as jnp
import pytest

import zoo
from tests.core.unrolled_examples import Table, members, solution

# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": None}, r"Table has no horizon, so it needs a window"),
        ({"horizon": 3, "window": 4}, r"Table.window must be at most its horizon 3, got 4"),
        ({"horizon": 0}, r"Table.horizon must be at least 1, got 0"),
        ({"window": 0}, r"Table.window must be at least 1, got 0"),
        ({"window": 1.5}, r"Table.window must be a whole number, got 1.5"),
        ({"horizon": "6"}, r"Table.horizon must be a whole number, got '6'"),
        ({"objective": "median"}, r"Table.objective must be 'mean' or 'sum', got 'median'"),
        ({"num_score_episodes": 0}, r"Table.num_score_episodes must be at least 1, got 0"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Table(**settings)


def test_the_horizon_is_required():
    class Bare(zoo.UnrolledProblem):
        initial_solution = reset = step = lambda *_: None

    with pytest.raises(TypeError, match="horizon"):
        Bare()


def test_a_redeclared_horizon_is_checked_all_the_same():
    class Short(Table):
        horizon: int | None = zoo.static(6)

    with pytest.raises(ValueError, match=r"Short\.horizon must be at least 1, got 0"):
        Short(horizon=0)


# What `step` returns


LOSS, ALIVE = jnp.zeros(()), jnp.zeros((), bool)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda inner: (inner, LOSS), r"must return \(inner, loss, terminated\), got tuple"),
        (lambda inner: [inner, LOSS, ALIVE], r"must return \(inner, loss, terminated\), got list"),
        (lambda inner: inner["x"], r"must return \(inner, loss, terminated\), got ShapeDtypeStruct"),
        (lambda inner: ({"x": inner["x"].astype(jnp.float16)}, LOSS, ALIVE), r"dtypes.*float16"),
        (lambda inner: ({"x": inner["x"][:1]}, LOSS, ALIVE), r"shapes.*\(1,\)"),
        (lambda inner: ({"y": inner["x"]}, LOSS, ALIVE), r"structure.*'y'"),
        (lambda inner: (inner, inner["x"], ALIVE), r"scalar floating-point loss, got float32\[2\]"),
        (lambda inner: (inner, jnp.zeros((), jnp.int32), ALIVE), r"scalar floating-point loss, got int32"),
        (lambda inner: (inner, LOSS, jnp.zeros(())), r"scalar boolean `terminated`, got float32"),
        (lambda inner: (inner, LOSS, jnp.zeros(2, bool)), r"scalar boolean `terminated`, got bool\[2\]"),
    ],
)
def test_says_what_is_wrong_with_step(result, message, key):
    class Wrong(Table):
        def reset(self, key):
            return {"x": jnp.zeros(2)}

        def step(self, key, solution, inner):
            return result(inner)

    with pytest.raises(TypeError, match=r"(?s)Wrong.step must return.*" + message.removeprefix("must return")):
        Wrong().init(key, zoo.Groups.of(2), solution())


def test_step_may_return_python_numbers(key):
    class Plain(Table):
        def step(self, key, solution, inner):
            return inner, 2.0, False

    problem = Plain(objective="sum")
    evaluation, _ = problem.evaluate(key, members([1.0]), problem.init(key, zoo.Groups.of(1), solution()))
    assert evaluation.fitness == 12.0


# Groups and members


def test_wrong_population_size(key):
    problem = Table(window=2)
    state = problem.init(key, zoo.Groups.of(4), solution())
    with pytest.raises(ValueError, match=r"Table.evaluate got 3 members, but its state was made for groups of 4"):
        problem.evaluate(key, members([1.0] * 3), state)


def test_traced_groups(key):
    with pytest.raises(TypeError, match=r"concrete groups.*strategy\.groups"):
        jax.eval_shape(lambda groups: Table().init(key, zoo.Groups(groups), solution()), jnp.zeros(4, int))
