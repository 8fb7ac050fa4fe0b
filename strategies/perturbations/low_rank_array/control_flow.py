"""Rules for control flow, which returns ordinary arrays: all iterations and branches must return the same types."""

import functools
from typing import Any

import jax
import jax.extend.core as jexc
import jax.numpy as jnp
import quax
from jax.extend.core.primitives import remat_p
from jaxtyping import ArrayLike

from zoo.core._compat import let_quax_call_custom_vjps, pure_callback_p, unpack_scan_args
from zoo.strategies.perturbations.low_rank_array.array import LowRankArray, dense, replace


def _interpret(jaxpr: Any, *args: Any) -> list[Any]:
    return [dense(x) for x in quax.quaxify(jexc.jaxpr_as_fun(jaxpr))(*args)]


@quax.register(jax.lax.scan_p, precedence=1)
def _scan(*args: ArrayLike | quax.ArrayValue, jaxpr: Any, length: Any, reverse: Any, unroll: Any, **params: Any) -> Any:
    consts, carry, scanned = unpack_scan_args(args, params)

    def with_leading_axis(x: Any) -> Any:
        """Returns an argument that is scanned over, with the scanned axis in all of its parts."""
        if not isinstance(x, LowRankArray):
            return x
        if x.base.ndim - x.num_columns < 2:
            return dense(x)  # a stack of vectors

        def repeat(part: Any) -> Any:
            return None if part is None else jnp.broadcast_to(part, (x.base.shape[0], *part.shape))

        return replace(x, right=repeat(x.right), coefficients=repeat(x.coefficients))

    def step(carry: list[Any], scanned: list[Any]) -> tuple[list[Any], list[Any]]:
        out = _interpret(jaxpr, *consts, *carry, *scanned)
        return out[: len(carry)], out[len(carry) :]

    scanned = [with_leading_axis(x) for x in scanned]
    carry, results = jax.lax.scan(step, [dense(x) for x in carry], scanned, length, reverse, unroll)
    return [*carry, *results]


@quax.register(jax.lax.while_p, precedence=1)
def _while(
    *args: ArrayLike | quax.ArrayValue, cond_nconsts: int, cond_jaxpr: Any, body_nconsts: int, body_jaxpr: Any
) -> Any:
    start = cond_nconsts + body_nconsts
    return jax.lax.while_loop(
        lambda carry: _interpret(cond_jaxpr, *args[:cond_nconsts], *carry)[0],
        lambda carry: _interpret(body_jaxpr, *args[cond_nconsts:start], *carry),
        [dense(x) for x in args[start:]],
    )


@quax.register(jax.lax.cond_p, precedence=1)
def _cond(index: ArrayLike, *args: ArrayLike | quax.ArrayValue, branches: Any, **params: Any) -> Any:
    leaves, structure = jax.tree.flatten(args)

    def interpret(branch: Any, *leaves: Any) -> list[Any]:
        return _interpret(branch, *jax.tree.unflatten(structure, leaves))

    interpreted = [jax.make_jaxpr(functools.partial(interpret, branch))(*leaves) for branch in branches]
    return jax.lax.cond_p.bind(index, *leaves, branches=tuple(interpreted), **params)


@quax.register(remat_p)
def _checkpoint(*args: ArrayLike | quax.ArrayValue, jaxpr: Any, **params: Any) -> Any:
    """Calls the function: no gradient is taken here, so nothing would be computed again."""
    return quax.quaxify(jexc.jaxpr_as_fun(jexc.ClosedJaxpr(jaxpr, ())))(*args)


@quax.register(pure_callback_p)
def _call_back(*args: ArrayLike | quax.ArrayValue, **params: Any) -> Any:
    """Hands ordinary arrays to the host."""
    return pure_callback_p.bind(*map(dense, args), **params)


let_quax_call_custom_vjps()
