"""A gradient for one block that has none: evolution strategies as the backward pass of a function.

Let f be the block, L the rest of the program and eps ~ N(0, I). The result is an unbiased estimate of the gradient of

- L(E f(x + sigma eps)) at the cotangent that L sends back (*block smoothing*). This is what `smooth(f)` does.
- E L(f(x + sigma eps)) (*objective smoothing*). This is what wrapping block and loss together does.

Both use the identity grad E f(x + sigma eps) = E[f(x + sigma eps) eps] / sigma.

References:
    Salimans et al. 2017, arXiv 1703.03864 (the estimator; antithetic pairs); Kool et al. 2019, "Buy 4 REINFORCE
    samples, get a baseline for free!" (leave-one-out); Choromanski et al. 2018, arXiv 1804.02395 (orthogonal
    directions); Joe and Kuo 2008 (the Sobol points); Maheswaranathan et al. 2019, arXiv 1806.10230 (a subspace).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from zoo.smoothing.block import make_block
from zoo.smoothing.derivative import differentiable
from zoo.smoothing.settings import Settings, check_sigma
from zoo.smoothing.sigma import change_rate, find_sigma
from zoo.smoothing.subspace import orthonormal_basis


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Smooth(Settings):
    """Gives a function a gradient that autodiff cannot: an estimated gradient of its Gaussian-smoothed version.

    Call the result as `soft(key, x, *args)`. The forward pass is `fn(x, *args)`: one call and no samples. In the
    backward pass with cotangent g, x gets 1 / (sigma N) sum_i (s_i - b_i) eps_i, where s_i = <g, fn(x + sigma eps_i)>
    and b_i is the baseline. `args` and the floating-point arrays that `fn` closes over get the gradient of autodiff at
    the exact point, computed only if it is needed. This works under `jit`, `grad`, `vmap` and `scan`.

    *Block or objective.* `loss(soft(key, x))` estimates the gradient of the loss of the smoothed block. It linearises
    the loss at the forward value. If the loss is nonlinear and you want the gradient of its expectation, wrap both:
    `zoo.smooth(lambda x, y: loss(block(x), y), sigma=...)`.

    *Batches.* For a function of one example, use `jax.vmap(soft)(jax.random.split(key, n), x, y)`. Every example then
    has its own noise and its own score. For a function that takes a batch and treats examples independently,
    `batched=True` does the same with one call per sample. A scalar objective over a whole batch shares one draw, and
    its gradient has about batch-size times the variance.

    Attributes:
        fn: Function `fn(x, *args)` that JAX can trace. It returns a pytree of arrays, at least one of them
            floating-point. For a host function see `zoo.from_numpy`. Integer results have no gradient.
        sigma: Standard deviation of the perturbation in units of x, the same for all entries: a positive number (if
            batched, also `[batch]`), or `"auto"`, which searches for it in every backward pass (see `target_rate`).
            Sigma has no gradient.
        num_samples: Number of evaluations of `fn` per gradient.
        antithetic: Whether to draw antithetic pairs x ± sigma eps. The even part of `fn` cancels in a pair, and so does
            any baseline. Pairs are best if `fn` is nearly linear within sigma. For step functions (accuracies, an
            argmax), leave-one-out has about two thirds of the squared error of pairs.
        baseline: Baseline that is subtracted from s_i if `antithetic=False`: `"leave_one_out"` (the mean of the other
            samples, the default), `"value"` (<g, fn(x)>, known from the forward pass unless `forward="mean"`) or
            `"none"`.
        sampler: Joint distribution of the eps_i. Each eps_i is N(0, I):

            - `"normal"`: independent draws.
            - `"orthogonal"`: blocks of min(dimension, N) orthogonal directions with independent lengths. On a busy CPU,
              OPENBLAS_NUM_THREADS=1 keeps their factorisation from waiting for threads.
            - `"sobol"`: Sobol points with a random digital shift, to 23 bits in single precision (|eps| < 5.4). Here
              the leave-one-out baseline is the plain mean of the samples: the points are not independent, so a factor
              N / (N - 1) would add a bias. The remaining bias, -E[mean(s) mean(eps)] / sigma, is tiny, because the mean
              of the points is almost zero.
        forward: Result of the forward pass: `"exact"` for `fn(x)`, or `"mean"` for the mean over the samples, which the
            backward pass then uses too. The mean applies to floating-point results. Integer results are evaluated at
            x. `args` are differentiated at x in both cases.
        batched: Whether `fn` takes a whole batch. All leaves of x and of the result then have a leading axis of
            examples. This is never inferred, because a function from vectors to vectors would silently get a wrong
            gradient.
        subspace: Directions that span the space of perturbations, each leaf `[k, *leaf.shape]` in the structure of x
            (of one example, if batched). They need not be orthogonal or independent. In single precision, a direction
            is ignored if less than about a thousandth of it is new. The estimate is the gradient's projection on the
            span, with the noise of k dimensions.
        batch_size: Evaluates at most this many samples at a time, to bound memory. With `None`, evaluates all at once.
        target_rate: For `sigma="auto"`: chooses the sigma at which this fraction of perturbations changes the result,
            per call and example. Results must be able to change this often. For example, let `fn` return the chosen
            class rather than whether it is right: few perturbations of a wrong example make it right. Every
            perturbation changes the result of a smooth noiseless `fn`, so sigma is then the lower end of `sigma_range`,
            which suits such a function.
        num_probes: Number of perturbations per tried sigma in this search. They have their own directions, the same at
            every sigma. The search costs about log2(log(range) / log(1.1)) * num_probes evaluations, 8 * num_probes
            with the default range. `Smooth.adapt_sigma` is cheaper in a training loop.
        sigma_range: Lowest and highest sigma of the search.
        tolerance: A result counts as changed if any of its entries moves by more than this. With the noise level of
            `fn` as tolerance, the search becomes a signal-to-noise criterion.

    Samples whose s_i is not finite are left out. A pair is left out if either of its s_i is not finite. If no sample is
    left, the gradient is zero. A cotangent that is not finite gives NaN, as in autodiff. Perturbations of
    half-precision x are drawn and averaged in single precision, but x + sigma eps is rounded. There is no forward mode.
    Differentiating twice differentiates `fn` by autodiff.

    Raises:
        TypeError: If `fn` is not callable, or a setting has a wrong type.
        ValueError: If settings are out of range or contradict each other.

    >>> import jax, jax.numpy as jnp, zoo
    >>> above = zoo.smooth(lambda x: (x > 1.0).astype(float), sigma=0.5, num_samples=1000)
    >>> key = jax.random.key(0)
    >>> value, gradient = jax.value_and_grad(above, argnums=1)(key, 0.8)
    >>> float(value), round(float(gradient), 1)  # exact: 0.737
    (0.0, 0.7)
    """

    def __call__(self, key: jax.Array, x: Any, *args: Any, sigma: Any = None) -> Any:
        """Returns `fn(x, *args)`, or the mean of its samples if `forward="mean"`. The class describes the gradient.

        Args:
            key: JAX random key of the perturbations.
            x: A pytree of floating-point arrays, which are perturbed.
            *args: Further arguments of `fn`, pytrees of arrays.
            sigma: Replaces the setting `sigma`: a scalar (if batched, also `[batch]`), which may be traced.

        Raises:
            TypeError: If a leaf of x is not floating-point, or no leaf of the result is floating-point.
            ValueError: If x is empty, or sigma, the subspace or a batch has a wrong shape.
        """
        block = make_block(self, x, args)
        sigma = self.sigma if sigma is None else sigma
        sigma = None if check_sigma(sigma) == "auto" else block.check_sigma(sigma)
        return jax.tree.unflatten(block.out_structure, differentiable(block, key, sigma))

    def find_sigma(self, key: jax.Array, x: Any, *args: Any) -> jax.Array:
        """Returns the sigma at which a share `target_rate` of perturbations changes the result, as in `sigma="auto"`.

        Args:
            key: JAX random key of the probes.
            x: Point to search at, as in a call.
            *args: Further arguments of `fn`, as in a call.

        Returns:
            A scalar, or `[batch]`, to within 5 %. It is an end of `sigma_range` if the rate is not reached inside.
        """
        block = make_block(self, x, args)
        values, rest, directions = block.constants()
        return find_sigma(block, block.keys(key)[1], orthonormal_basis(directions, block.dtype), values, rest)

    def change_rate(self, key: jax.Array, sigma: Any, x: Any, *args: Any) -> jax.Array:
        """Returns the fraction of `num_probes` perturbations of size sigma that change the result, `[]` or `[batch]`.

        Args:
            key: JAX random key of the probes.
            sigma: A scalar (if batched, also `[batch]`).
            x: Point to perturb, as in a call.
            *args: Further arguments of `fn`, as in a call.
        """
        block = make_block(self, x, args)
        values, rest, directions = block.constants()
        probes = block.draw(block.keys(key)[1], self.num_probes)
        return change_rate(
            block,
            block.check_sigma(_check_number(sigma, "change_rate")),
            orthonormal_basis(directions, block.dtype),
            probes,
            values,
            rest,
            block.traced(values, rest),
        )

    def adapt_sigma(self, key: jax.Array, sigma: Any, x: Any, *args: Any, rate: float = 0.5) -> jax.Array:
        """Returns sigma after one step towards `target_rate`, for training loops, at 1 + `num_probes` evaluations.

        Args:
            key: JAX random key of the probes.
            sigma: A scalar, which follows the mean rate of a batch. If batched, also `[batch]`, for examples that are
                the same in every call.
            x: Point to perturb, as in a call.
            *args: Further arguments of `fn`, as in a call.
            rate: Step size: log sigma moves by `rate * (target_rate - change rate)`.

        Returns:
            The new sigma, of the same shape and dtype, within `sigma_range`.
        """
        sigma = jnp.asarray(_check_number(sigma, "adapt_sigma"))
        sigma = sigma if jnp.issubdtype(sigma.dtype, jnp.floating) else sigma.astype(float)
        missing = self.target_rate - self.change_rate(key, sigma, x, *args)
        if sigma.ndim == 0:
            missing = jnp.mean(missing)
        return jnp.clip(sigma * jnp.exp(rate * missing).astype(sigma.dtype), *self.sigma_range)


def _check_number(sigma: Any, method: str) -> Any:
    """Returns sigma.

    Raises:
        ValueError: If it is not a positive number or array.
    """
    if isinstance(sigma, str):
        raise ValueError(
            f"zoo.smooth: {method} needs a number, got sigma={sigma!r}. Find one first: soft.find_sigma(key, x)."
        )
    return check_sigma(sigma)


smooth = Smooth
"""Lower-case alias: `zoo.smooth(fn, sigma=...)` reads as a verb."""
