"""Roles of nodes: which are inputs, outputs or held.

They are marked on the nodes themselves, by the attribute `role`. What networkx keeps for a node
follows it through every function, through `relabel_nodes`, `compose` and `subgraph`; names kept on
`graph.graph` would stay behind, and silently mean other nodes.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from darnax import checks
from darnax._lazy import Lazy
from darnax.topologies.columns import Problems

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = Lazy("networkx")

ROLES = {"input": "inputs", "output": "outputs", "held": "held"}
"""Every role, and the argument of `Topology` that names the nodes which have it."""


def read_roles(graph: "nx.Graph") -> dict[str, list[Any]]:
    """The nodes of every role: by the place that their mark gives them (0 by default), then by the
    order of drawing.
    """
    found: dict[str, list[tuple[int, Any]]] = {role: [] for role in ROLES}
    problems = Problems("node")
    for node, role in graph.nodes(data="role"):
        try:
            marks = {} if role is None else _parsed(role)
        except ValueError as error:
            problems.add(str(error), node)
            continue
        for mark, place in marks.items():
            found[mark].append((place, node))
    problems.check()
    return {
        role: [node for _, node in sorted(pairs, key=lambda pair: pair[0])]
        for role, pairs in found.items()
    }


def _parsed(role: Any) -> dict[str, int]:
    """Roles, and the place that each gives the node among those that have it."""
    if isinstance(role, str):
        parts = [part.strip() for part in role.split(",")]
    elif isinstance(role, (Mapping, Sequence, Set)):
        parts = list(role)
    else:
        parts = [role]
    places = [role[part] for part in parts] if isinstance(role, Mapping) else [0] * len(parts)
    good = all(isinstance(part, str) and part in ROLES for part in parts)
    if not good or not all(type(place) is int for place in places):
        raise ValueError(
            "`role` is 'input', 'output' or 'held', or several such as 'input, output', but got "
            f"{checks.came(role)}; write one of these, or leave it out"
        )
    return dict(zip(parts, places, strict=True))


def check_names(argument: str, marked: Sequence[Any], graph: "nx.Graph"):
    """Refuse names on `graph.graph` unless they are those of the marked nodes: they may be names of
    long ago.
    """
    named = graph.graph.get(argument)
    if named is None or (isinstance(named, (list, tuple)) and list(named) == list(marked)):
        return
    role = next(role for role, name in ROLES.items() if name == argument)
    lists = isinstance(named, list) and any(isinstance(name, list) for name in named)
    hint = " A list is no name: JSON turns tuples into lists." if lists else ""
    raise ValueError(
        f"`graph.graph[{argument!r}]` is {checks.came(named)}, but names that are kept on a graph "
        "do not follow nodes that are renamed; mark the nodes, as in graph.nodes[name]['role'] = "
        f"{role!r}, and drop it, or give Topology(graph, {argument}=[...]).{hint}"
    )


def marks(inputs: Sequence[int], outputs: Sequence[int], held: Iterable[int]) -> dict[int, Any]:
    """The attribute `role` by position of node; the inverse of `read_roles`."""
    found: dict[int, dict[str, int]] = {}
    for role, nodes in zip(ROLES, (inputs, outputs, sorted({*held} - {*inputs})), strict=True):
        drawn = list(nodes) == sorted(nodes)
        for place, at in enumerate(nodes):
            found.setdefault(at, {})[role] = 0 if drawn else place
    return {
        at: places if any(places.values()) else ", ".join(places) for at, places in found.items()
    }
