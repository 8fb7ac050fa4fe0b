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
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from zoo.core.population import map_members

_SIGMA_PRECISION = 1.1
"""The bisection of sigma stops when the bracket's ends are within this factor."""
_CHOICES = {
    "sampler": ("normal", "orthogonal", "sobol"),
    "forward": ("exact", "mean"),
    "baseline": (None, "leave_one_out", "value", "none"),
}


def smooth(
    fn: Callable[..., Any],
    *,
    sigma: Any,
    num_samples: int = 64,
    antithetic: bool = True,
    baseline: str | None = None,
    sampler: str = "normal",
    forward: str = "exact",
    batched: bool = False,
    subspace: Any = None,
    batch_size: int | None = None,
    target_rate: float = 0.7,
    num_probes: int = 16,
    sigma_range: tuple[float, float] = (1e-3, 1e3),
    tolerance: float = 0.0,
) -> "Smooth":
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

    Args:
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

    Returns:
        A `Smooth`, to be called as `soft(key, x, *args, sigma=None)`.

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
    return Smooth(
        fn=fn,
        sigma=sigma,
        num_samples=num_samples,
        antithetic=antithetic,
        baseline=baseline,
        sampler=sampler,
        forward=forward,
        batched=batched,
        subspace=subspace,
        batch_size=batch_size,
        target_rate=target_rate,
        num_probes=num_probes,
        sigma_range=sigma_range,
        tolerance=tolerance,
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Smooth:
    """A function with the gradient of its Gaussian-smoothed version; made by `smooth`, which describes the fields."""

    fn: Callable[..., Any]
    sigma: Any
    num_samples: int = 64
    antithetic: bool = True
    baseline: str | None = None
    sampler: str = "normal"
    forward: str = "exact"
    batched: bool = False
    subspace: Any = None
    batch_size: int | None = None
    target_rate: float = 0.7
    num_probes: int = 16
    sigma_range: tuple[float, float] = (1e-3, 1e3)
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not callable(self.fn):
            raise TypeError(f"zoo.smooth expects a function fn(x, *args), got {type(self.fn).__name__}.")
        for name in ("num_samples", "num_probes", *(["batch_size"] if self.batch_size is not None else [])):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"zoo.smooth: {name} must be a whole number, got {value!r}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"zoo.smooth: {name} must be one of {choices}, got {getattr(self, name)!r}.")
        if self.num_samples < 1 or (self.antithetic and self.num_samples % 2):
            raise ValueError(
                f"zoo.smooth: num_samples must be positive, and even for antithetic pairs, got {self.num_samples}. "
                "Choose another number, or antithetic=False."
            )
        if self.antithetic and self.baseline is not None:
            raise ValueError(
                f"zoo.smooth: in antithetic pairs any baseline cancels, so baseline={self.baseline!r} would do "
                "nothing. Leave it out, or choose antithetic=False."
            )
        if not self.antithetic and self.baseline in (None, "leave_one_out") and self.num_samples == 1:
            raise ValueError(
                "zoo.smooth: a leave-one-out baseline needs at least two samples, got num_samples=1. Choose more, or "
                "baseline='value'."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"zoo.smooth: batch_size must be at least 1, got {self.batch_size}.")
        if not 0 < self.target_rate < 1 or self.num_probes < 1 or not self.tolerance >= 0:
            raise ValueError(
                "zoo.smooth: expected 0 < target_rate < 1, num_probes >= 1 and tolerance >= 0, got "
                f"{self.target_rate}, {self.num_probes} and {self.tolerance}."
            )
        if not isinstance(self.sigma_range, (tuple, list)) or len(self.sigma_range) != 2:
            raise ValueError(f"zoo.smooth: sigma_range must be a pair (low, high), got {self.sigma_range!r}.")
        low, high = self.sigma_range
        if not 0 < low < high < math.inf:
            raise ValueError(f"zoo.smooth: sigma_range must be 0 < low < high, got {self.sigma_range}.")
        _check_sigma(self.sigma)

    def __call__(self, key: jax.Array, x: Any, *args: Any, sigma: Any = None) -> Any:
        """Returns `fn(x, *args)`, or the mean of its samples if `forward="mean"`; see `smooth` for the gradient.

        Args:
            key: JAX random key, of the perturbations.
            x: A pytree of floating-point arrays: what is perturbed.
            *args: Further arguments of `fn`, pytrees of arrays.
            sigma: In place of the setting: a scalar (or, batched, `[batch]`), which may be traced.

        Raises:
            TypeError: If a leaf of x, or no leaf of the result, is floating-point.
            ValueError: If shapes do not fit: of sigma, of the subspace, or of a batch.
        """
        block = self._block(x, args)
        sigma = self.sigma if sigma is None else sigma
        sigma = None if _check_sigma(sigma) == "auto" else block.check_sigma(sigma)
        return jax.tree.unflatten(block.out_structure, block.differentiable(key, sigma))

    def find_sigma(self, key: jax.Array, x: Any, *args: Any) -> jax.Array:
        """Returns the sigma at which `target_rate` of perturbations changes the outcome, as `sigma="auto"` does.

        Args:
            key: JAX random key, of the probes.
            x: Where to look, as in a call.
            *args: As in a call.

        Returns:
            A scalar, or `[batch]`, to within 5 %; the end of `sigma_range` if the rate is not reached inside.
        """
        block = self._block(x, args)
        values, rest, directions = block.constants()
        return block.find_sigma(block.keys(key)[1], block.basis(directions), values, rest)

    def change_rate(self, key: jax.Array, sigma: Any, x: Any, *args: Any) -> jax.Array:
        """Returns the share of `num_probes` perturbations of size sigma that change the outcome, scalar or `[batch]`.

        Args:
            key: JAX random key, of the probes.
            sigma: Scalar (or, batched, `[batch]`).
            x: As in a call.
            *args: As in a call.
        """
        block = self._block(x, args)
        values, rest, directions = block.constants()
        probes = block.draw(block.keys(key)[1], self.num_probes)
        return block.change_rate(
            block.check_sigma(_check_number(sigma, "change_rate")),
            block.basis(directions),
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

    def _block(self, x: Any, args: tuple[Any, ...]) -> "_Block":
        x = _check_x(x)
        args = jax.tree.map(lambda a: a if hasattr(a, "dtype") else jnp.asarray(a), args)
        # Traced once, here: fn may close over tracers, which a custom derivative must see as arguments.
        closed, out = jax.make_jaxpr(self.fn, return_shape=True)(x, *args)
        outs, out_structure = jax.tree.flatten(out)
        if any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in outs):
            raise TypeError("zoo.smooth: fn must return real numbers; return the real and the imaginary part instead.")
        if not any(jnp.issubdtype(o.dtype, jnp.floating) for o in outs):
            raise TypeError(
                f"zoo.smooth: no result of fn is floating-point (dtypes: {[str(o.dtype) for o in outs]}), so no loss "
                "can send a gradient into it. Cast it (fn(x).astype(float)), or wrap block and loss together: "
                "zoo.smooth(lambda x, *args: loss(fn(x, *args)), ...)."
            )
        leaves, structure = jax.tree.flatten(x)
        size = None
        if self.batched:
            sizes = {leaf.shape[:1] for leaf in leaves}
            if len(sizes) != 1 or () in sizes:
                raise ValueError(
                    "zoo.smooth(batched=True): all leaves of x need the same leading axis of examples, got shapes "
                    f"{[leaf.shape for leaf in leaves]}. Put what examples share in args."
                )
            ((size,),) = sizes
            if any(o.shape[:1] != (size,) for o in outs):
                raise ValueError(
                    f"zoo.smooth(batched=True): every result of fn needs the leading axis of the {size} examples, got "
                    f"shapes {[o.shape for o in outs]}. A scalar objective over the batch has one joint draw: use "
                    "batched=False, at about batch-size times the variance; or return one loss per example."
                )
        return _Block(
            settings=self,
            jaxpr=closed.jaxpr,
            out_structure=out_structure,
            outs=outs,
            x=leaves,
            rest=[*jax.tree.leaves(args), *closed.consts],
            num_args=len(jax.tree.leaves(args)),
            directions=_check_subspace(self.subspace, structure, leaves, size),
            size=size,
        )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Block:
    """One call: the program of `fn` on flat lists of arrays, and the estimator around it.

    Below, `[*lead]` is `[]`, or `[batch]` if batched. Noise is what is drawn: of one example of x, or `[k]` numbers.
    """

    settings: Smooth
    jaxpr: Any
    out_structure: Any
    outs: list[Any]
    x: list[jax.Array]
    rest: list[Any]  # leaves of args, then what fn closes over
    num_args: int
    directions: list[jax.Array] | None  # of the subspace, [k, ...]
    size: int | None  # of a batch

    @property
    def lead(self) -> tuple[int, ...]:
        return () if self.size is None else (self.size,)

    @property
    def dtype(self) -> Any:
        """Of sigma, of scores and weights, and of flat noise: at least single precision."""
        floats = [o.dtype for o in self.outs if jnp.issubdtype(o.dtype, jnp.floating)]
        return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in self.x), *floats)

    @property
    def is_float(self) -> list[bool]:
        return [jnp.issubdtype(o.dtype, jnp.floating) for o in self.outs]

    def constants(self) -> tuple[list[jax.Array], list[Any], list[jax.Array] | None]:
        return jax.lax.stop_gradient((self.x, self.rest, self.directions))

    def traced(self, x: list[jax.Array], rest: list[Any]) -> list[jax.Array]:
        """Returns the results of `fn` as a flat list."""
        args, consts = rest[: self.num_args], rest[self.num_args :]
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, consts))(*x, *args)

    def check_sigma(self, sigma: Any) -> jax.Array:
        sigma = jax.lax.stop_gradient(jnp.asarray(_check_sigma(sigma), self.dtype))
        if sigma.shape not in ((), self.lead):
            raise ValueError(
                f"zoo.smooth: sigma must be a scalar{' or one per example' if self.lead else ''}, of shape "
                f"{' or '.join(str(s) for s in dict.fromkeys(((), self.lead)))}, got shape {sigma.shape}."
                f"{'' if self.lead else ' For a sigma per example, vmap over it or choose batched=True.'}"
            )
        return sigma

    # The derivative

    def differentiable(self, key: jax.Array, sigma: jax.Array | None) -> list[jax.Array]:
        """Returns the forward pass with its derivative; `sigma` is `None` if it is to be found."""
        call = jax.custom_vjp(lambda *operands: self.forward(*operands)[0])
        call.defvjp(self.forward_rule, self.backward_rule, symbolic_zeros=True)
        return call(key, sigma, self.directions, self.x, self.rest)

    def forward(self, key: Any, sigma: Any, directions: Any, x: Any, rest: Any, exact: Any = None) -> tuple[Any, Any]:
        """Returns results; and sigma, exact results and samples of floating-point ones as far as they were needed."""
        is_mean = self.settings.forward == "mean"
        if exact is None and (not is_mean or not all(self.is_float) or self.settings.baseline == "value"):
            exact = self.traced(x, rest)
        if not is_mean:
            return exact, (sigma, exact, None)
        basis = self.basis(directions)
        noise_key, probe_key = self.keys(key)
        if sigma is None:
            sigma = self.find_sigma(probe_key, basis, x, rest)
        noise = self.draw(noise_key, self.num_directions)
        samples = self.evaluate(self.floats, sigma, basis, self.both_signs(noise), x, rest)
        means = iter(self.mean(samples))
        exact_or_none = exact or [None] * len(self.outs)
        results = [next(means) if f else e for f, e in zip(self.is_float, exact_or_none, strict=True)]
        return results, (sigma, exact, samples)

    def forward_rule(self, key: Any, sigma: Any, directions: Any, x: Any, rest: Any) -> tuple[Any, Any]:
        key, sigma, directions, values, rest_values = _values((key, sigma, directions, x, rest))
        perturbed = {
            i: leaf.value
            for i, leaf in enumerate(rest)
            if leaf.perturbed and jnp.issubdtype(leaf.value.dtype, jnp.inexact)
        }
        exact, pullback = None, None
        if perturbed:

            def of_rest(perturbed: dict[int, Any]) -> tuple[Any, Any]:
                results = self.traced(values, [perturbed.get(i, leaf) for i, leaf in enumerate(rest_values)])
                return self.floats(results), results

            _, pullback, exact = jax.vjp(of_rest, perturbed, has_aux=True)
        results, (sigma, exact, samples) = self.forward(key, sigma, directions, values, rest_values, exact)
        residuals = None
        if any(leaf.perturbed for leaf in x):
            value = self.floats(exact) if self.settings.baseline == "value" else None
            residuals = (key, sigma, directions, values, rest_values, value, samples)
        return results, (residuals, pullback)

    def backward_rule(self, saved: Any, cotangents: Any) -> tuple[Any, ...]:
        residuals, pullback = saved
        cotangents = [c for c, is_float in zip(cotangents, self.is_float, strict=True) if is_float]
        x_bar, rest_bar = None, [None] * len(self.rest)
        if pullback is not None:
            outs = self.floats(self.outs)
            dense = [
                jnp.zeros(o.shape, o.dtype) if type(c) is SymbolicZero else c
                for o, c in zip(outs, cotangents, strict=True)
            ]
            (by_index,) = pullback(dense)
            rest_bar = [by_index.get(i) for i in range(len(self.rest))]
        if residuals is not None:
            x_bar = self.estimate(cotangents, *residuals)
        return None, None, None, x_bar, rest_bar

    def estimate(
        self, cotangents: Any, key: Any, sigma: Any, directions: Any, x: Any, rest: Any, value: Any, samples: Any
    ) -> list[jax.Array]:
        """Returns the estimated cotangent of x."""
        basis = self.basis(directions)
        noise_key, probe_key = self.keys(key)
        if sigma is None:
            sigma = self.find_sigma(probe_key, basis, x, rest)
        noise = self.draw(noise_key, self.num_directions)
        score = functools.partial(self.score, cotangents)
        if samples is None:
            shifts = self.both_signs(noise)
            scores = self.evaluate(lambda results: score(self.floats(results)), sigma, basis, shifts, x, rest)
        else:
            scores = jax.vmap(score)(samples)
        weights = self.weights(scores, None if value is None else score(value)) / sigma
        gradient = self.span(self.contract(weights, noise), basis)
        known = [jnp.isfinite(c).all(axis=self.trailing(c)) for c in cotangents if type(c) is not SymbolicZero]
        known = functools.reduce(jnp.logical_and, known, jnp.ones(self.lead, bool))
        return [
            jnp.where(_expand(known, g), g, jnp.nan).astype(leaf.dtype)
            for g, leaf in zip(gradient, self.x, strict=True)
        ]

    def weights(self, scores: jax.Array, value: jax.Array | None) -> jax.Array:
        """Returns the weight of each direction, `[num_directions, *lead]`, times sigma; zero for what is not finite."""
        if self.settings.antithetic:
            plus, minus = jnp.split(scores, 2)
            scores = (plus - minus) / 2
        valid = jnp.isfinite(scores)
        scores = jnp.where(valid, scores, 0)
        count = jnp.sum(valid, axis=0).astype(self.dtype)
        if value is not None:
            scores = scores - jnp.where(jnp.isfinite(value), value, 0)
        elif not self.settings.antithetic and self.settings.baseline != "none":
            scores = scores - jnp.sum(scores, axis=0) / jnp.maximum(count, 1)
            if self.settings.sampler != "sobol":
                # s_i minus the mean of the others: that of all, times n / (n - 1). Orthogonal directions are
                # independent enough: given the others, each is as likely as its opposite.
                scores = scores * count / jnp.maximum(count - 1, 1)
        return jnp.where(valid, scores, 0) / jnp.maximum(count, 1)

    # Samples

    @property
    def num_directions(self) -> int:
        return self.settings.num_samples // 2 if self.settings.antithetic else self.settings.num_samples

    def keys(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the keys of noise and of probes, `[*lead]`; those of a batch are as if `vmap` had got a split key."""
        if self.size is None:
            noise_key, probe_key = jax.random.split(key)
            return noise_key, probe_key
        pairs = jax.vmap(jax.random.split)(jax.random.split(key, self.size))
        return pairs[:, 0], pairs[:, 1]

    def draw(self, keys: jax.Array, num: int) -> list[jax.Array]:
        """Returns standard normal noise, each leaf `[num, *lead, ...]`."""
        if self.directions is not None:
            space = [jax.ShapeDtypeStruct((self.directions[0].shape[0],), self.dtype)]
        else:
            space = [
                jax.ShapeDtypeStruct(leaf.shape[len(self.lead) :], jnp.promote_types(leaf.dtype, jnp.float32))
                for leaf in self.x
            ]
        draw = functools.partial(_draw, sampler=self.settings.sampler, space=space, num=num)
        return draw(keys) if self.size is None else jax.vmap(draw, out_axes=1)(keys)

    def both_signs(self, noise: list[jax.Array]) -> list[jax.Array]:
        """Returns the noise of all samples, each leaf `[num_samples, *lead, ...]`; of pairs first all with plus."""
        return [jnp.concatenate([z, -z]) for z in noise] if self.settings.antithetic else noise

    def evaluate(self, reduce: Callable[[Any], Any], sigma: Any, basis: Any, noise: Any, x: Any, rest: Any) -> Any:
        """Returns `reduce(results of fn)` at x + sigma * noise, stacked."""

        def one(z: list[jax.Array]) -> Any:
            shifted = [
                (leaf + _expand(sigma, leaf).astype(eps.dtype) * eps).astype(leaf.dtype)
                for leaf, eps in zip(x, self.span(z, basis), strict=True)
            ]
            return reduce(self.traced(shifted, rest))

        return map_members(one, noise, batch_size=self.settings.batch_size)

    def floats(self, results: list[Any]) -> list[Any]:
        return [r for r, is_float in zip(results, self.is_float, strict=True) if is_float]

    def trailing(self, leaf: jax.Array) -> tuple[int, ...]:
        return tuple(range(len(self.lead), leaf.ndim))

    def score(self, cotangents: list[Any], floats: list[jax.Array]) -> jax.Array:
        """Returns <cotangent, results>, `[*lead]`."""
        products = [
            jnp.sum(r.astype(self.dtype) * c.astype(self.dtype), axis=self.trailing(r))
            for r, c in zip(floats, cotangents, strict=True)
            if type(c) is not SymbolicZero
        ]
        return sum(products, jnp.zeros(self.lead, self.dtype))

    def mean(self, samples: list[jax.Array]) -> list[jax.Array]:
        """Returns the mean over the samples that are finite; NaN if none is."""
        finite = [jnp.isfinite(s).all(axis=tuple(range(1 + len(self.lead), s.ndim))) for s in samples]
        valid = functools.reduce(jnp.logical_and, finite)
        if self.settings.antithetic:
            valid = jnp.tile(valid.reshape(2, -1, *self.lead).all(axis=0), (2, *[1] * len(self.lead)))
        count = jnp.sum(valid, axis=0).astype(self.dtype)
        count = jnp.where(count > 0, count, jnp.nan)
        sums = [jnp.sum(jnp.where(_expand(valid, s), s, 0), axis=0, dtype=self.dtype) for s in samples]
        return [(t / _expand(count, t)).astype(s.dtype) for t, s in zip(sums, samples, strict=True)]

    def contract(self, weights: jax.Array, noise: list[jax.Array]) -> list[jax.Array]:
        """Returns the weighted sum over samples, each leaf `[*lead, ...]`."""
        from zoo.core.noise import weighted_sum

        return weighted_sum(weights, noise) if self.size is None else jax.vmap(weighted_sum, 1)(weights, noise)

    # The subspace

    def basis(self, directions: list[jax.Array] | None) -> list[jax.Array] | None:
        """Returns an orthonormal basis of the subspace, each leaf `[k, ...]`, with zeros for directions to spare."""
        if directions is None:
            return None
        leaves = [leaf.astype(self.dtype) for leaf in directions]
        num = leaves[0].shape[0]
        rows = jnp.concatenate([leaf.reshape(num, -1) for leaf in leaves], axis=1)
        with jax.default_matmul_precision("highest"):
            norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
            rows = rows / jnp.where(norms > 0, norms, 1)
            for tolerance in (10 * num * float(jnp.finfo(self.dtype).eps), 0.5):  # the second pass only polishes
                values, vectors = jnp.linalg.eigh(rows @ rows.T)
                kept = values > tolerance * jnp.maximum(values[-1], jnp.finfo(self.dtype).tiny)
                scale = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
                rows = (vectors * scale).T @ rows
        cuts = np.cumsum([math.prod(leaf.shape[1:]) for leaf in leaves])[:-1]
        return [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(rows, cuts, axis=1), leaves, strict=True)]

    def span(self, noise: list[jax.Array], basis: list[jax.Array] | None) -> list[jax.Array]:
        """Returns noise as perturbations of x, each leaf `[*lead, ...]`."""
        if basis is None:
            return noise
        (coefficients,) = noise
        return [jnp.tensordot(coefficients, b, 1, precision=jax.lax.Precision.HIGHEST) for b in basis]

    # The size of sigma

    def change_rate(self, sigma: Any, basis: Any, probes: Any, x: Any, rest: Any, exact: list[jax.Array]) -> jax.Array:
        """Returns the share of probes that change a result, `[*lead]`."""

        def changed(results: list[jax.Array]) -> jax.Array:
            moved = [
                self.moved(r, e).any(axis=self.trailing(e))
                for r, e in zip(results, exact, strict=True)
                if not jnp.issubdtype(e.dtype, jax.dtypes.extended)
            ]
            return functools.reduce(jnp.logical_or, moved)

        return jnp.mean(self.evaluate(changed, sigma, basis, probes, x, rest), axis=0, dtype=self.dtype)

    def moved(self, result: jax.Array, exact: jax.Array) -> jax.Array:
        moved = result != exact
        if self.settings.tolerance > 0:  # not needed at zero, where it would round large integers
            distance = jnp.abs(result.astype(self.dtype) - exact.astype(self.dtype))
            moved &= ~(distance <= self.settings.tolerance)
        return moved & ~(jnp.isnan(result) & jnp.isnan(exact)) if jnp.issubdtype(exact.dtype, jnp.inexact) else moved

    def find_sigma(self, keys: Any, basis: Any, x: Any, rest: Any) -> jax.Array:
        low, high = (math.log(end) for end in self.settings.sigma_range)
        num_steps = max(math.ceil(math.log2((high - low) / math.log(_SIGMA_PRECISION))), 0)
        probes = self.draw(keys, self.settings.num_probes)
        exact = self.traced(x, rest)

        def step(_: Any, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = bracket
            middle = (low + high) / 2
            enough = self.change_rate(jnp.exp(middle), basis, probes, x, rest, exact) >= self.settings.target_rate
            return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

        bracket = (jnp.full(self.lead, low, self.dtype), jnp.full(self.lead, high, self.dtype))
        low, high = jax.lax.fori_loop(0, num_steps, step, bracket)
        return jnp.exp((low + high) / 2)


def _check_sigma(sigma: Any) -> Any:
    """Returns sigma, or says that it is no standard deviation."""
    if isinstance(sigma, jax.core.Tracer) or (isinstance(sigma, str) and sigma == "auto"):
        return sigma
    values = np.asarray(sigma)
    if values.size and values.dtype.kind in "fiu" + "V" and np.all((values > 0) & np.isfinite(values)):
        return sigma
    raise ValueError(f"zoo.smooth: sigma must be a positive number or 'auto', got {sigma!r}.")


def _check_number(sigma: Any, method: str) -> Any:
    if isinstance(sigma, str):
        raise ValueError(
            f"zoo.smooth: {method} starts from a number, got sigma={sigma!r}. Find one first: soft.find_sigma(key, x)."
        )
    return _check_sigma(sigma)


def _check_x(x: Any) -> Any:
    """Returns x as JAX arrays, or says what is wrong with it."""
    leaves = jax.tree_util.tree_leaves_with_path(x)
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", type(leaf))
        if dtype is not float and not (hasattr(leaf, "dtype") and jnp.issubdtype(dtype, jnp.floating)):
            raise TypeError(
                "zoo.smooth perturbs its first argument, a pytree of floating-point arrays, but "
                f"x{jax.tree_util.keystr(path)} is {getattr(dtype, '__name__', dtype)}. Put what is not smoothed in "
                "args: soft(key, x, *args)."
            )
    if sum(np.size(leaf) for _, leaf in leaves) == 0:
        raise ValueError(
            f"zoo.smooth: x has no entries (shapes {[np.shape(leaf) for _, leaf in leaves]}), so there is nothing to "
            "perturb. Pass what is to be smoothed as the first argument after the key."
        )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(jnp.result_type(leaf))), x)


def _check_subspace(subspace: Any, structure: Any, x: list[jax.Array], size: int | None) -> list[jax.Array] | None:
    """Returns the directions as a flat list, each `[k, ...]`."""
    if subspace is None:
        return None
    directions = [jnp.asarray(leaf) for leaf in jax.tree.leaves(subspace)]
    shapes = [leaf.shape if size is None else leaf.shape[1:] for leaf in x]
    fits = jax.tree.structure(subspace) == structure and all(
        leaf.ndim and leaf.shape[1:] == shape for leaf, shape in zip(directions, shapes, strict=True)
    )
    if not fits or len({leaf.shape[0] for leaf in directions}) != 1 or directions[0].shape[0] == 0:
        raise ValueError(
            f"zoo.smooth: subspace must have the structure of x{'' if size is None else ' (of one example)'} with "
            f"leaves [k, *leaf.shape], here {[('k', *shape) for shape in shapes]}, got {jax.tree.structure(subspace)} "
            f"with shapes {[leaf.shape for leaf in directions]}."
        )
    return directions


def _values(tree: Any) -> Any:
    is_primal = lambda leaf: isinstance(leaf, CustomVJPPrimal)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.value, tree, is_leaf=is_primal)


def _expand(values: jax.Array, like: jax.Array) -> jax.Array:
    """Appends axes until the number is that of another array."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values


# Samplers


def _draw(key: jax.Array, *, sampler: str, space: list[jax.ShapeDtypeStruct], num: int) -> list[jax.Array]:
    """Returns `num` draws from N(0, I), each leaf `[num, *leaf.shape]`."""
    from zoo.core.noise import normal_like

    if sampler == "normal":
        return normal_like(key, space, num_samples=num)
    sizes = [math.prod(leaf.shape) for leaf in space]
    dtype = jnp.result_type(*(leaf.dtype for leaf in space))
    flat = (_orthogonal if sampler == "orthogonal" else _sobol)(key, num, sum(sizes), dtype)
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(num, *leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, space, strict=True)]


def _orthogonal(key: jax.Array, num: int, dim: int, dtype: Any) -> jax.Array:
    """Returns `[num, dim]` in blocks of orthogonal rows."""
    block = min(dim, num)
    columns = jax.random.normal(key, (-(-num // block), dim, block), dtype)
    directions, triangle = jnp.linalg.qr(columns)
    # With positive diagonals the factor is Haar distributed (Mezzadri 2007). It depends on the directions of the
    # columns alone, and their lengths on neither: they serve again.
    signs = jnp.where(jnp.diagonal(triangle, axis1=1, axis2=2) < 0, -1, 1).astype(dtype)
    rows = directions * (signs * jnp.linalg.norm(columns, axis=1))[:, None, :]
    return jnp.swapaxes(rows, 1, 2).reshape(-1, dim)[:num]


def _sobol(key: jax.Array, num: int, dim: int, dtype: Any) -> jax.Array:
    """Returns `[num, dim]` Sobol points under a random digital shift, as normals."""
    shift = jax.random.bits(key, (dim,), jnp.uint32)
    bits = jnp.asarray(_sobol_points(num, dim)) ^ shift
    # The middles of cells, which are exact in this precision: neither 0 nor 1, and symmetric.
    num_bits = 23 if dtype == jnp.float32 else 32
    unit = ((bits >> (32 - num_bits)).astype(dtype) + 0.5) * 2.0**-num_bits
    return jax.scipy.special.ndtri(unit)


@functools.lru_cache(maxsize=32)
def _sobol_points(num: int, dim: int) -> np.ndarray:
    """Returns `[num, dim]` scrambled Sobol points as 32-bit fractions."""
    from scipy.stats import qmc

    if dim > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"zoo.smooth(sampler='sobol') takes at most {qmc.Sobol.MAXDIM} dimensions, got {dim}. Choose "
            "sampler='orthogonal', or a subspace."
        )
    engine = qmc.Sobol(dim, bits=32, seed=0)  # pyright: ignore[reportCallIssue] # called rng from SciPy 1.15 on
    points = engine.random_base2((num - 1).bit_length())[:num]
    return (points * 2.0**32).astype(np.uint32)
