"""A rollout as an animation."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from darnax import checks
from darnax.plots.axes import axes_of, figure_of
from darnax.plots.state import largest, state, tiles_of
from darnax.states.graph import GraphState

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checks.by_hand
def movie(
    path: str | os.PathLike[str],
    frames: object,
    *,
    draw: Callable[..., object] | None = None,
    ax: "Axes | None" = None,
    fps: float = 8.0,
) -> "Axes":
    """An animated GIF of what `rollout` observed, one picture a pass.

    The figure of `ax` is drawn anew for every frame, so that what else is in it stays in the movie.
    A frame takes about a tenth of a second.

    **Arguments:**

    - `path`: of the file, which is overwritten; its name ends with ".gif".
    - `frames`: states stacked along a new first axis, as `rollout(observe=lambda state: state)`
      gives them, or any pytree of arrays `(passes, ...)` that `draw` takes.
    - `draw`: a function called as `draw(frame, ax=ax)`, such as
      `functools.partial(dx.plots.state, nodes=["cortex"], limit=1.0)`. None draws whole states,
      whose colours mean the same in all frames.
    - `ax`: matplotlib axes, which are cleared; None makes a figure.
    - `fps`: frames a second.

    Returns the axes, which show the last frame. Raises `TypeError` or `ValueError` for anything
    that does not fit, before the file is opened.

    !!! example

        ```python
        _, frames = dx.rollout(network, state, 3, observe=lambda state: state)
        with tempfile.TemporaryDirectory() as folder:
            ax = dx.plots.movie(f"{folder}/settling.gif", frames)
        ```
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).endswith(".gif"):
        checks.refuse("path", "the name of a file that ends with '.gif'", path, "give one")
    fps = checks.number("fps", fps, above=0)
    leaves, structure = jax.tree.flatten(frames)
    # Slices of NumPy, which compile nothing.
    arrays = [np.asarray(leaf) for leaf in leaves]
    count = _count(arrays)
    if draw is None:
        draw = _drawing_of_states(frames)
    else:
        checks.function("draw", draw, "a function called as draw(frame, ax=ax)", "give one")
    ax = axes_of(ax)
    _write(
        os.fspath(path),
        ax,
        [jax.tree.unflatten(structure, [array[i] for array in arrays]) for i in range(count)],
        draw,
        fps,
    )
    return ax


def _count(arrays: list[np.ndarray]) -> int:
    """The number of frames, which all arrays have as their first axis."""
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        raise ValueError(
            "`frames` is a pytree of arrays (passes, ...) of one number of passes, but their first "
            f"axes are {sorted(lengths)}; give what rollout observed"
        )
    return lengths.pop()[0]


def _drawing_of_states(frames: object) -> Callable[..., object]:
    """A function that draws a state, in the colours that suit all frames."""
    holds = "states stacked along a new first axis, where `draw` is None"
    advice = "observe them, as in rollout(observe=lambda state: state), or give `draw`"
    stack = checks.instance("frames", frames, GraphState, holds, advice)
    for name, spec in stack.topology.arrays.items():
        if np.ndim(stack.arrays[name]) != len(spec.shape) + 2:
            checks.refuse("frames", holds, stack, advice, ValueError)
    arrays = {name: np.asarray(array) for name, array in stack.arrays.items()}
    tiles = tiles_of(stack.topology, None)
    limits: dict[object, float] = {}
    for tile in tiles:
        sizes: list[float] = []
        for i in range(len(next(iter(arrays.values())))):
            frame = {name: array[i] for name, array in arrays.items()}
            sizes.append(largest(tile.read(frame, 0)))
        limits[tile.name] = max(sizes)

    def draw(frame: GraphState, ax: "Axes") -> object:
        return state(frame, ax=ax, limit=limits)

    return draw


def _write(
    path: str,
    ax: "Axes",
    frames: Sequence[object],
    draw: Callable[..., object],
    fps: float,
) -> None:
    from matplotlib.animation import PillowWriter

    figure = figure_of(ax)
    # matplotlib says int, and divides by it.
    writer = PillowWriter(fps=fps)  # pyright: ignore[reportArgumentType]
    with writer.saving(figure, path, figure.dpi):
        for i, frame in enumerate(frames):
            ax.clear()
            draw(frame, ax=ax)
            if len(frames) > 1:
                title = ax.get_title()
                ax.set_title(f"{title}  pass {i + 1}".strip(), loc="left", fontsize=9)
            writer.grab_frame()
