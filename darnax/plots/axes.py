"""The axes that a picture is drawn in, and matplotlib, imported at its first use."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from darnax import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


@checks.by_hand
def axes_of(ax: "Axes | None", size: tuple[float, float] = (6.4, 4.8)) -> "Axes":
    """The axes that were given, or those of a new figure of so many inches."""
    try:
        import matplotlib.pyplot as plt
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError(
            f"darnax.plots needs matplotlib, and {error}; install it, as in pip install "
            "'darnax[plots]'"
        ) from error
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    advice = "give one, as from plt.subplots()[1], or None for a new figure"
    return checks.instance("ax", ax, Axes, "one matplotlib axes", advice)


Box: TypeAlias = tuple[float, float, float, float]
"""Left and lower end, width and height, as shares of some axes."""


def panels(ax: "Axes", boxes: Sequence[Box]) -> "list[Axes]":
    """Axes inside of `ax`, which itself shows nothing but its title."""
    ax.set_axis_off()
    return [ax.inset_axes(box) for box in boxes]


def size_of(ax: "Axes") -> tuple[float, float]:
    """Width and height of some axes in points, as far as they are known before drawing."""
    window = ax.get_window_extent()
    points = 72 / figure_of(ax).dpi
    return points * window.width, points * window.height


def figure_of(ax: "Axes") -> "Figure":
    """The figure of some axes, the outermost where it has parts."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("`ax` has been removed from its figure; give axes that are in one")
    return figure


def whole(axis: "Axis") -> None:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True))


def plain(ax: "Axes") -> None:
    """Drop the lines of a frame that carry no scale."""
    ax.spines[["top", "right"]].set_visible(False)
