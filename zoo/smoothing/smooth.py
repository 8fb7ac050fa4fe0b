"""A gradient for one block that has none: evolution strategies as the backward pass of a function.

With L the rest of the program, f the block and eps ~ N(0, I), the gradient is an unbiased estimate of the gradient of

- L(E f(x + sigma eps)) at the cotangent that L sent (*block smoothing*, what `smooth(f)` does), or of
- E L(f(x + sigma eps)) (*objective smoothing*), where block and loss are wrapped together.

Both come from grad E f(x + sigma eps) = E[f(x + sigma eps) eps] / sigma.

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
    """Gives a function that autodiff cannot use a gradient: that of its Gaussian-smoothed version, estimated.

    The result is called as `soft(key, x, *args)`. Forward it is `fn(x, *args)`, one call and no samples. Backward, with
    cotangent g, x gets 1 / (sigma N) sum_i (s_i - b_i) eps_i, where s_i = <g, fn(x + sigma eps_i)> and b_i is the
    baseline; `args` and whatever floating-point arrays `fn` closes over get what autodiff of `fn` at the exact point
    says, and only where a gradient of them is asked for. It works under `jit`, `grad`, `vmap` and `scan`.

    *Block or objective.* `loss(soft(key, x))` estimates the gradient of the loss of the smoothed block, with the loss
    linearised at the forward value. Where the loss is nonlinear and its expectation is wanted, wrap both:
    `zoo.smooth(lambda x, y: loss(block(x), y), sigma=...)`.

    *Batches.* For a function of one example, `jax.vmap(soft)(jax.random.split(key, n), x, y)`: every example has its
    own noise and its own credit. For a function that takes a batch and treats examples independently, `batched=True`
    does the same with one call per sample. A scalar objective over a whole batch has one joint draw, at about
    batch-size times the variance.

    Attributes:
        fn: `fn(x, *args)` to a pytree of arrays, at least one of them floating-point, traceable by JAX; for a host
            function see `zoo.from_numpy`. Integer results have no gradient.
        sigma: Standard deviation of the perturbation, in units of x and the same for all of its entries: a positive
            number (or, batched, `[batch]`), or `"auto"`, which looks for it in every backward pass (see `target_rate`).
            There is no gradient with respect to sigma.
        num_samples: Evaluations of `fn` per gradient.
        antithetic: Whether samples are pairs x ± sigma eps. What `fn` has in common with an even function cancels, and
            with it any baseline. Best where `fn` is nearly linear within sigma; for steps (accuracies, an argmax)
            leave-one-out has about two thirds of the squared error of pairs.
        baseline: Without pairs, what is subtracted from s_i: `"leave_one_out"` (the mean of the other samples; the
            default), `"value"` (<g, fn(x)>, known from the forward pass unless that is the mean) or `"none"`.
        sampler: Joint distribution of the eps_i, each of which is N(0, I):

            - `"normal"`: independent;
            - `"orthogonal"`: blocks of min(dimension, N) orthogonal directions, of independent lengths (on a busy CPU,
              OPENBLAS_NUM_THREADS=1 keeps their factorisation from waiting for threads);
            - `"sobol"`: Sobol points under a random digital shift, to 23 bits in single precision (|eps| < 5.4). Here
              leave-one-out is the plain mean of the samples: the points are not independent, so that a factor
              N / (N - 1) would itself bias. What bias is left, -E[mean(s) mean(eps)] / sigma, is tiny, as the points
              have almost zero mean.
        forward: `"exact"`, or `"mean"`: the mean over the samples, which then serve the backward pass too. It is taken
            of floating-point results; integer ones are those of x. `args` are still differentiated at x.
        batched: Whether `fn` takes a whole batch: the leading axis of all leaves of x and of the result is that of
            examples. Never inferred: a function of vectors to vectors would silently get a wrong gradient.
        subspace: Directions that span where to perturb, each leaf `[k, *leaf.shape]` in the structure of x (of one
            example, if batched); they need be neither orthogonal nor independent (what is
            new in one to less than about a thousandth, in single precision, is left out). The estimate is then of the
            gradient's projection on the span, with the noise of k dimensions.
        batch_size: Evaluate at most this many samples at a time, to bound memory. Default: all at once.
        target_rate: For `sigma="auto"`: sigma is where this share of perturbations changes the outcome, per call and
            example. Outcomes must be able to change so often: let `fn` return the class that is chosen rather than
            whether it is the right one, which few perturbations of a wrong example change. For a smooth noiseless `fn`
            every perturbation changes it, so sigma ends at the lower end of `sigma_range`, which is right there.
        num_probes: Perturbations for that, of their own directions, the same at every sigma tried. The search costs
            about log2(log(range) / log(1.1)) times as many evaluations, 8 times with the default range;
            `Smooth.adapt_sigma` is the cheaper way in a training loop.
        sigma_range: Where to look for sigma.
        tolerance: An outcome has changed if any entry of it moved by more than this. The noise level of `fn` makes the
            search a signal-to-noise criterion.

    Samples whose s_i is not finite (with pairs: whose s_i or whose partner's) are left out; if all are, the gradient is
    zero. A cotangent that is not finite gives NaN, as in autodiff. Perturbations of half-precision x are drawn and
    averaged in single precision, but x + sigma eps is rounded. There is no forward mode, and
    differentiating twice goes through `fn` by autodiff.

    Raises:
        TypeError: If `fn` is not callable.
        ValueError: If settings are out of range or contradict each other.

    >>> import jax, jax.numpy as jnp, zoo
    >>> above = zoo.smooth(lambda x: (x > 1.0).astype(float), sigma=0.5, num_samples=1000)
    >>> key = jax.random.key(0)
    >>> value, gradient = jax.value_and_grad(above, argnums=1)(key, 0.8)
    >>> float(value), round(float(gradient), 1)  # exact: 0.737
    (0.0, 0.7)
    """

    def __call__(self, key: jax.Array, x: Any, *args: Any, sigma: Any = None) -> Any:
        """Returns `fn(x, *args)`, or the mean of its samples if `forward="mean"`; see the class for the gradient.

        Args:
            key: JAX random key, of the perturbations.
            x: A pytree of floating-point arrays: what is perturbed.
            *args: Further arguments of `fn`, pytrees of arrays.
            sigma: In place of the setting: a scalar (or, batched, `[batch]`), which may be traced.

        Raises:
            TypeError: If a leaf of x, or no leaf of the result, is floating-point.
            ValueError: If shapes do not fit: of sigma, of the subspace, or of a batch.
        """
        block = make_block(self, x, args)
        sigma = self.sigma if sigma is None else sigma
        sigma = None if check_sigma(sigma) == "auto" else block.check_sigma(sigma)
        return jax.tree.unflatten(block.out_structure, differentiable(block, key, sigma))

    def find_sigma(self, key: jax.Array, x: Any, *args: Any) -> jax.Array:
        """Returns the sigma at which `target_rate` of perturbations changes the outcome, as `sigma="auto"` does.

        Args:
            key: JAX random key, of the probes.
            x: Where to look, as in a call.
            *args: As in a call.

        Returns:
            A scalar, or `[batch]`, to within 5 %; the end of `sigma_range` if the rate is not reached inside.
        """
        block = make_block(self, x, args)
        values, rest, directions = block.constants()
        return find_sigma(block, block.keys(key)[1], orthonormal_basis(directions, block.dtype), values, rest)

    def change_rate(self, key: jax.Array, sigma: Any, x: Any, *args: Any) -> jax.Array:
        """Returns the share of `num_probes` perturbations of size sigma that change the outcome, scalar or `[batch]`.

        Args:
            key: JAX random key, of the probes.
            sigma: Scalar (or, batched, `[batch]`).
            x: As in a call.
            *args: As in a call.
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
        """Returns sigma after one step towards the `target_rate`: for a training loop, at 1 + `num_probes` evaluations.

        Args:
            key: JAX random key, of the probes.
            sigma: Scalar; or, batched, `[batch]`, if the same examples come back. A scalar follows the mean rate of a
                batch.
            x: As in a call.
            *args: As in a call.
            rate: How far log sigma moves per unit by which the change rate misses its target.

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
    """Returns sigma, or says that it is no number to start from."""
    if isinstance(sigma, str):
        raise ValueError(
            f"zoo.smooth: {method} starts from a number, got sigma={sigma!r}. Find one first: soft.find_sigma(key, x)."
        )
    return check_sigma(sigma)


smooth = Smooth
"""`zoo.smooth(fn, sigma=...)` reads as what it does."""
