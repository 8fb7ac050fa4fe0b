"""Derivatives carried forward: rtrl against backpropagation, dodge and uoro against formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from zoo.strategies.gradient.dodge import Directional
from zoo.strategies.gradient.rtrl import Jacobian
from zoo.strategies.gradient.uoro import RankOne

SOLUTION = {"a": jnp.array([0.3, -0.2]), "b": jnp.array(0.5)}


class Spring(zoo.UnrolledProblem):
    """A recurrent state, and a counter that ends the episode before its horizon if `life` is short."""

    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    life: int | None = zoo.static(None)

    def initial_solution(self, key):
        return SOLUTION

    def reset(self, key):
        return {"count": jnp.zeros((), jnp.int32), "x": jnp.array([0.5, -1.0, 0.2])}

    def step(self, key, solution, inner):
        pushed = inner["x"] * solution["b"] + jnp.append(solution["a"], solution["b"])
        x = jnp.tanh(jnp.roll(pushed, 1) + 0.1 * inner["count"].astype(float))
        count = inner["count"] + 1
        loss = jnp.sum(jnp.sin(x) ** 2) + solution["a"][0] ** 2
        return {"count": count, "x": x}, loss, False if self.life is None else count >= self.life


def evaluation_of(strategy, problem, num_generations=1):
    """Evaluates the strategy's population with learning rate 0, and returns the last evaluation."""
    strategy = strategy.replace(learning_rate=0.0)

    @jax.jit
    def evaluate(key):
        solution = problem.initial_solution(key)
        state, inner = strategy.init(key, solution), problem.init(key, strategy.groups, solution)
        for generation in range(num_generations):
            population, state = strategy.ask(key, state)
            evaluation, inner = problem.evaluate(jax.random.fold_in(key, generation), population, inner)
            state = strategy.tell(state, population, evaluation)
        return evaluation

    return evaluate(jax.random.key(1))


def flat(tree):
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)


@pytest.mark.parametrize(("life", "num_generations"), [(None, 1), (None, 4), (4, 2)])
def test_rtrl_is_the_gradient_of_the_episode(life, num_generations):
    problem = Spring(life=life)
    strategy = zoo.make_strategy("rtrl", population_size=3)  # one worker in each window
    gradients = flat(evaluation_of(strategy, problem, num_generations).gradient)
    expected = jax.jit(jax.grad(problem.fitness, argnums=1))(jax.random.key(0), SOLUTION)
    expected = flat(jax.tree.map(lambda x: x[None], expected))[0]
    np.testing.assert_allclose(gradients.mean(axis=0), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("id", "settings"),
    [("dodge", {}), ("dodge", {"period": 1}), ("dodge", {"period": 4}), ("full_forward", {"period": 2}), ("uoro", {})],
)
def test_estimates_are_unbiased(id, settings):
    problem, size = Spring(), 3000
    strategy = zoo.make_strategy(id, population_size=size, **settings)
    samples = flat(evaluation_of(strategy, problem).gradient)
    expected = jax.jit(jax.grad(problem.fitness, argnums=1))(jax.random.key(0), SOLUTION)
    expected = flat(jax.tree.map(lambda x: x[None], expected))[0]
    # The phases are stratified, so the true error is smaller than this value.
    error = samples.std(axis=0) / np.sqrt(size)
    assert np.all(np.abs(samples.mean(axis=0) - expected) < 4 * error)
    assert np.all(error < 0.1)


# Formulas


W = np.array([[0.1, 0.5, -0.2], [0.3, -0.4, 0.2], [0.0, 0.2, 0.6]])
U = np.array([[1.0, -0.5], [0.4, 0.2], [-0.3, 0.8]])
THETA, START = np.array([0.2, -0.7]), np.array([0.1, 0.4, -0.3])


def rnn(theta, x):
    x = jnp.tanh(jnp.asarray(W, jnp.float32) @ x + jnp.asarray(U, jnp.float32) @ theta)
    return x, jnp.sum(x**2) + theta[0] * x[1], False


def by_hand(x):
    """Returns the next state, its Jacobians by state and by solution, and the two gradients of the loss."""
    new = np.tanh(W @ x + U @ THETA)
    slope = (1 - new**2)[:, None]
    by_x, by_theta = slope * W, slope * U
    of_loss = 2 * new + np.array([0, THETA[0], 0])
    return new, by_x, by_theta, of_loss @ by_x, of_loss @ by_theta + np.array([new[1], 0])


def follow(rule, num_steps=5):
    """Yields key, state before, state after and gradient of each step."""
    theta, x = jnp.asarray(THETA, jnp.float32), jnp.asarray(START, jnp.float32)
    carried = rule.start(jax.random.key(0), theta, x)
    step = jax.jit(lambda key, time, x, carried: rule.step(key, rnn, time, theta, x, carried))
    for time in range(num_steps):
        key = jax.random.key(time + 7)
        before = carried
        (x, _, _), carried, gradient = step(key, time, x, carried)
        yield key, before, carried, gradient


def test_jacobian_by_hand():
    x, influence = START, np.zeros((3, 2))
    for _, _, (carried,), gradient in follow(Jacobian()):
        new, by_x, by_theta, of_x, of_theta = by_hand(x)
        np.testing.assert_allclose(gradient, of_x @ influence + of_theta, rtol=1e-5)
        x, influence = new, by_x @ influence + by_theta
        np.testing.assert_allclose(carried.T, influence, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("period", [None, 2])
def test_directional_by_hand(period):
    x, tangent, total = START, np.zeros(3), np.zeros(2)
    for time, (_, before, after, gradient) in enumerate(follow(Directional(period=period))):
        is_new = time == 0 if period is None else time % period == 0
        assert period is None or is_new != np.array_equal(before.direction, after.direction)
        direction = np.asarray(after.direction, float)
        total = total + direction * is_new
        new, by_x, by_theta, of_x, of_theta = by_hand(x)
        np.testing.assert_allclose(gradient, (of_x @ tangent + of_theta @ direction) * total, rtol=1e-5)
        x, tangent = new, by_x @ tangent + by_theta @ direction
        np.testing.assert_allclose(after.inner[0], tangent, rtol=1e-5, atol=1e-7)


def test_rank_one_by_hand():
    x, s, theta = START, np.zeros(3), np.zeros(2)
    for key, _, carried, gradient in follow(RankOne()):
        new, by_x, by_theta, of_x, of_theta = by_hand(x)
        np.testing.assert_allclose(gradient, (of_x @ s) * theta + of_theta, rtol=1e-5, atol=1e-6)
        signs = np.asarray(jax.random.rademacher(jax.random.split(key, 1)[0], (3,), jnp.float32), float)
        moved, pulled = by_x @ s, signs @ by_theta
        old = np.sqrt(np.linalg.norm(theta) / (np.linalg.norm(moved) + 1e-7)) + 1e-7
        fresh = np.sqrt(np.linalg.norm(pulled) / (np.linalg.norm(signs) + 1e-7)) + 1e-7
        x, s, theta = new, old * moved + fresh * signs, theta / old + pulled / fresh
        np.testing.assert_allclose(carried.inner[0], s, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(carried.solution, theta, rtol=1e-5, atol=1e-6)


# In the loop


def slope(x):
    return jnp.sum(jnp.arange(1.0, 4.0) * x["w"]) + 5 * x["v"]


START_OF_SLOPE = {"v": jnp.array(1.0), "w": jnp.ones(3)}


@pytest.mark.parametrize(
    ("wrapper", "settings", "moves"),
    [
        (None, {}, [5, 1, 2, 3]),
        ("frozen", {"frozen": {"v": True, "w": np.array([False, True, False])}}, [0, 1, 0, 3]),
        ("masked", {"mask": {"v": np.True_, "w": np.array([True, False, True])}}, [5, 1, 0, 3]),
        ("hybrid", {"es_leaves": "w", "optimizer": optax.sgd, "learning_rate": 0.2}, [10, 1, 2, 3]),
    ],
)
def test_plain_problems_and_wrappers(wrapper, settings, moves):
    base = {"id": "rtrl", "population_size": 2, "learning_rate": 0.1, "optimizer": optax.sgd}
    strategy = (
        zoo.make_strategy(wrapper, base=base, **settings) if wrapper else zoo.make_strategy(base.pop("id"), **base)
    )
    result = zoo.run(strategy, zoo.from_function(slope, START_OF_SLOPE), num_generations=2, num_scores=1)
    start = np.where(np.arange(4) == 2, 0, 1) if wrapper == "masked" else np.ones(4)
    mean = flat(jax.tree.map(lambda x: x[None], result.mean))[0]
    np.testing.assert_allclose(mean, start - 0.2 * np.array(moves), rtol=1e-5, atol=1e-6)


def test_what_has_no_derivative_is_named(key):
    strategy = zoo.make_strategy("uoro", population_size=2)
    problem = zoo.from_python(lambda x: 0.0, np.zeros(2))
    with pytest.raises(TypeError, match=r"follows the derivative of the inner state.*such as nres"):
        zoo.run(strategy, problem, num_generations=1)
    state = strategy.init(key, jnp.zeros(2))
    population, state = strategy.ask(key, state)
    with pytest.raises(TypeError, match=r"UORO descends Evaluation\.gradient, but this evaluation has none"):
        strategy.tell(state, population, jnp.zeros(2))
