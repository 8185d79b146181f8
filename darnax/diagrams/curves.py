"""Ways of arrows: cubic Bézier curves `(4, 2)` that keep clear of circles."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

Curve: TypeAlias = np.ndarray
"""The four control points of a cubic Bézier curve."""

BENDS = (0.0, 0.16, 0.3, 0.45, 0.65)
"""How far a curve may leave its chord, as shares of the length of that."""

GAP = 0.04
"""The distance to keep from circles."""

MANY = 400
"""The number of links from which all are straight: no way around would be clear."""


def line(start: Iterable[float], end: Iterable[float]) -> Curve:
    """A straight curve."""
    ends = np.asarray([list(start), list(end)], float)
    shares = np.asarray([0, 1 / 3, 2 / 3, 1])[:, None]
    return (1 - shares) * ends[0] + shares * ends[1]


def points(curve: Curve, shares: np.ndarray) -> np.ndarray:
    """Points `(n, 2)` of a curve, at shares from 0 to 1."""
    t = shares[:, None]
    s = 1 - t
    return s**3 * curve[0] + 3 * s**2 * t * curve[1] + 3 * s * t**2 * curve[2] + t**3 * curve[3]


def point(curve: Curve, share: float) -> tuple[float, float]:
    """The point of a curve at a share from 0 to 1."""
    x, y = points(curve, np.asarray([share]))[0]
    return float(x), float(y)


def box(curve: Curve) -> tuple[float, float, float, float]:
    """The box around a curve."""
    on_it = points(curve, np.linspace(0, 1, 17))
    (left, low), (right, high) = on_it.min(axis=0), on_it.max(axis=0)
    return float(left), float(low), float(right), float(high)


def part(curve: Curve, start: float, end: float) -> Curve:
    """The part of a curve between two shares, by de Casteljau."""
    after = _halves(curve, start)[1]
    rest = (end - start) / (1 - start) if start < 1 else 0.0
    return _halves(after, rest)[0]


def _halves(curve: Curve, share: float) -> tuple[Curve, Curve]:
    """The two parts of a curve before and after a share."""
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    level = curve
    for _ in range(4):
        left.append(level[0])
        right.append(level[-1])
        level = (1 - share) * level[:-1] + share * level[1:]
    return np.stack(left), np.stack(right[::-1])


def head(curve: Curve, length: float, half_width: float) -> np.ndarray:
    """The corners `(3, 2)` of an arrow head at the end of a curve."""
    tip = curve[3]
    base = without_end(curve, length)[3]
    along = tip - base
    norm = max(float(np.hypot(*along)), 1e-9)
    aside = np.asarray([-along[1], along[0]]) / norm * half_width
    return np.stack([tip, base + aside, base - aside])


def without_end(curve: Curve, length: float) -> Curve:
    """The curve without what is nearer to its end than `length`."""
    shares = np.linspace(0, 1, 65)
    distance = np.hypot(*(points(curve, shares) - curve[3]).T)
    far = shares[distance >= length]
    return part(curve, 0.0, float(far[-1]) if len(far) else 0.0)


def routes(
    ends: Sequence[tuple[int, int]],
    circles: np.ndarray,
    obstacles: np.ndarray,
) -> list[Curve]:
    """A curve for every link between circles `(n, 3)` of x, y and radius, from border to border.

    A link is straight where nothing is in its way, else bent aside: past other circles, past
    `obstacles`, which are circles `(m, 3)` too, and past other links between the same two.
    """
    used: dict[tuple[int, int], list[float]] = {}
    found: list[Curve] = []
    for sender, receiver in ends:
        pair = min(sender, receiver), max(sender, receiver)
        earlier = used.setdefault(pair, [])
        if sender == receiver:
            found.append(_loop(circles, sender, len(earlier)))
            earlier.append(0.0)
            continue
        # Bends of links there and back are counted on one side.
        side = 1.0 if sender < receiver else -1.0
        others = np.concatenate([np.delete(circles, [sender, receiver], axis=0), obstacles])
        bends = _bends(circles[receiver, 0] - circles[sender, 0], side, earlier)
        if len(ends) > MANY:
            bends = bends[:1]
        bend, curve = _route(circles[sender], circles[receiver], bends, others)
        earlier.append(side * bend)
        found.append(curve)
    return found


def _bends(across: float, side: float, earlier: Sequence[float]) -> list[float]:
    """The bends to try, the smallest first, without those of earlier links."""
    # Upwards first: names stand below circles.
    up = 1.0 if across >= 0 else -1.0
    bends = [BENDS[0]]
    for bend in BENDS[1:]:
        bends += [up * bend, -up * bend]
    free = [bend for bend in bends if all(abs(side * bend - other) > 0.1 for other in earlier)]
    # With so many links between the same two the last one lies on another.
    return free or [0.9 * up]


def _route(
    sender: np.ndarray,
    receiver: np.ndarray,
    bends: Sequence[float],
    others: np.ndarray,
) -> tuple[float, Curve]:
    """The first of the bends whose curve is clear of other circles, or the clearest, with it."""
    best = -np.inf, 0.0, line(sender[:2], receiver[:2])
    for bend in bends:
        curve = _trimmed(_bent(sender[:2], receiver[:2], bend), sender, receiver)
        clearance = _clearance(curve, others)
        if clearance > best[0]:
            best = clearance, bend, curve
        if clearance > GAP:
            break
    return best[1], best[2]


def _bent(start: np.ndarray, end: np.ndarray, bend: float) -> Curve:
    """A curve that leaves its chord to the left by a share of its length."""
    chord = end - start
    # In its middle a curve is three quarters as far from the chord as its control points.
    aside = bend * np.asarray([-chord[1], chord[0]]) / 0.75
    return np.stack([start, start + 0.3 * chord + aside, end - 0.3 * chord + aside, end])


def _trimmed(curve: Curve, sender: np.ndarray, receiver: np.ndarray) -> Curve:
    """The part of a curve outside of the circles at its ends."""
    shares = np.linspace(0, 1, 129)
    on_it = points(curve, shares)
    from_sender = np.hypot(*(on_it - sender[:2]).T) >= sender[2] + GAP / 2
    from_receiver = np.hypot(*(on_it - receiver[:2]).T) >= receiver[2] + GAP / 2
    outside = shares[from_sender & from_receiver]
    # Circles that touch leave nothing: the arrow is then drawn from centre to centre.
    if len(outside) < 2:
        return curve
    return part(curve, float(outside[0]), float(outside[-1]))


def _clearance(curve: Curve, circles: np.ndarray) -> float:
    """The smallest distance of a curve to the borders of circles."""
    if not len(circles):
        return np.inf
    on_it = points(curve, np.linspace(0, 1, 25))
    away = on_it[:, None] - circles[:, :2]
    return float((np.hypot(away[..., 0], away[..., 1]) - circles[:, 2]).min())


def _loop(circles: np.ndarray, node: int, number: int) -> Curve:
    """A loop on top of a circle, larger for every loop that it has already."""
    x, y, radius = circles[node]
    reach = 0.34 + 0.16 * number
    width = 0.2 + 0.1 * number
    foot = np.asarray([0.5 * radius, 0.87 * radius]) * (1 + GAP / (2 * radius))
    return np.asarray(
        [
            [x - foot[0], y + foot[1]],
            [x - foot[0] - width, y + radius + reach],
            [x + foot[0] + width, y + radius + reach],
            [x + foot[0], y + foot[1]],
        ]
    )
