"""Frozen entries never change, and the base searches the free entries as if there were no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.core.parts import StaticMask
from zoo.core.surrogate import SurrogateGradient, gradient_of_members
from zoo.loop.provenance import describe_settings

SIZE = 6
SOLUTION = {"b": jnp.asarray(0.5), "v": jnp.linspace(1, 2, 3), "w": jnp.linspace(-1, 1, 6).reshape(2, 3)}
CORNER = np.array([[True, False, False], [False, False, True]])
MASK = {"b": False, "v": True, "w": CORNER}  # v is frozen, w partly


def frozen(frozen, base="open_es", **settings):
    return zoo.make_strategy("frozen", frozen=frozen, base=base, **settings)


def free_part(solution, num_axes=0):
    """Returns the entries that MASK leaves free, computed by hand."""
    w = np.asarray(solution["w"]).reshape(*np.shape(solution["w"])[:num_axes], 6)
    return {"b": solution["b"], "v": None, "w": jnp.asarray(w[..., [1, 2, 3, 4]])}


def quadratic(x):
    return sum(jnp.sum((leaf - 0.25) ** 2) for leaf in jax.tree.leaves(x))


def assert_equal(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


@pytest.mark.parametrize("base", ["open_es", "snes", "cma_es", "guided_es"])
def test_base_searches_the_free_part_alone(base):
    """The run equals the base's own run on the free entries, with the same fitness and gradients."""
    alone = zoo.make_strategy(base, population_size=SIZE)
    strategy = frozen(MASK, alone)
    state, expected = strategy.init(jax.random.key(0), SOLUTION), alone.init(jax.random.key(0), free_part(SOLUTION))
    gradient = lambda x: jax.tree.map(jnp.sin, x)  # noqa: E731
    for key in jax.random.split(jax.random.key(1), 3):
        population, state = strategy.ask(key, state, gradient)
        part, expected = alone.ask(key, expected, gradient)
        assert_equal(free_part(population, num_axes=1), part)
        for name, is_frozen in MASK.items():
            there = np.broadcast_to(is_frozen, SOLUTION[name].shape)
            kept = np.broadcast_to(np.asarray(SOLUTION[name])[there], (SIZE, there.sum()))
            assert np.array_equal(np.asarray(population[name])[:, there], kept)
        fitness = np.cos(10 * np.asarray(part["b"]))
        state, expected = strategy.tell(state, population, fitness), alone.tell(expected, part, fitness)
    assert_equal(state.base, expected)
    mean, std = strategy.mean(state), strategy.std(state)
    assert_equal((free_part(mean), free_part(std)), (alone.mean(expected), alone.std(expected)))
    assert np.array_equal(mean["v"], SOLUTION["v"])
    assert np.array_equal(mean["w"][CORNER], SOLUTION["w"][CORNER])
    assert not np.any(std["v"])
    assert np.array_equal(std["w"] == 0, CORNER)


@pytest.mark.parametrize("nothing", [(), [], {"b": False, "v": np.zeros(1, bool), "w": False}])
@pytest.mark.parametrize("base", ["open_es", "cma_es"])
def test_with_nothing_frozen_it_is_the_base(base, nothing):
    alone = zoo.make_strategy(base, population_size=SIZE)
    strategy = frozen(nothing, alone)
    state, expected = strategy.init(jax.random.key(0), SOLUTION), alone.init(jax.random.key(0), SOLUTION)
    for key in jax.random.split(jax.random.key(1), 2):
        population, state = strategy.ask(key, state)
        one, expected = alone.ask(key, expected)
        assert_equal(population, one)
        fitness = np.cos(10 * np.asarray(one["b"]))
        state, expected = strategy.tell(state, population, fitness), alone.tell(expected, one, fitness)
    assert_equal(state.base, expected)
    assert_equal((strategy.mean(state), strategy.std(state)), (alone.mean(expected), alone.std(expected)))


def test_seeds_with_solutions_of_their_own():
    """Each seed keeps its own frozen values in the state, in one program for all seeds and under a scan."""
    strategy = frozen(("^v$", "b"), "snes", population_size=16)

    @jax.jit
    @jax.vmap
    def run(key, solution):
        def generation(state, key):
            population, state = strategy.ask(key, state)
            return strategy.tell(state, population, zoo.map_members(quadratic, population)), population

        state, populations = jax.lax.scan(generation, strategy.init(key, solution), jax.random.split(key, 200))
        return strategy.mean(state), populations

    solutions = jax.tree.map(lambda x: jnp.stack([x, 2 * x, x - 1]), SOLUTION)
    means, populations = run(jax.random.split(jax.random.key(0), 3), solutions)
    for name in ("v", "b"):
        assert np.array_equal(means[name], solutions[name])
        every = np.moveaxis(np.asarray(populations[name]), 0, 2)  # [num_generations, population_size, num_seeds, ...]
        assert np.array_equal(every, np.broadcast_to(solutions[name], every.shape))
    np.testing.assert_allclose(means["w"], np.full((3, 2, 3), 0.25), atol=0.01)


def test_members_gradients_are_handed_on(key):
    """The base gets the gradient at each member on the member's own data (here its number)."""

    class Reads(type(zoo.make_strategy("guided_es"))):
        def _ask(self, key, state, surrogate):
            population, state = super()._ask(key, state, surrogate)
            seen.append(gradient_of_members(surrogate, population))
            return population, state

    seen = []
    strategy = frozen(MASK, Reads(population_size=SIZE))
    members = lambda x: jax.tree.map(lambda y: y * jnp.arange(float(SIZE)).reshape(-1, *[1] * (y.ndim - 1)), x)  # noqa: E731
    surrogate = SurrogateGradient(lambda x: x, members)
    population, _ = strategy.ask(key, strategy.init(key, SOLUTION), surrogate)
    assert_equal(seen[0], free_part(members(population), num_axes=1))


def test_settings_by_dimension_are_those_of_the_free_entries():
    filled = frozen(MASK, "cma_es").for_solution(SOLUTION)
    assert filled.population_size == filled.base.population_size == 4 + int(3 * np.log(5))
    problem = zoo.make_problem("supervised/digits", hidden=(2,))
    suggested = {
        d: zoo.make_strategy("frozen", problem=problem, base="guided_es", frozen=pattern).base.sigma
        for d, pattern in {136: (), 6: "Dense_0"}.items()  # 64 x 2 + 2 and 2 x 10 + 10 parameters
    }
    # Sigma is the length of a perturbation, computed from the problem's suggestion per parameter.
    solution = problem.initial_solution(jax.random.key(0))
    sizes = {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in solution["params"].items()}
    np.testing.assert_allclose(suggested[6] / suggested[136], np.sqrt(sizes["Dense_1"] / sum(sizes.values())))


@pytest.mark.parametrize(
    "make",
    [
        lambda: zoo.make_strategy("bounded", base=frozen(MASK, "snes"), lower={"b": 0.4, "v": -9.0, "w": -1.0}),
        lambda: frozen(MASK, {"id": "bounded", "base": "snes", "lower": -1.0, "repair": "clip"}),
        lambda: zoo.make_strategy("hybrid", base=frozen("v", "snes"), es_leaves="v|w", learning_rate=0.1),
        lambda: frozen("v", {"id": "hybrid", "base": "snes", "es_leaves": "w", "learning_rate": 0.1}),
        lambda: frozen("v", frozen("b", "snes")),
        lambda: zoo.make_strategy("bounded", base=frozen("v", {"id": "hybrid", "es_leaves": "w"}), lower=-1.0),
    ],
    ids=["bounded(frozen)", "frozen(bounded)", "hybrid(frozen)", "frozen(hybrid)", "frozen(frozen)", "three"],
)
def test_nested(make):
    strategy = make().replace(population_size=10)

    @jax.jit
    def train(key):
        def generation(state, key):
            population, state = strategy.ask(key, state, jax.grad(quadratic))
            return strategy.tell(state, population, zoo.map_members(quadratic, population)), population

        keys = jax.random.split(key, 60)
        state, populations = jax.lax.scan(generation, strategy.init(key, SOLUTION), keys)
        return strategy.mean(state), populations

    mean, populations = train(jax.random.key(0))
    assert np.array_equal(populations["v"], np.broadcast_to(SOLUTION["v"], populations["v"].shape))
    assert np.array_equal(mean["v"], SOLUTION["v"])
    assert np.all(populations["w"] >= -1) or not hasattr(strategy, "lower")
    assert quadratic(mean) - jnp.sum((mean["v"] - 0.25) ** 2) < 0.95 * quadratic({**SOLUTION, "v": 0.25})


def test_masks_are_compared_by_value_and_never_change(key):
    given = CORNER.copy()
    one, two = frozen({**MASK, "w": given}), frozen(MASK)
    given[:] = False
    traces = []

    @jax.jit
    def ask(strategy, state):
        traces.append(1)
        return strategy.ask(key, state)[0]

    for strategy in (one, two, one.replace(population_size=64)):
        ask(strategy, strategy.init(key, SOLUTION))
    assert len(traces) == 2  # one more, because the population size differs
    assert isinstance(one.frozen, StaticMask)
    assert one.frozen == two.frozen
    assert one.frozen != frozen({**MASK, "w": ~CORNER}).frozen
    assert describe_settings(one) == describe_settings(two) != describe_settings(frozen({**MASK, "w": ~CORNER}))


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("(", ValueError, "Frozen.frozen must be regular expressions"),
        (3, TypeError, "Frozen.frozen must be regular expressions .* or booleans .*, got 3 for the solution"),
        ({"b": False, "w": np.zeros((2, 3))}, TypeError, r"got array[\s\S]* for w"),
        ("u", ValueError, "Frozen.frozen 'u' is found in no leaf of the solution: b, v, w. .* give frozen="),
        (".*", ValueError, "covers the whole solution"),
        ({"b": True, "v": True, "w": np.ones((2, 3), bool)}, ValueError, "covers the whole solution"),
        (
            {"b": True, "v": True},
            ValueError,
            r"Frozen.frozen must have the structure of the solution: .* \(2, 3\) in w, got ",
        ),
        ({"b": True, "v": True, "w": np.ones(2, bool)}, ValueError, r"expected shape \(2, 3\) in w, got \(2,\)"),
    ],
)
def test_wrong_settings(setting, error, message, key):
    with pytest.raises(error, match=message):
        frozen(setting).init(key, SOLUTION)


def test_mask_must_be_known_when_the_program_is_compiled():
    with pytest.raises(TypeError, match="known when the program is compiled"):
        jax.jit(lambda mask: frozen(mask).population_size)(np.ones(3, bool))
