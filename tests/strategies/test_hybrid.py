"""Hybrid of gradient descent and ES: both limits, the gradient at the members, and errors when misused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import zoo
from tests.the_loop import ask, init, is_finite, tell
from zoo.core.promotion import promotion_of_others
from zoo.core.surrogate import gradient_of_members
from zoo.testing.examples import Decay, example_problems
from zoo.testing.loop import generation, start

SOLUTION = {"scores": np.linspace(-1, 1, 5, dtype=np.float32), "w": np.ones((2, 3), np.float32), "b": np.float32(0.5)}


def loss(key, x):
    """A loss that is differentiable in w and b. The scores enter only through a comparison."""
    target = jax.random.normal(key, (2, 3))
    kept = jnp.where(x["scores"] > 0, x["b"] ** 2, 0)
    return jnp.sum((x["w"] - target) ** 2) + jnp.sum(kept) + jnp.sum(x["scores"] ** 2)


@pytest.fixture
def problem():
    return zoo.from_function(loss, SOLUTION, takes_key=True)


def jitted_start(strategy, problem):
    return jax.jit(lambda key: start(strategy, problem, key))(jax.random.key(0))


def train(strategy, problem, num_generations=5):
    step = jax.jit(lambda loop, key: generation(strategy, problem, loop, key)[0])
    loop = jitted_start(strategy, problem)
    for key in jax.random.split(jax.random.key(1), num_generations):
        loop = step(loop, key)
    return loop


def assert_equal(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


@pytest.mark.parametrize("base", ["open_es", "snes", "cma_es", {"id": "open_es", "shaping": "none"}])
def test_without_gradient_leaves_it_is_the_base(base, problem):
    hybrid = zoo.make_strategy("hybrid", base=base, population_size=6)
    alone = zoo.make_strategy(**({"id": base} if isinstance(base, str) else base), population_size=6)
    one, two = train(hybrid, problem), train(alone, problem)
    assert_equal(hybrid.mean(one.state), alone.mean(two.state))
    assert_equal(hybrid.std(one.state), alone.std(two.state))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_without_es_leaves_it_is_plain_optax(optimizer, problem):
    """Without ES leaves, results equal optax bit for bit when run operation by operation.

    (In a compiled program, a multiplication and an addition may become one operation.)
    """
    hybrid = zoo.make_strategy("hybrid", es_leaves=(), population_size=6, optimizer=optimizer, learning_rate=0.02)
    transformation = getattr(optax, optimizer)(0.02)
    loop = jitted_start(hybrid, problem)
    x = jax.tree.map(jnp.asarray, SOLUTION)
    state = transformation.init(x)
    for key in jax.random.split(jax.random.key(1), 3):
        loop, _ = generation(hybrid, problem, loop, key)
        key_group = jax.random.fold_in(jax.random.split(key)[1], 0)  # the whole population is one group
        gradient = jax.grad(lambda x, k=key_group: loss(k, x))(x)
        with promotion_of_others():
            updates, state = transformation.update(gradient, state, x)
        x = optax.apply_updates(x, updates)
    assert_equal(hybrid.mean(loop.state), x)
    assert not any(np.any(s) for s in jax.tree.leaves(hybrid.std(loop.state)))


def ask_and_evaluate(strategy, problem, loop):
    """Returns population, state and evaluation, all computed with the data of one key."""

    @jax.jit
    def run(loop, key):
        surrogate = problem.surrogate_gradient(key, loop.problem_state)
        population, asked = strategy.ask(jax.random.key(2), loop.state, surrogate)
        return population, asked, problem.evaluate(key, population, loop.problem_state)[0]

    return run(loop, jax.random.key(5))


@pytest.mark.parametrize("shaping", ["centered_ranks", "none"])  # one shared minibatch, or one for each pair
def test_gradient_is_taken_at_each_member_on_its_own_data(shaping, problem):
    base = zoo.make_strategy("open_es", shaping=shaping, sigma=1.0)
    strategy = zoo.make_strategy("hybrid", base=base, es_leaves="scores", population_size=6)
    loop = jitted_start(strategy, problem)
    groups = np.asarray(loop.problem_state.groups)
    population, asked, evaluation = jax.device_get(ask_and_evaluate(strategy, problem, loop))
    assert len(set(groups)) == (1 if shaping == "centered_ranks" else 3)
    keys = [jax.random.fold_in(jax.random.key(5), int(g)) for g in groups]
    by_hand = jax.jit(jax.value_and_grad(loss, argnums=1))
    members = [jax.tree.map(lambda p, i=i: p[i], population) for i in range(6)]
    losses, gradients = jax.device_get(tuple(zip(*map(by_hand, keys, members), strict=True)))
    for name in ("w", "b"):
        np.testing.assert_allclose(asked.gradient[name], np.mean([g[name] for g in gradients], axis=0), rtol=1e-6)
        assert np.array_equal(population[name], np.broadcast_to(SOLUTION[name], (6, *SOLUTION[name].shape)))
    assert asked.gradient["scores"] is None
    spread = {float(g["b"]) for g in gradients}
    assert len(spread) > 1  # the members' masks differ, and so do their gradients
    # `evaluate` uses the same data, so the gradient belongs to this fitness.
    np.testing.assert_allclose(evaluation.fitness, losses, rtol=1e-6)


def test_weights_and_scores_both_learn():
    strategy = zoo.make_strategy(
        "hybrid", base={"id": "snes", "sigma": 0.3}, es_leaves="scores", population_size=8, learning_rate=0.05
    )
    target = {"scores": np.linspace(-2, 2, 5), "w": np.full((2, 3), 3.0), "b": -1.0}

    def fitness(x):
        # The gradient of the scores is cut, like the gradient of a mask: only ES can move them.
        x = {**x, "scores": jax.lax.stop_gradient(x["scores"])}
        return sum(jnp.sum(d**2) for d in jax.tree.leaves(jax.tree.map(jnp.subtract, x, target)))

    result = zoo.run(strategy, zoo.from_function(fitness, SOLUTION), num_generations=300)
    assert result.score < 1e-2
    only_es = zoo.run(strategy.replace(learning_rate=0.0), result.problem, num_generations=300)
    np.testing.assert_array_equal(only_es.mean["w"], SOLUTION["w"])


def test_a_member_without_a_finite_gradient_is_left_out(problem):
    strategy = zoo.make_strategy("hybrid", es_leaves="scores", population_size=4)
    state = init(strategy, jax.random.key(0), SOLUTION)

    def surrogate(x):
        bad = x["scores"][0] > SOLUTION["scores"][0]  # one member of each pair
        return jax.tree.map(lambda leaf: jnp.where(bad, jnp.nan, jnp.full_like(leaf, 2.0)), x)

    _, asked = ask(strategy, jax.random.key(1), state, jax.tree_util.Partial(surrogate))
    assert np.all(np.asarray(asked.gradient["w"]) == 2)
    nan = jax.tree_util.Partial(lambda x: jax.tree.map(lambda y: y * jnp.nan, x))
    population, asked = ask(strategy, jax.random.key(1), state, nan)
    told = tell(strategy, asked, population, np.zeros(4))
    assert is_finite(strategy.mean(told))


def test_base_that_takes_the_surrogate(problem):
    strategy = zoo.make_strategy("hybrid", base="guided_es", es_leaves="w", population_size=4)
    loop = train(strategy, problem)
    direction = jax.tree.leaves(loop.state.base.directions)
    assert [d.shape for d in direction] == [(1, 2, 3)]
    np.testing.assert_allclose(np.linalg.norm(direction[0]), 1, rtol=1e-5)


def test_sweeps_over_both_learning_rates_without_recompiling(problem):
    traces = []

    @jax.jit
    @jax.vmap
    def final(strategy):
        traces.append(1)
        step = lambda loop, key: (generation(strategy, problem, loop, key)[0], None)  # noqa: E731
        loop = start(strategy, problem, jax.random.key(0))
        return strategy.mean(jax.lax.scan(step, loop, jax.random.split(jax.random.key(1), 3))[0].state)

    def swept(rate):
        base = {"id": "open_es", "learning_rate": rate}
        return zoo.make_strategy("hybrid", base=base, es_leaves="scores", population_size=4, learning_rate=2 * rate)

    for rates in ((0.1, 0.2), (0.3, 0.4)):
        means = jax.device_get(final(jax.tree.map(lambda *x: np.stack(x), *[swept(r) for r in rates])))
        assert not np.array_equal(means["w"][0], means["w"][1])
        assert not np.array_equal(means["scores"][0], means["scores"][1])
    assert len(traces) == 1


def test_population_size_is_the_bases_unless_given():
    base = zoo.make_strategy("open_es", population_size=10)
    assert len(zoo.make_strategy("hybrid", base=base).groups.ids) == 10
    assert len(zoo.make_strategy("hybrid", base=base, population_size=4).groups.ids) == 4
    filled = zoo.make_strategy("hybrid", base="cma_es", es_leaves="scores").for_solution(SOLUTION)
    assert filled.population_size == filled.base.population_size == 4 + int(3 * np.log(5))
    with pytest.raises(ValueError, match="must be even, got 5"):
        zoo.make_strategy("hybrid", base=base, population_size=5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"base": 3}, TypeError, "Hybrid.base must be a strategy, its id such as 'open_es'"),
        ({"base": {"sigma": 0.1}}, TypeError, 'needs its "id"'),
        ({"base": "opn_es"}, ValueError, "Did you mean 'open_es'"),
        ({"base": {"id": "snes", "sigm": 0.1}}, TypeError, "Did you mean 'sigma'"),
        ({"es_leaves": "("}, ValueError, "must be regular expressions"),
        ({"es_leaves": 3}, TypeError, "es_leaves must be text or texts such as"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be at least 0"),
    ],
)
def test_wrong_settings(settings, error, message):
    with pytest.raises(error, match=message):
        zoo.make_strategy("hybrid", **settings)


def test_pattern_that_matches_nothing(key):
    strategy = zoo.make_strategy("hybrid", es_leaves="mask")
    with pytest.raises(ValueError, match="'mask' is found in no leaf of the solution: b, scores, w"):
        strategy.init(key, SOLUTION)


def test_needs_a_surrogate_if_there_are_leaves_for_it(key):
    strategy = zoo.make_strategy("hybrid", es_leaves="scores")
    with pytest.raises(TypeError, match="Hybrid needs a surrogate gradient"):
        ask(strategy, key, init(strategy, key, SOLUTION))


@pytest.mark.parametrize("window", [2, 6])
def test_members_gradient_of_an_unrolled_problem(window, key):
    """Each member's gradient starts from its own inner state and goes through its window."""
    problem = Decay(window=window)
    strategy = zoo.make_strategy("open_es", population_size=6, shaping="none")

    @jax.jit
    def both(key):
        loop, _ = generation(strategy, problem, start(strategy, problem, key), key)
        surrogate = problem.surrogate_gradient(key, loop.problem_state)
        population, _ = strategy.ask(key, loop.state)

        def fitness(population):
            return problem.evaluate(key, population, loop.problem_state)[0].fitness

        # Each fitness depends on one member only, so the gradient of the sum gives all gradients.
        expected = jax.grad(lambda population: jnp.sum(fitness(population)))(population)
        return gradient_of_members(surrogate, population), expected

    gradients, expected = both(key)
    np.testing.assert_allclose(gradients["drive"], expected["drive"], rtol=1e-5, atol=1e-6)


def test_plain_function_as_surrogate():
    population = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    gradients = gradient_of_members(lambda s: {"x": 2 * s["x"]}, population)
    np.testing.assert_array_equal(gradients["x"], 2 * population["x"])


def test_runs_with_checkpoints_and_resumes(tmp_path):
    problem = example_problems()["function"]
    strategy = zoo.make_strategy("hybrid", es_leaves="a", population_size=4)
    whole = zoo.run(strategy, problem, num_generations=6, num_scores=3)
    seen = []
    for budget in (4, 6):
        resumed = zoo.run(
            strategy,
            problem,
            num_generations=budget,
            num_scores=budget // 2,
            checkpoint=tmp_path,
            callback=lambda progress: seen.append(progress.generation),
        )
    assert seen == [2, 4, 6]
    assert_equal(whole.mean, resumed.mean)


def test_hybrid_in_hybrid_keeps_the_members_data(problem):
    """Inner and outer hybrid both take the gradient at each member on the member's own data."""
    base = zoo.make_strategy("open_es", shaping="none", sigma=1.0)
    inner = zoo.make_strategy("hybrid", base=base, es_leaves="scores")
    nested = zoo.make_strategy("hybrid", base=inner, es_leaves="scores|w", population_size=6)
    plain = zoo.make_strategy("hybrid", base=base, es_leaves="scores", population_size=6)
    states = []
    for strategy in (nested, plain):
        states.append(ask_and_evaluate(strategy, problem, jitted_start(strategy, problem))[1])
    np.testing.assert_allclose(states[0].base.gradient["w"], states[1].gradient["w"], rtol=1e-6)
    np.testing.assert_allclose(states[0].gradient["b"], states[1].gradient["b"], rtol=1e-6)


def test_a_gradient_too_large_to_square_is_left_out():
    strategy = zoo.make_strategy("hybrid", es_leaves=(), population_size=2, learning_rate=0.1)
    state = init(strategy, jax.random.key(0), {"x": np.ones(2)})
    constant = lambda size, x: {"x": jnp.full_like(x["x"], size)}  # noqa: E731
    for size in (1e20, 1.0, 1.0):
        population, state = ask(strategy, jax.random.key(1), state, jax.tree_util.Partial(constant, size))
        state = tell(strategy, state, population, np.zeros(2))
    np.testing.assert_allclose(strategy.mean(state)["x"], 0.8, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gradients_in_another_precision(dtype):
    strategy = zoo.make_strategy("hybrid", es_leaves="a", population_size=2)
    state = init(strategy, jax.random.key(0), {"a": np.ones(2, dtype), "b": np.ones(2, dtype)})
    surrogate = jax.tree_util.Partial(lambda x: jax.tree.map(lambda y: y.astype(jnp.float32), x))
    population, asked = ask(strategy, jax.random.key(1), state, surrogate)
    told = tell(strategy, asked, population, np.arange(2))
    assert [x.dtype for x in jax.tree.leaves(told)] == [x.dtype for x in jax.tree.leaves(state)]


def test_base_given_by_id_gets_the_problems_suggestions():
    problem = zoo.make_problem("supervised/digits", hidden=(2,))  # it suggests sigma 0.05
    assert zoo.make_strategy("hybrid", problem=problem, base="snes").base.sigma == 0.05
    assert zoo.make_strategy("hybrid", problem=problem, base={"id": "snes", "sigma": 0.2}).base.sigma == 0.2
    guided = zoo.make_strategy("hybrid", problem=problem, base="guided_es").base
    assert guided.sigma > 0.05


def test_pattern_that_covers_all_needs_no_surrogate(key):
    strategy = zoo.make_strategy("hybrid", es_leaves=("scores", "w", "b"), population_size=2)
    ask(strategy, key, init(strategy, key, SOLUTION))
