"""What wrappers share: making the base strategy, changing its mean, handing on surrogate gradients.

A wrapper is a strategy that searches by means of another one, its base. It implements `_init`, `_ask` and `_tell`. The
base of `frozen` searches a part of the solution; `bounded` changes the members of its base before they are evaluated.
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
from zoo.core.distributions import Given
from zoo.core.settings import is_rebuilt
from zoo.registry import complete_settings, make_strategy


class Wrapper(Strategy):
    """Base of wrappers. The state of a subclass is a `NamedTuple` with at least `base`, the state of the base strategy.

    Attributes:
        base: The strategy that is wrapped: its id, a dictionary of its id and settings such as `{"id": "snes", "sigma":
            0.1}`, or a strategy. The attribute is a strategy, with the wrapper's population size.
        population_size: Members per generation, at least 1. Defaults to the population size of the base.
    """

    base: Any = leaf(default="open_es")

    changes_members: ClassVar[bool] = False
    """Whether the wrapper changes members after the base drew them. Not every base can follow that."""

    def __post_init__(self) -> None:
        """Checks the settings, and makes the base."""
        super().__post_init__()
        object.__setattr__(self, "base", _as_strategy(self.base, f"{type(self).__name__}.base"))
        if not isinstance(self.base, Strategy):  # a transformation of JAX put something else in its place
            return
        if self.population_size not in (None, self.base.population_size):
            object.__setattr__(self, "base", self.base.replace(population_size=self.population_size))
        if self.changes_members and not self.base.follows_population:
            raise TypeError(
                f"{type(self).__name__} cannot wrap {type(self.base).__name__}, whose update uses the noise that it "
                "drew, and would not see that members were changed. Choose a base whose update uses the evaluated "
                "population, such as open_es (with perturbation='dense'), snes or cma_es."
            )

    def takes_surrogate(self, state: State) -> bool:
        """Returns whether the base takes a surrogate gradient."""
        return self.base.takes_surrogate(state.base)

    @property
    def follows_population(self) -> bool:
        """Whether the base follows the population."""
        return self.base.follows_population

    @property
    def needs_all_members(self) -> str | None:
        """Why the base needs all members, or `None`."""
        return self.base.needs_all_members

    @property
    def subtracts_pairs(self) -> bool:
        """Whether the base subtracts pairs."""
        return self.base.subtracts_pairs

    @property
    def cannot_restart(self) -> str | None:
        """Why the base cannot restart, or `None`."""
        return self.base.cannot_restart

    @property
    def restarts(self) -> bool:
        """Whether the base restarts by itself."""
        return self.base.restarts

    @property
    def groups(self) -> Groups:
        """The groups of the base."""
        return self.base.groups

    @classmethod
    def with_suggestions(
        cls, settings: Mapping[str, Any], suggestions: Mapping[str, Any], solution: Solution
    ) -> dict[str, Any]:
        """Returns settings, completed by the suggested ones. A base given by its id gets those that it has, too."""
        completed = super().with_suggestions(settings, suggestions, solution)
        base = completed.get("base", cls.__dataclass_fields__["base"].default)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(base, str):
            base = {"id": base}
        if isinstance(base, Mapping) and "id" in base:
            known = {name: value for name, value in completed.items() if name in cls.__dataclass_fields__}  # pyright: ignore[reportAttributeAccessIssue]
            searched = jax.eval_shape(cls(**known)._searched, solution)
            completed["base"] = complete_settings(base["id"], base, suggestions, searched)
        return completed

    def search_space(self) -> dict[str, Given]:
        """Returns the search space of the wrapper, and that of its base, whose names begin with "base."."""
        return {**super().search_space(), **{f"base.{name}": each for name, each in self.base.search_space().items()}}

    def for_solution(self, solution: Solution) -> Self:
        """Returns the strategy and its base with settings that depend on the number of dimensions filled in."""
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
        """Returns the part of a solution, or of a population, that the base searches."""
        return solution

    def _num_members(self, solution: Solution) -> int:
        return self.base._num_members(jax.eval_shape(self._searched, solution))


def _as_strategy(base: Any, name: str) -> Any:
    """Returns the base of a wrapper: a strategy, made from its id or from a dictionary of its id and settings.

    Args:
        base: The value of the setting.
        name: The name of the setting, for messages.

    Raises:
        TypeError: If the value is not a strategy, an id or a dictionary.
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
    """Returns a surrogate gradient for what a base searches.

    Args:
        surrogate: The surrogate gradient for the whole solution, or `None`.
        to_solution: Maps what the base searches to the solution at which the gradient is taken.
        to_population: Does the same for all members.
        from_gradient: Maps a gradient for the solution, or one for each member, to a gradient for the base.
    """
    if surrogate is None:
        return None
    return SurrogateGradient(
        lambda searched: from_gradient(surrogate(to_solution(searched))),
        lambda searched: from_gradient(gradient_of_members(surrogate, to_population(searched))),
    )
