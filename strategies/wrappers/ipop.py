"""IPOP: restarts with a population size that doubles.

Whenever a run has converged or stalled, another one starts with twice the population size. Large populations see the
global structure of a multimodal function, and small ones at the start are fast where that is not needed.

Reference: Auger & Hansen 2005, "A Restart CMA Evolution Strategy with Increasing Population Size", CEC, doi
10.1109/CEC.2005.1554902. Here any strategy may be restarted, and `Restart` says how a run ends.
"""

from typing import Any

import jax
import jax.numpy as jnp

from zoo.strategies.wrappers.restart import Restart, RestartState


class IPOP(Restart):
    """Restarts any strategy with twice the population size whenever a run has converged or stalled.

    After `max_doublings` restarts the population size stays. See `Restart` for the settings, and for blocks.

    References:
        Auger & Hansen 2005, CEC.
    """

    def _first_schedule(self) -> Any:
        return ()

    def _next_run(self, key: jax.Array, state: RestartState) -> tuple[jax.Array, Any, Any, Any]:
        return jnp.minimum(state.run.rung + 1, self.max_doublings), 1.0, jnp.inf, ()
