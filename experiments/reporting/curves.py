"""Pictures of test accuracy over epochs, and over rho, from result lines."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments.config import paper
from experiments.reporting import style
from experiments.reporting.tables import Group, method_name


def accuracy_curves(found: list[Group], path: Path, title: str) -> None:
    """Mean and standard deviation over seeds of the test accuracy after each epoch."""
    figure, axes = style.figure()
    for group in found:
        curves = np.array([run["metrics"]["test_accuracy"] for run in group.runs])
        epochs = np.arange(1, curves.shape[1] + 1)
        mean, color = curves.mean(0), style.COLORS[group["method"]]
        name = method_name(group)
        label = name if group["method"] == "sgd" else f"{name}, $\\rho$ = {group['rho']:g}"
        axes.plot(epochs, mean, color=color, label=label)
        if len(curves) > 1:
            std = curves.std(0, ddof=1)
            axes.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(title)
    _show_the_top(axes, found)
    axes.legend(loc="lower right")
    style.save(figure, path)


def _show_the_top(axes: Axes, found: list[Group]) -> None:
    """Cuts off the first epochs' low accuracies, where the curves' differences would drown."""
    curves = np.concatenate(
        [np.ravel(r["metrics"]["test_accuracy"]) for g in found for r in g.runs]
    )
    low, high = np.percentile(curves, 5), curves.max()
    margin = 0.08 * (high - low)
    axes.set_ylim(low - margin, min(high + margin, 100.5))


def rho_curves(found: list[Group], path: Path, title: str) -> None:
    """Final test accuracy over rho for each method; SGD, which has none, as a level line."""
    figure, axes = style.figure()
    for method in paper.METHODS:
        of_method = [g for g in found if g["method"] == method]
        if not of_method:
            continue
        color, name = style.COLORS[method], paper.METHOD_NAMES[method]
        means = [float(np.mean(g.final)) for g in of_method]
        stds = [float(np.std(g.final, ddof=1)) if len(g.runs) > 1 else 0.0 for g in of_method]
        if method == "sgd":
            axes.axhline(means[0], color=color, label=name)
            axes.axhspan(
                means[0] - stds[0], means[0] + stds[0], color=color, alpha=0.2, linewidth=0
            )
        else:
            radii = [g["rho"] for g in of_method]
            axes.errorbar(radii, means, stds, color=color, label=name, marker="o", capsize=3)
    axes.set_xscale("log")
    axes.set_xlabel("radius $\\rho$ of the perturbation")
    axes.set_ylabel("final test accuracy (%)")
    axes.set_title(title)
    axes.legend()
    style.save(figure, path)
