"""Tests tickets: saving, loading, training, scoring, permuting and reinitialising."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.the_loop import initial_solution
from zoo.core.masks import full_mask, keep_best, prunable_leaves
from zoo.core.solution import check_solution
from zoo.sparsity.tickets import Round, Ticket, Tickets, save_metadata
from zoo.strategies.distribution.snes import SNES

DIGITS = zoo.make_problem("supervised/digits", hidden=(4,), batch_size=16)
ADAM = {"id": "bptt", "optimizer": "adam", "learning_rate": 0.01, "population_size": 1}
NUM_SEEDS = 2


class Net(NamedTuple):
    weights: tuple  # different shapes, one of them in half precision
    bias: jax.Array
    gain: float | jax.Array


class Shifted(zoo.Problem):
    """A bowl around a statistic, with noise in the fitness."""

    shift: float = zoo.number(default=0.0)
    num_rows: int = zoo.static(default=4)

    def initial_solution(self, key):
        weights = jax.random.normal(key, (self.num_rows, 3)), jax.random.normal(key, (2, 5), jnp.bfloat16)
        return Net(weights, jnp.zeros(3), 0.5)

    def fitness(self, key, solution):
        values = [jnp.ravel(jnp.asarray(x, float)) for x in jax.tree.leaves(solution)]
        return jnp.sum((jnp.concatenate(values) - self.shift) ** 2)

    def score(self, key, solution):
        return {"fitness": self.fitness(key, solution), "noise": jax.random.normal(key)}

    def init_statistics(self):
        return {"shift": jnp.zeros(()), "rows": (jnp.zeros(self.num_rows),)}

    def with_statistics(self, statistics):
        return self.replace(shift=statistics["shift"])


class Sheet(zoo.Problem):
    """A problem whose solution is one array."""

    shape: tuple = zoo.static(default=(4, 3))

    def initial_solution(self, key):
        return jnp.ones(self.shape)

    def fitness(self, key, solution):
        return jnp.sum(solution**2)


def draw(rng, like, num_axes=0):
    """Draws numbers with the structure, shapes and dtypes of a tree, with `num_axes` more leading axes."""
    lead = (NUM_SEEDS,) * num_axes
    return jax.tree.map(lambda x: rng.normal(size=(*lead, *x.shape)).astype(x.dtype), like)


def draw_mask(rng, like, num_axes=0):
    """Draws masks of about a third of the weights. Leaves with fewer than two axes are kept whole."""
    lead = (NUM_SEEDS,) * num_axes
    return jax.tree.map(lambda x: (rng.random((*lead, *x.shape)) < 1 / 3) | (len(x.shape) < 2), like)


def keep(mask, tree):
    return jax.tree.map(lambda m, x: np.where(m, x, np.zeros((), x.dtype)), mask, tree)


def make_tickets(problem, criteria=("snr", "random"), num_rounds=3):
    rng = np.random.default_rng(0)
    like = jax.eval_shape(problem.initial_solution, jax.random.key(0))
    rounds = {
        c: [
            Round(
                mask=draw_mask(rng, like, 1),
                mean=draw(rng, like, 1),
                statistics=draw(rng, jax.eval_shape(problem.init_statistics), 1),
                metrics={"fitness": rng.normal(size=NUM_SEEDS), "noise": np.array([np.nan, 1e-30])},
                kept=float(rng.random()),
            )
            for _ in range(num_rounds)
        ]
        for c in criteria
    }
    metadata = {"criteria": list(criteria), "headline": "fitness", "maximize": False, "key": 3}
    return Tickets(rounds, {c: draw(rng, like, 1) for c in criteria}, metadata)


def make_ticket(problem=DIGITS, seed=0):
    """Returns a ticket that is not trained."""
    start = check_solution(initial_solution(problem, jax.random.key(seed)))
    mask = draw_mask(np.random.default_rng(seed), start)
    return Ticket(mask=mask, solution=start, kept=1 / 3, info={"criterion": "none"})


def identical(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for x, y in zip(map(np.asarray, jax.tree.leaves(one)), map(np.asarray, jax.tree.leaves(two)), strict=True):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


def as_dict(ticket):
    return {field.name: getattr(ticket, field.name) for field in dataclasses.fields(ticket)}


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


# Selection


def test_a_ticket_is_its_seed_and_round():
    tickets = make_tickets(Shifted())
    for round, number in ((0, 0), (2, 2), (-1, 2), (-3, 0), (1, 1)):
        ticket, all_seeds = tickets.ticket("random", seed=1, round=round), tickets.rounds["random"][number]
        of_seed = jax.tree.map(lambda x: x[1], (all_seeds[:3], tickets.solutions["random"]))
        identical(((ticket.mask, ticket.mean, ticket.statistics), ticket.solution), of_seed)
        assert ticket.metrics == {name: x[1] for name, x in all_seeds.metrics.items()}
        assert ticket.kept == all_seeds.kept
        assert ticket.info == {"criterion": "random", "seed": 1, "round": number}


@pytest.mark.parametrize(
    ("criterion", "where", "message"),
    [
        ("magnitude", {}, "criterion must be one of 'snr', 'random', got 'magnitude'"),
        (
            "snr",
            {"seed": 2},
            "There is no ticket with seed 2 and round -1. There are 2 seeds and 3 rounds, counted from 0",
        ),
        ("snr", {"seed": -1}, "There is no ticket with seed -1 and round -1"),
        ("snr", {"round": 3}, "There is no ticket with seed 0 and round 3"),
        ("snr", {"round": -4}, "There is no ticket with seed 0 and round -4"),
    ],
)
def test_there_is_no_such_ticket(criterion, where, message):
    with pytest.raises(KeyError, match=message):
        make_tickets(Shifted()).ticket(criterion, **where)


def test_summary_is_the_mean_over_seeds_from_the_densest_on():
    tickets = make_tickets(Shifted())
    for criterion, kept in (("snr", (1.0, 0.5, 0.25)), ("random", (1.0, 0.5, 0.25))):
        tickets.rounds[criterion] = [r._replace(kept=k) for r, k in zip(tickets.rounds[criterion], kept, strict=True)]
    del tickets.rounds["random"][2]  # a criterion whose ladder is not finished
    summary = tickets.summary()
    assert summary[["round", "kept"]].to_numpy().tolist() == [[0, 1], [1, 0.5], [2, 0.25]]
    assert list(summary) == ["round", "kept", "snr", "random"]
    for criterion, rounds in tickets.rounds.items():
        expected = [each.metrics["fitness"].mean() for each in rounds]
        np.testing.assert_allclose(summary[criterion][: len(rounds)], expected, rtol=1e-12)
    assert np.isnan(summary.random[2])


def test_layers():
    layers = make_ticket().layers()
    mask = make_ticket().mask["params"]
    assert layers == {f"params/{name}/kernel": mask[name]["kernel"].mean() for name in ("Dense_0", "Dense_1")}


# Folders


def test_tickets_are_read_back_bit_for_bit(tmp_path):
    """Named tuples, half precision, statistics and NaN are kept. Longer tickets with more criteria are replaced."""
    make_tickets(Shifted(), ("snr", "magnitude", "random"), num_rounds=4).save(tmp_path / "new" / "folder")
    tickets = make_tickets(Shifted())
    tickets.save(tmp_path / "new" / "folder")
    loaded = zoo.load_tickets(tmp_path / "new" / "folder", Shifted())
    identical((loaded.rounds, loaded.solutions), (tickets.rounds, tickets.solutions))
    assert loaded.metadata == tickets.metadata
    assert isinstance(loaded.ticket("snr").mean, Net)


@pytest.mark.parametrize("problem", [Shifted(), Sheet()], ids=lambda problem: type(problem).__name__)
@pytest.mark.parametrize("is_trained", [True, False])
def test_a_ticket_is_read_back_bit_for_bit(is_trained, problem, tmp_path):
    other = make_tickets(Shifted()).ticket("random")
    other.save(tmp_path)  # the next save replaces it
    ticket = make_tickets(problem).ticket("snr", seed=1) if is_trained else make_ticket(problem)
    ticket.save(tmp_path)
    loaded = zoo.load_ticket(tmp_path, problem)
    for name, value in as_dict(ticket).items():
        if name in ("mask", "solution", "mean", "statistics"):
            identical(getattr(loaded, name), value)
        else:
            assert repr(getattr(loaded, name)) == repr(value)
    assert (loaded.mean is None) == (not is_trained)


def test_of_another_network(tmp_path):
    make_tickets(Shifted()).save(tmp_path / "all")
    make_tickets(Sheet()).save(tmp_path / "sheets")
    make_tickets(Shifted()).ticket("snr").save(tmp_path / "one")
    make_ticket(Sheet()).save(tmp_path / "sheet")
    message = r"another network: .* but the \w+ of this problem has shapes .* Load them with the problem"
    for load, name in ((zoo.load_tickets, "all"), (zoo.load_ticket, "one")):
        for problem in (Shifted(num_rows=5), Sheet(), DIGITS):
            with pytest.raises(ValueError, match=message):
                load(tmp_path / name, problem)
    for load, name in ((zoo.load_tickets, "sheets"), (zoo.load_ticket, "sheet")):
        for shape in ((3,), (), (2, 4, 3), (3, 4)):  # the first two are suffixes of the stored shape
            with pytest.raises(ValueError, match=message):
                load(tmp_path / name, Sheet(shape=shape))


def test_nothing_there(tmp_path):
    for load in (zoo.load_ticket, zoo.load_tickets):
        with pytest.raises(FileNotFoundError, match="There are no lottery tickets in"):
            load(tmp_path / "none", Sheet())
    save_metadata(tmp_path, {"criteria": ["snr"], "headline": "fitness", "maximize": False}, "1")
    with pytest.raises(FileNotFoundError, match="no finished round"):
        zoo.load_tickets(tmp_path, Sheet())


# Scores


def test_score_of_a_ticket():
    """Scores the mean with the ticket's statistics, on the held-out data of a run with the same key."""
    problem = Shifted()
    ticket = make_tickets(problem).ticket("snr")
    noise = zoo.run("random_search", problem, 5, num_generations=1).metrics["noise"]
    for each, solution, shift in (
        (ticket, ticket.mean, ticket.statistics["shift"]),
        (dataclasses.replace(ticket, statistics=()), ticket.mean, 0),
        (dataclasses.replace(ticket, mean=None), keep(ticket.mask, ticket.solution), ticket.statistics["shift"]),
    ):
        score = each.evaluate(problem, 5)
        expected = sum(np.sum((x.astype(np.float64) - shift) ** 2) for x in leaves(solution))
        np.testing.assert_allclose(score["fitness"], expected, rtol=1e-5)
        assert score["noise"] == noise
        assert each.evaluate(problem, jax.random.key(6))["noise"] != noise


# Training


@pytest.mark.parametrize(
    ("strategy", "loss"),
    [("open_es", "error"), (ADAM, "cross_entropy"), (SNES(population_size=6, sigma=0.1), "cross_entropy")],
    ids=["id", "dictionary", "strategy"],
)
def test_training_is_of_what_is_kept(strategy, loss):
    """Training starts from the masked initial solution, on the same problem or with another loss."""
    ticket, problem = make_ticket(), DIGITS.replace(loss=loss)
    result = ticket.train(strategy, problem, 1, num_generations=4, num_scores=2)
    start = keep(ticket.mask, ticket.solution)
    for name, value in jax.jit(problem.score)(jax.random.key(0), start).items():
        # The score is on the whole test set, so the key does not matter.
        np.testing.assert_allclose(result.scores[name][0], value, rtol=1e-5)
        np.testing.assert_allclose(ticket.evaluate(problem, 1)[name], value, rtol=1e-5)
    for solution in (result.mean, result.best_solution):
        for x, m in zip(leaves(solution), leaves(ticket.mask), strict=True):
            assert not np.any(x[~m])
    assert all(np.any(x != y) for x, y in zip(leaves(result.mean), leaves(start), strict=True))
    trained = dataclasses.replace(ticket, mean=result.mean).evaluate(problem, 1)
    np.testing.assert_allclose(list(trained.values()), list(result.metrics.values()), rtol=1e-5)


def test_a_problem_with_another_network():
    """Every method that takes a problem refuses a network with other shapes."""
    ticket, other = make_ticket(), zoo.make_problem("supervised/digits", hidden=(5,))
    for call in (
        lambda problem: ticket.train("snes", problem, num_generations=1),
        ticket.evaluate,
        ticket.reinitialized,
    ):
        for problem in (other, Sheet(), "blackbox/sphere"):
            with pytest.raises(ValueError, match=r"has shapes .*'params/Dense_0/kernel': \(64, 4\).*same la"):
                call(problem)


# Controls


def test_permuted_masks_keep_as_many_in_each_layer():
    ticket = make_tickets(DIGITS).ticket("snr")
    permuted, same, other = ticket.permuted(1), ticket.permuted(jax.random.key(1)), ticket.permuted(2)
    identical(permuted.solution, ticket.solution)
    identical(permuted.mask, same.mask)
    moved = {}
    for name in ("Dense_0", "Dense_1"):
        old, new, third = (jax.device_get(x.mask["params"][name]) for x in (ticket, permuted, other))
        assert old["kernel"].sum() == new["kernel"].sum() == third["kernel"].sum()
        assert new["kernel"].dtype == bool
        assert np.any(new["kernel"] != third["kernel"])
        assert np.all(new["bias"])
        moved[name] = np.mean(old["kernel"] != new["kernel"])
    # Two independent masks of a third differ in 4/9 of the weights. There are 256 and 40 weights; 5 sigma.
    assert abs(moved["Dense_0"] - 4 / 9) < 5 * 0.5 / 16
    assert moved["Dense_1"] > 0
    assert (permuted.mean, permuted.statistics, permuted.metrics) == (None, (), {})
    assert (permuted.kept, permuted.info) == (ticket.kept, ticket.info)


def test_permuted_weights_go_where_the_mask_goes():
    ticket = make_tickets(DIGITS).ticket("snr")
    permuted = ticket.permuted(1, weights=True)
    identical(permuted.mask, ticket.permuted(1).mask)
    for name in ("Dense_0", "Dense_1"):
        old, new = (jax.device_get(each.solution["params"][name]) for each in (ticket, permuted))
        was, kept = (np.asarray(each.mask["params"][name]["kernel"]) for each in (ticket, permuted))
        assert np.any(old["kernel"] != new["kernel"])
        for one, other in ((old["kernel"][was], new["kernel"][kept]), (old["kernel"][~was], new["kernel"][~kept])):
            np.testing.assert_array_equal(np.sort(one), np.sort(other))
        identical(old["bias"], new["bias"])


def test_reinitialized_weights_are_those_of_a_run():
    ticket, problem = make_tickets(Shifted()).ticket("snr"), Shifted()
    new = ticket.reinitialized(problem, 4)
    identical(new.mask, ticket.mask)
    identical(new.solution, zoo.run("random_search", problem, 4, num_generations=1, num_scores=1).state.center)
    assert (new.mean, new.statistics, new.metrics) == (None, (), {})
    assert (new.kept, new.info) == (ticket.kept, ticket.info)
    assert new.evaluate(problem)["fitness"] > 0  # one leaf was a Python float


def test_permuted_masks_perform_worse():
    """After training by Adam and pruning to a tenth, permuted masks score worse by 3 standard errors, four seeds."""
    problem = zoo.make_problem("supervised/digits", hidden=(16,), batch_size=64)

    def train(ticket, seed):  # all share one program
        return ticket.train(ADAM, problem, seed, num_generations=150, num_scores=1)

    @jax.jit
    def keep_largest(mean):
        return keep_best(jax.tree.map(jnp.abs, mean), full_mask(mean), 118, prunable_leaves(mean))

    def lost(seed):
        start = initial_solution(problem, jax.random.key(seed))
        dense = Ticket(mask=full_mask(start), solution=start, kept=1.0)
        ticket = dataclasses.replace(dense, mask=keep_largest(train(dense, seed).mean), kept=118 / 1184)
        return train(ticket, seed).score - train(ticket.permuted(seed), seed).score

    differences = np.array([lost(seed) for seed in range(4)])
    assert differences.mean() > 3 * differences.std(ddof=1) / 2
