"""The tables of `Network.summary`."""

import math
from typing import TYPE_CHECKING

import equinox as eqx
import jax

from darnax import _html, _text
from darnax._text import Table
from darnax.activations import name
from darnax.couplings.coupling import pick, trainable
from darnax.static import unsealed
from darnax.topologies.groups import EdgeGroup

if TYPE_CHECKING:
    from darnax.network.network import Network


def summary(network: "Network") -> str:
    """Parameters, kernels and activations of every kind as tables."""
    parts = [f"Network on {network.topology!r}"]
    parts += [_text.table(*table) for table in tables(network)]
    return "\n\n".join(parts)


def tables(network: "Network") -> list[Table]:
    """The tables of a network; that of edges is left out where there are none."""
    found: list[Table] = []
    groups = range(len(network.topology.groups))
    rows = [_group(network, i) for i in groups]
    if rows:
        titles = "edges", "tie", "count", "shapes", "coupling", "parameters", "kernel", "because"
        found.append(Table(titles, rows))
    units: list[tuple[object, ...]] = []
    for kind, activation in network.activations.items():
        units.append((kind, name(activation), "yes" if kind in network.biases else ""))
    found.append(Table(("nodes", "activation", "bias"), units))
    return found


def as_html(network: "Network") -> str:
    """The tables and the diagram of a network as a page."""
    # Diagrams are above networks, and no program without a notebook needs them.
    from darnax.diagrams import drawn

    title = f"Network on {network.topology!r}"
    try:
        found = tables(network)
    except (AttributeError, TypeError, ValueError):
        # Trees of this class are no networks all the same: parameters of `partition`, with None for
        # what is not trained, gradients, or shapes. They are shown leaf by leaf.
        title = f"Leaves of a network on {network.topology!r}"
        found = [_leaves(network)]
    parts = [_html.table(table) for table in found]
    return _html.page(title, [drawn(network.topology), *parts])


def _leaves(network: "Network") -> Table:
    """Every array of couplings and biases by its path."""
    rows: list[tuple[object, ...]] = []
    parts = {"couplings": network.couplings, "biases": network.biases}
    for path, leaf in jax.tree_util.tree_leaves_with_path(parts):
        dtype, shape = getattr(leaf, "dtype", ""), getattr(leaf, "shape", "")
        rows.append((jax.tree_util.keystr(path), dtype, shape or type(leaf).__name__))
    return Table(("leaf", "dtype", "shape"), rows)


def _group(network: "Network", i: int) -> tuple[object, ...]:
    """The row of an edge group."""
    group = network.topology.groups[i]
    kernel = network.message_passing[i].kernel
    how, why = _by_edge(network, i) if kernel is None else kernel.describe()
    owner = network.owner_kind(group.kind)
    if owner != group.kind:
        # Parameters are counted once, where they are.
        return _row(group, f"transpose of {owner}", 0, how, why)
    module = unsealed(network.couplings[group.kind][group.parameters.block])
    leaves = jax.tree.leaves(eqx.filter(module, trainable(module)))
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    if group.tie is None:
        # The leaves are those of the whole block, of which a group has its share of edges. Tied
        # edges have all of them in common, so that each of their groups shows the same number.
        count = count // group.parameters.size * len(group.edges)
    return _row(group, name(module), count, how, why)


def _row(
    group: EdgeGroup,
    coupling: str,
    parameters: int,
    how: str,
    why: str,
) -> tuple[object, ...]:
    return (
        group.kind,
        group.tie or "",
        len(group.edges),
        f"{group.sender_shape} -> {group.receiver_shape}",
        coupling,
        parameters,
        how,
        why,
    )


def _by_edge(network: "Network", i: int) -> tuple[str, str]:
    """How a group without a kernel is run, and why."""
    group = network.topology.groups[i]
    words = ["gather" if group.sender_index is None else "slice"]
    words.append("single" if len(group.edges) == 1 else "batched")
    if len(group.edges) == 1:
        reason = "one edge"
    elif group.receiver_index is not None:
        words.append("rows in place")
        reason = "each receiver has one edge"
    else:
        words.append("segment sum")
        reason = "no kernel suits"
    # The coupling may have a faster way of its own for a batch, and says why.
    tied = network.message_passing[i].tied
    inside = pick(network.stacked_coupling(i), tied, 0).describe()
    if inside is not None:
        words.append(inside[0])
        reason = f"{reason}, {inside[1]}"
    return ", ".join(words), reason
