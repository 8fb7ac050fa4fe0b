"""Says which strategies run on which problems of the reference table, and with which budgets.

A strategy runs on the families of problems that it is for. On digits, strategies with a full covariance matrix are left
out: at 610 parameters an eigendecomposition takes longer than all else. `hybrid` and the wrappers for bounds and masks
are left out, because on these problems they are what they wrap.
"""

import dataclasses
from typing import Any

NUM_SEEDS = 10
NUM_SETTINGS = 16
NUM_TUNING_SEEDS = 3

FULL_MATRIX = ("cma_es", "ma_es", "lra_cma_es", "xnes", "evosax/CMA_ES")
DIAGONAL = ("sep_cma_es", "lm_ma_es", "cr_fm_nes", "snes", "pgpe", "evosax/Sep_CMA_ES", "evosax/SNES", "evosax/PGPE")
GRADIENT = ("open_es", "ars", "self_guided_es", "asebo", "evosax/Open_ES")
POPULATION = ("one_plus_one_es", "de", "pso", "simple_ga", "random_search")
ANYWHERE = (*DIAGONAL, *GRADIENT, *POPULATION)
WITH_SURROGATE = ("guided_es", "cv_zod", "bptt")  # `bptt` is gradient descent where a loss is not unrolled
ONLINE = ("nres", "pes", "gpes", "es_single", "tes", "full_es")
ON_THE_HOST = ("pycma",)  # these take longer than all others together, and so come last
FORWARD = ("uoro", "dodge", "full_forward", "rtrl")


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem of the table.

    Attributes:
        family: The family of the problem.
        problem: The problem's id and settings.
        num_steps: Budget of a run in problem steps.
        strategies: Ids of the strategies, by label.
    """

    family: str
    problem: dict[str, Any]
    num_steps: int
    strategies: dict[str, Any]


def _plain(*ids: str) -> dict[str, Any]:
    return {id: id for id in ids}


_BIPOP = {"bipop": {"id": "bipop", "base": "cma_es"}}
_BLACKBOX = {**_plain(*FULL_MATRIX, *ANYWHERE, *ON_THE_HOST), **_BIPOP}
_NETWORK = {**_plain(*ANYWHERE, "eggroll")}
_UNROLLED = _plain(*FULL_MATRIX, *ANYWHERE, *ONLINE, *FORWARD, "tbptt", "bptt")

TASKS = {
    "rotated ellipsoid": Task("black-box", {"id": "blackbox/ellipsoidal_rotated"}, 10_000, _BLACKBOX),
    "Rosenbrock": Task("black-box", {"id": "blackbox/rosenbrock_rotated"}, 10_000, _BLACKBOX),
    "Rastrigin": Task("black-box", {"id": "blackbox/rastrigin_rotated"}, 20_000, _BLACKBOX),
    "noisy sphere": Task("black-box", {"id": "blackbox/sphere_gaussian_severe"}, 10_000, _BLACKBOX),
    "digits": Task(
        "supervised",
        {"id": "supervised/digits", "hidden": [8]},
        30_000,
        {**_NETWORK, **_plain(*WITH_SURROGATE)},
    ),
    "digits, 0-1 error": Task(
        "supervised", {"id": "supervised/digits", "hidden": [8], "loss": "error"}, 30_000, _NETWORK
    ),
    "Lorenz": Task("unrolled", {"id": "unrolled/lorenz", "horizon": 500, "window": 50}, 3_000_000, _UNROLLED),
    "learning-rate schedule": Task(
        "unrolled",
        {"id": "unrolled/mlp_lr_schedule", "hidden": [8], "batch_size": 16, "horizon": 200, "window": 20},
        60_000,
        _UNROLLED,
    ),
    "CartPole": Task("reinforcement learning", {"id": "rl/CartPole-v1"}, 100_000, _NETWORK),
    "Pendulum": Task("reinforcement learning", {"id": "rl/Pendulum-v1"}, 400_000, _NETWORK),
}
