"""Tests the ladder of lottery tickets against single runs of `lottery`, and how it saves and resumes."""

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

import zoo
from tests.faults import read_only, snapshot
from tests.the_loop import initial_solution
from zoo.loop import identity
from zoo.sparsity.ladder import lottery_tickets, save_round

CRITERIA = ["snr", "magnitude", "random"]
DIGITS = zoo.make_problem("supervised/digits", hidden=(4,), batch_size=16)
STRATEGY = {"id": "snes", "population_size": 6, "sigma": 0.2}
LOTTERY = {"generations_per_round": 3, "prune_fraction": 0.3, "exclude": "Dense_1", "weight_decay": 0.01}
LADDER = {"criteria": CRITERIA, "num_seeds": 2, "num_rounds": 4, "progress": False, **LOTTERY}
LAST = 12  # the last generation
KEY = 7
KEPT = [256, 179, 125, 87]  # of 64 x 4 weights: each round prunes 30 %, rounded to the nearest whole number
CARTPOLE = zoo.make_problem(
    "rl/CartPole-v1", hidden=(4,), horizon=60, normalize_observations=True, num_score_episodes=4
)


def climb(**changes):
    settings = {"strategy": STRATEGY, "problem": DIGITS, "key": KEY, **LADDER, **changes}
    return lottery_tickets(settings.pop("strategy"), settings.pop("problem"), **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ladder") / "tickets"


@pytest.fixture(scope="module")
def ladder(folder):
    return climb(out=folder)


@pytest.fixture(scope="module")
def cartpole():
    settings = {**LADDER, "criteria": "random", "num_rounds": 2, "exclude": ()}
    return lottery_tickets("snes", CARTPOLE, **settings)


@pytest.fixture
def advanced(monkeypatch):
    """Records the last generation of each call that trains."""
    advance, limits = zoo.loop.compiled.advance, []

    def counting(strategy, problem, carry, keys, where, **options):
        if np.any(where.generation):  # otherwise the call only compiles the program
            limits.append((strategy.score, int(np.max(where.generation))))
        return advance(strategy, problem, carry, keys, where, **options)

    monkeypatch.setattr("zoo.loop.compiled.advance", counting)
    return limits


def seed_key(seed, key=KEY):
    return jax.random.fold_in(jax.random.key(key), seed)


def equal(one, two):
    same_structure = jax.tree.structure(one) == jax.tree.structure(two)
    return same_structure and all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def close(one, two):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def kernel(tree):
    return np.asarray(tree["params"]["Dense_0"]["kernel"])


# Results


@pytest.mark.parametrize("criterion", CRITERIA)
def test_rounds_are_those_of_a_run(criterion, ladder):
    """One seed of the batch equals a run of this seed alone: initial solution, masks, means and scores."""
    alone = zoo.make_strategy("lottery", problem=DIGITS, base=STRATEGY, score=criterion, **LOTTERY)
    for r in range(4):
        result = zoo.run(alone, DIGITS, seed_key(1), num_generations=3 * (r + 1), num_scores=r + 1)
        ticket = ladder.ticket(criterion, seed=1, round=r)
        assert result.state.round == r
        assert equal(ticket.mask, result.state.mask)
        assert equal(ticket.solution, result.state.solution)
        close(ticket.mean, result.mean)
        close(ticket.metrics, result.metrics)
        assert ticket.info == {"criterion": criterion, "seed": 1, "round": r}


def test_counts_and_nesting(ladder):
    for rounds in ladder.rounds.values():
        assert [each.kept for each in rounds] == [count / 256 for count in KEPT]
        masks = np.stack([kernel(each.mask) for each in rounds])  # [rounds, seeds, ...]
        np.testing.assert_array_equal(masks.sum(axis=(2, 3)).T, [KEPT, KEPT])
        assert np.all(masks[1:] <= masks[:-1])
        for each in rounds:
            mask, mean = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (each.mask, each.mean))
            assert all(np.all(m) for path, m in mask.items() if "Dense_0" not in str(path) or "bias" in str(path))
            assert not any(np.any(mean[path][~m]) for path, m in mask.items())


def test_magnitude_prunes_the_smallest_means(ladder):
    rounds = ladder.rounds["magnitude"]
    for before, after in itertools.pairwise(rounds):
        for seed in range(2):
            was, kept = kernel(before.mask)[seed], kernel(after.mask)[seed]
            size = np.abs(kernel(before.mean)[seed])
            assert size[was & ~kept].max() < size[kept].min()


def test_criteria_start_alike_and_part(ladder):
    for seed in range(2):
        start = initial_solution(DIGITS, zoo.loop.compiled.run_keys(seed_key(seed)).solution)
        tickets = [[ladder.ticket(c, seed=seed, round=r) for c in CRITERIA] for r in range(2)]
        for first, second in zip(*tickets, strict=True):
            close(first.mean, tickets[0][0].mean)
            close((first.solution, second.solution), (start, start))
        assert len({kernel(ticket.mask).tobytes() for ticket in tickets[1]}) == 3
    assert not equal(ladder.ticket("snr", seed=0).mask, ladder.ticket("snr", seed=1).mask)


def test_tables(ladder):
    frame, summary, layers = ladder.frame, ladder.summary(), ladder.layers
    assert list(frame) == ["criterion", "seed", "round", "kept", "metric", "value"]
    assert len(frame) == 3 * 4 * 2 * 2
    for _, row in frame.iterrows():
        ticket = ladder.ticket(row.criterion, seed=row.seed, round=row["round"])
        assert (row.value, row.kept) == (ticket.metrics[row.metric], ticket.kept)
        assert json.loads(json.dumps(ticket.info)) == row[["criterion", "seed", "round"]].to_dict()
    assert list(summary) == ["round", "kept", *CRITERIA]
    assert summary["round"].tolist() == [0, 1, 2, 3]
    for criterion in CRITERIA:
        expected = [each.metrics["test_accuracy"].mean() for each in ladder.rounds[criterion]]
        np.testing.assert_allclose(summary[criterion], expected, rtol=1e-6)
    assert list(layers) == ["criterion", "seed", "round", "kept", "layer", "layer_kept"]
    assert len(layers) == 3 * 4 * 2  # one layer, because the other is excluded
    by_layer = layers.groupby(["layer", "round"]).layer_kept.unique().map(list)
    assert by_layer["params/Dense_0/kernel"].tolist() == [[count / 256] for count in KEPT]


def test_facts(ladder):
    facts = ladder.metadata
    assert json.loads(json.dumps(facts)) == facts
    assert facts["criteria"] == ladder.criteria == CRITERIA
    assert (facts["headline"], facts["maximize"], facts["num_seeds"]) == ("test_accuracy", True, 2)
    assert facts["strategy_settings"]["prune_fraction"] == 0.3
    assert facts["strategy_settings"]["base"]["sigma"] == 0.2
    assert facts["problem_settings"]["batch_size"] == 16


def test_scores_are_those_of_the_tickets(ladder, cartpole):
    for criterion in CRITERIA:
        ticket = ladder.ticket(criterion, seed=1)
        close(ticket.evaluate(DIGITS, seed_key(1)), ticket.metrics)
    for seed in range(2):
        for r in range(2):
            ticket = cartpole.ticket("random", seed=seed, round=r)
            assert ticket.evaluate(CARTPOLE, seed_key(seed, 0)) == ticket.metrics


def test_observation_statistics_belong_to_the_ticket(cartpole, tmp_path):
    """Statistics count observations over all rounds. Without them the network acts differently."""
    counts = np.stack([each.statistics.num for each in cartpole.rounds["random"]])
    assert np.all(counts[0] >= 3 * 8)
    assert np.all(counts[1] > counts[0])
    cartpole.save(tmp_path)
    loaded = zoo.load_tickets(tmp_path, CARTPOLE)
    assert equal(loaded.rounds, cartpole.rounds)
    raw = CARTPOLE.replace(normalize_observations=False)
    differs = []
    for seed in range(2):
        ticket = loaded.ticket("random", seed=seed)
        ticket.save(tmp_path / "one")
        ticket = zoo.load_ticket(tmp_path / "one", CARTPOLE)
        assert ticket.evaluate(CARTPOLE, seed_key(seed, 0)) == ticket.metrics
        without = dataclasses.replace(ticket, statistics=()).evaluate(CARTPOLE, seed_key(seed, 0))
        differs.append(without != ticket.metrics)
        with pytest.raises(
            ValueError, match="statistics must have the structure of what a run of this GymnaxProblem gathers"
        ):
            ticket.evaluate(raw)
    assert any(differs)
    with pytest.raises(ValueError, match="statistics"):
        zoo.load_tickets(tmp_path, raw)


# Folders


def test_what_is_saved_is_what_was_returned(ladder, folder, tmp_path):
    ladder.save(tmp_path)
    for place in (folder, tmp_path):
        loaded = zoo.load_tickets(place, DIGITS)
        assert equal((loaded.rounds, loaded.solutions), (ladder.rounds, ladder.solutions))
        assert loaded.metadata == ladder.metadata
        assert {x.dtype for each in loaded.rounds["snr"] for x in jax.tree.leaves(each.mask)} == {np.dtype(bool)}
        pd.testing.assert_frame_equal(loaded.frame, ladder.frame, check_exact=True)
    with pytest.raises(ValueError, match=r"another network: .* but the \w+ of this problem has shapes"):
        zoo.load_tickets(folder, zoo.make_problem("supervised/digits", hidden=(5,)))


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_an_interrupted_ladder_resumes_exactly(when, ladder, advanced, monkeypatch, tmp_path):
    """A ladder resumes exactly after an interruption before or after a round is written."""
    criteria = ["magnitude", "random"]

    def interrupted(folder, criterion, number, *rest):
        is_here = (criterion, number) == ("random", 1)
        if is_here and when == "before":
            raise KeyboardInterrupt
        if is_here and when == "within":
            patch.setattr("os.fsync", full_disk)
        save_round(folder, criterion, number, *rest)
        if is_here:
            raise KeyboardInterrupt

    def full_disk(file):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zoo.sparsity.ladder.save_round", interrupted)
        with pytest.raises((KeyboardInterrupt, OSError)):
            climb(criteria=criteria, num_rounds=3, out=tmp_path)
    there = zoo.load_tickets(tmp_path, DIGITS)
    finished = 2 if when == "after" else 1
    assert equal(there.rounds["random"], ladder.rounds["random"][:finished])
    assert len(advanced) == 3 + 2
    advanced.clear()
    resumed = climb(criteria=criteria, num_rounds=3, out=tmp_path)
    assert advanced == [("random", 6), ("random", 9)]  # computes nothing else again
    for tickets in (resumed, zoo.load_tickets(tmp_path, DIGITS)):
        assert tickets.criteria == criteria
        assert all(equal(tickets.rounds[c], ladder.rounds[c][:3]) for c in criteria)
        assert all(equal(tickets.solutions[c], ladder.solutions[c]) for c in criteria)


def test_what_is_finished_is_not_computed_again(ladder, folder, advanced, capsys, tmp_path):
    """Finished rounds are reused by the same ladder, a shorter one, a longer one, and one with another criterion."""
    shutil.copytree(folder, tmp_path / "copy")
    out = tmp_path / "copy"
    again = climb(key=jax.random.key(KEY), out=out)
    assert equal((again.rounds, again.solutions), (ladder.rounds, ladder.solutions))
    shorter = climb(num_rounds=2, out=out)
    assert equal(shorter.rounds, {c: rounds[:2] for c, rounds in ladder.rounds.items()})
    assert equal(shorter.solutions, ladder.solutions)
    assert advanced == []
    assert equal(zoo.load_tickets(out, DIGITS).rounds, ladder.rounds)  # the other rounds are still there
    longer = climb(num_rounds=5, criteria="random", out=out)
    assert advanced == [("random", LAST + 3)]
    assert longer.criteria == ["random"]
    assert equal(longer.rounds["random"], climb(num_rounds=5, criteria="random").rounds["random"])
    assert equal(longer.rounds["random"][:4], ladder.rounds["random"])
    assert zoo.load_tickets(out, DIGITS).criteria == CRITERIA

    one_by_one = tmp_path / "one by one"
    for number, criterion in enumerate(CRITERIA, 1):
        advanced.clear()
        climb(criteria=[criterion], num_rounds=1, out=one_by_one, progress=True)
        assert f"tickets by {criterion} (1/1)" in capsys.readouterr().out
        assert advanced == [(criterion, 3)]
        assert zoo.load_tickets(one_by_one, DIGITS).criteria == CRITERIA[:number]


@pytest.mark.parametrize(
    "changes",
    [
        {"key": 8},
        {"num_seeds": 3},
        {"prune_fraction": 0.2},
        {"exclude": ()},
        {"weight_decay": 0.0},
        {"generations_per_round": 4},
        {"strategy": {**STRATEGY, "sigma": 0.3}},
        {"strategy": "pgpe"},
        {"problem": DIGITS.replace(batch_size=17)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_folder_of_another_ladder(changes, ladder, folder, advanced):
    facts = (folder / "tickets.json").read_text()
    with pytest.raises(ValueError, match=r"belong to another ladder: .* Choose another folder"):
        climb(**changes, out=folder)
    assert advanced == []
    assert (folder / "tickets.json").read_text() == facts


def test_a_folder_of_another_version(ladder, folder, advanced, monkeypatch, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setattr(identity, "__version__", "99")
    with pytest.raises(ValueError, match=r"belong to another ladder: zoo: .* there, 99 here\..* --accept-versions"):
        climb(out=tmp_path / "copy")
    assert equal(climb(out=tmp_path / "copy", accept_versions=True).rounds, ladder.rounds)
    assert advanced == []


def test_a_folder_that_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"needs a folder, but .* is a file"):
        climb(out=file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"criteria": []}, ValueError, "at least one criterion"),
        ({"criteria": ["snr", "snr"]}, ValueError, "each given once"),
        ({"criteria": ["snr", "size"]}, ValueError, "must be one of 'snr', 'magnitude', 'random', got 'size'"),
        ({"num_seeds": 0}, ValueError, "num_seeds must be at least 1, got 0"),
        ({"num_rounds": True}, TypeError, "num_rounds must be a whole number, got True"),
        ({"num_rounds": 2.0}, TypeError, "num_rounds must be a whole number, got 2.0"),
        ({"generations_per_round": 0}, ValueError, "generations_per_round must be at least 1"),
        ({"prune_fraction": -0.1}, ValueError, "prune_fraction must be at least 0"),
        ({"exclude": "Dense_7"}, ValueError, "'Dense_7' is found in no leaf"),
        ({"strategy": "sness"}, ValueError, "Unknown strategy 'sness'"),
        ({"problem": "supervised/digit"}, ValueError, "Unknown problem"),
        ({"strategy": "bptt", "problem": CARTPOLE, "exclude": ()}, TypeError, "surrogate gradient"),
        ({"key": "seed"}, TypeError, "key must be a random key"),
    ],
)
def test_mistakes_show_before_anything_runs(changes, error, message, advanced, tmp_path):
    with pytest.raises(error, match=message):
        climb(**changes, out=tmp_path / "new")
    assert advanced == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"some": "thing"}'])
def test_a_folder_of_something_else(content, tmp_path):
    (tmp_path / "tickets.json").write_text(content)
    with pytest.raises(ValueError, match=r"is damaged: .* Or it was not written by es-zoo"):
        climb(out=tmp_path)
    assert (tmp_path / "tickets.json").read_text() == content


def test_where_nothing_can_be_written(ladder, folder, advanced, monkeypatch):
    """A read-only folder serves finished ladders. Others fail before anything is computed."""
    read_only(monkeypatch)
    before = snapshot(folder)
    again = climb(out=folder)
    assert equal((again.rounds, again.solutions), (ladder.rounds, ladder.solutions))
    for changes in ({"num_rounds": 5}, {"out": folder / "new"}):
        with pytest.raises(ValueError, match=r"lottery_tickets\(out=...\) needs to write in .*Read-only file system"):
            climb(**{"out": folder, **changes})
    assert advanced == []
    assert snapshot(folder) == before


def test_rounds_that_are_missing_or_damaged(ladder, folder, advanced):
    """Missing or damaged rounds are computed again, from the last checkpoint before them if there is one."""
    (folder / "snr" / "round_03.npz").unlink()
    (folder / "random" / "round_00.npz").write_bytes(b"")
    (folder / "random" / "solution.npz").write_bytes(b"")
    (folder / "tickets.json").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"tickets.json is damaged.*round_00.npz is damaged.*solution.npz") as caught:
        again = climb(out=folder)
    assert len(caught) == 1
    assert advanced == [("snr", 12), *(("random", generation) for generation in (3, 6, 9, 12))]
    for tickets in (again, zoo.load_tickets(folder, DIGITS)):
        assert equal((tickets.rounds, tickets.solutions), (ladder.rounds, ladder.solutions))
