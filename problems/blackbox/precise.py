"""BBOB functions in forms that stay precise near the optimum in single precision.

In the formulas of RR-6829, which bbobax uses, these functions are small differences of large numbers near the optimum.
In single precision the Rastrigin function in ten dimensions then has an error of 1e-5. It meets a target of 1e-8 at
points where its value is 2e-6. The forms here are equal to the formulas, mostly by 1 - cos(2a) = 2 sin(a)^2, and keep
their relative precision. The Schwefel function has no simple form of this kind: single precision resolves it to about
1e-6.
"""

import bbobax
import jax
import jax.numpy as jnp
from bbobax import BBOBParams, f_pen, lambda_alpha, transform_asy, transform_osz

Value = tuple[jax.Array, jax.Array]  # the function without its boundary penalty, and the penalty


class Rastrigin(bbobax.Rastrigin):
    """f3."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        z = transform_asy(transform_osz(x - params.x_opt), self.beta)
        return _rastrigin(lambda_alpha(self.condition, self.num_dims) * z), jnp.zeros(())


class BuecheRastrigin(bbobax.BuecheRastrigin):
    """f4."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        z = transform_osz(x - params.x_opt)
        is_skewed = (z > 0) & (jnp.arange(self.num_dims) % 2 == 0)
        z = jnp.where(is_skewed, 10.0, 1.0) * lambda_alpha(self.condition, self.num_dims) * z
        return _rastrigin(z), self.penalty_factor * f_pen(x)


class LinearSlope(bbobax.LinearSlope):
    """f5."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        distance = jnp.maximum(5 - jnp.sign(params.x_opt) * x, 0)  # the function is flat beyond the optimum
        return jnp.sum(lambda_alpha(self.condition, self.num_dims) * distance), jnp.zeros(())


class RastriginRotated(bbobax.RastriginRotated):
    """f15."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        z = transform_asy(transform_osz(params.r @ (x - params.x_opt)), self.beta)
        z = params.r @ (lambda_alpha(self.condition, self.num_dims) * (params.q @ z))
        return _rastrigin(z), jnp.zeros(())


class Weierstrass(bbobax.Weierstrass):
    """f16."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        z = params.q @ transform_osz(params.r @ (x - params.x_opt))
        z = params.r @ (lambda_alpha(1 / self.condition, self.num_dims) * z)
        # cos(2 pi 3^k (z + 1/2)) = -cos(2 pi 3^k z), because 3^k is odd. Only the fraction of 3^k z matters.
        k = jnp.arange(self.k_order)
        terms = 2 * jnp.sin(jnp.pi * _fraction(3.0**k * z[:, None])) ** 2 * 0.5**k
        return 10 * jnp.mean(jnp.sum(terms, axis=1)) ** 3, self.penalty_factor * f_pen(x) / self.num_dims


class GriewankRosenbrock(bbobax.GriewankRosenbrock):
    """f19."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        scale = max(1.0, self.num_dims**0.5 / 8)
        step = scale * (params.r @ (x - params.x_opt))  # z - 1; in terms of it, z^2 - z' has no cancellation
        a, b = step[:-1], step[1:]
        s = 100 * (2 * a + a**2 - b) ** 2 + a**2
        return self.facftrue * jnp.mean(s / 4000 + 2 * jnp.sin(s / 2) ** 2), jnp.zeros(())


class Katsuura(bbobax.Katsuura):
    """f23."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        z = params.q @ (lambda_alpha(self.condition, self.num_dims) * (params.r @ (x - params.x_opt)))
        powers = jnp.exp2(jnp.arange(1.0, self.num_terms + 1))
        sums = jnp.sum(jnp.abs(_fraction(powers * z[:, None])) / powers, axis=1)
        product = jnp.sum(jnp.log1p(jnp.arange(1, self.num_dims + 1) * sums))  # the logarithm of the product
        value = 10 / self.num_dims**2 * jnp.expm1(10 / self.num_dims**1.2 * product)
        return value, self.penalty_factor * f_pen(x)


class Lunacek(bbobax.Lunacek):
    """f24."""

    def _value(self, x: jax.Array, params: BBOBParams) -> Value:
        s = 1 - 1 / (2 * (self.num_dims + 20) ** 0.5 - 8.2)
        mu_1 = -(((self.mu_0**2 - self.depth) / s) ** 0.5)
        x_hat = 2 * jnp.sign(params.x_opt) * x
        z = params.q @ (lambda_alpha(self.condition, self.num_dims) * (params.r @ (x_hat - self.mu_0)))
        funnel = jnp.sum((x_hat - self.mu_0) ** 2)
        other = self.depth * self.num_dims + s * jnp.sum((x_hat - mu_1) ** 2)
        value = jnp.minimum(funnel, other) + 20 * jnp.sum(jnp.sin(jnp.pi * z) ** 2)
        return value, self.penalty_factor * f_pen(x)


class GriewankRosenbrock1(GriewankRosenbrock):
    """f125 to f127, before the noise."""

    name = "griewank_rosenbrock_1"
    facftrue = 1.0


_PRECISE = {
    each.name: each
    for each in (
        Rastrigin,
        BuecheRastrigin,
        LinearSlope,
        RastriginRotated,
        Weierstrass,
        GriewankRosenbrock,
        GriewankRosenbrock1,
        Katsuura,
        Lunacek,
    )
}


def precise(problem: type[bbobax.BBOBProblem]) -> type[bbobax.BBOBProblem]:
    """Returns the precise form of a bbobax function, or the function itself if there is none."""
    return _PRECISE.get(problem.name, problem)


def _rastrigin(z: jax.Array) -> jax.Array:
    return 20 * jnp.sum(jnp.sin(jnp.pi * z) ** 2) + jnp.sum(z**2)


def _fraction(x: jax.Array) -> jax.Array:
    return x - jnp.round(x)
