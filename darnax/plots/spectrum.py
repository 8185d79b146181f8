"""The picture of a spectrum: eigenvalues in the complex plane."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from darnax import checks
from darnax.plots.axes import axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checks.by_hand
def spectrum(eigenvalues: ArrayLike, *, ax: "Axes | None" = None) -> "Axes":
    """Eigenvalues of a pass in the complex plane, with the unit circle.

    A fixed point of a pass is stable where all of them lie inside of the circle. Each sample has a
    colour of its own, and the title names the largest size of all. Values that are not finite are
    left out and counted in the title.

    **Arguments:**

    - `eigenvalues`: `(k,)`, or `(B, k)` for several samples; real or complex.
    - `ax`: matplotlib axes; None makes a figure.

    Returns the axes. Raises `TypeError` or `ValueError` for anything else.

    !!! example

        ```python
        weights = np.random.default_rng(0).normal(size=(50, 50)) / 50**0.5
        ax = dx.plots.spectrum(np.linalg.eigvals(weights))
        ```
    """
    values = _rows(eigenvalues)
    finite = np.isfinite(values)
    ax = axes_of(ax, (5.0, 5.0))
    angles = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(angles), np.sin(angles), color="0.6", linewidth=1)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.85", linewidth=0.8, zorder=0)
    sample = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    # A single sample has the first colour of all.
    ax.scatter(
        np.real(values[finite]),
        np.imag(values[finite]),
        s=18,
        c=sample[finite],
        cmap="viridis",
        vmin=0,
        vmax=max(len(values) - 1, 1),
        alpha=0.8,
        zorder=2,
    )
    reach = 1.08 * max(1.0, float(abs(values[finite]).max(initial=0)))
    ax.set(
        xlim=(-reach, reach),
        ylim=(-reach, reach),
        aspect="equal",
        xlabel="real part",
        ylabel="imaginary part",
        title=_title(values, finite),
    )
    return ax


def _rows(eigenvalues: object) -> np.ndarray:
    """Eigenvalues `(B, k)` as complex numbers."""
    holds = "numbers of shape (k,) or (B, k)"
    try:
        values = np.asarray(eigenvalues).astype(complex)
    except (TypeError, ValueError):
        checks.refuse("eigenvalues", holds, eigenvalues, "give such an array")
    if values.ndim not in (1, 2) or not values.size:
        checks.refuse("eigenvalues", holds, eigenvalues, "give such an array", ValueError)
    return np.atleast_2d(values)


def _title(values: np.ndarray, finite: np.ndarray) -> str:
    parts: list[str] = []
    if finite.any():
        parts.append(f"largest size {abs(values[finite]).max():.3g}")
    if not finite.all():
        parts.append(f"{(~finite).sum()} not finite")
    return ", ".join(parts)
