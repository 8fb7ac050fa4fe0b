"""Classification by any network: fitness on a minibatch that a group shares, score on the test set."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import optax

from zoo.core import Problem, Solution, leaf, static
from zoo.core.promotion import promoted
from zoo.problems.networks import Network, apply_network


class Classification(Problem):
    """Classification of labelled arrays.

    Attributes:
        network: Any object with `init(key, inputs)` and `apply(params, inputs)`, such as a flax linen module.
        train_inputs: Training inputs, `[num_train, ...]`. Whole numbers are divided by 255.
        train_labels: Training labels, `[num_train]` whole numbers.
        test_inputs: Test inputs, `[num_test, ...]`. Whole numbers are divided by 255.
        test_labels: Test labels, `[num_test]` whole numbers.
        loss: `"cross_entropy"`, or `"error"` for the fraction misclassified, which has no gradient.
        batch_size: Training examples per evaluation, drawn with replacement. With `None`, uses the whole training set.
    """

    network: Network = static()
    train_inputs: jax.Array = leaf()
    train_labels: jax.Array = leaf()
    test_inputs: jax.Array = leaf()
    test_labels: jax.Array = leaf()
    loss: Literal["cross_entropy", "error"] = static(default="cross_entropy")
    batch_size: int | None = static(default=128, at_least=1)

    headline = "test_accuracy"
    maximize = True

    def __post_init__(self) -> None:
        """Checks the loss and the shapes."""
        super().__post_init__()
        for part in ("train", "test"):
            inputs, labels = getattr(self, f"{part}_inputs"), getattr(self, f"{part}_labels")
            if not (hasattr(inputs, "shape") and hasattr(labels, "shape")):
                continue  # a placeholder
            if inputs.shape[:1] != labels.shape:
                raise ValueError(
                    f"Classification needs one label per input, got {part}_inputs {inputs.shape} and {part}_labels "
                    f"{labels.shape}."
                )

    def hold_out(self, fraction: float) -> tuple[Self, Self]:
        """Returns two problems that split the training data. The second gets the last `fraction` of it.

        Raises:
            ValueError: If one of the problems would have no data.
        """
        num_train = self.train_inputs.shape[0]
        split = num_train - round(num_train * fraction)
        if not 0 < split < num_train:
            raise ValueError(f"hold_out expects a fraction that leaves data for both problems, got {fraction!r}.")
        first, second = (
            self.replace(train_inputs=self.train_inputs[part], train_labels=self.train_labels[part])
            for part in (slice(split), slice(split, None))
        )
        return first, second

    @property
    def differentiable(self) -> bool:
        """Whether the loss has a useful gradient."""
        return self.loss != "error"

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """Settings that work well for small networks, updated by the network's own suggestions."""
        return {"sigma": 0.05, "learning_rate": 0.01, **getattr(self.network, "suggestions", {})}

    @property
    def network_and_inputs(self) -> tuple[Network, jax.Array]:
        """The network, and example inputs `[1, ...]` with the right shape and dtype."""
        return self.network, _as_float(self.train_inputs[:1])

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the network's initial parameters."""
        network, inputs = self.network_and_inputs
        return network.init(key, inputs)

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the loss on a minibatch drawn by the key."""
        inputs, labels = self.train_inputs, self.train_labels
        if self.batch_size is not None:
            indices = jax.random.randint(key, (self.batch_size,), 0, inputs.shape[0])
            inputs, labels = inputs[indices], labels[indices]
        loss, error = self._loss_and_error(solution, inputs, labels)
        return error if self.loss == "error" else loss

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns accuracy and cross-entropy on the test set."""
        loss, error = self._loss_and_error(solution, self.test_inputs, self.test_labels)
        return {"test_accuracy": 1 - error, "test_loss": loss}

    def _loss_and_error(self, solution: Solution, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = apply_network(self.network, solution, _as_float(inputs))
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        error = jnp.mean(jnp.not_equal(*promoted(jnp.argmax(logits, axis=-1), labels)), dtype=logits.dtype)
        return loss, error


def _as_float(inputs: jax.Array) -> jax.Array:
    """Returns inputs as floats. Images are stored as bytes, because that takes a quarter of the memory."""
    return inputs if jnp.issubdtype(inputs.dtype, jnp.floating) else inputs.astype(jnp.float32) / 255
