"""Shared parts of the tests of `UnrolledProblem`: small problems, their evaluation, and an unroll by hand.

`Table` and `Walker` have losses that are whole numbers, so equality is exact where it should be.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import zoo

LOSSES = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], np.float32)


class Table(zoo.UnrolledProblem):
    """Step t of an episode costs scale * LOSSES[t]; the episode terminates after `life` steps."""

    horizon: int | None = zoo.static(6, at_least=1)
    is_noisy: bool = zoo.static(False)
    is_differentiable: bool = zoo.static(True)
    differentiable = property(lambda self: self.is_differentiable)

    def initial_solution(self, key):
        return solution(1.0)

    def reset(self, key):
        return {"t": jnp.zeros((), jnp.int32), "start": jax.random.uniform(key), "total": 0.0}

    def step(self, key, solution, inner):
        scale, life = solution["scale"], solution["life"]
        loss = scale * jnp.asarray(LOSSES, scale.dtype)[inner["t"] % 8]
        loss = loss + jax.random.uniform(key) if self.is_noisy else loss
        t = inner["t"] + 1
        return {**inner, "t": t, "total": inner["total"] + loss}, loss, t.astype(life.dtype) >= life


def linear_step(noise, limit, solution, inner):
    inner = 0.9 * inner + solution + noise
    return inner, jnp.sum(jnp.sin(inner) + inner**2), inner[0] > limit


class Linear(zoo.UnrolledProblem):
    """Noisy linear dynamics x <- a x + solution + noise; terminates where x[0] exceeds the limit."""

    horizon: int | None = zoo.static(7)
    window: int | None = zoo.static(3)
    limit: float = zoo.number(1e9)
    is_differentiable: bool = zoo.static(True)
    differentiable = property(lambda self: self.is_differentiable)

    def initial_solution(self, key):
        return jnp.full(2, 0.2)

    def reset(self, key):
        return jax.random.uniform(key, (2,), minval=-2.0, maxval=2.0)

    def step(self, key, solution, inner):
        return linear_step(0.1 * jax.random.uniform(key, (2,)), self.limit, solution, inner)


class Walker(zoo.UnrolledProblem):
    """Steps x <- x + scale with loss x, and terminates where x reaches `life`.

    Fitness is three times a window's losses.
    """

    horizon: int | None = zoo.static(6)
    window: int | None = zoo.static(2)
    objective: str = zoo.static("sum")
    is_random: bool = zoo.static(False)

    def initial_solution(self, key):
        return solution()

    def reset(self, key):
        return jnp.floor(8 * jax.random.uniform(key)) if self.is_random else jnp.zeros(())

    def step(self, key, solution, inner):
        inner = inner + solution["scale"]
        return inner, inner, inner >= solution["life"]


class Endless(Walker):
    """A `Walker` whose `step` returns a plain `False`."""

    def step(self, key, solution, inner):
        return *super().step(key, solution, inner)[:2], False


def solution(scale=1.0, life=100.0):
    return {"scale": jnp.float32(scale), "life": jnp.float32(life)}


def members(scale, life=100.0):
    scale = jnp.asarray(scale, jnp.float32)
    return {"scale": scale, "life": jnp.broadcast_to(jnp.asarray(life, jnp.float32), scale.shape)}


def evaluate_often(problem, state, population, num, key=None):
    """Evaluates one population `num` times. Returns the evaluations and the states, where state 0 is the first."""
    evaluate = jax.jit(problem.evaluate)
    evaluations, states = [], [state]
    for k in jax.random.split(jax.random.key(7) if key is None else key, num):
        evaluation, state = evaluate(k, population, state)
        evaluations.append(evaluation)
        states.append(state)
    return evaluations, states


@functools.partial(jax.jit, static_argnames="length")
def noise_of_steps(keys, length):
    """Returns the noise of each step, `[len(keys), length, 2]`. Step i of a key uses fold_in(key, i)."""
    fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))(keys, jnp.arange(length))
    return 0.1 * jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (2,))))(fold)


def unroll_by_hand(problem, noise, x, inner, time, terminated):
    """Runs one window in plain Python. The losses of a member that is paused or past the horizon do not count."""
    loss = 0.0
    active = True
    for i in range(len(noise)):
        if terminated or time + i >= problem.horizon:
            break
        inner, step_loss, ended = linear_step(noise[i], problem.limit, x, inner)
        loss += jnp.where(active, step_loss, 0.0)
        active &= ~ended
    return loss
