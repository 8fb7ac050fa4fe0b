"""The rules of `LowRankArray` against the dense array, and models of four libraries that do not know `LowRankArray`."""

import contextlib
import itertools
import warnings

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quax
from flax import nnx

import zoo
from zoo.core.promotion import promotion_of_others
from zoo.strategies.perturbations import LowRank
from zoo.strategies.perturbations.low_rank_array import LowRankArray, array

# Optional parts of an array besides base and factors.
EXTRAS = {
    "plain": {},
    "directions": {"num_directions": 2},
    "mask": {"masked": True},
    "directions and mask": {"num_directions": 2, "masked": True},
}
EACH_EXTRA = pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)


@pytest.fixture(autouse=True)
def no_fall_back(monkeypatch):
    """Makes every fallback warn as if it were the first, and turns every warning into an error."""
    monkeypatch.setattr(array, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(shape, num_columns=1, *, rank=2, num_directions=0, masked=False):
    """Returns a low-rank array with random parts."""
    rng = np.random.default_rng(len(shape))
    num_rows = len(shape) - num_columns

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return LowRankArray(
        base=normal(*shape),
        directions=normal(*shape, num_directions) if num_directions else None,
        coefficients=normal(num_directions) if num_directions else None,
        left=normal(*shape[:num_rows], rank),
        right=normal(*shape[num_rows:], rank),
        mask=jnp.asarray(rng.random(shape) < 0.5, jnp.float32) if masked else None,
        num_columns=num_columns,
    )


def by_hand(w):
    """Returns the dense array, in NumPy."""
    num_rows = w.base.ndim - w.num_columns
    left, right = (np.asarray(x, float).reshape(-1, x.shape[-1]) for x in (w.left, w.right))
    assert w.left.shape[:-1] == w.base.shape[:num_rows]
    assert w.right.shape[:-1] == w.base.shape[num_rows:]
    assert w.mask is None or w.mask.shape == w.base.shape
    product = (left @ right.T).reshape(w.base.shape) * (1 if w.mask is None else w.mask)
    along = 0 if w.directions is None else np.asarray(w.directions) @ np.asarray(w.coefficients)
    return jnp.asarray(w.base + product + along, jnp.float32)


def is_low_rank(x):
    return isinstance(x, LowRankArray)


def as_arrays(tree):
    return jax.tree.map(lambda x: by_hand(x) if is_low_rank(x) else x, tree, is_leaf=is_low_rank)


def check(fn, *args, stays_low=None):
    """Checks that a function returns the same for low-rank arrays as for the dense arrays.

    Args:
        fn: The function.
        *args: Its arguments.
        stays_low: Whether the result must be of low rank. With `None`, both are fine.
    """
    expected = jax.jit(fn)(*as_arrays(args))
    got = jax.jit(quax.quaxify(fn))(*args)
    if stays_low is not None:
        assert all(is_low_rank(x) == stays_low for x in jax.tree.leaves(got, is_leaf=is_low_rank))
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-4), as_arrays(got), expected)


@contextlib.contextmanager
def falls_back(*operations):
    """Expects one warning for each of the operations, and no other warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    names = [
        str(warning.message).removeprefix("The operation ").split(" has no low-rank rule")[0] for warning in caught
    ]
    assert sorted(names) == sorted(operations)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


# Products


def products(w):
    """Yields every product of a three-axis array with another: each axis is contracted, a batch axis, or neither."""
    for roles in itertools.product("cbf", repeat=3):
        own, batch = ([axis for axis in range(3) if roles[axis] == role] for role in "cb")
        # The other array has the shared axes in reverse order, around one axis of its own.
        shared = [w.base.shape[axis] for axis in (*own, *batch)][::-1]
        place = len(shared) // 2
        x = normal(*shared[:place], 3, *shared[place:])
        axes = [i for i in range(len(shared) + 1) if i != place][::-1]
        other, other_batch = axes[: len(own)], axes[len(own) :]
        yield (w, x), ((own, other), (batch, other_batch))
        yield (x, w), ((other, own), (other_batch, batch))


@EACH_EXTRA
@pytest.mark.parametrize(("shape", "rank"), [((2, 4, 5), 2), ((3, 3, 3), 3)], ids=["distinct", "equal"])
@pytest.mark.parametrize("num_columns", [1, 2])
def test_products(shape, rank, num_columns, extra):
    """Products along any axes are right. If all sizes are equal, only the numbers can show a mix-up, not the shapes."""
    pairs, numbers = zip(*products(make(shape, num_columns, rank=rank, **extra)), strict=True)

    def all_products(pairs):
        return [jax.lax.dot_general(x, y, each) for (x, y), each in zip(pairs, numbers, strict=True)]

    with falls_back("dot_general") if "masked" in extra else contextlib.nullcontext():
        check(all_products, pairs, stays_low=False)


def test_product_of_two():
    with falls_back("dot_general"):
        check(lambda v, w: (v @ w, w.T @ v.T), make((3, 3), rank=1), make((3, 4)))


# What moves or scales the entries


@EACH_EXTRA
@pytest.mark.parametrize(("shape", "rank"), [((2, 4, 5), 2), ((3, 3, 3), 3)], ids=["distinct", "equal"])
def test_stays_of_low_rank(shape, rank, extra):
    """Operations that a model may apply to a kernel keep it of low rank, scaling along rows or columns included."""
    w, i = make(shape, 2, rank=rank, **extra), jnp.asarray(1)
    rows, *columns = shape

    def moved(w, i):
        return [
            w.transpose(0, 2, 1),
            w.transpose(1, 2, 0),
            w.transpose(2, 1, 0),
            w.reshape(rows, -1),
            w.reshape(rows, -1).T,
            w.reshape(1, rows, *columns, 1),
            w[:, None, :, 1:2].squeeze(3),
            w[1:, :, ::2],
            w[:, 1:2],
            jax.lax.dynamic_slice(w, (i, i, i), (1, 2, 2)),
            jax.lax.dynamic_index_in_dim(w, i, 2, keepdims=False),
            2 * -w / 3,
            w * jnp.arange(w.size, dtype=w.dtype).reshape(w.shape),
            (jnp.arange(w.shape[2], dtype=w.dtype)[None, None] * (w * i.astype(w.dtype))).T / w.shape[0],
            w[..., None].transpose(0, 3, 1, 2) / jnp.arange(1.0, 1 + rows)[:, None, None, None],
            w.astype(jnp.float32),
            jnp.copy(w),
            jax.lax.stop_gradient(w),
        ]

    check(moved, w, i, stays_low=True)


@EACH_EXTRA
def test_lookup(extra):
    """A lookup returns an array, not a low-rank table: rows of an embedding, columns, entries, and out of bounds."""
    table = make((7, 3), **extra)
    indices = jnp.array([[0, 6, -1], [3, 3, 9]])

    def look_up(table, indices):
        return [jnp.take(table, i, axis=0) for i in (indices, indices[0], indices[0, 0])] + [
            table[indices],
            table[indices[0, 1]],
            table[2],
            table[:, indices - 7],
            table[indices, indices // 5],
            jax.vmap(lambda i: table[i])(indices),
            jax.vmap(lambda row, i: row[i], in_axes=(None, 0))(table.T, indices[0] % 3),
            table.at[indices].get(mode="fill", fill_value=5),
            table.at[indices, -1].get(mode="clip"),
        ]

    check(look_up, table, indices, stays_low=False)
    check(lambda w, i: (w[i], w[:, i], w[:, :, i], w[i, :, i]), make((9, 9, 9), 2, **extra), indices, stays_low=False)


def test_row_of_a_matrix_is_an_array():
    """A row of a matrix becomes a plain array, because a vector gains nothing from factors."""
    w, i = make((6, 7)), jnp.asarray(2)
    check(
        lambda w, i: (w[3], w[:, 2], w[i], jax.lax.dynamic_index_in_dim(w, i, 1, keepdims=False)), w, i, stays_low=False
    )


def test_bias_and_scale():
    """Biases and scales with several axes (as in attention heads) work, and broadcast against a larger activation."""
    bias, x = make((3, 4), num_directions=1), normal(2, 5, 3, 4)
    with jax.numpy_rank_promotion("allow"):  # models add biases this way
        check(
            lambda b, x: (x + b, b + x, x - b, b - x, x * b, b * x[0, 0] + x, b / (1 + x**2)), bias, x, stays_low=False
        )


def test_half_precision():
    """`astype` converts all parts, and the product keeps its dtype."""
    low = quax.quaxify(lambda w: w.astype(jnp.bfloat16))(make((6, 7), num_directions=2, masked=True))
    assert {x.dtype for x in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}
    assert quax.quaxify(jnp.matmul)(jnp.ones((2, 6), jnp.bfloat16), low).dtype == jnp.bfloat16


# Control flow


@EACH_EXTRA
@pytest.mark.parametrize("shape", [(4, 6, 6), (3, 3, 3)], ids=["distinct", "equal"])
def test_scan_over_stacked_kernels(shape, extra):
    """A scan over stacked kernels is right, also if rank, stack, rows and columns are equal and shapes cannot tell."""
    x = normal(3, shape[1])

    def layers(w, x):
        return jax.lax.scan(lambda x, layer: (jnp.tanh(x @ layer), layer @ x[0]), x, w, reverse=True)

    check(layers, make(shape, 1, rank=3, **extra), x)
    check(layers, make(shape, 2, rank=3, **extra), x)  # with one row axis, each layer is a vector


def test_control_flow():
    """A kernel may be closed over, carried, and returned."""
    w, x = make((6, 6), num_directions=1), normal(5, 6)

    def everything(w, x):
        closed_over = jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), w[0]), x, length=3)
        looked_up = jax.lax.scan(lambda _, i: (w[i], (w[i], w * 2)), x[0], jnp.array([2, 5, 0]))
        repeated = jax.lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ w) + w[i][None], x)
        carried = jax.lax.fori_loop(0, 3, lambda _, c: (jnp.tanh(c[0] @ c[1]), c[1] - 0.1 * c[1].T), (x, w))
        until = jax.lax.while_loop(lambda x: jnp.sum((x @ w) ** 2) > 1, lambda x: (x @ w) / 1e3, x)
        chosen = jax.lax.cond(x[0, 0] > 0, lambda w: (x @ w, w), lambda w: (2 * x @ w, 0 * x[:1] + 0 * w), w)
        switched = jax.lax.switch(2, [lambda w: w, lambda w: 2 * w, lambda w: w.T], w)
        return closed_over, looked_up, repeated, carried, until, chosen, switched

    check(everything, w, x)


def test_transformations_within():
    """Kernels work in derivatives with respect to them, functions with custom derivatives, remat, jit and vmap."""
    w, x = make((6, 7)), normal(5, 6)

    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))

    @jax.custom_jvp
    def triple(x):
        return 3 * x

    triple.defjvp(lambda x, dx: (3 * x[0], 5 * dx[0]))

    def everything(w, x):
        def loss(w, x):
            return jnp.sum(jax.checkpoint(lambda w: jnp.tanh(triple(double(x) @ double(w)) / 9))(w) ** 2)

        return (
            jax.value_and_grad(loss, argnums=(0, 1))(w, x),
            jax.jvp(lambda x: jnp.sum(triple(x @ triple(w))), (x,), (x,)),
            jax.jit(lambda w, x: jax.nn.relu(x @ triple(w)))(w, x),
            jax.vmap(lambda x: x @ double(w))(x),
            jax.vmap(lambda x, row: x * row, in_axes=(0, 0))(x.T, w.T[:6, :5]),
        )

    check(everything, w, x)


# Convolutions

GEOMETRIES = {
    "same": {"window_strides": (1, 1), "padding": "SAME"},
    "strided": {"window_strides": (2, 2), "padding": "VALID"},
    "everything": {
        "window_strides": (2, 1),
        "padding": ((1, 2), (0, 3)),
        "lhs_dilation": (2, 1),
        "rhs_dilation": (1, 2),
    },
}
LAYOUTS = {  # shape of the kernel, columns, shape of the image
    ("NHWC", "HWIO", "NHWC"): ((3, 2, 3, 5), 1, (2, 8, 9, 3)),
    ("NCHW", "OIHW", "NCHW"): ((5, 3, 3, 2), 3, (2, 3, 8, 9)),
    ("NHWC", "OIHW", "NCHW"): ((3, 3, 3, 3), 3, (2, 8, 9, 3)),
}


@pytest.mark.parametrize("num_directions", [0, 2])
def test_convolution(num_directions):
    def convolve(kernels, images):
        return [
            jax.lax.conv_general_dilated(x, w, dimension_numbers=layout, **geometry)
            for layout, w, x in zip(LAYOUTS, kernels, images, strict=True)
            for geometry in GEOMETRIES.values()
        ]

    kernels = [make(shape, columns, num_directions=num_directions) for shape, columns, _ in LAYOUTS.values()]
    check(convolve, kernels, [normal(*shape) for _, _, shape in LAYOUTS.values()], stays_low=False)


def test_convolution_along_one_axis():
    w, x = make((3, 4, 5)), normal(2, 9, 4)
    check(lambda w, x: jax.lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")), w, x)


# What has no rule

WITHOUT_RULE = {
    "grouped": (
        lambda w: (
            jax.lax.conv(normal(1, 4, 5, 5), w, (1, 1), "SAME")
            if w.shape[1] == 4
            else jax.lax.conv_general_dilated(normal(1, 4, 5, 5), w, (1, 1), "SAME", feature_group_count=2)
        ),
        make((6, 2, 3, 3), 3),
        "conv_general_dilated",
    ),
    "masked": (
        lambda w: jax.lax.conv(normal(1, 2, 5, 5), w, (1, 1), "SAME"),
        make((6, 2, 3, 3), 3, masked=True),
        "conv_general_dilated",
    ),
    "divisor": (lambda w: jnp.ones((1, 7)) / w, make((6, 7)), "div"),
    "sum of two": (lambda w: w + 2 * w, make((6, 7)), "add"),
    "mixed": (lambda w: w.reshape(3, 14), make((6, 7)), "reshape"),
    "interleaved": (lambda w: w.transpose(0, 2, 1), make((3, 4, 5)), "transpose"),
    "repeated": (lambda w: jnp.broadcast_to(w, (2, 6, 7)), make((6, 7)), "broadcast_in_dim"),
    "integers": (lambda w: w.astype(int), make((6, 7)), "convert_element_type"),
    "elementwise": (lambda w: jnp.exp(w) + jnp.exp(w[:2, :2]).sum(), make((6, 7)), "exp"),
}


@pytest.mark.parametrize("name", WITHOUT_RULE)
def test_falls_back(name):
    """The result is right, and each operation warns only once, by name."""
    fn, w, operation = WITHOUT_RULE[name]
    with falls_back(operation):
        check(fn, w)
        check(lambda w: fn(2 * w), w)


# Models


def check_members(fn, solution, *, rank, batch_size=None):
    """Checks each member's result against the same function on the materialised member."""
    form = LowRank(rank=rank)
    noise = form.draw(jax.random.key(1), solution, 3)
    population = form.perturb(solution, jnp.asarray(0.5), noise)
    assert any(isinstance(x, tuple) for x in jax.tree.leaves(noise.rows, is_leaf=lambda x: isinstance(x, tuple)))

    @jax.jit
    def both(population):
        members = zoo.core.population.materialize(population)
        return zoo.map_members(fn, population, batch_size=batch_size), jax.vmap(fn)(members)

    got, expected = both(population)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-3, atol=1e-3), got, expected)
    assert all(np.ptp(x, axis=0).max() > 1e-3 for x in jax.tree.leaves(expected))


EACH_RANK = pytest.mark.parametrize("rank", [1, 2])
TOKENS = jnp.array([[3, 1, 4, 1], [5, 9, 2, 6]])


class LinenModel(linen.Module):
    """Embedding, attention, a recurrent cell under scan, stacked layers under scan, a convolution."""

    @linen.compact
    def __call__(self, tokens):
        embed = linen.Embed(12, 8)
        x = embed(tokens)
        x = x + linen.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)(linen.LayerNorm()(x))
        x = x + linen.RNN(linen.GRUCell(8))(x)
        layers = linen.scan(LinenLayer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3, unroll=1)
        x, _ = layers()(x, None)
        x = linen.Conv(8, (3,), feature_group_count=1)(x)
        return embed.attend(x), linen.DenseGeneral((2, 5), axis=(-2, -1))(x)


class LinenLayer(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return x + linen.Dense(8, use_bias=False)(jnp.tanh(linen.Dense(8)(x))), None


@EACH_RANK
def test_linen(rank):
    model = LinenModel()
    solution = model.init(jax.random.key(0), TOKENS)
    check_members(lambda x: model.apply(x, TOKENS), solution, rank=rank)


@pytest.mark.parametrize("num_groups", [1, 2])
def test_linen_convolutions(num_groups):
    """Convolutions in two dimensions and transposed are right. A convolution in groups has no rule."""
    avg_pool = promotion_of_others()(linen.avg_pool)  # it divides by an integer array
    images = normal(2, 7, 7, 4)
    model = linen.Sequential(
        [
            linen.Conv(6, (3, 3), strides=2, feature_group_count=num_groups),
            linen.relu,
            linen.ConvTranspose(8, (3, 3)),
            lambda x: avg_pool(x, (2, 2)).reshape(2, -1),
            linen.Dense(5),
        ]
    )
    solution = model.init(jax.random.key(0), images)
    with falls_back("conv_general_dilated") if num_groups > 1 else contextlib.nullcontext():
        check_members(lambda x: model.apply(x, images), solution, rank=1)


class NNXModel(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(12, 8, rngs=rngs)
        self.conv = nnx.Conv(8, 9, (3,), rngs=rngs)
        self.norm = nnx.LayerNorm(9, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=9, qkv_features=8, decode=False, rngs=rngs)
        self.recurrent = nnx.RNN(nnx.GRUCell(9, 8, rngs=rngs), rngs=rngs)
        self.linear = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, tokens):
        x = self.norm(nnx.relu(self.conv(self.embed(tokens))))
        states = jnp.asarray(self.recurrent(x + self.attention(x)))
        return self.embed.attend(states), self.linear(states)


@EACH_RANK
def test_nnx(rank):
    graph, solution, rest = nnx.split(NNXModel(nnx.Rngs(0)), nnx.Param, ...)
    check_members(lambda x: nnx.merge(graph, x, rest, copy=True)(TOKENS), solution, rank=rank)


class EquinoxModel(eqx.Module):
    embedding: eqx.nn.Embedding
    conv: eqx.nn.Conv2d
    attention: eqx.nn.MultiheadAttention
    cell: eqx.nn.GRUCell
    mlp: eqx.nn.MLP
    linear: eqx.nn.Linear

    def __init__(self, key):
        keys = iter(jax.random.split(key, 6))
        self.embedding = eqx.nn.Embedding(12, 8, key=next(keys))
        self.conv = eqx.nn.Conv2d(2, 4, 3, padding=1, key=next(keys))
        self.attention = eqx.nn.MultiheadAttention(2, 8, key=next(keys))
        self.cell = eqx.nn.GRUCell(8, 8, key=next(keys))
        self.mlp = eqx.nn.MLP(8, 6, width_size=8, depth=2, key=next(keys))
        self.linear = eqx.nn.Linear(6, 5, key=next(keys))

    def __call__(self, tokens):  # one sequence
        x = jax.vmap(self.embedding)(tokens)
        x = x + self.attention(x, x, x)
        x = self.conv(x.reshape(2, 4, 4)).reshape(8, 8)
        last, states = jax.lax.scan(lambda h, x: (self.cell(x, h), h), jnp.zeros(8), x)
        return jax.vmap(self.linear)(jax.vmap(self.mlp)(states)), last


@EACH_RANK
def test_equinox(rank):
    solution, rest = eqx.partition(EquinoxModel(jax.random.key(0)), eqx.is_inexact_array)
    check_members(lambda x: jax.vmap(eqx.combine(x, rest))(TOKENS), solution, rank=rank)


@EACH_RANK
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_plain_function(rank, batch_size):
    """A plain function works: lists of layers, inner gradient steps, a convolution, and a kernel used twice."""
    solution = {
        "layers": [(normal(6, 8), jnp.zeros(8)), (normal(8, 6), jnp.zeros(6))],
        "window": normal(3, 3, 2, 4),
        "shared": normal(6, 6) / 3,
    }
    x, images = normal(5, 6), normal(1, 5, 5, 2)

    def network(layers, x):
        for kernel, bias in layers:
            x = jnp.tanh(x @ kernel + bias[None])
        return x

    def fn(solution):
        def step(layers, _):
            gradient = jax.grad(lambda layers: jnp.mean((network(layers, x) - 0.5) ** 2))(layers)
            return jax.tree.map(lambda x, g: x - 0.1 * g, layers, gradient), None

        trained, _ = jax.lax.scan(step, solution["layers"], length=2)
        convolved = jax.lax.conv_general_dilated(
            images, solution["window"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        shared = solution["shared"]
        return network(trained, x @ shared) @ shared.T, convolved, trained[0][0]

    check_members(fn, solution, rank=rank, batch_size=batch_size)
