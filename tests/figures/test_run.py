"""The figure of a run shows its history and its scores."""

import numpy as np
import pytest

import zoo
from tests.figures.drawn import caption, draw
from zoo.figures.run import plot_run

SCORES = {
    "generation": [0, 2, 4],
    "steps": [0, 20, 40],
    "seconds": [0.0, 0.1, 0.2],
    "score": [9.0, 5.0, 3.0],
    "sigma": [1.0, 0.1, 1e-5],
    "step_norm": [0.0, 1.0, 2.0],
    "condition_number": [np.nan] * 3,
}
HISTORY = {
    "steps": [10, 20, 30, 40],
    "best_fitness": [3.0, 2.0, np.nan, 1.0],
    "mean_fitness": [5.0, 4.0, np.nan, 2.0],
    "worst_fitness": [9.0, np.inf, np.inf, 3.0],
    "failed": [0.0, 0.5, 1.0, 0.0],
}
FACTS = {"maximize": True, "title": "a $title$"}


def panels(figure):
    draw(figure)
    return {axis.get_title().partition("\n")[0]: axis for axis in figure.axes if axis.axison}


def test_a_panel_per_number():
    figure = plot_run(HISTORY, SCORES, "score", x="steps", **FACTS)
    found = panels(figure)
    words = ["fitness of the members", "score of the mean", "sigma", "step of the mean", "share of members"]
    assert list(found) == words  # there is no condition number
    fitness = {line.get_label(): line.get_ydata() for line in found[words[0]].lines}
    np.testing.assert_array_equal(fitness["best"], HISTORY["best_fitness"])
    np.testing.assert_array_equal(fitness["mean"], HISTORY["mean_fitness"])
    np.testing.assert_array_equal(fitness["worst"], [9, 9, 9, 3])  # infinite: at the edge, and said
    assert "fitness: values from 9 on are drawn at the upper edge" in caption(figure)
    np.testing.assert_array_equal(found[words[1]].lines[0].get_xydata(), [[0, 9], [20, 5], [40, 3]])
    assert "higher is better" in found[words[1]].get_title()
    assert [axis.get_yscale() for axis in found.values()] == ["linear", "linear", "log", "linear", "linear"]
    np.testing.assert_array_equal(found[words[3]].lines[0].get_ydata(), [1, 2])
    np.testing.assert_array_equal(found[words[4]].lines[0].get_xydata()[:, 0], HISTORY["steps"])


@pytest.mark.parametrize(("x", "end", "first"), [("generations", 4, "fitness of the members"), ("seconds", 0.2, None)])
def test_against_what(x, end, first):
    found = panels(plot_run(HISTORY, SCORES, "score", x=x, **FACTS))
    assert ("fitness of the members" in found) == (first is not None)
    assert found["sigma"].lines[0].get_xdata()[-1] == end
    assert found["sigma"].get_xlim()[1] < 2 * end
    assert found["sigma"].get_xlabel() == x


@pytest.mark.parametrize("num_generations", [0, 1])
def test_short_runs(num_generations):
    history = {name: values[:num_generations] for name, values in HISTORY.items()}
    scores = {name: values[: num_generations + 1] for name, values in SCORES.items()}
    figure = plot_run(history, scores, "score", x="steps", **FACTS)
    found = panels(figure)
    said = [text.get_text() for text in found["fitness of the members"].texts]
    assert said == ([] if num_generations else ["no generation was done"])
    assert all(line.get_marker() == "." for axis in found.values() for line in axis.lines)


def test_a_run_that_failed():
    nothing = {name: [np.nan] * 4 if "fitness" in name else values for name, values in HISTORY.items()}
    panels(plot_run(nothing, {**SCORES, "score": [np.nan, np.inf, np.nan]}, "score", x="steps", **FACTS))


def test_a_run_and_its_copy_in_a_folder(tmp_path):
    result = zoo.run("snes", "blackbox/sphere", num_generations=3)
    result.save(tmp_path)
    figures = [result.plot(), zoo.load_run(tmp_path).plot()]
    mine, loaded = ([line.get_ydata() for axis in panels(x).values() for line in axis.lines] for x in figures)
    assert len(mine) == len(loaded) == 7
    for one, other in zip(mine, loaded, strict=True):
        np.testing.assert_allclose(one, other)
    assert figures[0].get_suptitle() == "SNES on BBOB; ended by budget"
    with pytest.raises(ValueError, match="x must be 'steps', 'generations' or 'seconds', got 'years'"):
        result.plot("years")
