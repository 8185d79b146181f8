"""The picture of a solution: how many passes samples took, and how they ended."""

from typing import TYPE_CHECKING

import numpy as np

from darnax import checks
from darnax.dynamics.relax import Solution
from darnax.dynamics.verdicts import verdict_words, verdicts
from darnax.plots.axes import Box, axes_of, panels, plain, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"settled": "#0072b2", "cycle": "#e69f00", "moving": "#999999", "lost": "#000000"}
"""Colours of the verdicts; `lost` are samples with values that are not finite."""

WITH_CYCLES: list[Box] = [
    (0.06, 0.16, 0.36, 0.78),
    (0.49, 0.16, 0.23, 0.78),
    (0.79, 0.16, 0.21, 0.78),
]
WITHOUT_CYCLES: list[Box] = [(0.06, 0.16, 0.52, 0.78), (0.67, 0.16, 0.33, 0.78)]

BARS = 30
"""The most bars of a histogram."""


@checks.by_hand
def solution(solution: Solution, *, ax: "Axes | None" = None, tol: float = 1e-5) -> "Axes":
    """How the samples of a relaxation ended.

    Panels: how many took how many passes, in the colour of how they ended (settled, in a cycle,
    still moving, or lost to values that are not finite); the residuals, with the tolerance as a
    line, those of zero at the left end; the periods of cycles, if any were found.
    Stacked solutions, as `vmap` gives them, are counted as one.

    **Arguments:**

    - `solution`: what `relax` returned.
    - `ax`: matplotlib axes, in which the panels are; None makes a figure.
    - `tol`: the tolerance that `relax` was given.

    Returns the axes.

    !!! example

        ```python
        ax = dx.plots.solution(dx.relax(network, state))
        ```
    """
    advice = "give what relax returns"
    checks.instance("solution", solution, Solution, "a darnax.Solution", advice)
    tol = checks.number("tol", tol, least=0)
    found = verdicts(solution)
    cycles = np.ravel(solution.period)[found["cycle"]]
    ax = axes_of(ax, (9.0, 3.2))
    # Without cycles there is nothing to see of them, and the others are wider.
    boxes = WITH_CYCLES if len(cycles) else WITHOUT_CYCLES
    inner = panels(ax, boxes)
    ax.set_title(verdict_words(solution))
    _draw_steps(inner[0], np.ravel(solution.steps), found)
    _draw_residuals(inner[1], np.ravel(solution.residual).astype(float), found, tol)
    if len(cycles):
        _draw_periods(inner[2], cycles)
    for panel in inner:
        plain(panel)
    return ax


def _draw_steps(ax: "Axes", steps: np.ndarray, found: dict[str, np.ndarray]) -> None:
    """Samples by the number of their passes, one verdict on the other."""
    first, last = int(steps.min()), int(steps.max())
    # Whole numbers of passes in each bar.
    width = -(-(last - first + 1) // BARS)
    edges = np.arange(first, last + width + 1, width) - 0.5
    names = [name for name, mask in found.items() if mask.any()]
    ax.hist(
        [steps[found[name]] for name in names],
        edges.tolist(),
        stacked=True,
        color=[COLOURS[name] for name in names],
        label=names,
        edgecolor="white",
        linewidth=0.5,
    )
    ax.set(xlabel="passes", ylabel="samples")
    whole(ax.xaxis)
    whole(ax.yaxis)
    if len(names) > 1:
        ax.legend(frameon=False, fontsize=8)


def _draw_periods(ax: "Axes", cycles: np.ndarray) -> None:
    """Cycles by their length."""
    lengths, counts = np.unique(cycles, return_counts=True)
    ax.set_xlabel("period of cycles")
    # By name and not by value: a period of 64 would leave a gap of 61.
    places = np.arange(len(lengths))
    ax.bar(places, counts, color=COLOURS["cycle"])
    every = -(-len(lengths) // 6)
    ax.set_xticks(places[::every], [str(length) for length in lengths[::every]])
    whole(ax.yaxis)


def _draw_residuals(
    ax: "Axes",
    residuals: np.ndarray,
    found: dict[str, np.ndarray],
    tol: float,
) -> None:
    """Samples by the logarithm of their residual."""
    above = residuals[np.isfinite(residuals) & (residuals > 0)]
    low = float(min(above.min(initial=np.inf), tol or np.inf, 1e-1)) / 10
    high = float(max(above.max(initial=0), tol, low * 100)) * 2
    edges = np.geomspace(low, high, 25)
    names = [name for name, mask in found.items() if mask.any() and name != "lost"]
    ax.set(xscale="log", xlabel="residual", xlim=(low, high))
    if not names:  # matplotlib finds no range of nothing
        return
    ax.hist(
        [np.maximum(residuals[found[name]], low) for name in names],
        edges.tolist(),
        stacked=True,
        color=[COLOURS[name] for name in names],
    )
    whole(ax.yaxis)
    if tol:
        ax.axvline(tol, color="0.3", linestyle=":", linewidth=1)
