"""Image classification: scikit-learn's digits, which are always available, and the MNIST family from a data folder."""

import functools
import importlib.metadata
import inspect
import os
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from zoo.core.checks import shown
from zoo.problems.networks import Network, make_network
from zoo.problems.supervised.classification import Classification
from zoo.problems.supervised.idx import load_idx_dataset
from zoo.problems.supervised.sparse import SparseNetwork

Loss = Literal["cross_entropy", "error"]


Data = tuple[np.ndarray, ...]
"""Training images, training labels, test images, test labels."""


def _classification(
    data: Data,
    *,
    network: str | Network = "mlp",
    hidden: tuple[int, ...] = (32,),
    activation: str = "relu",
    loss: Loss = "cross_entropy",
    batch_size: int | None = 128,
    density: float | None = None,
    block: tuple[int, int] = (1, 1),
    member_batch_size: int | None = None,
) -> Classification:
    train_images, train_labels, test_images, test_labels = data
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    is_one = isinstance(block, (tuple, list, int)) and block in ((1, 1), [1, 1], 1)
    if density is None and not is_one:
        raise ValueError(f"block={shown(block)} needs a sparse network. Give a density too, such as density=0.1.")
    network = make_network(network, num_classes, hidden=hidden, activation=activation)
    return Classification(
        network=network if density is None else SparseNetwork(network, density, block),
        train_inputs=jnp.asarray(train_images[..., None]),
        train_labels=jnp.asarray(train_labels, jnp.int32),
        test_inputs=jnp.asarray(test_images[..., None]),
        test_labels=jnp.asarray(test_labels, jnp.int32),
        loss=loss,
        batch_size=batch_size,
        member_batch_size=member_batch_size,
    )


def _image_task(name: str, load: Callable[..., Data], doc: str) -> Callable[..., Classification]:
    """Returns a function that makes a task from the settings of `load` and of `_classification`."""
    of_data = inspect.signature(load).parameters
    _, *of_network = inspect.signature(_classification).parameters.values()

    def make(**settings: Any) -> Classification:
        signature.bind(**settings)  # raises a TypeError that names an unknown setting
        data = load(**{name: settings.pop(name) for name in of_data if name in settings})
        return _classification(data, **settings)

    signature = inspect.Signature([*of_data.values(), *of_network], return_annotation=Classification)
    make.__dict__["__signature__"] = signature
    make.__name__ = make.__qualname__ = name
    make.__doc__ = doc
    return make


@functools.cache
def _load_digits() -> Data:
    # Read as in `sklearn.datasets.load_digits`. Importing that takes longer than training a small network.
    path = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(path), delimiter=",")
    table = table[np.random.RandomState(0).permutation(len(table))]  # RandomState is frozen, so the split never changes
    images = (table[:, :-1].reshape(-1, 8, 8) / 16).astype(np.float32)
    labels = table[:, -1].astype(int)
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


digits = _image_task(
    "digits",
    _load_digits,
    """8 x 8 images of digits (embedded in scikit-learn), 1 437 to train on and 360 to test.

    Args:
        network: `"mlp"`, `"linear"`, `"cnn"` or a network of your own. Inputs are `[batch, 8, 8, 1]` in [0, 1].
        hidden: Units of each hidden layer (mlp) or channels of each convolution (cnn).
        activation: Activation of the mlp: `"relu"`, `"tanh"`, `"gelu"` or `"silu"`.
        loss: `"cross_entropy"`, or `"error"` for the fraction misclassified.
        batch_size: Training examples per evaluation. With `None`, uses all.
        density: Fraction of each layer's weights that a sparse network keeps, in (0, 1]. Keeps the weights with the
            highest scores, and the scores become part of the solution (`SparseNetwork`). With `None`, the network is
            dense.
        block: Rows and columns of the blocks of weights that share a score, for a sparse network.
        member_batch_size: Evaluates at most this many members at a time. With `None`, evaluates all at once.
    """,
)


def _idx_task(name: str, title: str) -> Callable[..., Classification]:
    def load(*, data_dir: str | os.PathLike[str] | None = None) -> Data:
        return load_idx_dataset(name, data_dir)

    return _image_task(
        name,
        load,
        f"""{title}, 28 x 28 images in ten classes, read from IDX files in a data folder.

    Args:
        data_dir: Data folder. The files are in it or in its subfolder `{name}`. Defaults to `$ZOO_DATA`.
        network: As for `digits`, with inputs `[batch, 28, 28, 1]`.
        hidden: As for `digits`.
        activation: As for `digits`.
        loss: As for `digits`.
        batch_size: As for `digits`.
        density: As for `digits`.
        block: As for `digits`.
        member_batch_size: As for `digits`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged.
    """,
    )


mnist = _idx_task("mnist", "MNIST: handwritten digits")
fashion_mnist = _idx_task("fashion_mnist", "Fashion-MNIST: articles of clothing")
kmnist = _idx_task("kmnist", "Kuzushiji-MNIST: cursive Japanese characters")
