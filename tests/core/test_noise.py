"""Noise drawn row by row from counters: its distribution, and that a renewed row equals the row of a full draw."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from zoo.core import noise
from zoo.core.noise import clip_std, normal_like, renew_rows, weighted_sum
from zoo.strategies.perturbations import Dense

KINDS = ["threefry2x32", "rbg", "unsafe_rbg", "raw"]
draw = jax.jit(normal_like, static_argnames="num_samples")
renew = jax.jit(renew_rows)


class Pair(NamedTuple):
    left: Any
    right: Any


def make_key(kind, seed=0):
    """Returns a typed key, or a key of the older raw kind (a row of unsigned integers)."""
    return jax.random.PRNGKey(seed) if kind == "raw" else jax.random.key(seed, impl=kind)


def mixed_solution(first):
    """Returns small leaves, large leaves and scalars of all precisions. Leaves of the first dtype share a draw."""
    dtypes = [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16]
    dtypes = dtypes[first:] + dtypes[:first]
    shapes = {"small": (2, 3), "scalar": (), "large": (20, 21)}
    leaves = [{name: jnp.zeros(shape, dtype) for name, shape in shapes.items()} for dtype in dtypes]
    return Pair(leaves[0], (leaves[1], [leaves[2], {"deep": leaves[3]}]))


def bits(tree):
    """Returns the leaves as bit patterns, where NaN equals itself and -0 differs from 0."""
    return [np.asarray(x).view(f"u{x.dtype.itemsize}") for x in jax.tree.leaves(tree)]


def equations(jaxpr):
    """Yields the equations of a program and of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(getattr(inner, "jaxpr", inner))


def assert_identical(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
    for x, y in zip(bits(tree), bits(other), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_uncorrelated(x, y):
    """Checks that neither the numbers nor their squares are correlated (5 sigma), and hardly any two are equal."""
    x, y = (np.asarray(a, np.float64).ravel() for a in (x, y))
    assert np.sum(x == y) <= 3
    for a, b in ((x, y), (x**2, y**2)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(x))


@functools.cache
def many_numbers():
    """Draws three million numbers in three leaves: one leaf drawn by itself, two that share a draw."""
    solution = {"large": jnp.zeros((61, 41)), "scalar": jnp.zeros(()), "small": jnp.zeros((3, 67))}
    return jax.device_get(draw(jax.random.key(11), solution, num_samples=1200))


# Structure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(4))
def test_shapes_and_dtypes_are_those_of_the_solution(first, kind, x64):
    solution = mixed_solution(first)
    drawn = jax.eval_shape(functools.partial(normal_like, num_samples=5), make_key(kind), solution)
    assert jax.tree.structure(drawn) == jax.tree.structure(solution)
    for x, z in zip(jax.tree.leaves(solution), jax.tree.leaves(drawn), strict=True):
        assert (z.shape, z.dtype) == ((5, *x.shape), x.dtype)


@pytest.mark.parametrize("solution", [jnp.zeros(()), (jnp.zeros((0, 2)), jnp.zeros(3))])
def test_a_solution_may_be_a_scalar_or_have_an_empty_leaf(solution, key):
    drawn = draw(key, solution, num_samples=4)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(lambda x: (4, *x.shape), solution)
    numbers = np.concatenate([np.ravel(z) for z in jax.tree.leaves(drawn)])
    assert len(np.unique(numbers)) == len(numbers)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257])
def test_every_column_is_standard_normal_whether_or_not_their_number_is_odd(size, key):
    z = np.asarray(draw(key, jnp.zeros(size), num_samples=2000), np.float64)
    assert np.all(np.abs(z.mean(axis=0)) < 5 / np.sqrt(2000))
    assert np.all(np.abs(z.var(axis=0) - 1) < 5 * np.sqrt(2 / 2000))


@pytest.mark.parametrize(("kind", "counts"), [("threefry2x32", True), ("raw", True), ("rbg", False)])
def test_the_generator_is_that_of_the_key(kind, counts):
    draw_some = functools.partial(normal_like, num_samples=3)
    program = jax.make_jaxpr(draw_some)(make_key(kind), {"small": jnp.zeros(3), "large": jnp.zeros(301)})
    names = {equation.primitive.name for equation in equations(program.jaxpr)}
    assert ("threefry2x32" in names) == counts
    assert ("random_bits" in names) == (not counts)


# What a draw depends on


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_draw_depends_on_its_key_alone(kind):
    solution = {"small": jnp.zeros(3), "large": jnp.zeros(301)}
    first = draw(make_key(kind, 5), solution, num_samples=3)
    assert_identical(first, draw(make_key(kind, 5), jax.tree.map(jnp.ones_like, solution), num_samples=3))
    other = draw(make_key(kind, 6), solution, num_samples=3)
    assert not any(np.any(np.asarray(x) == y) for x, y in zip(*map(jax.tree.leaves, (first, other)), strict=True))


@pytest.mark.parametrize("kind", ["threefry2x32", "raw"])
def test_a_row_depends_on_its_key_and_number_alone(kind):
    solution = {"a": jnp.zeros(1001), "b": (jnp.zeros(()), jnp.zeros((3, 5))), "c": jnp.zeros((16, 16))}
    nine = draw(make_key(kind), solution, num_samples=9)
    assert_identical(jax.tree.map(lambda z: z[:5], nine), draw(make_key(kind), solution, num_samples=5))


def test_raw_and_typed_keys_draw_the_same():
    solution = {"small": jnp.zeros(3), "large": jnp.zeros(301)}
    typed = draw(make_key("threefry2x32", 4), solution, num_samples=3)
    assert_identical(draw(make_key("raw", 4), solution, num_samples=3), typed)


def test_draws_of_several_keys_at_once_are_those_of_each(key):
    solution = {"small": jnp.zeros(3), "large": jnp.zeros(301)}
    keys = jax.random.split(key, 3)
    together = jax.jit(jax.vmap(lambda k: normal_like(k, solution, num_samples=3)))(keys)
    for i, k in enumerate(keys):
        assert_identical(jax.tree.map(lambda z, i=i: z[i], together), draw(k, solution, num_samples=3))


def test_double_precision_elsewhere_does_not_change_a_draw(key):
    solution = {"small": jnp.zeros(3, jnp.float32), "large": jnp.zeros(301, jnp.float32)}
    single = draw(key, solution, num_samples=3)
    with jax.enable_x64(True):
        assert_identical(draw(key, solution, num_samples=3), single)


# Distribution


@pytest.mark.parametrize("leaf", ["large", "scalar", "small"])
def test_the_numbers_are_standard_normal(leaf):
    z = many_numbers()[leaf].ravel().astype(np.float64)
    n = len(z)
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(scipy.stats.skew(z)) < 4 * np.sqrt(6 / n)
    assert abs(scipy.stats.kurtosis(z)) < 4 * np.sqrt(24 / n)


def test_both_tails_are_normal_and_finite():
    """Both tails are normal and finite up to 5.42 standard deviations, where a uniform number with 23 bits ends."""
    z = many_numbers()["large"].ravel()
    assert np.all(np.isfinite(z))
    for tail in (z, -z):
        assert 4.7 < tail.max() < 5.43
        for threshold in (3.0, 4.0, 4.5):
            expected = len(z) * scipy.stats.norm.sf(threshold)
            assert abs(np.sum(tail > threshold) - expected) < 5 * np.sqrt(expected)


def test_numbers_repeat_as_often_as_23_random_bits_do():
    """23 random bits give the expected number of distinct values in n draws (5 sigma), so no counter is used twice."""
    num_values, n = 2**23, 2_000_000
    distinct = len(np.unique(many_numbers()["large"].ravel()[:n]))
    load = n / num_values
    expected = num_values * -np.expm1(-load)
    variance = num_values * np.exp(-load) * (1 - (1 + load) * np.exp(-load))
    assert abs(distinct - expected) < 5 * np.sqrt(variance)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_numbers_of_other_keys_are_standard_normal(kind):
    solution = {"large": jnp.zeros(400), "small": jnp.zeros(200)}
    drawn = draw(make_key(kind, 2), solution, num_samples=400)
    for z in jax.tree.leaves(drawn):
        assert scipy.stats.kstest(np.ravel(z), "norm").pvalue > 1e-3
    assert_uncorrelated(drawn["large"][:, :200], drawn["small"])


def test_leaves_of_any_precision_are_standard_normal_and_not_correlated(x64):
    """Leaves of any precision are standard normal, up to the resolution of bfloat16."""
    drawn = draw(jax.random.key(5), mixed_solution(2), num_samples=200)
    same_shape = {}
    for path, z in jax.tree_util.tree_leaves_with_path(drawn):
        z = np.asarray(z, np.float64)
        assert np.all(np.isfinite(z))
        assert abs(z.mean()) < 5 / np.sqrt(z.size) + 2**-8
        assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size) + 2**-6
        for other in same_shape.setdefault(path[-1], []):
            assert abs(np.corrcoef(z.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(z.size)
        same_shape[path[-1]].append(z)


def test_leaves_in_double_precision_are_drawn_in_it(x64):
    z = np.asarray(draw(jax.random.key(0), jnp.zeros(300, jnp.float64), num_samples=3))
    assert np.mean(z == z.astype(np.float32)) < 0.01


def test_no_part_of_a_draw_repeats_another(key):
    """Rows, columns, the halves of a row (the two words of a block) and the two kinds of leaves are uncorrelated."""
    solution = {"a": jnp.zeros((40, 25)), "b": jnp.zeros((40, 25)), "c": jnp.zeros((5, 25)), "d": jnp.zeros((5, 25))}
    drawn = jax.tree.map(lambda z: np.asarray(z).reshape(len(z), -1), draw(key, solution, num_samples=100))
    a, b, c, d = (drawn[name] for name in "abcd")
    for x in (a, c, np.concatenate([c, d], axis=1)):
        half = x.shape[1] // 2
        assert_uncorrelated(x[:50], x[50:])
        assert_uncorrelated(x[:-1], x[1:])
        assert_uncorrelated(x[:, :-1], x[:, 1:])
        assert_uncorrelated(x[:, :half], x[:, -half:])
        assert_uncorrelated(x[:, :half], x[:, : -half - 1 : -1])
        assert_uncorrelated(x[:-1, :half], x[1:, -half:])
    square = a[:, :100]
    upper = np.triu_indices(100, 1)
    assert_uncorrelated(square[upper], square.T[upper])  # row and column exchanged
    assert_uncorrelated(a, b)
    assert_uncorrelated(c, d)
    for x in (a, b):
        for start in (0, 500, 875):
            assert_uncorrelated(x[:, start : start + 125], c)
            assert_uncorrelated(x[:, start : start + 125], d)
    # This covers all pairs of rows at once.
    correlation = np.corrcoef(a)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 6 / np.sqrt(a.shape[1])


@pytest.mark.parametrize(
    "relative",
    [lambda key: jax.random.key(1), lambda key: jax.random.split(key)[0], lambda key: jax.random.fold_in(key, 1)],
    ids=["next", "split", "fold_in"],
)
def test_draws_of_related_keys_have_nothing_in_common(relative, key):
    solution = {"large": jnp.zeros(1000), "small": jnp.zeros(200)}
    mine, other = (draw(k, solution, num_samples=100) for k in (key, relative(key)))
    for name in solution:
        assert_uncorrelated(mine[name], other[name])
    assert_uncorrelated(mine["large"][:, :200], other["small"])
    assert_uncorrelated(other["large"][:, :200], mine["small"])


def threefry(key, counter):
    """Computes one block of Threefry-2x32 with 20 rounds (Salmon et al. 2011), in NumPy."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    schedule = [*key, np.uint32(0x1BD11BDA) ^ key[0] ^ key[1]]
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for i in range(5):
        for rotation in rotations[i % 2]:
            x = x + y
            y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
        x, y = x + schedule[(i + 1) % 3], y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return x, y


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_row_is_made_of_all_the_bits_of_its_blocks():
    """A row equals Threefry in NumPy, which gives the published answer, with scipy's inverse error function."""
    published = threefry(np.array([0x13198A2E, 0x03707344], np.uint32), np.array([0x243F6A88, 0x85A308D3], np.uint32))
    assert [int(word) for word in published] == [0xC4923A9C, 0x483DF7A0]
    key = jax.random.key(99)
    rows = np.array([0, 7, 2**31 + 5], np.uint32)
    for size in (6, 301):
        z = noise._draw_rows(key, jnp.asarray(rows), size, jnp.float32)
        blocks = np.arange(-(-size // 2), dtype=np.uint32)
        words = np.asarray(jax.random.key_data(key))
        counters = np.broadcast_arrays(rows[:, None], blocks[None])
        words = np.concatenate(threefry(words, counters), axis=1)[:, :size]
        uniform = ((words >> 9) + 0.5) / 2**23
        assert z.shape == (3, size)
        np.testing.assert_allclose(z, np.sqrt(2) * scipy.special.erfinv(2 * uniform - 1), rtol=1e-4, atol=1e-6)


# Renewing rows

NUM_ROWS = 6
FLAGS = {
    "some": [0, 1, 0, 0, 1, 1],
    "first": [1, 0, 0, 0, 0, 0],
    "last": [0, 0, 0, 0, 0, 1],
    "none": [0] * 6,
    "all": [1] * 6,
}
COLUMNS = {"few": 5, "many": noise._MANY_NUMBERS // NUM_ROWS + 1}


def flags(name):
    return jnp.array(FLAGS[name], bool)


def noise_tree(num_columns):
    """Returns noise with a large leaf and small ones, full of values that are easily lost (NaN, infinity, -0)."""
    special = jnp.array([-0.0, jnp.nan, jnp.inf, -jnp.inf, 1e-42, 3.0], jnp.float32)
    return {
        "scalar": special,
        "large": jnp.broadcast_to(special[:, None], (NUM_ROWS, num_columns)),
        "small": (jnp.broadcast_to(special[:, None, None], (NUM_ROWS, 3, 5)),),
    }


@jax.jit
def renew_by_where(key, tree, is_new):
    """Draws everything, then chooses the new rows."""
    solution = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), tree)
    new = normal_like(key, solution, num_samples=len(is_new))
    return jax.tree.map(lambda n, o: jnp.where(is_new.reshape(-1, *[1] * (o.ndim - 1)), n, o), new, tree)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.mark.parametrize(("size", "kind"), [("few", "raw"), ("many", "threefry2x32"), ("many", "rbg")])
def test_renewed_rows_are_those_of_a_full_draw_and_held_rows_are_kept(size, kind):
    tree = noise_tree(COLUMNS[size])
    for name in FLAGS:
        is_new = flags(name)
        renewed = renew(make_key(kind, 8), tree, is_new)
        assert_identical(renewed, renew_by_where(make_key(kind, 8), tree, is_new))
        for x, old in zip(bits(renewed), bits(tree), strict=True):
            np.testing.assert_array_equal(x[~is_new], old[~is_new])
            assert not np.any(x[is_new] == old[is_new])


def test_the_branch_of_an_accelerator_gives_the_same(monkeypatch, key):
    tree = noise_tree(COLUMNS["many"])
    taken = []

    def choose(*args, cpu, default):
        taken.append(default)
        return default(*args)

    expected = {name: renew(key, tree, flags(name)) for name in FLAGS}
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    other_branch = jax.jit(lambda *args: renew_rows(*args))
    for name in FLAGS:
        assert_identical(other_branch(key, tree, flags(name)), expected[name])
    assert taken


def test_rows_are_renewed_without_jit(key):
    """Rows are renewed without jit, here with more than one large leaf."""
    tree = {**noise_tree(COLUMNS["many"]), "other": jnp.ones((NUM_ROWS, 300), jnp.float32)}
    assert_identical(renew_rows(key, tree, flags("some")), renew_by_where(key, tree, flags("some")))


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("bfloat16", "bfloat16")])
def test_rows_of_other_precisions_are_renewed(dtypes, key, x64):
    """Rows of other precisions, which cannot be drawn one by one, are renewed alone and beside single precision."""
    large = noise_tree(COLUMNS["many"])["large"]
    tree = (large.astype(dtypes[0]), jnp.zeros((NUM_ROWS, 7), dtypes[1]))
    assert_identical(renew(key, tree, flags("some")), renew_by_where(key, tree, flags("some")))


def test_rows_are_renewed_with_double_precision_on(key, x64):
    large = noise_tree(COLUMNS["many"])["large"]
    assert_identical(renew(key, large, flags("some")), renew_by_where(key, large, flags("some")))


@pytest.mark.parametrize(("size", "kind"), [("few", "threefry2x32"), ("many", "raw")])
def test_rows_are_renewed_under_vmap(size, kind):
    tree = noise_tree(COLUMNS[size])
    keys = jax.random.split(make_key(kind, 8), 3)
    is_new = jnp.stack([flags("some"), flags("none"), flags("last")])
    trees = [tree, jax.tree.map(lambda x: x + 1, tree), jax.tree.map(lambda x: -x, tree)]
    batched = jax.jit(jax.vmap(renew_rows))(keys, stack(trees), is_new)
    assert_identical(batched, stack([renew_by_where(*args) for args in zip(keys, trees, is_new, strict=True)]))
    # A batch of batches: the outer batch has keys alone, the inner batch the other arguments.
    nested = jax.jit(jax.vmap(jax.vmap(renew_rows, (None, 0, 0)), (0, None, None)))(keys[:2], stack(trees), is_new)
    rest = list(zip(trees, is_new, strict=True))
    assert_identical(nested, stack([stack([renew_by_where(k, *args) for args in rest]) for k in keys[:2]]))


@pytest.mark.parametrize("size", COLUMNS)
def test_rows_are_renewed_in_a_scan(size, key):
    keys = jax.random.split(key, 5)
    is_new = jnp.stack([flags(name) for name in ("some", "none", "last", "first", "some")])

    @jax.jit
    def train(tree):
        def body(tree, inputs):
            return renew_rows(inputs[0], tree, inputs[1]), tree["scalar"]

        return jax.lax.scan(body, tree, (keys, is_new))

    expected = noise_tree(COLUMNS[size])
    end, seen = train(expected)
    for i in range(5):
        assert_identical(seen[i], expected["scalar"])
        expected = renew_by_where(keys[i], expected, is_new[i])
    assert_identical(end, expected)
    assert np.isfinite(end["large"][flags("some")]).all()


def lowered(fn, *args):
    return jax.jit(fn).lower(*args).as_text()


@pytest.mark.parametrize("kind", ["threefry2x32", "raw"])
def test_held_rows_of_many_numbers_are_not_drawn(kind):
    """In a program with a loop, each draw is one row, so held rows are not drawn."""
    num_columns = COLUMNS["many"] + COLUMNS["many"] % 2
    args = (make_key(kind), {"x": jnp.zeros((NUM_ROWS, num_columns))}, flags("some"))
    full, row = f"tensor<{NUM_ROWS}x{num_columns}xui32>", f"tensor<1x{num_columns}xui32>"
    assert full in lowered(renew_by_where, *args)
    program = lowered(renew_rows, *args)
    assert "stablehlo.while" in program
    assert row in program
    assert full not in program
    loops = [e for e in equations(jax.make_jaxpr(renew_rows)(*args).jaxpr) if e.primitive.name == "while"]
    assert len(loops) == 1
    # This also holds in a batch, where no step of the loop selects between copies of all the noise.
    batch = (jax.random.split(args[0], 3), args[1], jnp.stack([args[2]] * 3))
    program = lowered(jax.vmap(renew_rows, (0, None, 0)), *batch)
    assert row in program
    assert f"x{NUM_ROWS}x{num_columns}xui32" not in program
    assert full not in program
    choices = [line for line in program.splitlines() if "stablehlo.select" in line and f"x{num_columns}xf32" in line]
    assert not choices


def test_rows_of_few_numbers_are_drawn_without_a_loop(key):
    names = {e.primitive.name for e in equations(jax.make_jaxpr(renew_rows)(key, noise_tree(5), flags("some")).jaxpr)}
    assert "while" not in names
    assert "threefry2x32" in names


# Pairs and sums


@pytest.mark.parametrize("sigma", [0.5, [0.5, 2.0, 0.25]], ids=["scalar", "per pair"])
def test_antithetic_pairs_are_plus_and_minus(sigma):
    """The first half of the members adds the noise, the second half subtracts it. Whole numbers make equality exact."""
    mean = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array(3.0), "c": jnp.array([4.0], jnp.bfloat16)}
    z = {"a": jnp.arange(6.0).reshape(3, 1, 2), "b": jnp.array([2.0, 4.0, -6.0]), "c": jnp.ones((3, 1), jnp.bfloat16)}
    population = jax.jit(Dense().perturb)(mean, jnp.array(sigma), z)
    per_pair = np.broadcast_to(sigma, 3)
    for name, m in mean.items():
        assert population[name].dtype == m.dtype
        assert population[name].shape == (6, *m.shape)
        for i in range(3):
            step = per_pair[i] * np.asarray(z[name][i], np.float32)
            np.testing.assert_array_equal(np.asarray(population[name][i], np.float32), np.float32(m) + step)
            np.testing.assert_array_equal(np.asarray(population[name][i + 3], np.float32), np.float32(m) - step)


def test_a_sigma_of_higher_precision_does_not_raise_that_of_the_pairs(x64):
    mean = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros((), jnp.float64)}
    for sigma in (jnp.array(0.1, jnp.float64), jnp.full(3, 0.1, jnp.float64)):
        z = {"a": jnp.ones((3, 2), jnp.float32), "b": jnp.ones(3, jnp.float64)}
        population = jax.jit(Dense().perturb)(mean, sigma, z)
        assert (population["a"].dtype, population["b"].dtype) == (jnp.float32, jnp.float64)
        np.testing.assert_array_equal(population["b"], [0.1] * 3 + [-0.1] * 3)


def test_weighted_sum_is_the_sum_of_the_members_times_their_weights(key):
    population = draw(key, {"a": jnp.zeros((2, 3)), "b": [jnp.zeros(()), jnp.zeros((0, 2))]}, num_samples=5)
    weights = jnp.array([0.5, -1.0, 2.0, 0.0, 3.0])
    total = jax.jit(weighted_sum)(weights, population)
    assert jax.tree.structure(total) == jax.tree.structure(population)
    for x, members in zip(jax.tree.leaves(total), jax.tree.leaves(population), strict=True):
        expected = sum(w * np.asarray(member, np.float64) for w, member in zip(weights, members, strict=True))
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
        assert x.dtype == members.dtype


def test_weighted_sum_is_in_the_precision_of_the_members(x64):
    population = {"a": jnp.ones((3, 2), jnp.float32), "b": jnp.ones((3, 2), jnp.bfloat16)}
    total = weighted_sum(jnp.array([1.0, 2.0, 3.0], jnp.float64), population)
    assert (total["a"].dtype, total["b"].dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_array_equal(total["a"], [6.0, 6.0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_clipped_std_can_be_squared_and_divided_by(dtype, x64):
    std = clip_std(jnp.array([0.0, jnp.inf, 1e-30, 0.1, 1e15], dtype))
    assert std.dtype == dtype
    for value in (std, std**2, 1 / std):
        assert np.all(np.isfinite(value))
        assert np.all(value > 0)
    np.testing.assert_array_equal(std[3:], jnp.array([0.1, 1e15], dtype))
