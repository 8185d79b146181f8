"""A rollout as an animation."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from darnax import checks
from darnax.plots.axes import axes_of, figure_of
from darnax.plots.state import largest, state, tiles_of
from darnax.states.graph import GraphState
from darnax.topologies.names import Name

if TYPE_CHECKING:
    from matplotlib.animation import PillowWriter
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
    that does not fit; then no file is written.

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
    stack = None
    if draw is None:
        stack = _stack(frames)
    else:
        checks.function("draw", draw, "a function called as draw(frame, ax=ax)", "give one")
    leaves, structure = jax.tree.flatten(frames)
    arrays = [np.asarray(leaf) for leaf in leaves]
    count = _count(arrays)
    if stack is not None:
        draw = _drawing_of(stack)
    assert draw is not None
    ax = axes_of(ax)
    writer = _writer(ax, path, fps)
    for i in range(count):
        # Slices of NumPy compile nothing.
        leaves = jax.device_put([array[i] for array in arrays])
        ax.clear()
        draw(jax.tree.unflatten(structure, leaves), ax=ax)
        ax.set_title(f"pass {i + 1}", loc="left", fontsize=9)
        writer.grab_frame()
    writer.finish()
    return ax


def _writer(ax: "Axes", path: str | os.PathLike[str], fps: float) -> "PillowWriter":
    from matplotlib.animation import PillowWriter

    figure = figure_of(ax)
    # matplotlib says int, and divides by it.
    writer = PillowWriter(fps=fps)  # pyright: ignore[reportArgumentType]
    # The file is opened when the writer finishes: a drawing that fails leaves none behind.
    writer.setup(figure, os.fspath(path), figure.dpi)
    return writer


def _count(arrays: list[np.ndarray]) -> int:
    """The number of frames, which all arrays have as their first axis."""
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        raise ValueError(
            "`frames` is a pytree of arrays (passes, ...) of one number of passes, but their first "
            f"axes are {sorted(lengths)}; give what rollout observed"
        )
    return lengths.pop()[0]


def _stack(frames: object) -> GraphState:
    """Frames that are states stacked along a new first axis."""
    holds = "states stacked along a new first axis, where `draw` is None"
    advice = "observe them, as in rollout(observe=lambda state: state), or give `draw`"
    stack = checks.instance("frames", frames, GraphState, holds, advice)
    for name, spec in stack.topology.arrays.items():
        if np.ndim(stack.arrays[name]) != len(spec.shape) + 2:
            checks.refuse("frames", holds, stack, advice, ValueError)
    return stack


def _drawing_of(stack: GraphState) -> Callable[..., object]:
    """A function that draws a state, in the colours that suit all frames."""
    # With the frames as the batch, a tile reads one of them for each `sample`.
    arrays = {name: np.asarray(array)[..., 0] for name, array in stack.arrays.items()}
    by_frame = {name: np.moveaxis(array, 0, -1) for name, array in arrays.items()}
    count = next(iter(by_frame.values())).shape[-1]
    limits: dict[Name, float] = {}
    for tile in tiles_of(stack.topology, None):
        limits[tile.name] = max(largest(tile.read(by_frame, i)) for i in range(count))

    def draw(frame: GraphState, ax: "Axes") -> object:
        return state(frame, ax=ax, limit=limits)

    return draw
