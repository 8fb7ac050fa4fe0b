"""Tests sparse networks: exactly the highest scores of each layer are kept, for any scores."""

import itertools
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import zoo
from tests.faults import gathered, hostile_arrays, write_zip
from zoo.problems.networks import CNN, MLP
from zoo.problems.supervised.sparse import SparseNetwork, load_sparse, num_kept, top_masks

NUMBERS = st.floats(width=32, allow_subnormal=False) | st.sampled_from([0.0, -0.0, 1.0])
INPUTS = jnp.linspace(0, 1, 3 * 64).reshape(3, 8, 8, 1)


def make(density=0.1, block=(1, 1), network=None, **settings):
    network = SparseNetwork(network or MLP((12, 10)), density, block, **settings)
    return network, network.init(jax.random.key(0), INPUTS)


@settings(max_examples=60, deadline=None)
@given(npst.arrays(np.float32, 17, elements=NUMBERS), st.integers(1, 17))
def test_mask_keeps_exactly_the_highest(scores, count):
    mask = np.asarray(top_masks([jnp.asarray(scores)], [jnp.asarray(count)])[0])
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")  # among equal scores, the first
    expected = np.zeros(17, bool)
    expected[order[:count]] = True
    np.testing.assert_array_equal(mask, expected)


def test_mask_of_many_members(x64):
    scores = jax.random.normal(jax.random.key(0), (4, 30, 40), jnp.float64)
    masks = jax.jit(jax.vmap(lambda s: top_masks([s], [60])[0]))(scores)
    for mask, row in zip(masks, scores, strict=True):
        assert mask.sum() == 60
        assert row[mask].min() > row[~mask].max()


@pytest.mark.parametrize("network", [MLP((12, 10)), CNN((4, 8), 10, hidden=(16,))])
@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_every_layer_keeps_its_share(network, density):
    sparse, params = make(density, network=network)
    masks = sparse.masks(params)
    masked = sparse.masked_weights(params)["params"]
    assert len(masks) == sum(x.ndim >= 2 for x in jax.tree.leaves(params["weights"]))
    for path, mask in masks.items():
        _, layer, name = path.split("/")
        assert mask.sum() == max(round(mask.size * density), 1)
        assert np.count_nonzero(masked[layer][name]) == mask.sum()
        np.testing.assert_allclose(
            masked[layer][name][mask],
            params["weights"]["params"][layer][name][mask] * np.sqrt(mask.size / mask.sum()),
            rtol=1e-6,
        )
        np.testing.assert_array_equal(masked[layer]["bias"], params["weights"]["params"][layer]["bias"])


@pytest.mark.parametrize("block", [(4, 1), (1, 4), (8, 5), 3])
def test_blocks_are_kept_or_dropped_whole(block):
    sparse, params = make(0.25, block)
    rows, columns = sparse.block
    for path, mask in sparse.masks(params).items():
        scores = params["scores"][path]
        assert scores.shape == (-(-mask.shape[0] // rows), -(-mask.shape[1] // columns))
        kept = np.asarray(top_masks([scores], [num_kept(scores.size, 0.25)])[0])
        for (i, j), keep in np.ndenumerate(kept):
            assert np.all(mask[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] == keep)


def test_all_of_it_is_the_plain_network():
    sparse, params = make(1.0)
    np.testing.assert_array_equal(sparse.apply(params, INPUTS), sparse.network.apply(params["weights"], INPUTS))


def test_gradient_reaches_the_kept_weights_alone():
    sparse, params = make(0.2)
    gradient = jax.grad(lambda p: jnp.sum(sparse.apply(p, INPUTS) ** 2))(params)
    assert not any(np.any(g) for g in jax.tree.leaves(gradient["scores"]))
    mask = sparse.masks(params)["params/Dense_1/kernel"]
    kernel = np.asarray(gradient["weights"]["params"]["Dense_1"]["kernel"])
    assert np.any(kernel[mask])
    assert not np.any(kernel[~mask])


def test_activations_keep_their_size():
    """The mean variance of a linear layer's output, over masks and weights, does not depend on the density."""
    inputs = jax.random.normal(jax.random.key(1), (1, 400))

    def variance(density):
        network = SparseNetwork(MLP((50,)), density)
        outputs = jax.vmap(lambda k: network.apply(network.init(k, inputs), inputs))(
            jax.random.split(jax.random.key(2), 40)
        )
        return float(np.var(outputs))

    # The variance of 2 000 outputs is known to about 3 % (one sigma), and a little less well with few weights.
    assert variance(0.05) == pytest.approx(variance(1.0), rel=0.25)


def test_layers_that_stay_dense():
    sparse, params = make(0.1, dense="Dense_1")
    assert list(params["scores"]) == ["params/Dense_0/kernel"]
    assert list(sparse.report(params).layer) == ["params/Dense_0/kernel", "all"]
    with pytest.raises(ValueError, match=r"expects a leaf of two or more dimensions .*, got params/Dense_0/bias"):
        make(0.1, dense="Dense")


def test_report():
    sparse, params = make(0.1)
    report = sparse.report(params).set_index("layer")
    assert report.loc["params/Dense_0/kernel"].to_dict() == {"kept": 77, "total": 768, "fraction": 77 / 768}
    assert report.loc["all", "kept"] == 77 + 12
    assert report.loc["all", "total"] == 768 + 120


def test_export_and_load(tmp_path):
    sparse, params = make(0.1)
    sparse.export(params, tmp_path / "model.npz")
    plain = sparse.network.init(jax.random.key(9), INPUTS)
    loaded = load_sparse(tmp_path / "model.npz", plain)
    np.testing.assert_array_equal(sparse.network.apply(loaded, INPUTS), sparse.apply(params, INPUTS))
    assert (tmp_path / "model.npz").stat().st_size < sum(x.nbytes for x in jax.tree.leaves(plain))
    with pytest.raises(ValueError, match=r"but the network has params/Conv_0/bias"):
        load_sparse(tmp_path / "model.npz", CNN((2,), 10).init(jax.random.key(0), INPUTS))
    with pytest.raises(ValueError, match=r"kernel of shape \(64, 12\), but the network's is \(64, 13\)|bias of shape"):
        load_sparse(tmp_path / "model.npz", MLP((13, 10)).init(jax.random.key(0), INPUTS))


def test_a_damaged_or_hostile_file_is_named(tmp_path):
    sparse, params = make(0.1)
    path = tmp_path / "model.npz"
    sparse.export(params, path)
    plain, data = sparse.network.init(jax.random.key(9), INPUTS), path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for damaged in (data[: len(data) // 2], b"", bytes(500), data[:-100] + bytes(100)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.npz is damaged, or is not a sparse network"):
            load_sparse(path, plain)
    write_zip(path, {**entries, "x.npy": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"model\.npz holds more data than the network has"):
        load_sparse(path, plain)
    for name, array in itertools.product(entries, hostile_arrays()):
        write_zip(path, {**entries, name: array})
        with gathered() as messages:
            load_sparse(path, plain)
        assert all("model.npz" in message for message in messages), (name, messages)


@pytest.mark.parametrize("density", [0, -0.1, 1.5, "half", True])
def test_wrong_density(density):
    with pytest.raises(ValueError, match=r"density must be a fraction in \(0, 1\]"):
        SparseNetwork(MLP((3,)), density)


@pytest.mark.parametrize("block", [0, (1, 0), (1, 2, 3), ("a", 1)])
def test_wrong_block(block):
    with pytest.raises(ValueError, match="block must be two positive whole numbers"):
        SparseNetwork(MLP((3,)), 0.1, block)


def test_digits_made_sparse_suggests_the_hybrid(key):
    problem = zoo.make_problem("supervised/digits", hidden=(8,), batch_size=16, density=0.2)
    strategy = zoo.make_strategy("hybrid", problem=problem, population_size=4)
    assert strategy.es_leaves == "scores"
    result = zoo.run(strategy, problem, num_generations=3, num_scores=1)
    before = problem.initial_solution(key)
    assert all(
        np.any(a != b) for a, b in zip(jax.tree.leaves(result.mean["scores"]), before["scores"].values(), strict=True)
    )
    report = problem.network.report(result.mean)
    assert list(report.kept) == [round(0.2 * 64 * 8), round(0.2 * 80), round(0.2 * 64 * 8) + round(0.2 * 80)]
