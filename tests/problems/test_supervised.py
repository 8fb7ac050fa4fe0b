"""Tests classification: the digits, networks, and the IDX files of the MNIST family."""

import gzip
import re
import shutil
import struct

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

import zoo
from zoo.core.grouping import group_keys
from zoo.problems.networks import CNN, MLP, FunctionNetwork, make_network
from zoo.problems.supervised.classification import Classification
from zoo.problems.supervised.idx import _read_idx, load_idx_dataset


def init_linear(key, inputs):
    num_inputs = np.prod(inputs.shape[1:])
    return {"w": 0.3 * jax.random.normal(key, (num_inputs, 10)), "b": jnp.linspace(-0.5, 0.5, 10)}


def apply_linear(params, inputs):
    return inputs.reshape(inputs.shape[0], -1) @ params["w"] + params["b"][None]


LINEAR = FunctionNetwork(init_linear, apply_linear)


def by_hand(params, inputs, labels):
    """Returns cross-entropy and error of the linear network, in NumPy with double precision."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    logits = np.asarray(inputs, np.float64).reshape(len(inputs), -1) @ params["w"] + params["b"]
    log_norm = np.log(np.sum(np.exp(logits), axis=1))
    cross_entropy = np.mean(log_norm - logits[np.arange(len(labels)), labels])
    return cross_entropy, np.mean(np.argmax(logits, axis=1) != labels)


# Digits


def test_digits_split_is_fixed():
    """The split is a partition of scikit-learn's images in a fixed order: each image is in it once."""
    problem = zoo.make_problem("supervised/digits")
    train, test = np.asarray(problem.train_inputs), np.asarray(problem.test_inputs)
    labels = np.concatenate([problem.train_labels, problem.test_labels])
    assert train.shape == (1437, 8, 8, 1)
    assert test.shape == (360, 8, 8, 1)
    assert train.dtype == test.dtype == np.float32
    assert problem.train_labels.dtype == problem.test_labels.dtype == np.int32

    data = sklearn.datasets.load_digits()
    order = np.random.RandomState(0).permutation(1797)
    np.testing.assert_array_equal(np.concatenate([train, test])[..., 0], np.float32(data.images[order] / 16))
    np.testing.assert_array_equal(labels, data.target[order])
    assert (train.min(), train.max()) == (0, 1)
    # Recorded values of this split, so that a change is noticed.
    np.testing.assert_array_equal(labels[:8], [2, 8, 2, 6, 6, 7, 1, 9])
    np.testing.assert_array_equal(labels[-4:], [3, 7, 7, 8])
    again = zoo.make_problem("supervised/digits", batch_size=None)
    np.testing.assert_array_equal(again.train_inputs, problem.train_inputs)


@pytest.mark.parametrize("loss", ["cross_entropy", "error"])
def test_fitness_on_the_whole_training_set(loss, key):
    problem = zoo.make_problem("supervised/digits", network=LINEAR, batch_size=None, loss=loss)
    params = jax.jit(problem.initial_solution)(key)
    fitness = jax.jit(problem.fitness)
    expected = by_hand(params, problem.train_inputs, problem.train_labels)[loss == "error"]
    np.testing.assert_allclose(fitness(key, params), expected, rtol=1e-5)
    np.testing.assert_array_equal(fitness(jax.random.key(1), params), fitness(key, params))
    assert problem.differentiable == (loss == "cross_entropy")


def test_fitness_on_a_minibatch_is_drawn_by_the_groups_key(key):
    problem = zoo.make_problem("supervised/digits", network=LINEAR, batch_size=16)

    @jax.jit
    def evaluate():
        params = problem.initial_solution(key)
        population = jax.tree.map(lambda x: jnp.stack([x, x, 2 * x, x]), params)
        state = problem.init(key, zoo.Groups(np.array([0, 1, 1, 0])), params)
        indices = jax.vmap(lambda k: jax.random.randint(k, (16,), 0, 1437))(group_keys(key, 2))
        return population, problem.evaluate(key, population, state)[0].fitness, indices

    population, fitness, indices = jax.tree.map(np.asarray, evaluate())
    inputs, labels = np.asarray(problem.train_inputs), np.asarray(problem.train_labels)
    assert fitness[0] == fitness[3]
    assert fitness[0] != fitness[1]  # another group has another minibatch
    for member, group in enumerate([0, 1, 1, 0]):
        own = jax.tree.map(lambda x, member=member: x[member], population)
        expected, _ = by_hand(own, inputs[indices[group]], labels[indices[group]])
        np.testing.assert_allclose(fitness[member], expected, rtol=1e-5)


def test_minibatches_are_drawn_from_the_whole_training_set(key):
    """A classifier that is wrong on half of the images has a mean error of 1/2, within 5 sigma."""
    num = 50
    problem = Classification(
        network=FunctionNetwork(lambda key, x: jnp.zeros(1), lambda w, x: jnp.stack([0 * x[:, 0], w * x[:, 0]], 1)),
        train_inputs=jnp.asarray(np.linspace(-1.0, 1.0, num, dtype=np.float32)[:, None]),
        train_labels=jnp.asarray(np.ones(num, np.int32)),
        test_inputs=np.full((3, 1), np.nan, np.float32),
        test_labels=np.zeros(3, np.int32),
        loss="error",
        batch_size=4000,
    )
    error = jax.jit(problem.fitness)(key, np.ones(1, np.float32))  # half of the inputs are negative
    assert abs(error - 0.5) < 5 * np.sqrt(0.25 / 4000)


def test_score_is_on_the_test_set(key):
    problem = zoo.make_problem("supervised/digits", network=LINEAR, batch_size=4)
    params = jax.jit(problem.initial_solution)(key)
    cross_entropy, error = by_hand(params, problem.test_inputs, problem.test_labels)
    score = jax.jit(lambda p: problem.evaluate_score(key, p, problem.init(key, zoo.Groups.of(2), p)))(params)
    assert set(score) == {"test_accuracy", "test_loss"}
    np.testing.assert_allclose(score["test_accuracy"], 1 - error, rtol=1e-6)
    np.testing.assert_allclose(score["test_loss"], cross_entropy, rtol=1e-5)
    assert (problem.headline, problem.maximize) == ("test_accuracy", True)


def test_surrogate_gradient_is_none_for_the_error(key):
    for loss in ("cross_entropy", "error"):
        problem = zoo.make_problem("supervised/digits", network=LINEAR, loss=loss)
        state = jax.jit(lambda p=problem: p.init(key, zoo.Groups.of(2), p.initial_solution(key)))()
        assert (problem.surrogate_gradient(key, state) is None) == (loss == "error")


def test_bytes_are_divided_by_255(key):
    inputs = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    common = {"network": LINEAR, "train_labels": np.array([1, 2, 3]), "test_labels": np.array([0, 1, 2])}
    fitness = {}
    for name, x in (("bytes", jnp.asarray(inputs)), ("floats", jnp.asarray(inputs / 255, jnp.float32))):
        problem = Classification(train_inputs=x, test_inputs=x, batch_size=None, **common)
        params = jax.jit(problem.initial_solution)(key)
        fitness[name] = (jax.jit(problem.fitness)(key, params), jax.jit(problem.score)(key, params)["test_loss"])
    np.testing.assert_allclose(fitness["bytes"], fitness["floats"], rtol=1e-6)


# Networks


def test_mlp(key):
    """An MLP with two hidden layers and tanh equals NumPy."""
    problem = zoo.make_problem("supervised/digits", hidden=(5, 4), activation="tanh")
    params = jax.device_get(jax.jit(problem.initial_solution)(key))
    layers = [params["params"][f"Dense_{i}"] for i in range(3)]
    assert [layer["kernel"].shape for layer in layers] == [(64, 5), (5, 4), (4, 10)]
    x = np.asarray(problem.test_inputs)[:7]
    hidden = x.reshape(7, 64)
    for layer in layers[:-1]:
        hidden = np.tanh(hidden @ layer["kernel"] + layer["bias"])
    expected = hidden @ layers[-1]["kernel"] + layers[-1]["bias"]
    np.testing.assert_allclose(jax.jit(problem.network.apply)(params, x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
def test_activations(activation):
    network = make_network("mlp", 1, hidden=(1,), activation=activation)
    one = {"kernel": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
    x = np.array([[-1.5], [0.7]], np.float32)
    outputs = jax.jit(network.apply)({"params": {"Dense_0": one, "Dense_1": one}}, x)
    np.testing.assert_allclose(outputs, jax.jit(getattr(jax.nn, activation))(x), rtol=1e-6)


def test_cnn(key):
    problem = zoo.make_problem("supervised/digits", network="cnn", hidden=(2, 3), batch_size=4)
    params = jax.jit(problem.initial_solution)(key)
    shapes = jax.tree.map(jnp.shape, params["params"])
    assert shapes["Conv_0"]["kernel"] == (5, 5, 1, 2)
    assert shapes["Conv_1"]["kernel"] == (5, 5, 2, 3)
    assert shapes["Dense_0"]["kernel"] == (2 * 2 * 3, 10)  # 8 x 8, pooled twice
    fitness = jax.jit(problem.fitness)
    one, other = (float(fitness(k, params)) for k in (key, jax.random.key(1)))
    assert abs(one - np.log(10)) < 1.5  # an untrained network guesses
    assert abs(one - other) > 1e-4


def test_a_flax_module_of_ones_own(key):
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(10)(x.mean(axis=(1, 2)))

    problem = zoo.make_problem("supervised/digits", network=Own(), batch_size=4)
    params = jax.eval_shape(problem.initial_solution, key)
    assert params["params"]["Dense_0"]["kernel"].shape == (1, 10)
    assert jax.eval_shape(problem.fitness, key, params).shape == ()


def test_networks_are_equal_by_value():
    """An equal problem compiles no new program."""
    for network, kind in (("mlp", MLP), ("cnn", CNN)):
        one, two, other = (make_network(network, 3, hidden=h, activation="relu") for h in ((4,), [4], (5,)))
        assert isinstance(one, kind)
        assert one == two
        assert hash(one) == hash(two)
        assert one != other
    assert make_network("mlp", 3, hidden=4, activation="relu") == MLP((4, 3), "relu")
    assert FunctionNetwork(init_linear, apply_linear) == LINEAR


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"network": "resnet"}, ValueError, r"network must be 'mlp', 'linear', 'cnn' or a network of your own"),
        (
            {"network": apply_linear},
            TypeError,
            r"must have init\(key, inputs\) and apply\(params, inputs\).*Got function",
        ),
        ({"network": None}, TypeError, r"FunctionNetwork\(init, apply\). Got NoneType"),
        ({"activation": "swish"}, ValueError, r"activation must be one of relu, tanh, gelu, silu, got 'swish'"),
        ({"hidden": (4, 0)}, ValueError, r"hidden must be positive whole numbers, one per layer, got \(4, 0\)"),
        ({"hidden": (2.5,)}, ValueError, r"hidden must be positive whole numbers, one per layer, got \(2.5,\)"),
        ({"loss": "hinge"}, ValueError, r"Classification.loss must be 'cross_entropy' or 'error', got 'hinge'"),
        ({"batch_size": 0}, ValueError, r"Classification.batch_size must be at least 1, got 0"),
        ({"batch_size": 2.5}, TypeError, r"Classification.batch_size must be a whole number, got 2.5"),
    ],
)
def test_invalid_settings(settings, error, message):
    with pytest.raises(error, match=message):
        zoo.make_problem("supervised/digits", **settings)


def test_sizes_may_be_numpy_integers(key):
    problem = zoo.make_problem("supervised/digits", hidden=(np.int64(3),), batch_size=np.int64(4))
    assert jax.eval_shape(problem.initial_solution, key)["params"]["Dense_0"]["kernel"].shape == (64, 3)


@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_that_do_not_match_the_inputs(part):
    x, y = np.zeros((4, 2), np.float32), np.zeros(4, np.int32)
    arrays = {"train_inputs": x, "train_labels": y, "test_inputs": x, "test_labels": y, f"{part}_labels": y[:3]}
    with pytest.raises(ValueError, match=rf"one label per input, got {part}_inputs \(4, 2\) and {part}_labels \(3,\)"):
        Classification(network=LINEAR, **arrays)


# IDX files


@pytest.fixture
def folder(idx_folder, tmp_path):
    """Returns a copy of the data folder that a test may damage."""
    shutil.copytree(idx_folder, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize(("number", "name"), enumerate(["mnist", "fashion_mnist", "kmnist"]))
def test_mnist_family(number, name, idx_folder, monkeypatch, key):
    """Plain files (mnist) and gzipped ones (the others) load, from a given folder or from the environment."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (size, 28, 28)) for _ in range(3) for size in (20, 10)]
    monkeypatch.delenv("ZOO_DATA", raising=False)
    given = zoo.make_problem(f"supervised/{name}", data_dir=idx_folder, hidden=(2,))
    monkeypatch.setenv("ZOO_DATA", str(idx_folder))
    found = zoo.make_problem(f"supervised/{name}", hidden=(2,))
    inside = zoo.make_problem(f"supervised/{name}", data_dir=idx_folder / name, hidden=(2,))
    for problem in (given, found, inside):
        assert problem.train_inputs.dtype == np.uint8
        np.testing.assert_array_equal(np.asarray(problem.train_inputs)[..., 0], arrays[2 * number])
        np.testing.assert_array_equal(np.asarray(problem.test_inputs)[..., 0], arrays[2 * number + 1])
        np.testing.assert_array_equal(problem.train_labels, np.arange(20) % 10)
        np.testing.assert_array_equal(problem.test_labels, np.arange(10))
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(given.initial_solution, key))
    assert shapes["params"]["Dense_0"]["kernel"] == (784, 2)


def test_data_dir_goes_before_the_environment(idx_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    assert zoo.make_problem("supervised/mnist", data_dir=str(idx_folder)).train_inputs.shape == (20, 28, 28, 1)


def test_home_is_expanded(idx_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(idx_folder.parent))
    assert len(load_idx_dataset("mnist", f"~/{idx_folder.name}")) == 4


def test_no_data_folder(monkeypatch):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"'mnist'.*data_dir=.*\$ZOO_DATA.*mnist/train-images-idx3-ubyte"):
        zoo.make_problem("supervised/mnist")


@pytest.mark.parametrize("part", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
def test_missing_file(part, folder):
    (folder / "mnist" / f"{part}-ubyte").unlink()
    with pytest.raises(FileNotFoundError) as error:
        zoo.make_problem("supervised/mnist", data_dir=folder)
    message = str(error.value)
    assert f"{part}-ubyte or {part}-ubyte.gz" in message
    assert str(folder / "mnist") in message
    assert re.search(rf"{re.escape(str(folder))}[.,\s]", message)
    assert "'mnist'" in message


def read_error(path, num_axes=3):
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        _read_idx(path, num_axes)
    return str(error.value)


@pytest.mark.parametrize(
    ("header", "got"),
    [
        (b"\x00\x00\x08\x01", "00000801"),  # labels instead of images
        (b"\x00\x00\x0d\x03", "00000d03"),  # floats instead of bytes
        (b"PNG!", "504e4721"),
        (b"", "an empty file"),
    ],
)
def test_wrong_magic_number(header, got, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(header + bytes(40) if header else b"")
    assert f"expected magic number 00000803, got {got}" in read_error(path)


def test_wrong_magic_number_of_labels(folder):
    path = folder / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes((folder / "mnist" / "train-images-idx3-ubyte").read_bytes())
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*expected magic number 00000801, got 00000803"):
        zoo.make_problem("supervised/mnist", data_dir=folder)


@pytest.mark.parametrize("change", [-1, 1, -1000])
def test_truncated_or_too_long(change, folder):
    path = folder / "mnist" / "train-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    size = 16 + 20 * 28 * 28
    message = read_error(path)
    assert f"should have {size} bytes for shape (20, 28, 28), but has {size + change}" in message


def test_truncated_header(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(struct.pack(">HBBI", 0, 8, 3, 20))
    assert "expected a header of 16 bytes, got 8" in read_error(path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "header only", "checksum"])
def test_damaged_gzip(damage, folder):
    path = folder / "kmnist" / "t10k-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        content[10] ^= 0xFF
    elif damage == "header only":
        content = content[:2]
    else:
        content[-5] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "damaged gzip" in read_error(path)
    with pytest.raises(ValueError, match="damaged gzip"):
        zoo.make_problem("supervised/kmnist", data_dir=folder)


def test_gzip_is_told_by_its_first_bytes_not_by_its_name(folder):
    path = folder / "mnist" / "train-images-idx3-ubyte"
    plain = _read_idx(path, 3)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(_read_idx(path, 3), plain)


def test_label_count_that_does_not_match(folder):
    path = folder / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">HBBI", 0, 8, 1, 9) + bytes(9))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has 9 labels for 10 images"):
        zoo.make_problem("supervised/mnist", data_dir=folder)
