"""Host functions called by JAX: values, batching, and error messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo

MATRIX = np.arange(12.0, dtype=np.float32).reshape(2, 2, 3)


class Counter:
    """A function that remembers the shapes of its first argument."""

    def __init__(self, fn):
        self.fn = fn
        self.shapes = []

    def __call__(self, *args):
        self.shapes.append(args[0].shape)
        return self.fn(*args)


def running_sum(x, weights):
    """Returns structures of several dtypes, and overwrites its arguments."""
    assert type(x) is np.ndarray
    weights["w"] *= 2
    x += 1
    return {"sum": np.cumsum(x * weights["w"], axis=-1), "last": (x[..., -1] > 3, x.astype(np.float64).sum(-1))}


def expected_sums(x):
    x = np.array(x) + 1
    return {"sum": np.cumsum(x * 4, axis=-1), "last": (x[..., -1] > 3, x.sum(-1))}


def assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_allclose, tree, expected)


@pytest.mark.parametrize("vectorized", [False, True])
def test_values_and_batches(vectorized):
    count = Counter(running_sum)
    host = zoo.from_numpy(count, vectorized=vectorized)
    w = {"w": jnp.full(3, 2.0)}
    results = jax.block_until_ready(jax.jit(host)(MATRIX[0, 0], w))
    assert_equal(results, expected_sums(MATRIX[0, 0]))
    assert [results["sum"].dtype, results["last"][0].dtype, results["last"][1].dtype] == [np.float32, bool, np.float32]
    assert count.shapes == [(1, 3), (1, 3)] if vectorized else [(3,), (3,)]  # the first call finds the result's shape
    assert_equal(host(MATRIX[0, 0], w), expected_sums(MATRIX[0, 0]))  # without jit
    count.shapes.clear()
    nested = jax.jit(jax.vmap(jax.vmap(host, (0, None)), (0, None)))
    assert_equal(jax.block_until_ready(nested(MATRIX, w)), expected_sums(MATRIX))
    assert count.shapes == ([(4, 3)] if vectorized else [(3,)] * 4)
    np.testing.assert_array_equal(w["w"], 2.0)


def test_a_new_shape_is_looked_at_once():
    count = Counter(lambda x: x[:1])
    host = zoo.from_numpy(count)
    for size in (3, 3, 4, 3):
        assert host(jnp.ones(size)).shape == (1,)
    assert count.shapes == [(3,), (3,), (3,), (4,), (4,), (3,)]


def test_the_result_may_be_declared():
    """With a declared result, tracing does not call the function, and numbers of a lower kind are cast."""
    count = Counter(lambda x, n: (int(n), True, [1.5, 2.5]))
    spec = (jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))

    def result(x, n):
        assert (x.shape, n.dtype) == ((2,), jnp.int32)
        return (*spec, [jax.ShapeDtypeStruct((), jnp.float32)] * x.shape[0])

    host = zoo.from_numpy(count, result=result)
    traced = jax.jit(host).lower(jnp.ones(2), 3)
    assert not count.shapes
    del traced
    a, b, c = host(jnp.ones(2), 3)
    assert (a, b, c) == (3.0, 1, [1.5, 2.5])
    assert (a.dtype, b.dtype) == (jnp.float32, jnp.int32)


def test_double_precision(x64):
    host = zoo.from_numpy(lambda x: np.float64(0.1) * x)
    assert host(jnp.ones(2, jnp.float64)).dtype == jnp.float64
    np.testing.assert_array_equal(host(jnp.ones(2, jnp.float64)), 0.1)
    assert host(jnp.ones(2, jnp.float32)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(3, np.float32), r"must return shape \(2,\), got \(3,\)"),
        (np.zeros(2, complex), "must return dtype float32, got complex128"),
        (np.array(["a", "b"]), "must return dtype float32, got <U1"),
        ((np.zeros(2), np.zeros(2)), r"must return the structure \*, got \(\*, \*\)\. Declare"),
    ],
    ids=["shape", "dtype", "text", "structure"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_what_comes_back_is_checked(returned, message, compiled):
    host = zoo.from_numpy(lambda x: returned, result=jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(Exception, match=message) as error:
        np.asarray((jax.jit(host) if compiled else host)(jnp.ones(2)))
    assert "ValueError" in str(error.value)


def test_floats_are_not_cast_to_integers():
    host = zoo.from_numpy(lambda x: x, result=jax.ShapeDtypeStruct((2,), jnp.int32))
    with pytest.raises(Exception, match=r"must return dtype int32, got float32.*Cast it in the function"):
        np.asarray(host(jnp.ones(2)))


def test_a_batch_axis_must_come_back():
    with pytest.raises(ValueError, match=r"leading batch axis of the arguments, here of size 1, got shape \(\)"):
        zoo.from_numpy(np.sum, vectorized=True)(jnp.ones(2))
    host = zoo.from_numpy(lambda x: x[:1, 0], vectorized=True)
    with pytest.raises(Exception, match=r"must return shape \(4,\) \(batch axis first\), got \(1,\)"):
        np.asarray(jax.vmap(host)(jnp.ones((4, 2))))


def test_what_cannot_be_inferred_or_declared():
    with pytest.raises(ValueError, match="numeric arrays, got a leaf of dtype <U3"):
        zoo.from_numpy(lambda x: "abc")(1.0)
    with pytest.raises(TypeError, match="expects a function of NumPy arrays, got int"):
        zoo.from_numpy(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"pytree of jax\.ShapeDtypeStruct"):
        zoo.from_numpy(np.sin, result=[3])(1.0)


def fragile_solver(x):
    if x.sum() == 0:
        raise KeyError("no solution at zero")
    if x.sum() > 5:
        raise LookupError("diverged at seven")
    return x


def test_errors_of_the_function_surface():
    with pytest.raises(KeyError, match="no solution at zero") as error:
        zoo.from_numpy(fragile_solver)(jnp.ones(2))
    assert "on zeros of shapes [(2,)]" in error.value.__notes__[0]
    host = zoo.from_numpy(fragile_solver, result=jax.ShapeDtypeStruct((1,), jnp.float32))
    soft = zoo.smooth(host, sigma=1e-3, num_samples=2)
    x = jnp.full(1, 7.0)
    calls = [host, jax.jit(host), lambda x: jax.vmap(host)(x[None]), lambda x: soft(jax.random.key(0), x)]
    for call in calls:
        with pytest.raises(jax.errors.JaxRuntimeError) as error:
            jax.block_until_ready(call(x))
        for part in ("LookupError: diverged at seven", "in fragile_solver", "test_callback.py"):
            assert part in str(error.value)


@pytest.mark.parametrize("vectorized", [False, True])
def test_smoothed_it_has_a_gradient(vectorized, key):
    count = Counter(lambda x, table: (np.sum(np.sign(x), axis=-1), np.argmax(table, axis=-1)))
    host = zoo.from_numpy(count, vectorized=vectorized)
    table = jnp.arange(4.0)

    def traceable(x, table):
        return jnp.sum(jnp.sign(x)), jnp.argmax(table)

    x = jax.random.normal(key, (3, 5))
    gradients = []
    for fn in (host, traceable):
        soft = zoo.smooth(fn, sigma=0.5, num_samples=4)

        def loss(x, table, soft=soft):
            keys = jax.random.split(key, 3)
            return jnp.sum(jax.vmap(soft, (0, 0, None))(keys, x, table)[0] ** 2)

        gradients.append(jax.jit(jax.grad(loss))(x, table))
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-5)
    assert np.any(gradients[0])
    if vectorized:  # one call for the result's shape, one for the forward pass, one for all samples of all examples
        assert count.shapes == [(1, 5), (3, 5), (12, 5)]


def test_there_is_no_derivative_and_the_message_says_what_to_do(key):
    host = zoo.from_numpy(lambda x, w: x * w)
    soft = zoo.smooth(host, sigma=0.5, num_samples=2)
    x, w = jnp.ones(2), jnp.full(2, 3.0)
    for transform in (lambda f: f, jax.jit):
        with pytest.raises(TypeError, match=r"no derivative.*stop_gradient.*zoo\.smooth\(fn"):
            transform(jax.grad(lambda x: jnp.sum(host(x, w))))(x)
        with pytest.raises(TypeError, match=r"put the inputs that need a gradient in x .*stop_gradient"):
            transform(jax.grad(lambda w: jnp.sum(soft(key, x, w))))(w)
        stopped = transform(jax.grad(lambda w: jnp.sum(soft(key, x, jax.lax.stop_gradient(w)) * w)))(w)
        np.testing.assert_array_equal(stopped, [3.0, 3.0])
    # Only inputs of the host function have no derivative. Here w is multiplied outside of it.
    outside = zoo.smooth(lambda x, w: host(x, 2.0) * w, sigma=0.5, num_samples=2)
    np.testing.assert_array_equal(jax.grad(lambda w: jnp.sum(outside(key, x, w)))(w), [2.0, 2.0])
    # `find_sigma` does not need a derivative of the function, also at a point that is differentiated.
    assert jax.grad(lambda x: soft.find_sigma(key, x, w) * jnp.sum(x))(x).shape == (2,)
