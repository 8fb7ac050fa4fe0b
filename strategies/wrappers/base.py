"""What wrappers share: a base strategy in its several forms, its mean moved, surrogate gradients handed on.

A wrapper is a strategy that searches by another one, its base. It implements `_init`, `_ask` and `_tell`; see `frozen`
for a base that searches a part of the solution, `bounded` for one whose members are changed before they are evaluated.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax

from zoo.core import (
    Groups,
    Population,
    Solution,
    State,
    Strategy,
    Surrogate,
    SurrogateGradient,
    gradient_of_members,
    leaf,
)
from zoo.core.settings import is_rebuilt
from zoo.registry import complete_settings, make_strategy


class Wrapper(Strategy):
    """Base of wrappers. The state of a subclass is a `NamedTuple` with at least `base`, the state of the base strategy.

    Attributes:
        base: The strategy that is wrapped: a strategy, its id, or a dictionary of its id and settings such as
            `{"id": "snes", "sigma": 0.1}`. Once it is made it is a strategy, of the wrapper's population size.
        population_size: Members per generation; `None`: that of the base.
    """

    base: Any = leaf(default="open_es")

    changes_members: ClassVar[bool] = False
    """Whether members are changed after the base drew them, which not every base can follow."""

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        object.__setattr__(self, "base", _as_strategy(self.base, f"{type(self).__name__}.base"))
        if not isinstance(self.base, Strategy):  # what a transformation put in its place
            return
        if self.population_size not in (None, self.base.population_size):
            object.__setattr__(self, "base", self.base.replace(population_size=self.population_size))
        if self.changes_members and not self.base.follows_population:
            raise TypeError(
                f"{type(self).__name__} cannot wrap {type(self.base).__name__}, which updates by the noise that it "
                "drew and would not see that members were changed. Choose a base that updates by the evaluated "
                "population, such as open_es (with perturbation='dense'), snes or cma_es."
            )

    def takes_surrogate(self, state: State) -> bool:
        """Returns whether the base does."""
        return self.base.takes_surrogate(state.base)

    @property
    def follows_population(self) -> bool:
        """Whether the base does."""
        return self.base.follows_population

    @property
    def needs_all_members(self) -> str | None:
        """Why the base does."""
        return self.base.needs_all_members

    @property
    def subtracts_pairs(self) -> bool:
        """Whether the base does."""
        return self.base.subtracts_pairs

    @property
    def cannot_restart(self) -> str | None:
        """Why the base cannot."""
        return self.base.cannot_restart

    @property
    def restarts(self) -> bool:
        """Whether the base does."""
        return self.base.restarts

    @property
    def groups(self) -> Groups:
        """Those of the base."""
        return self.base.groups

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns settings, completed by those suggested; a base given by its id gets those that it has as well."""
        completed = super().with_suggestions(settings, suggestions, solution)
        base = completed.get("base", cls.__dataclass_fields__["base"].default)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(base, str):
            base = {"id": base}
        if isinstance(base, Mapping) and "id" in base:
            known = {name: value for name, value in completed.items() if name in cls.__dataclass_fields__}  # pyright: ignore[reportAttributeAccessIssue]
            searched = jax.eval_shape(cls(**known)._searched, solution)
            completed["base"] = complete_settings(base["id"], base, suggestions, searched)
        return completed

    def for_solution(self, solution: Solution) -> Self:
        """Returns the strategy, and its base, with settings that depend on the number of dimensions filled in."""
        base = self.base.for_solution(jax.eval_shape(self._searched, solution))
        return self.replace(base=base, population_size=base.population_size)

    def for_mask(self, mask: Any) -> Self:
        """Returns the strategy with a base that searches the entries of a mask alone."""
        return super().for_mask(mask).replace(base=self.base.for_mask(self._searched(mask)))

    def mean(self, state: State) -> Solution:
        """Returns the base's mean."""
        return self.base.mean(state.base)

    def std(self, state: State) -> Solution:
        """Returns the base's standard deviations."""
        return self.base.std(state.base)

    def map_mean(self, state: State, fn: Callable[[Solution], Solution]) -> State:
        """Returns the state with the base's mean changed."""
        return state._replace(base=self.base.map_mean(state.base, fn))

    def _searched(self, solution: Solution) -> Solution:
        """Returns what the base searches of a solution, or of a population."""
        return solution

    def _num_members(self, solution: Solution) -> int:
        return self.base._num_members(jax.eval_shape(self._searched, solution))


def _as_strategy(base: Any, name: str) -> Any:
    """Returns the strategy that a wrapper is given as such, as an id, or as a dictionary of an id and settings.

    Args:
        base: What was given.
        name: What to call it in messages.

    Raises:
        TypeError: If it is none of them.
    """
    if isinstance(base, (str, Mapping)):
        return make_strategy(base)
    if not isinstance(base, Strategy) and not is_rebuilt():
        raise TypeError(
            f"{name} must be a strategy, its id such as 'open_es', or a dictionary of its id and settings such as "
            f"{{'id': 'snes', 'sigma': 0.1}}, got {base!r}."
        )
    return base


def map_surrogate(
    surrogate: Surrogate | None,
    to_solution: Callable[[Solution], Solution],
    to_population: Callable[[Population], Population],
    from_gradient: Callable[[Any], Any],
) -> SurrogateGradient | None:
    """Returns a surrogate gradient with regard to what a base searches.

    Args:
        surrogate: With regard to the whole solution, or `None`.
        to_solution: From what the base searches to the solution at which the gradient is taken.
        to_population: The same for all members.
        from_gradient: From a gradient with regard to the solution, or one for each member, to the base's.
    """
    if surrogate is None:
        return None
    return SurrogateGradient(
        lambda searched: from_gradient(surrogate(to_solution(searched))),
        lambda searched: from_gradient(gradient_of_members(surrogate, to_population(searched))),
    )
