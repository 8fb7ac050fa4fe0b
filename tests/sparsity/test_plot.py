"""Tests that figures of tickets show the numbers of their frames."""

import re

import numpy as np
import pandas as pd
import pytest

from tests.figures.drawn import boxes, caption, draw, legend
from zoo.sparsity.plot import plot_flatness, plot_interpolation, plot_ladder, plot_layers
from zoo.statistics.aggregates import confidence_interval, interquartile_mean

KEPT = 0.8 ** np.arange(20)
LAYERS = ("params/Dense_0/kernel", "params/Dense_1/kernel")


def make_ladder(num_seeds, *, num_rounds=20, criteria=("snr", "random")):
    rng = np.random.default_rng(0)
    rows = []
    for criterion in criteria:
        for seed in range(num_seeds):
            for r in range(num_rounds):
                row = {"criterion": criterion, "seed": seed, "round": r, "kept": KEPT[r]}
                rows += [{**row, "metric": name, "value": rng.normal()} for name in ("accuracy", "loss")]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)  # in random order


def make_layers(num_seeds, *, criteria=("snr", "random"), lost=False):
    rng = np.random.default_rng(0)
    rows = []
    for criterion in criteria:
        for seed in range(num_seeds):
            for r in range(8):
                row = {"criterion": criterion, "seed": seed, "round": r, "kept": KEPT[r]}
                rows += [{**row, "layer": name, "layer_kept": KEPT[r] * rng.uniform(0.8, 1)} for name in LAYERS]
    frame = pd.DataFrame(rows)
    if lost:
        frame.loc[(frame["round"] == 7) & (frame.layer == LAYERS[0]), "layer_kept"] = 0.0
    return frame


def by_seed(frame, column, **values):
    """Returns a column as `[num_seeds, num_rounds]`, for the rows with the given values."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame.pivot(index="seed", columns="round", values=column).to_numpy()


def lines(axis):
    """Returns the curves of an axis, which are the lines with markers."""
    return [line for line in axis.lines if line.get_marker() != "None"]


def band(collection, x):
    """Returns the lower and the upper edge of a band at each x."""
    vertices = collection.get_paths()[0].vertices
    at = [vertices[np.isclose(vertices[:, 0], value, rtol=1e-9), 1] for value in x]
    return np.array([y.min() for y in at]), np.array([y.max() for y in at])


def tick_labels(axis, low, high):
    """Returns the tick labels in view."""
    return [
        label.get_text()
        for label, x in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        if low <= x <= high
    ]


# Ladders


@pytest.mark.parametrize(
    ("num_seeds", "said"),
    [
        (5, r"interquartile mean over 5 seeds; band: 95 %"),
        (3, r"interquartile mean over 3 seeds; band: 95 %"),
        (2, r"mean over 2 seeds; band: from the lowest to the highest"),
        (1, r"one seed"),
    ],
)
def test_a_ladder_shows_the_middle_over_seeds_and_an_honest_band(num_seeds, said):
    frame = make_ladder(num_seeds)
    figure = plot_ladder(frame, metric="accuracy", maximize=True, labels={"random": "random mask"})
    draw(figure)
    (axis,) = figure.axes
    curves = lines(axis)
    assert len(curves) == len(axis.collections) == 2
    assert sorted(boxes(axis)) == ["random mask", "snr"]
    for curve, area in zip(curves, axis.collections, strict=True):
        criterion = curve.get_label().removesuffix(" mask")
        values = by_seed(frame, "value", criterion=criterion, metric="accuracy")
        assert values.shape == (num_seeds, 20)
        np.testing.assert_allclose(curve.get_xdata(), KEPT)
        if num_seeds >= 3:
            expected = interquartile_mean(values)
            low, high = np.transpose([confidence_interval(column) for column in values.T])
        else:
            expected, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
        np.testing.assert_allclose(curve.get_ydata(), expected)
        np.testing.assert_allclose(band(area, KEPT), [low, high])
    assert re.search(said, caption(figure))
    assert axis.get_ylabel() == "accuracy (higher is better)"


def test_the_sparsest_tickets_are_on_the_right_of_a_logarithmic_axis_in_percent():
    figure = plot_ladder(make_ladder(1), metric="loss", maximize=False)
    draw(figure)
    (axis,) = figure.axes
    left, right = axis.get_xlim()
    assert axis.get_xscale() == "log"
    assert left > 1
    assert right < KEPT[-1]
    assert tick_labels(axis.xaxis, right, left) == ["2", "5", "10", "20", "50", "100"]
    assert axis.get_xlabel() == "weights kept (%)"
    assert axis.get_ylabel() == "loss (lower is better)"
    few = plot_ladder(make_ladder(1, num_rounds=3), metric="loss", maximize=False)
    draw(few)
    assert tick_labels(few.axes[0].xaxis, 0.6, 1.1) == ["60", "70", "80", "90", "100"]


def test_seeds_that_are_not_all_there_are_counted():
    frame = make_ladder(5)
    frame = frame[(frame.seed < 4) | (frame["round"] < 10)]
    figure = plot_ladder(frame, metric="accuracy", maximize=True)
    assert "over 4 to 5 seeds; band: 95 %" in caption(figure)
    figure = plot_ladder(frame[(frame.seed < 2) | (frame.criterion == "snr")], metric="accuracy", maximize=True)
    assert "mean over 2 to 5 seeds; band: from the lowest" in caption(figure)


# Layers


@pytest.mark.parametrize("num_seeds", [4, 2])
def test_layers_have_a_panel_per_criterion_and_a_line_per_layer(num_seeds):
    frame = make_layers(num_seeds)
    figure = plot_layers(frame)
    draw(figure)
    assert [axis.get_title() for axis in figure.axes] == ["snr", "random"]
    assert sorted(legend(figure)) == ["all layers equal", *LAYERS]
    for axis in figure.axes:
        assert len(lines(axis)) == 2
        for line, layer in zip(lines(axis), LAYERS, strict=True):
            values = by_seed(frame, "layer_kept", criterion=axis.get_title(), layer=layer)
            expected = interquartile_mean(values) if num_seeds == 4 else values.mean(axis=0)
            np.testing.assert_allclose(line.get_xdata(), KEPT[:8])
            np.testing.assert_allclose(line.get_ydata(), expected)
        (alike,) = [line for line in axis.lines if line.get_linestyle() == "--"]
        np.testing.assert_array_equal(alike.get_xdata(), alike.get_ydata())
        assert axis.get_xlim()[0] > axis.get_xlim()[1]
        assert axis.get_yscale() == "log"
    colors = [line.get_color() for line in lines(figure.axes[0])]
    assert not np.array_equal(*colors)


def test_a_layer_that_is_lost_is_seen_at_zero():
    figure = plot_layers(make_layers(1, criteria=("snr",), lost=True))
    draw(figure)
    (axis,) = figure.axes
    assert axis.get_yscale() == "symlog"
    assert lines(axis)[0].get_ydata()[-1] == 0
    low, high = axis.get_ylim()
    assert low <= 0
    labels = tick_labels(axis.yaxis, low, high)
    assert {"0", "50", "100"} <= set(labels)


# The landscape


def test_interpolation_shows_the_scores_between_and_the_barrier():
    alpha = np.linspace(0, 1, 5)
    first = pd.DataFrame({"alpha": alpha, "metric": "loss", "value": [1.0, 3.0, 4.0, 3.0, 2.0]})
    second = first.assign(value=1 + 1e4 * alpha)
    figure = plot_interpolation({"dense": first[::-1], "sparse": second}, metric="loss", maximize=False)
    draw(figure)
    (axis,) = figure.axes
    assert legend(figure) == ["dense (barrier 2.5)", "sparse (barrier 0)"]
    for line, frame in zip(lines(axis), (first, second), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), alpha)
        np.testing.assert_array_equal(line.get_ydata(), frame.value)
    straight = [line.get_ydata() for line in axis.lines if line.get_linestyle() == ":"]
    np.testing.assert_array_equal(straight, [[1, 2], [1, 10_001]])
    assert axis.get_yscale() == "linear"  # the straight lines are straight on a linear axis only


def test_flatness_shows_quartiles_over_samples_from_zero_on():
    rng = np.random.default_rng(0)
    sigmas = np.array([0.0, 0.01, 0.1])
    scores = {name: rng.normal(size=(3, 16)) ** 3 for name in ("es", "sgd")}
    frames = {
        name: pd.DataFrame(
            {
                "sigma": np.repeat(sigmas, 16),
                "sample": np.tile(np.arange(16), 3),
                "metric": "accuracy",
                "value": values.ravel(),
            }
        )
        for name, values in scores.items()
    }
    figure = plot_flatness(frames, metric="accuracy", maximize=True)
    draw(figure)
    (axis,) = figure.axes
    assert sorted(boxes(axis)) == ["es", "sgd"]
    for line, area in zip(lines(axis), axis.collections, strict=True):
        values = scores[line.get_label()]
        np.testing.assert_array_equal(line.get_xdata(), sigmas)
        np.testing.assert_allclose(line.get_ydata(), interquartile_mean(values, axis=1))
        low, high = band(area, sigmas)
        np.testing.assert_allclose(low, np.quantile(values, 0.25, axis=1))
        np.testing.assert_allclose(high, np.quantile(values, 0.75, axis=1))
    assert axis.get_xscale() == "symlog"
    left, right = axis.get_xlim()
    assert left <= 0
    assert {"0", "0.01", "0.1"} <= set(tick_labels(axis.xaxis, left, right))
    assert caption(figure) == "interquartile mean over 16 perturbations; band: their quartiles"


def test_a_score_that_is_not_finite_leaves_a_gap():
    frame = pd.DataFrame({"sigma": [0.0, 0.0, 0.1, 0.1], "sample": [0, 1] * 2, "metric": "loss", "value": [1.0] * 4})
    frame.loc[3, "value"] = np.nan
    figure = plot_flatness({"es": frame}, metric="loss", maximize=False)
    draw(figure)
    np.testing.assert_array_equal(lines(figure.axes[0])[0].get_ydata(), [1.0, np.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot_ladder(make_ladder(1), metric="return", maximize=True),
            r"metric must be one of .*accuracy.* got 'return'",
        ),
        (lambda: plot_ladder(make_layers(1), metric="loss", maximize=True), r"columns .*\['metric', 'value'\] missing"),
        (lambda: plot_ladder(pd.concat([make_ladder(1)] * 2), metric="loss", maximize=True), r"one row per seed, crit"),
        (lambda: plot_layers(make_ladder(1)), r"\['layer', 'layer_kept'\] missing"),
        (lambda: plot_layers(make_layers(1)[:0]), r"at least one row"),
        (lambda: plot_layers(pd.concat([make_layers(1)] * 2)), r"one row per seed, criterion, round, layer"),
        (
            lambda: plot_interpolation({}, metric="loss", maximize=True),
            r"plot_interpolation expects a dictionary of at least one frame",
        ),
        (
            lambda: plot_flatness({}, metric="loss", maximize=True),
            r"plot_flatness expects a dictionary of at least one frame",
        ),
        (lambda: plot_flatness({"es": make_ladder(1)}, metric="loss", maximize=True), r"\['sigma', 'sample'\] missing"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
