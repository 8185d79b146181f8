"""How the samples of a relaxation ended, in words and as a table."""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.core import Tracer

from darnax import _html
from darnax._text import Table
from darnax.states.summary import state_html

if TYPE_CHECKING:
    from darnax.dynamics.relax import Solution


def verdicts(solution: "Solution") -> dict[str, np.ndarray]:
    """By how samples ended, a mask `(samples,)` of those."""
    settled = np.ravel(solution.settled)
    lost = ~np.isfinite(np.ravel(solution.residual).astype(float))
    cycle = (np.ravel(solution.period) > 1) & ~settled & ~lost
    moving = ~(settled | lost | cycle)
    return {"settled": settled, "cycle": cycle, "moving": moving, "lost": lost}


def verdict_words(solution: "Solution") -> str:
    """How many samples ended how, in one line."""
    counts = {name: int(mask.sum()) for name, mask in verdicts(solution).items()}
    parts = [f"{counts['settled']} of {np.size(solution.settled)} settled"]
    phrases = {"cycle": "in cycles", "moving": "still moving", "lost": "not finite"}
    for name, phrase in phrases.items():
        if counts[name]:
            parts.append(f"{counts[name]} {phrase}")
    return ", ".join(parts)


def as_html(solution: "Solution") -> str:
    """The verdicts of a solution as a page, and its state below them."""
    state = _html.folded("state", state_html(solution.state))
    parts = solution.settled, solution.steps, solution.residual, solution.period
    # Inside of a program, and as the shapes of `jax.eval_shape`, a solution has no numbers.
    for part in parts:
        if not isinstance(part, (np.ndarray, jax.Array)) or isinstance(part, Tracer):
            return _html.page("Solution", [state])
    return _html.page(
        f"Solution: {verdict_words(solution)}", [_html.table(_table(solution)), state]
    )


def _table(solution: "Solution") -> Table:
    """A row for every way in which samples ended."""
    steps, period = np.ravel(solution.steps), np.ravel(solution.period)
    residual = np.ravel(solution.residual)
    rows: list[tuple[object, ...]] = []
    for name, mask in verdicts(solution).items():
        if mask.any():
            least, most = int(steps[mask].min()), int(steps[mask].max())
            passes = f"{steps[mask].mean():.1f} ({least} to {most})"
            periods = np.unique(period[mask]).tolist()
            shown = ", ".join(map(str, periods[:8])) + (" ..." if len(periods) > 8 else "")
            largest = float(residual[mask].max())
            rows.append((name, int(mask.sum()), passes, shown, f"{largest:.2g}"))
    return Table(("verdict", "samples", "passes", "period", "largest residual"), rows)
