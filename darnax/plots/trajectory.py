"""The picture of a rollout: what was observed, pass by pass."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from darnax import checks
from darnax.dynamics.relax import Solution
from darnax.plots.axes import axes_of, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = 30
"""The most single lines; of more the range of most of them is shown."""

Frames: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
"""What was observed after every pass, `(passes, ...)`, by name if it is several things."""


@checks.by_hand
def trajectory(
    frames: Frames | None = None,
    *,
    ax: "Axes | None" = None,
    solution: Solution | None = None,
) -> "Axes":
    """What `rollout` observed over its passes, and the share of samples that have settled.

    A value that is one number a pass is a line. One with more axes, samples for example, is a bold
    line for the mean of all, on thin lines for up to 30, or on a band between the first tenth and
    the last.

    **Arguments:**

    - `frames`: `(passes, ...)`, such as the second result of `dx.rollout`, or several by name:
      `{"energy": energy}`.
    - `ax`: matplotlib axes; None makes a figure.
    - `solution`: a `Solution`, whose share of settled samples stands on the right axis: those whose
      `steps` are at most the pass.

    Returns the axes. Raises `TypeError` or `ValueError` for anything else.

    !!! example

        ```python
        def activity(state):
            return jnp.abs(state["cortex"]).mean(-1)


        _, frames = dx.rollout(network, state, 20, observe=activity)
        solution = dx.relax(network, state)
        ax = dx.plots.trajectory({"activity": frames}, solution=solution)
        ```
    """
    if frames is None and solution is None:
        raise ValueError("there is nothing to plot; give `frames`, or a `solution`")
    lines = {} if frames is None else _lines(frames)
    if solution is not None:
        advice = "give what relax returns"
        checks.instance("solution", solution, Solution, "a darnax.Solution", advice)
    ax = axes_of(ax)
    plain(ax)
    for i, (name, values) in enumerate(lines.items()):
        _draw(ax, name, values, f"C{i % 10}")
    front = ax
    if solution is not None:
        front = _draw_settled(ax, solution, alone=not lines)
    if len(lines) == 1:
        ax.set_ylabel(next(iter(lines)), parse_math=False)
    elif lines:
        # Right axes lie in front, and would draw over a legend of those behind.
        handles = ax.get_legend_handles_labels()
        front.legend(*handles, facecolor="white", edgecolor="none", framealpha=0.85)
    ax.set_xlabel("pass")
    ax.set_xlim(left=0)
    return ax


@checks.by_hand
def _lines(frames: Frames) -> dict[str, np.ndarray]:
    """Every value as lines `(passes, n)`, by name."""
    given = frames if isinstance(frames, Mapping) else {"observed": frames}
    lines: dict[str, np.ndarray] = {}
    for name, value in given.items():
        argument = f"frames[{name!r}]" if isinstance(frames, Mapping) else "frames"
        array = _as_floats(argument, value)
        lines[str(name)] = array.reshape(len(array), -1)
    lengths = {name: len(values) for name, values in lines.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"`frames` have several numbers of passes, {lengths}; give one of each")
    return lines


def _as_floats(argument: str, value: object) -> np.ndarray:
    holds, advice = "real numbers of shape (passes, ...)", "give what rollout observed"
    array = np.asarray(value)
    # jax.numpy knows bfloat16 and its like as numbers, and NumPy does not.
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or np.iscomplexobj(
        array
    ):
        checks.refuse(argument, holds, value, advice)
    if array.ndim < 1 or not array.size:
        checks.refuse(argument, holds, value, advice, ValueError)
    return array.astype(float)


def _draw(ax: "Axes", name: str, values: np.ndarray, colour: str) -> None:
    passes = np.arange(1, len(values) + 1)
    count = values.shape[1]
    if 1 < count <= LINES:
        ax.plot(passes, values, color=colour, linewidth=0.7, alpha=0.35)
    # Values that are not finite leave gaps, and are no part of the mean.
    finite = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings():
        # of passes without any finite value
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(finite, axis=1)
        low, high = np.nanquantile(finite, [0.1, 0.9], axis=1)
    if count > LINES:
        ax.fill_between(passes, low, high, color=colour, alpha=0.2, linewidth=0)
    # A single pass is a point, which a line would not show.
    marker = "o" if len(values) == 1 else ""
    (line,) = ax.plot(passes, mean, color=colour, linewidth=2, marker=marker)
    # A name that begins with "_" would be left out of the legend.
    line.set_label(name if not name.startswith("_") else f" {name}")


def settled_share(solution: Solution) -> np.ndarray:
    """The share of samples that have settled by pass 0, 1, 2, ..."""
    steps = np.ravel(solution.steps)[np.ravel(solution.settled)]
    last = int(np.max(solution.steps, initial=0))
    counts = np.bincount(steps, minlength=last + 1)
    return np.cumsum(counts) / max(np.size(solution.settled), 1)


def _draw_settled(ax: "Axes", solution: Solution, alone: bool) -> "Axes":
    """Draw the share of settled samples, and return its axes: `ax`, or others on its right."""
    share = settled_share(solution)
    right = ax if alone else ax.twinx()
    right.step(np.arange(len(share)), share, where="post", color="0.4", linestyle="--")
    right.set_ylim(0, 1.03)
    right.set_ylabel("share of settled samples" + ("" if alone else " (dashed)"), color="0.4")
    right.spines["top"].set_visible(False)
    return right
