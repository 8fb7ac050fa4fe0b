"""The private names of JAX and quax that the zoo uses. They are in one place because a new version may remove them.

A comment at each name says why there is no public one. `tests/core/test_compat.py` fails if a version lacks a name.
Only the rules for low-rank arrays import this module, so `import zoo` does not import quax.
"""

from typing import Any

# The primitive of `jax.pure_callback`. The zoo registers a rule for it. Neither `jax.lax` nor
# `jax.extend.core.primitives` exports it.
from jax._src.callback import pure_callback_p
from jax.extend.core import set_current_trace

# Splits the operands of a scan. JAX 0.11 changed the parameters that describe them, and no public function reads both
# forms.
from quax._compat import unpack_scan_args

# This class gets a method for functions with `jax.custom_vjp`. `quax.register` takes only primitives, and such a call
# is not a primitive.
from quax._trace import _QuaxTrace

__all__ = ["let_quax_call_custom_vjps", "pure_callback_p", "unpack_scan_args"]


def let_quax_call_custom_vjps() -> None:
    """Lets quax call functions that have a custom derivative (`jax.custom_vjp`). quax 0.4 cannot call them at all."""
    if "process_custom_vjp_call" not in vars(_QuaxTrace):
        _QuaxTrace.process_custom_vjp_call = _call_custom_vjp


def _call_custom_vjp(self: Any, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Any, /, **params: Any) -> Any:
    """Calls the function itself. If a derivative is taken, JAX has replaced the function before quax sees it."""
    with set_current_trace(self):
        return fun.call_wrapped(*tracers)
