"""An image classifier that is trained directly for its accuracy, in a pipeline without a gradient.

The network gets five views of an image: the image itself, and the image shifted by one pixel in each direction. An
argmax gives each view a class, and the views vote. Ties go to the lowest class. Fitness is the fraction of images that
the vote gets wrong. The pipeline is differentiable up to the logits and not after them. The `estimator` provides the
gradient with respect to the logits.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from zoo.core import Problem, Solution, leaf, number, static
from zoo.core.checks import shown
from zoo.core.promotion import promoted, promotion_of_others
from zoo.core.settings import is_rebuilt
from zoo.problems.networks import Network, apply_network
from zoo.problems.supervised.classification import Classification
from zoo.registry import make_problem
from zoo.smoothing.smooth import smooth

Estimator = Literal["smooth", "straight_through", "score_function", "perturbations", "cross_entropy"]
SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


class AccuracyPipeline(Problem):
    """The error of a vote over five views of an image, each classified by an argmax.

    The surrogate gradient with respect to the logits comes from one of these estimators:

    - `"smooth"`: ES on the views' logits, separately for each image (`zoo.smooth`, leave-one-out baseline). The logits
      of each image are divided by their standard deviation. The vote does not depend on this scale, and the noise can
      then change the vote of every image.
    - `"straight_through"`: both argmaxes have the identity as backward pass, the first one after a softmax.
    - `"score_function"`: draws classes from the softmax and uses REINFORCE with a leave-one-out baseline.
    - `"perturbations"`: `optax.perturbations` on the same logits as `"smooth"`, with one joint draw of noise for the
      batch.
    - `"cross_entropy"`: the gradient of the cross-entropy of the views' mean logits, a smooth loss that replaces the
      accuracy.

    Attributes:
        task: A classification problem with images as inputs, `[n, height, width, channels]`. It is a problem, the id of
            a supervised problem, or a dictionary of such an id and settings. A task by id is made with `hidden`.
        hidden: Units of each hidden layer of the network, for a task by id.
        batch_size: Training images per evaluation, drawn with replacement.
        estimator: Estimator of the surrogate gradient, one of the list above.
        smoothing: Standard deviation of the noise on the logits, in units of the standard deviation of an image's
            logits (smooth, perturbations).
        num_samples: Samples per image and gradient (smooth, score_function, perturbations).
    """

    task: str | Mapping[str, Any] | Problem = leaf(default="supervised/digits")
    hidden: tuple[int, ...] = static(default=(32,))
    batch_size: int = static(default=64, at_least=1)
    estimator: Estimator = static(default="smooth")
    smoothing: float = number(default=1.0, above=0)
    num_samples: int = static(default=32, at_least=2)

    headline = "test_accuracy"
    maximize = True

    def __post_init__(self) -> None:
        """Checks the estimator, and makes the task if it is given by its id."""
        super().__post_init__()
        if isinstance(self.task, str) or (isinstance(self.task, Mapping) and not is_rebuilt()):
            spec = {"id": self.task} if isinstance(self.task, str) else self.task
            object.__setattr__(self, "task", make_problem({"hidden": self.hidden, **spec}))
        if not (is_rebuilt() or isinstance(self.task, Classification)):
            raise TypeError(
                "AccuracyPipeline.task must be a classification problem, such as 'supervised/digits', got "
                f"{shown(self.task)}."
            )
        inputs: Any = getattr(self.task, "train_inputs", None)
        if hasattr(inputs, "ndim") and inputs.ndim != 4:
            raise ValueError(
                "AccuracyPipeline.task must have images [n, height, width, channels] as inputs, got shape "
                f"{inputs.shape}."
            )

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """Settings that work well for small networks."""
        return {**self._task.suggestions, "sigma": 0.05, "learning_rate": 0.01}

    @property
    def network(self) -> Network:
        """The network of the task."""
        return self._task.network

    @property
    def _task(self) -> Classification:
        return self.task  # pyright: ignore[reportReturnType] - __post_init__ made it

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the network's initial parameters."""
        return self._task.initial_solution(key)

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the fraction of a minibatch that the vote gets wrong. The key draws the minibatch."""
        logits, labels = self._minibatch(key, solution)
        return jnp.mean(jax.vmap(error_of)(jax.vmap(vote)(logits), labels))

    def gradient(self, key: jax.Array, solution: Solution) -> Solution:
        """Returns an estimate of the error's gradient, on the same minibatch as `fitness` with this key."""
        estimate: Callable[..., jax.Array] = getattr(self, f"_{self.estimator}")

        def loss(solution: Solution) -> jax.Array:
            return estimate(jax.random.fold_in(key, 1), *self._minibatch(key, solution))

        return jax.grad(loss)(solution)

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns two accuracies on the test set: of the vote, and of the unshifted image alone."""
        logits = self._logits(solution, self._task.test_inputs)
        labels = self._task.test_labels
        plain = jnp.mean(jnp.equal(*promoted(jnp.argmax(logits[:, 0], axis=-1), labels)), dtype=logits.dtype)
        error = jnp.mean(jax.vmap(error_of)(jax.vmap(vote)(logits), labels))
        return {"test_accuracy": 1 - error, "plain_accuracy": plain}

    def _minibatch(self, key: jax.Array, solution: Solution) -> tuple[jax.Array, jax.Array]:
        """Returns logits `[batch_size, num_views, num_classes]` and labels `[batch_size]`."""
        indices = jax.random.randint(key, (self.batch_size,), 0, self._task.train_labels.shape[0])
        return self._logits(solution, self._task.train_inputs[indices]), self._task.train_labels[indices]

    def _logits(self, solution: Solution, images: jax.Array) -> jax.Array:
        if not jnp.issubdtype(images.dtype, jnp.floating):
            images = images.astype(jnp.float32) / 255
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = images.shape[1:3]
        views = [padded[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in SHIFTS]
        stacked = jnp.stack(views, axis=1)
        logits = apply_network(self.network, solution, stacked.reshape(-1, *images.shape[1:]))
        return logits.reshape(*stacked.shape[:2], -1)

    # Each estimator returns a loss. Its gradient with respect to the logits is the estimate.

    def _smooth(self, key: jax.Array, logits: jax.Array, labels: jax.Array) -> jax.Array:
        soft = smooth(vote, sigma=1.0, num_samples=self.num_samples, antithetic=False)
        keys = jax.random.split(key, len(labels))
        votes = jax.vmap(lambda k, x: soft(k, x, sigma=self.smoothing))(keys, one_scale(logits))
        return jnp.mean(jax.vmap(error_of)(votes, labels))

    def _perturbations(self, key: jax.Array, logits: jax.Array, labels: jax.Array) -> jax.Array:
        def error(logits: Any) -> jax.Array:
            return jnp.mean(jax.vmap(error_of)(jax.vmap(vote)(logits), labels))

        noise: Any = optax.perturbations.Normal()
        soft: Any = optax.perturbations.make_perturbed_fun(error, self.num_samples, self.smoothing, noise)
        with promotion_of_others():  # optax adds noise with an axis of samples to logits without one
            return soft(key, one_scale(logits))

    def _straight_through(self, key: jax.Array, logits: jax.Array, labels: jax.Array) -> jax.Array:
        def one(logits: jax.Array, label: jax.Array) -> jax.Array:
            counts = jnp.sum(_pass_through(_one_hot_argmax(logits), jax.nn.softmax(logits)), axis=0)
            return error_of(_pass_through(_one_hot_argmax(counts), counts), label)

        return jnp.mean(jax.vmap(one)(logits, labels))

    def _score_function(self, key: jax.Array, logits: jax.Array, labels: jax.Array) -> jax.Array:
        def one(key: jax.Array, logits: jax.Array, label: jax.Array) -> jax.Array:
            classes = jax.random.categorical(key, logits, shape=(self.num_samples, len(SHIFTS)))
            one_hot = jax.nn.one_hot(classes, logits.shape[-1])
            error = jax.vmap(lambda x: error_of(vote(x), label))(one_hot)
            others = (jnp.sum(error) - error) / (self.num_samples - 1)
            log_probability = jnp.sum(one_hot * jax.nn.log_softmax(logits)[None], axis=(1, 2))
            return jnp.mean((error - others) * log_probability)

        return jnp.mean(jax.vmap(one)(jax.random.split(key, len(labels)), logits, labels))

    def _cross_entropy(self, key: jax.Array, logits: jax.Array, labels: jax.Array) -> jax.Array:
        mean = jnp.mean(logits, axis=1)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(mean, labels))


def vote(logits: jax.Array) -> jax.Array:
    """Returns the majority of the views' argmaxes, one-hot `[num_classes]`, for logits `[num_views, num_classes]`."""
    return _one_hot_argmax(jnp.sum(_one_hot_argmax(logits), axis=0))


def one_scale(logits: jax.Array) -> jax.Array:
    """Divides logits `[batch, num_views, num_classes]` by the standard deviation of each image's logits."""
    return logits / (jnp.std(logits, axis=(1, 2), keepdims=True) + 1e-6)


def error_of(vote: jax.Array, label: jax.Array) -> jax.Array:
    """Returns 0.0 if a one-hot vote `[num_classes]` is for the label, else 1.0. It is linear in the vote."""
    return 1 - vote[label]


def _one_hot_argmax(values: jax.Array) -> jax.Array:
    return jax.nn.one_hot(jnp.argmax(values, axis=-1), values.shape[-1], dtype=values.dtype)


def _pass_through(exact: jax.Array, smooth: jax.Array) -> jax.Array:
    """Returns the exact values, with the gradient of the smooth ones."""
    return smooth + jax.lax.stop_gradient(exact - smooth)
