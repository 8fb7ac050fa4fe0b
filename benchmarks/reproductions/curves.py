"""Runs methods on a problem and draws their curves, for several reproductions."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

import zoo
from zoo import Problem, RunResult, Strategy
from zoo.figures.labels import add_legend
from zoo.figures.style import add_caption, dress, line_styles, make_figure

FIGURES = pathlib.Path(__file__).parent / "figures"


@dataclasses.dataclass(frozen=True)
class Method:
    """One line of a comparison.

    Attributes:
        strategy: The strategy.
        problem: The problem it runs on.
        num_updates: Number of updates to run.
        sequential_steps: Number of steps of an update that must run in sequence: the length of an unroll.
    """

    strategy: Strategy
    problem: Problem
    num_updates: int
    sequential_steps: int


def run_methods(
    methods: Mapping[str, Method], *, num_seeds: int, num_scores: int, metric: str
) -> dict[str, list[RunResult]]:
    """Runs every method with every seed and prints a row per method."""
    print(f"| method | updates | problem steps | {metric}, per seed: start | best | end | seconds per seed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    results = {}
    for name, method in methods.items():
        runs = [
            zoo.run(method.strategy, method.problem, seed, num_generations=method.num_updates, num_scores=num_scores)
            for seed in range(num_seeds)
        ]
        results[name] = runs
        curves = [run.scores[metric] for run in runs]
        start, best, end = (
            ", ".join(f"{value:.4g}" for value in values)
            for values in ([c[0] for c in curves[:1]], [np.nanmin(c) for c in curves], [c[-1] for c in curves])
        )
        seconds = np.median([run.seconds for run in runs])
        print(
            f"| {name} | {method.num_updates:,} | {runs[0].num_steps:,} | {start} | {best} | {end} | {seconds:.1f} |",
            flush=True,
        )
    return results


def draw(
    path: str,
    methods: Mapping[str, Method],
    results: Mapping[str, Sequence[RunResult]],
    *,
    metric: str,
    label: str,
    title: str,
    lines: Mapping[str, float] | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws a metric against sequential and total problem steps: the median, and a band from best to worst seed."""
    figure = make_figure(3.6)
    axes = figure.subplots(1, 2, sharey=True)
    styles = line_styles(results)
    for name, runs in results.items():
        values = np.stack([run.scores[metric] for run in runs])
        generation = runs[0].scores["generation"]
        for axis, x in (
            (axes[0], generation * methods[name].sequential_steps),
            (axes[1], runs[0].scores["steps"]),
        ):
            low, middle, high = (np.quantile(values[:, 1:], q, axis=0) for q in (0, 0.5, 1))
            axis.plot(x[1:], middle, label=name, **styles[name])
            axis.fill_between(x[1:], low, high, color=styles[name]["color"], alpha=0.2, linewidth=0)
    for axis, text in zip(axes, ("sequential problem steps", "total problem steps"), strict=True):
        for k, (name, value) in enumerate((lines or {}).items()):
            axis.axhline(value, color="black", linestyle=(":", "--")[k % 2], linewidth=1, label=name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        if limits is not None:
            axis.set_ylim(limits)
        dress(axis, x=text)
    dress(axes[0], y=label)
    add_caption(figure, f"{title}; median of {len(next(iter(results.values())))} seeds, band: their range")
    handles, names = axes[0].get_legend_handles_labels()
    add_legend(figure, dict(zip(names, handles, strict=True)))
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / path, dpi=110)
    print(f"\nfigure: {os.path.relpath(FIGURES / path)}")
