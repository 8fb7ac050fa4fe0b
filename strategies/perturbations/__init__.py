"""How a population is stored: `Dense` arrays, `Seeded` noise that is drawn again, `LowRank` factors."""

from strategies.perturbations.base import Perturbation, get_perturbation
from strategies.perturbations.dense import Dense
from strategies.perturbations.low_rank import LowRank
from strategies.perturbations.seeded import Seeded

__all__ = ["Dense", "LowRank", "Perturbation", "Seeded", "get_perturbation"]
