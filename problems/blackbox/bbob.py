"""The 24 noiseless and the 30 noisy BBOB functions, implemented with bbobax.

References: Hansen, Finck, Ros, Auger 2009, "Real-Parameter Black-Box Optimization Benchmarking 2009": "Noiseless
Functions Definitions", INRIA RR-6829 (f1 to f24), and "Noisy Functions Definitions", INRIA RR-6869 (f101 to f130).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import bbobax
import jax
import jax.numpy as jnp
import numpy as np

from zoo.core import Problem, group_keys, leaf, static
from zoo.core.checks import MAX_COUNT, is_whole, shown
from zoo.core.promotion import promotion_of_others
from zoo.core.settings import is_rebuilt
from zoo.problems.blackbox.precise import precise

COCO_TARGETS = tuple(10.0 ** (exponent / 5) for exponent in range(10, -41, -1))
"""COCO's 51 target precisions, 1e2 to 1e-8."""

_UNROTATED = ("sphere", "ellipsoidal", "rastrigin", "bueche_rastrigin", "linear_slope", "rosenbrock", "schwefel")
"""Functions without rotation. Drawing no rotation for them saves most of the time to compile an instance."""

_NOISELESS = {f"f{number}": name for number, name in enumerate(bbobax.BBOB_PROBLEMS, 1)}
# bbobax's names. A base that differs from the noiseless function has its own name, such as griewank_rosenbrock_1.
_NOISY = {number: f"{base.name}_{noise}" for number, (base, noise) in bbobax.BBOB_NOISY_PROBLEMS.items()}


class BBOB(Problem):
    """A BBOB function (24 noiseless, 30 noisy). Fitness is the distance to the optimal value, f(x) - f_opt.

    COCO's numbers are also names: `f3` is `rastrigin`, `f107` is `sphere_gaussian_severe`. Every member gets its own
    noise, even within a group. The score has no noise.

    Single precision resolves the Schwefel function only to about 1e-6. For sharp ridge and Schaffers, no float may be
    close enough to the optimum to reach 1e-8. Use double precision (`jax_enable_x64`) to compare with published
    results.

    Attributes:
        function: Name of the function, for example `"rastrigin"`.
        num_dims: Number of dimensions.
        instance: Number of the instance, which sets the optimum and the rotation. It is a leaf, so changing it does not
            recompile. The numbers count bbobax's random instances, not COCO's.
        targets: Precisions f(x) - f_opt that runs are timed by. See `Results.runtimes`.
        noise_model: A bbobax noise model for a noiseless function, for example `bbobax.Gaussian()`. With `None`, adds
            no noise. The noisy functions have their own noise, and a penalty outside [-5, 5]^d.
        parameters: Parameters of the instance. With `None`, draws them from `instance`, once per run.
    """

    function: str = static()
    num_dims: int = static(default=10, at_least=2)
    instance: int | jax.Array = leaf(default=1)
    targets: tuple[float, ...] | None = static(default=COCO_TARGETS)
    noise_model: Any = static(default=None)
    parameters: bbobax.BBOBParams | None = leaf(default=None)

    namespace_field: ClassVar[str] = "function"
    aliases: ClassVar[Mapping[str, str]] = {**_NOISELESS, **_NOISY}

    def __post_init__(self) -> None:
        """Checks the function's name and the instance."""
        object.__setattr__(self, "function", self.aliases.get(self.function, self.function))
        super().__post_init__()
        if self.function not in self.names():
            raise ValueError(f"BBOB.function must be one of {', '.join(self.names())}, got {self.function!r}.")
        if self.noise_model is not None and self.function in _NOISY.values():
            raise ValueError(f"BBOB.noise_model must be None: {self.function!r} has its own noise. Leave it out.")
        if not is_rebuilt():
            is_array = isinstance(self.instance, (np.ndarray, jax.Array)) and self.instance.dtype.kind in "iu"
            if not (is_array or (is_whole(self.instance) and 0 <= int(self.instance) <= MAX_COUNT)):
                raise ValueError(f"BBOB.instance must be a whole number of at least 0, got {shown(self.instance)}.")

    @staticmethod
    def names() -> list[str]:
        """Returns the names of the functions, f1 to f24 and f101 to f130."""
        return [*_NOISELESS.values(), *_NOISY.values()]

    @property
    def runtime_targets(self) -> Sequence[float] | None:
        """The precisions in `targets`."""
        return self.targets

    @property
    def fitness_is_score(self) -> bool:
        """Whether the function has no noise."""
        return self.noise_model is None and self.function not in _NOISY.values()

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
        with promotion_of_others():
            return self._bbob.sample_x(key)

    def fitness(self, key: jax.Array, solution: jax.Array) -> jax.Array:
        """Returns f(x) - f_opt, with noise if there is a noise model."""
        parameters = self.init_statistics() if self.parameters is None else self.parameters
        with promotion_of_others():  # bbobax multiplies numbers by booleans, also around our own forms
            return self._bbob.evaluate(key, solution, parameters).fitness

    def score(self, key: jax.Array, solution: jax.Array) -> dict[str, jax.Array]:
        """Returns f(x) - f_opt without noise."""
        parameters = self.init_statistics() if self.parameters is None else self.parameters
        with promotion_of_others():
            value, penalty = self._bbob._value(solution, parameters)
            return {"fitness": value + penalty + parameters.f_opt}

    def init_statistics(self) -> bbobax.BBOBParams:
        """Draws the instance's parameters once per run instead of in every evaluation."""
        with promotion_of_others():
            return self._bbob.sample(jax.random.key(self.instance))

    def with_statistics(self, statistics: bbobax.BBOBParams) -> Self:
        """Returns the problem with the parameters of its instance."""
        return self.replace(parameters=statistics)

    def _map_members(self, fn: Callable[..., Any], keys: jax.Array, population: Any, groups: jax.Array) -> Any:
        if not self.fitness_is_score:
            # Noise must differ between members: a common factor for a whole group would not change its ranking.
            groups = jnp.arange(groups.shape[0])
            keys = group_keys(keys[0], len(groups))
        return super()._map_members(fn, keys, population, groups)

    @property
    def _bbob(self) -> bbobax.BBOBProblem:
        if self.function in bbobax.BBOB_PROBLEMS:
            function = bbobax.BBOB_PROBLEMS[self.function]
            return precise(function)(
                self.num_dims, sample_rotation=function.name not in _UNROTATED, noise_model=self.noise_model
            )
        (number,) = (number for number, name in _NOISY.items() if name == self.function)
        function, noise = bbobax.BBOB_NOISY_PROBLEMS[number]
        family, severity = noise.split("_")
        noise_model = getattr(bbobax.NOISE_MODELS[family], severity)()
        return bbobax.Noisy(
            precise(function)(self.num_dims), noise_model, sample_rotation=function.name not in _UNROTATED
        )
