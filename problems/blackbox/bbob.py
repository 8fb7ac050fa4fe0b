"""The 24 noiseless BBOB functions, through bbobax.

Reference: Hansen, Finck, Ros, Auger 2009, "Real-Parameter Black-Box Optimization Benchmarking 2009: Noiseless Functions
Definitions", INRIA RR-6829.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import bbobax
import jax

from zoo import Problem, leaf, static


class BBOB(Problem):
    """A BBOB function (24, through bbobax); its fitness is the distance to the optimal value.

    Attributes:
        function: Name of the function, for example `"rastrigin"`.
        num_dims: Number of dimensions.
        instance: Which instance: where the optimum lies and how the function is rotated. A leaf: changing it does not
            recompile. (The numbers are bbobax's random instances, not COCO's.)
        noise_model: A bbobax noise model, for example `bbobax.Gaussian()`; default: noiseless.
        parameters: The instance's parameters; drawn from `instance` when left open. A run draws them once.
    """

    function: str = static()
    num_dims: int = static(default=10, at_least=2)
    instance: int | jax.Array = leaf(default=1)
    noise_model: Any = static(default=None)
    parameters: bbobax.BBOBParams | None = leaf(default=None)

    namespace_field: ClassVar[str] = "function"

    def __post_init__(self) -> None:
        """Checks the function's name and the instance."""
        super().__post_init__()
        if self.function not in bbobax.BBOB_PROBLEMS:
            raise ValueError(f"BBOB.function must be one of {', '.join(bbobax.BBOB_PROBLEMS)}, got {self.function!r}.")
        if isinstance(self.instance, (str, float)) or (isinstance(self.instance, int) and self.instance < 0):
            raise ValueError(f"BBOB.instance must be a whole number of at least 0, got {self.instance!r}.")

    @staticmethod
    def names() -> list[str]:
        """Returns the names of the functions, f1 to f24."""
        return list(bbobax.BBOB_PROBLEMS)

    @property
    def suggestions(self) -> Mapping[str, Any]:
        """A fifth of the search box [-5, 5]^d as step size."""
        return {"sigma": 2.0, "learning_rate": 0.1}

    @property
    def suggested_num_steps(self) -> int:
        """1 000 evaluations per dimension."""
        return 1_000 * self.num_dims

    def initial_solution(self, key: jax.Array) -> jax.Array:
        """Returns a uniform point in [-5, 5]^d."""
        return self._bbob.sample_x(key)

    def fitness(self, key: jax.Array, solution: jax.Array) -> jax.Array:
        """Returns f(x) - f_opt (noisy if there is a noise model)."""
        parameters = self.init_statistics() if self.parameters is None else self.parameters
        return self._bbob.evaluate(key, solution, parameters).fitness

    def score(self, key: jax.Array, solution: jax.Array) -> dict[str, jax.Array]:
        """Returns f(x) - f_opt without noise."""
        parameters = self.init_statistics() if self.parameters is None else self.parameters
        value, penalty = self._bbob._value(solution, parameters)
        return {"fitness": value + penalty + parameters.f_opt}

    def init_statistics(self) -> bbobax.BBOBParams:
        """Draws the instance's parameters, once per run rather than in every evaluation."""
        return self._bbob.sample(jax.random.key(self.instance))

    def with_statistics(self, statistics: bbobax.BBOBParams) -> Self:
        """Returns the problem with its instance drawn."""
        return self.replace(parameters=statistics)

    @property
    def _bbob(self) -> bbobax.BBOBProblem:
        return bbobax.BBOB_PROBLEMS[self.function](num_dims=self.num_dims, noise_model=self.noise_model)
