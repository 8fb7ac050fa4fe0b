"""What the zoo takes from inside JAX and quax, gathered because neither promises to keep it.

Each name says why there is no public way; `tests/core/test_compat.py` says which of them a new version no longer has.
Only the rules for arrays of low rank import this module, so that `import zoo` does not import quax.
"""

from typing import Any

# The operation behind `jax.pure_callback`, for which a rule is registered. Neither `jax.lax` nor
# `jax.extend.core.primitives` has it.
from jax._src.callback import pure_callback_p
from jax.extend.core import set_current_trace

# Splits the operands of a scan. JAX describes them by other parameters from 0.11 on, and nothing public reads both.
from quax._compat import unpack_scan_args

# Has to learn to call a function with `jax.custom_vjp`: `quax.register` takes operations, and such a call is none.
from quax._trace import _QuaxTrace

__all__ = ["let_quax_call_custom_vjps", "pure_callback_p", "unpack_scan_args"]


def let_quax_call_custom_vjps() -> None:
    """Lets quax call functions with a derivative of their own, which quax 0.4 cannot call at all."""
    if "process_custom_vjp_call" not in vars(_QuaxTrace):
        _QuaxTrace.process_custom_vjp_call = _call_custom_vjp


def _call_custom_vjp(self: Any, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Any, /, **params: Any) -> Any:
    """Calls a function with a derivative of its own; where one is taken, that was done before quax."""
    with set_current_trace(self):
        return fun.call_wrapped(*tracers)
