"""An image classifier trained for what it is judged by: the accuracy of a pipeline that has no gradient.

The network sees five views of an image, the image itself and shifted by a pixel each way. Each view is given a class,
by an argmax, and the views vote; ties go to the lowest class. Fitness is the fraction of images the vote gets wrong.
Everything up to the logits is differentiable, and nothing after them: how the gradient crosses is the `estimator`.
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

    Attributes:
        task: A classification problem with images as inputs, `[n, height, width, channels]`; or the id of a supervised
            one, or a dictionary of its id and settings, made with the settings below.
        hidden: Hidden layers of the network of a task made by its id.
        batch_size: Training images per evaluation, drawn with replacement.
        estimator: What the surrogate gradient is, with respect to the logits:

            - `"smooth"`: ES on the views' logits, image by image (`zoo.smooth`, leave-one-out baseline), brought to one
              scale per image: the vote does not depend on it, and so no image is ever out of the noise's reach;
            - `"straight_through"`: both argmaxes backwards as the identity, the first after a softmax;
            - `"score_function"`: classes drawn from the softmax, REINFORCE with a leave-one-out baseline;
            - `"perturbations"`: `optax.perturbations` on the same, whose noise is drawn for the batch as one;
            - `"cross_entropy"`: that of the mean view's logits, a smooth stand-in instead of the accuracy.
        smoothing: Standard deviation of the noise on the logits, over that of an image's logits (smooth,
            perturbations).
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
        """Checks the estimator, and makes the task, if it is given by its id."""
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
                "AccuracyPipeline shifts images, so the inputs of its task must be [n, height, width, channels], got "
                f"{inputs.shape}."
            )

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """Settings that do well for small networks."""
        return {**self._task.suggestions, "sigma": 0.05, "learning_rate": 0.01}

    @property
    def network(self) -> Network:
        """The network of the task."""
        return self._task.network

    @property
    def _task(self) -> Classification:
        return self.task  # pyright: ignore[reportReturnType] - made of the id

    def initial_solution(self, key: jax.Array) -> Solution:
        """Returns the network's initial parameters."""
        return self._task.initial_solution(key)

    def fitness(self, key: jax.Array, solution: Solution) -> jax.Array:
        """Returns the fraction of a minibatch, drawn by the key, that the vote gets wrong."""
        logits, labels = self._minibatch(key, solution)
        return jnp.mean(jax.vmap(error_of)(jax.vmap(vote)(logits), labels))

    def gradient(self, key: jax.Array, solution: Solution) -> Solution:
        """Returns the estimate of the gradient of the error on the minibatch of `fitness` with the same key."""
        estimate: Callable[..., jax.Array] = getattr(self, f"_{self.estimator}")

        def loss(solution: Solution) -> jax.Array:
            return estimate(jax.random.fold_in(key, 1), *self._minibatch(key, solution))

        return jax.grad(loss)(solution)

    def score(self, key: jax.Array, solution: Solution) -> dict[str, jax.Array]:
        """Returns the accuracy on the test set: of the vote, and of the plain image alone."""
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

    # The estimators: each returns a loss whose gradient with respect to the logits is the estimate.

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
        with promotion_of_others():  # optax adds the noise of a batch to what has no axis of samples
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
    """Returns the class that most views `[num_views, num_classes]` have by their argmax, one-hot `[num_classes]`."""
    return _one_hot_argmax(jnp.sum(_one_hot_argmax(logits), axis=0))


def one_scale(logits: jax.Array) -> jax.Array:
    """Returns logits `[batch, num_views, num_classes]` over the standard deviation of those of each image."""
    return logits / (jnp.std(logits, axis=(1, 2), keepdims=True) + 1e-6)


def error_of(vote: jax.Array, label: jax.Array) -> jax.Array:
    """Returns 0.0 if a one-hot vote `[num_classes]` is for the label, else 1.0; linear in the vote."""
    return 1 - vote[label]


def _one_hot_argmax(values: jax.Array) -> jax.Array:
    return jax.nn.one_hot(jnp.argmax(values, axis=-1), values.shape[-1], dtype=values.dtype)


def _pass_through(exact: jax.Array, smooth: jax.Array) -> jax.Array:
    """Returns the exact values, with the gradient of the smooth ones."""
    return smooth + jax.lax.stop_gradient(exact - smooth)
