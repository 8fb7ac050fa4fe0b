"""Populations that are not stored as arrays have the same members and the same estimates as stored ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.strategies.online_examples import (
    Line,
    assert_unbiased,
    compile_quickly,  # noqa: F401 - a fixture, of all tests here
    sample_estimates,
    settings,
    target,
)
from tests.the_loop import ask, init, tell
from zoo.core.noise import normal_like
from zoo.core.population import materialize, take_member
from zoo.loop.provenance import describe_settings
from zoo.strategies.gradient.nres import NRES
from zoo.strategies.gradient.open_es import OpenES
from zoo.strategies.gradient.pes import PES
from zoo.strategies.perturbations import Dense, LowRank, Seeded, get_perturbation, seeded

# SIGMA is a power of two, and so is the scale of the whole space in guided_es in 512 dimensions. Products are then
# exact, so it does not matter which of them the compiler fuses with a sum.
SIGMA = 0.5
# A matrix, an array with three axes, a vector. Large leaves and small leaves are drawn in different ways.
SHAPES = {"bias": (6,), "heads": (4, 5, 10), "kernel": (17, 18)}
FORMS = {"seeded": Seeded(), "rank 1": LowRank(), "rank 2": LowRank(rank=2)}
EACH_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def normal(*shape, seed=0):
    """Draws in NumPy, where no operation has to be compiled."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


SOLUTION = {name: normal(*shape) for name, shape in SHAPES.items()}
MASK = {name: normal(*shape, seed=1) > 0 for name, shape in SHAPES.items()}


def assert_close(one, other, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), one, other)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# Seeds give the same members as arrays

BASE = {"id": "open_es", "sigma": SIGMA, "population_size": 12, "optimizer": "sgd", "learning_rate": 0.5}
# Each case has six rows of noise, so all cases share the programs that draw them.
WITH_SEEDS = {
    "open_es": {},
    "semi-updates": {"num_workers": 2, "antithetic": False, "shaping": "standardized", "population_size": 6},
    "nres": {"id": "nres"},
    "pes": {"id": "pes"},
    "gpes": {"id": "gpes", "noise_period": 2},
    "tes": {"id": "tes", "population_size": 18},
    "guided_es": {"id": "guided_es"},
    "masked": {"wrapper": {"id": "masked", "mask": MASK}},
    "masked pes": {"id": "pes", "wrapper": {"id": "masked", "mask": MASK}},
    "hybrid": {"wrapper": {"id": "hybrid", "es_leaves": "heads|bias", "optimizer": "sgd"}},
    "frozen": {"id": "nres", "wrapper": {"id": "frozen", "frozen": {**MASK, "bias": False, "kernel": False}}},
    "nested": {
        "wrapper": {
            "id": "hybrid",
            "es_leaves": "heads|kernel",
            "optimizer": "sgd",
            "base": {"id": "masked", "mask": {**MASK, "bias": None}},
        }
    },
}


def make(perturbation, *, wrapper=None, **base):
    base = {**BASE, **base, "perturbation": perturbation}
    if wrapper is None:
        return zoo.make_strategy(**base)
    if "base" in wrapper:
        base = {**wrapper["base"], "base": base}
    return zoo.make_strategy(**{**wrapper, "base": base})


def generation(strategies, states, key, fitness, done):
    """Returns states, populations and means of two strategies that continue from the mean of the first."""
    populations, told = [], []
    for strategy, state in zip(strategies, states, strict=True):
        population, state = strategy.ask(key, state, lambda x: jax.tree.map(jnp.sin, x))
        populations.append(materialize(population))
        told.append(tell(strategy, state, population, zoo.Evaluation(fitness, done, jnp.asarray(12))))
    means = [strategy.mean(state) for strategy, state in zip(strategies, told, strict=True)]
    return [told[0], strategies[1].map_mean(told[1], lambda _: means[0])], populations, means


@pytest.mark.parametrize("name", WITH_SEEDS)
def test_seeds_are_the_arrays(name):
    """Seeded members equal arrays bit for bit, and updates up to rounding, while episodes end at different times.

    Members are made outside of compiled programs, because each program may fuse a product and a sum in its own way.
    """
    strategies = [make(form, **WITH_SEEDS[name]) for form in (Dense(), Seeded())]
    num_generations, population_size = 5, WITH_SEEDS[name].get("population_size", 12)
    done = np.random.default_rng(0).random((num_generations, 6)) < 0.3
    done = np.tile(done, (1, population_size // 6))
    fitness = normal(num_generations, population_size)

    keys = jax.random.split(jax.random.key(0), num_generations)
    states = [init(strategy, keys[0], SOLUTION) for strategy in strategies]
    start = strategies[0].mean(states[0])
    means = [start]
    for xs in zip(keys, fitness, done, strict=True):
        states, populations, means = generation(strategies, states, *xs)
        assert_equal(*populations)
        assert_close(*means)
    leaves = map(jax.tree.leaves, jax.device_get((start, means[0])))
    assert all(np.abs(x - y).max() > 0.01 for x, y in zip(*leaves, strict=True))


def test_bounded_refuses_what_is_not_stored():
    with pytest.raises(TypeError, match="Bounded cannot wrap OpenES"):
        zoo.make_strategy("bounded", base={"id": "open_es", "perturbation": "seeded"}, lower=-1.0, upper=1.0)


# Members and sums of every form, against arrays made in NumPy

NUM_ROWS = 5
SCALES = np.array([[0.5, -1.0, 2.0, 0.25, 1.5], [-0.5, 1.0, -2.0, -0.25, 0.0]], np.float32)
DIRECTIONS = {name: normal(2, *shape, seed=2) for name, shape in SHAPES.items()}
COORDINATES, WEIGHTS = normal(NUM_ROWS, 2, seed=3), normal(NUM_ROWS, seed=4)


def rows_by_hand(form, key):
    """Returns the rows of noise that a form draws, as arrays."""
    if isinstance(form, Seeded):
        return jax.jit(normal_like, static_argnames="num_samples")(key, SOLUTION, num_samples=NUM_ROWS)

    def product(x, z):
        if not isinstance(z, tuple):
            return z
        left, right = (np.asarray(each).reshape(NUM_ROWS, -1, form.rank) for each in z)
        return np.einsum("nar,nbr->nab", left, right).reshape(NUM_ROWS, *x.shape)

    return jax.tree.map(product, SOLUTION, jax.jit(lambda k: form.draw(k, SOLUTION, NUM_ROWS).rows)(key))


def by_rows(weights, rows):
    return jax.tree.map(lambda x: np.tensordot(np.asarray(weights, float), np.asarray(x, float), 1), rows)


@EACH_FORM
@pytest.mark.parametrize(
    ("along", "masked"),
    [(False, False), (True, False), (True, True)],
    ids=["plain", "directions", "directions, masked"],
)
def test_members_and_sums(form, along, masked, key, monkeypatch):
    monkeypatch.setattr(seeded, "_MANY_NUMBERS", 2 * 8 * 512)  # sums add two rows at a time, then the last row
    rows = rows_by_hand(form, key)
    if along:
        rows = jax.tree.map(lambda z, u: z + u, by_rows(np.diag(WEIGHTS), rows), by_rows(COORDINATES, DIRECTIONS))
    steps = by_rows(np.concatenate([np.diag(s) for s in SCALES]), rows)
    expected = jax.tree.map(lambda m, s: np.asarray(m) + s, SOLUTION, steps)
    if masked:
        expected, steps = (jax.tree.map(lambda m, x: np.where(m, x, 0), MASK, tree) for tree in (expected, steps))
    weights, row_weights = normal(2 * NUM_ROWS, seed=5), normal(NUM_ROWS, seed=6)

    @jax.jit
    def results(key, scale, row_weights):
        noise = form.draw(key, SOLUTION, NUM_ROWS)
        if along:
            noise = noise.combine(WEIGHTS, COORDINATES, DIRECTIONS)
        population = form.perturb(SOLUTION, jnp.asarray(1.0), noise).replace(scale=scale)
        if masked:
            population = population.masked(MASK)
        members = [
            zoo.map_members(lambda x, i: (x, i), population, jnp.arange(2 * NUM_ROWS), batch_size=size)
            for size in (None, 1, 4, 7, 100)
        ]
        taken = [take_member(population, i) for i in (0, NUM_ROWS, jnp.asarray(2 * NUM_ROWS - 2))]
        sums = population.weighted_sum(weights), population.noise.weighted_sum(row_weights)
        return members, taken, sums, population.noise.inner_products(DIRECTIONS)

    members, taken, sums, products = jax.device_get(results(key, SCALES, row_weights))
    for values, numbers in members:
        assert_close(values, expected)
        np.testing.assert_array_equal(numbers, np.arange(2 * NUM_ROWS))
        if masked:
            assert not any(np.any(x[:, ~m]) for m, x in zip(*map(jax.tree.leaves, (MASK, values)), strict=True))
    for index, member in zip((0, NUM_ROWS, 2 * NUM_ROWS - 2), taken, strict=True):
        assert_close(member, jax.tree.map(lambda x, i=index: x[i], expected))
    assert_close(sums, (by_rows(weights, steps), by_rows(row_weights, rows)), 1e-4)
    flat, directions = (
        np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(tree)], 1) for tree in (rows, DIRECTIONS)
    )
    np.testing.assert_allclose(products, flat @ directions.T, rtol=1e-4, atol=1e-3)


@EACH_FORM
def test_moments(form):
    """Entries have mean zero and variance one, and are uncorrelated, also for kernels with several axes."""
    solution = {"heads": jnp.zeros((2, 3, 4)), "kernel": jnp.zeros((4, 5)), "bias": jnp.zeros(2)}
    num_samples = 40_000

    @jax.jit
    def draw(key):
        return materialize(form.perturb(solution, jnp.asarray(1.0), form.draw(key, solution, num_samples), (1,)))

    members = jax.device_get(draw(jax.random.key(0)))
    flat = np.concatenate([x.reshape(num_samples, -1) for x in jax.tree.leaves(members)], 1)
    assert np.abs(flat.mean(0)).max() < 5 / np.sqrt(num_samples)
    assert np.abs(np.cov(flat.T) - np.eye(46)).max() < 5 * np.sqrt(8 / num_samples)


# The estimate

SMALL = {"bias": normal(3), "kernel": normal(4, 5)}
HESSIAN = (lambda a: a @ a.T / 23)(normal(23, 23, seed=7))
SMALL_MASK = {"bias": np.array([True, False, True]), "kernel": np.asarray(normal(4, 5, seed=1) > -0.5)}


def quadratic(x):
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(x)])
    return 0.5 * flat @ HESSIAN @ flat + jnp.sum(flat)


def sample_updates(strategy, fn, *, num_samples=8000):
    """Returns the decrease of the mean in one generation, `[num_samples, num_dims]`."""

    @jax.jit
    @jax.vmap
    def moved(key):
        state = strategy.init(key, SMALL)
        population, state = strategy.ask(key, state, lambda x: jax.tree.map(jnp.cos, x))
        told = strategy.tell(state, population, zoo.map_members(fn, population))
        return jax.tree.map(lambda x, y: x - y, strategy.mean(state), strategy.mean(told))

    moved = jax.device_get(moved(jax.random.split(jax.random.key(0), num_samples)))
    return np.concatenate([x.reshape(num_samples, -1) for x in jax.tree.leaves(moved)], 1).astype(float)


def flatten(solution):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(solution)])


@pytest.mark.filterwarnings("ignore:The operation reshape")  # reshaped to a vector
@pytest.mark.parametrize(
    "form", [Dense(), Seeded(), LowRank(), LowRank(rank=2)], ids=["dense", "seeded", "rank 1", "rank 2"]
)
def test_estimate_is_unbiased_on_a_quadratic(form):
    """The estimate is unbiased, also with pruned weights (they do not move) and in a subspace.

    In a subspace, its expectation is beta Sigma times the gradient.
    """
    base = {"sigma": 1.0, "population_size": 8, "optimizer": "sgd", "learning_rate": 1.0, "shaping": "none"}
    strategy = zoo.make_strategy("open_es", perturbation=form, **base)
    gradient_of_quadratic = jax.jit(jax.grad(quadratic))
    gradient = gradient_of_quadratic(SMALL)
    assert_unbiased(
        sample_updates(strategy, quadratic)[:, None], flatten(gradient), np.linalg.norm(flatten(gradient)) / 3
    )

    masked = zoo.make_strategy("masked", base=strategy, mask=SMALL_MASK)
    kept = flatten(SMALL_MASK)
    updates = sample_updates(masked, quadratic)
    np.testing.assert_array_equal(updates[:, ~kept], 0)
    pruned = jax.tree.map(lambda m, x: np.where(m, x, 0), SMALL_MASK, SMALL)
    gradient = np.where(kept, flatten(gradient_of_quadratic(pruned)), 0)
    assert_unbiased(updates[:, None][..., kept], gradient[kept], np.linalg.norm(gradient) / 3)

    guided = zoo.make_strategy("guided_es", perturbation=form, alpha=0.5, beta=23.0, **base)
    direction = flatten(jax.tree.map(np.cos, SMALL))
    direction /= np.linalg.norm(direction)
    gradient = flatten(gradient_of_quadratic(SMALL))
    expected = 23 * (0.5 / 23 * gradient + 0.5 * direction * (direction @ gradient))
    assert_unbiased(sample_updates(guided, quadratic)[:, None], expected, np.linalg.norm(expected) / 3)


def test_smoothing_of_low_rank():
    """The expectation is E[grad f(m + sigma E) B B^T / r], not the plain or the Gaussian-smoothed gradient."""
    mean = {"kernel": normal(4, 5)}
    directions = normal(3, 4) / 2, normal(5, 3) / 2

    def fitness(x):
        return jnp.sum(jnp.sin(directions[0] @ x["kernel"] @ directions[1]))

    def samples(form, key):
        noise = form.draw(key, mean, 1)
        population = form.perturb(mean, jnp.asarray(1.0), noise, (1, -1))
        plus, minus = zoo.map_members(fitness, population)
        estimate = (plus - minus) / 2 * noise.weighted_sum(jnp.ones(1))["kernel"]
        gradient = jax.grad(fitness)(take_member(population, 0))["kernel"]
        if isinstance(form, LowRank):
            right = noise.rows["kernel"].right[0]
            gradient = gradient @ right @ right.T
        return estimate, gradient

    keys = jax.random.split(jax.random.key(0), 20_000)
    estimates, gradients = jax.jit(jax.vmap(functools.partial(samples, LowRank())))(keys)
    smoothed = jax.jit(jax.vmap(functools.partial(samples, Seeded())))(keys)[1]
    estimates, gradients, smoothed = (np.asarray(x, float).reshape(-1, 20) for x in (estimates, gradients, smoothed))
    others = [flatten(jax.jit(jax.grad(fitness))(mean)), smoothed.mean(0)]
    distance = min(np.linalg.norm(gradients.mean(0) - other) for other in others)
    assert_unbiased((estimates - gradients)[:, None], np.zeros(20), distance)


# Perturbations of several windows


def test_pes_is_unbiased_for_as_many_blocks_as_it_remembers():
    """With `max_blocks=2` on three windows, the second perturbation is held to the end of the episode."""
    problem = Line(quadratic=0.5, cubic=1.0)  # pyright: ignore[reportCallIssue]
    strategy = PES(**{**settings(3), "learning_rate": 0.0}, perturbation=Seeded(max_blocks=2))
    keys = jax.random.split(jax.random.key(0), (2, 5000))
    samples = np.concatenate([sample_estimates(strategy, problem, k) for k in keys]).astype(float)
    expected, of_one_block = target(problem, [0, 1, 1]), target(problem, [0, 0, 0])
    assert_unbiased(samples, expected, np.linalg.norm(expected - of_one_block))


def test_pes_that_remembers_one_block_is_nres():
    states = []
    for kind in (PES, NRES):
        strategy = kind(**settings(3), perturbation=LowRank(max_blocks=1))
        state = init(strategy, jax.random.key(0), SOLUTION)
        for seed, done in enumerate([False, False, True, False]):
            population, state = strategy.ask(jax.random.key(seed), state)
            evaluation = zoo.Evaluation(normal(6, seed=seed), np.array([done, False, False] * 2), jnp.asarray(6))
            state = tell(strategy, state, population, evaluation)
        states.append(state)
    assert_equal(*states)


# Precision and memory


@pytest.mark.parametrize("kind", [Dense, Seeded, LowRank])
def test_half_precision(kind, key):
    """Only the members are in half precision. The gradient equals the estimate in single precision."""
    estimates = []
    for dtype in (None, jnp.bfloat16):
        strategy = OpenES(perturbation=kind(dtype=dtype), sigma=SIGMA, population_size=64, optimizer="sgd")
        seen, inputs = [], normal(3, 17) / 4

        def fitness(x, seen=seen, inputs=inputs):
            seen.append({leaf.dtype for leaf in jax.tree.leaves(x)})
            return jnp.sum(x["bias"] ** 2) + jnp.sum(jnp.tanh(inputs.astype(x["kernel"].dtype) @ x["kernel"]) ** 2)

        @jax.jit
        def generation(key, strategy=strategy, fitness=fitness):
            population, state = strategy.ask(key, strategy.init(key, SOLUTION))
            evaluation = zoo.map_members(fitness, population).astype(jnp.float32)
            evaluation = zoo.Evaluation(evaluation, jnp.ones(64, bool), jnp.asarray(64))
            told = strategy.tell(state, population, evaluation)
            return strategy.estimate(state, population, evaluation), strategy.mean(told), take_member(population, 0)

        estimate, mean, member = generation(key)
        estimates.append(estimate)
        assert seen[0] == {jnp.dtype(dtype or jnp.float32)}
        assert {x.dtype for x in jax.tree.leaves((estimate, mean))} == {jnp.dtype(jnp.float32)}
        assert {x.dtype for x in jax.tree.leaves(member)} == (
            {jnp.dtype(jnp.bfloat16)} if dtype and kind is Dense else {jnp.dtype(jnp.float32)}
        )
    single, half = (flatten(x).astype(float) for x in estimates)
    assert np.linalg.norm(single - half) < 0.1 * np.linalg.norm(single)


@pytest.mark.parametrize("form", [Dense(), Seeded(), LowRank()])
def test_memory(form):
    """A generation with two million parameters and 64 members needs little memory. As arrays it would need 512 MiB."""
    strategy = OpenES(perturbation=form, population_size=64)

    def generation(state, key):
        population, state = strategy.ask(key, state)
        x = jnp.ones((4, 1024))
        fitness = zoo.map_members(lambda w: jnp.sum(jnp.tanh(x @ w[0]) @ w[1]), population)
        return strategy.tell(state, population, fitness)

    solution = [jax.ShapeDtypeStruct((1024, 1024), jnp.float32)] * 2
    state = jax.eval_shape(strategy.init, jax.random.key(0), solution)
    memory = jax.jit(generation).lower(state, jax.random.key(0)).compile().memory_analysis()
    assert memory is not None
    limit = {Seeded: 2**28, LowRank: 2**26}.get(type(form))
    size = memory.temp_size_in_bytes
    assert size < limit if limit else size > 2**29


# Settings


def test_errors():
    with pytest.raises(
        ValueError, match=r"OpenES\.perturbation must be one of 'dense', 'seeded', 'low_rank'.*'sparse'"
    ):
        zoo.make_strategy("open_es", perturbation="sparse")
    with pytest.raises(TypeError, match=r"PES\.perturbation must be .* an instance such as .*\.LowRank\(rank=2\)"):
        PES(perturbation=2)  # pyright: ignore[reportArgumentType]
    for rank in (0, 1.5, True):
        with pytest.raises(ValueError, match=r"LowRank\.rank must be a positive whole number, got"):
            LowRank(rank=rank)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"Seeded\.max_blocks must be a positive whole number, got 0"):
        Seeded(max_blocks=0)
    with pytest.raises(TypeError, match=r"Dense\.dtype must be a floating-point dtype, got int32"):
        Dense(dtype=jnp.int32)


def test_equal_settings_are_one_program():
    """A form is part of the program, is compared by value, and is described."""
    num_traces = 0

    @jax.jit
    def first_member(strategy, key):
        nonlocal num_traces
        num_traces += 1
        return take_member(strategy.ask(key, strategy.init(key, SOLUTION))[0], 0)

    for form in (
        "low_rank",
        LowRank(),
        LowRank(rank=1, dtype=None),
        LowRank(dtype="float32"),
        LowRank(dtype=jnp.float32),
    ):
        first_member(zoo.make_strategy("open_es", perturbation=form, sigma=0.1), jax.random.key(0))
    assert num_traces == 2
    strategy = zoo.make_strategy("open_es", perturbation=LowRank(rank=2, dtype="bfloat16"))
    described = describe_settings(strategy)["perturbation"]
    assert described["class"] == "LowRank"
    assert described["rank"] == 2
    assert "bfloat16" in str(described["dtype"])
    assert get_perturbation("seeded") == Seeded()


def test_lottery_prunes_factors(key):
    """In two rounds on a model whose kernels arrive as factors, pruned weights are zero in every member."""
    base = {"id": "open_es", "perturbation": "low_rank", "population_size": 8, "sigma": SIGMA}
    strategy = zoo.make_strategy("lottery", base=base, generations_per_round=2, score="magnitude")
    x = normal(3, 17)

    def generation(state, key):
        population, state = strategy.ask(key, state)
        fitness = zoo.map_members(lambda s: jnp.sum(jnp.tanh(x @ s["kernel"])) + jnp.sum(s["bias"] ** 2), population)
        return strategy.tell(state, population, fitness), (state.mask, materialize(population))

    @jax.jit
    def train(keys):
        return jax.lax.scan(generation, strategy.init(key, SOLUTION), keys)[1]

    masks, populations = jax.device_get(train(jax.random.split(key, 4)))
    kept = [int(np.sum(m)) for m in masks["kernel"]]
    assert kept[0] == kept[1] == 306 > kept[2] == kept[3]
    for name, values in populations.items():
        pruned = np.broadcast_to(~masks[name][:, None], values.shape)
        np.testing.assert_array_equal(values[pruned], 0)
        assert np.all(values[~pruned] != 0)


# Users' own loops


@pytest.mark.parametrize("strategy", [OpenES, PES])
@EACH_FORM
def test_a_loop_that_is_not_jitted_compiles_once(strategy, form):
    strategy = strategy(perturbation=form, population_size=4)
    compiled = []

    def listen(event, seconds, **_):
        compiled.append(event)

    state = strategy.init(jax.random.key(0), SOLUTION)
    for i in range(3):
        if i == 2:  # one generation compiles all that is needed, one more covers weak types
            jax.monitoring.register_event_duration_secs_listener(listen)
        population, state = strategy.ask(jax.random.key(i), state)
        state = strategy.tell(state, population, jnp.arange(4.0))
    jax.monitoring.clear_event_listeners()
    assert "/jax/core/compile/backend_compile_duration" not in compiled


def test_batch_size_is_a_bound():
    """`batch_size` is a bound, also below the number of members that share a row."""
    strategy, key = OpenES(perturbation="seeded", population_size=8), jax.random.key(0)
    population, _ = ask(strategy, key, init(strategy, key, SOLUTION))
    expected = np.sum(jax.jit(materialize)(population)["bias"], axis=1)

    def evaluate(population):
        return zoo.map_members(lambda x: jnp.sum(x["bias"]), population, batch_size=1)

    np.testing.assert_allclose(jax.jit(evaluate)(population), expected, rtol=1e-5, atol=1e-5)
    assert "length=8" in str(jax.make_jaxpr(evaluate)(population))  # length 4 would mean two members at a time


def test_keys_that_cannot_be_drawn_row_by_row():
    """Strategies that draw single rows reject JAX's rbg keys, which give a row other numbers alone than in a batch."""
    key = jax.random.key(0, impl="rbg")
    for strategy in (OpenES(perturbation="seeded"), PES(perturbation="low_rank"), PES(perturbation="seeded")):
        with pytest.raises(ValueError, match="needs keys of threefry"):
            ask(strategy, key, jax.eval_shape(strategy.init, key, SOLUTION))
    strategy = OpenES(perturbation="low_rank", population_size=4)
    population, _ = ask(strategy, key, init(strategy, key, SOLUTION))
    assert_equal(take_member(population, 3), jax.tree.map(lambda x: np.asarray(x)[3], materialize(population)))


def test_weights_of_members_in_half_precision_still_sum_to_zero(key):
    """Weights of half-precision members still sum to zero.

    Rounded to half precision they would not, and the estimate would contain the mean (here 150 times a perturbation).
    """
    strategy = OpenES(perturbation=Dense(dtype=jnp.bfloat16), antithetic=False, sigma=2**-5, population_size=64)

    def estimate(key):
        state = strategy.init(key, jnp.full(50, 4.0))
        population, state = strategy.ask(key, state)
        fitness = jnp.sum(population.astype(jnp.float32), axis=1)
        shifted = strategy.estimate(state, population, zoo.Evaluation(fitness, jnp.ones(64, bool), jnp.asarray(64)))
        weights = strategy.shape(fitness)
        x = population.astype(jnp.float32)
        return shifted, (weights - jnp.mean(weights)) @ (x - 4) / (63 * strategy.sigma**2)

    got, expected = jax.jit(estimate)(key)
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=2e-2)


def test_an_empty_leaf():
    solution = {"a": jnp.ones((4, 4)), "z": jnp.zeros((0, 3))}
    strategy = OpenES(perturbation="low_rank", population_size=4)
    population, _ = ask(strategy, jax.random.key(0), init(strategy, jax.random.key(0), solution))
    assert jax.jit(materialize)(population)["z"].shape == (4, 0, 3)


def test_settings_as_a_dictionary():
    assert get_perturbation({"id": "low_rank", "rank": np.int64(2), "dtype": "bfloat16"}) == LowRank(
        rank=2, dtype=jnp.bfloat16
    )
    with pytest.raises(TypeError, match=r"'low_rank' does not take the settings {'rnk': 2}"):
        get_perturbation({"id": "low_rank", "rnk": 2})
