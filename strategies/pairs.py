"""Populations that divide into antithetic pairs, or other groups that share a perturbation."""

from zoo.core import Strategy


def why_all(share: int) -> str:
    """Returns why all members are needed where so many share a perturbation; see `Strategy.needs_all_members`."""
    return (
        f"it compares the {share} members of each perturbation, so it has to be told all of them; give one that could "
        "not be evaluated the fitness NaN"
    )


def check_divides(strategy: Strategy, share: int) -> None:
    """Raises a `ValueError` if the population does not divide into so many members for each perturbation."""
    size = strategy.population_size
    if size is not None and size % share:
        members = "antithetic pairs" if share == 2 else f"{share} members with each perturbation"
        multiple = "even" if share == 2 else f"a multiple of {share}"
        raise ValueError(
            f"{type(strategy).__name__} samples {members}, so population_size must be {multiple}, got {size}. "
            f"Use {size + -size % share}."
        )
