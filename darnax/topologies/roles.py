"""Roles of nodes: which are inputs, outputs or held.

They are marked on the nodes themselves, by the attribute `role`. What networkx keeps for a node
follows it through every function, through `relabel_nodes`, `compose` and `subgraph`. Names kept on
`graph.graph` would stay behind, and silently mean other nodes.
"""

from collections.abc import Mapping, Sequence, Set

from darnax import checks
from darnax.topologies.lazy_networkx import NxGraph
from darnax.topologies.names import Finder, Name, Names
from darnax.topologies.tables import Columns, Problems, Roles, find_roles

ROLES = {"input": "inputs", "output": "outputs", "held": "held"}
"""Every role, and the argument of `Topology` that names the nodes which have it."""


@checks.by_hand
def read_roles(
    graph: NxGraph,
    named: Mapping[str, Names | None],
    find: Finder,
) -> Roles:
    """The nodes of every role: those that an argument names, or else those that are marked."""
    nodes = dict(named)
    for role, marked in _marked(graph).items():
        argument = ROLES[role]
        # Names that were given replace the marks, and may be none at all: [] is not None.
        if nodes[argument] is None:
            _check_names_on_graph(role, marked, graph)
            nodes[argument] = marked
    return find_roles(find, **nodes)


def _marked(graph: NxGraph) -> dict[str, list[Name]]:
    """The marked nodes by role: in the order of their places (0 by default), then as drawn."""
    found: dict[str, list[tuple[int, Name]]] = {role: [] for role in ROLES}
    problems = Problems("node")
    for node, role in graph.nodes(data="role"):
        if role is None:
            continue
        try:
            for mark, place in _parsed(role).items():
                found[mark].append((place, node))
        except ValueError as error:
            problems.add(str(error), node)
    problems.check()
    nodes = {}
    for role, pairs in found.items():
        # The sort is stable: nodes of one place stay as they were drawn.
        pairs.sort(key=lambda pair: pair[0])
        nodes[role] = [node for _, node in pairs]
    return nodes


def _parsed(role: object) -> dict[str, int]:
    """Roles, and the place that each gives the node among those that have it."""
    if isinstance(role, Mapping):
        places = list(role.items())
    else:
        places = [(part, 0) for part in _parts(role)]
    parsed: dict[str, int] = {}
    for part, place in places:
        if not isinstance(part, str) or part not in ROLES or type(place) is not int:
            raise ValueError(
                "`role` is 'input', 'output' or 'held', or several such as 'input, output', but "
                f"got {checks.came(role)}; write one of these, or leave it out"
            )
        parsed[part] = place
    return parsed


def _parts(role: object) -> list[object]:
    if isinstance(role, str):
        return [part.strip() for part in role.split(",")]
    if isinstance(role, (Sequence, Set)):
        return list(role)
    return [role]


def _check_names_on_graph(role: str, marked: Sequence[Name], graph: NxGraph):
    """Refuse names on `graph.graph` unless they are those of the marked nodes: they may be old."""
    argument = ROLES[role]
    named = graph.graph.get(argument)
    if named is None:
        return
    listed = isinstance(named, (list, tuple))
    if listed and list(named) == list(marked):
        return
    hint = ""
    if listed and any(isinstance(name, list) for name in named):
        hint = " A list is no name: JSON turns tuples into lists."
    raise ValueError(
        f"`graph.graph[{argument!r}]` is {checks.came(named)}, but names that are kept on a graph "
        "do not follow nodes that are renamed; mark the nodes, as in graph.nodes[name]['role'] = "
        f"{role!r}, and drop it, or give Topology(graph, {argument}=[...]).{hint}"
    )


def role_places(columns: Columns) -> dict[int, dict[str, int]]:
    """The roles of every node that has any, and its place in each: 0 where nodes are as drawn.

    Inputs are held, which goes without saying.
    """
    nodes_of = {
        "input": columns.inputs,
        "output": columns.outputs,
        "held": sorted(set(columns.held) - set(columns.inputs)),
    }
    found: dict[int, dict[str, int]] = {}
    for role, nodes in nodes_of.items():
        # A place is written only where it says more than the drawing, so that drawings stay plain.
        drawn = list(nodes) == sorted(nodes)
        for place, node in enumerate(nodes):
            found.setdefault(node, {})[role] = 0 if drawn else place
    return found
