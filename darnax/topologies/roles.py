"""Roles of nodes: which are inputs, outputs or held.

The attribute `role` marks the nodes themselves. Attributes of a node follow it through every
function of networkx, such as `relabel_nodes`, `compose` and `subgraph`. Lists of names on
`graph.graph` would stay as they were, and silently mean other nodes.
"""

from collections.abc import Mapping, Sequence, Set

from darnax import checks
from darnax.topologies.lazy_networkx import NxGraph
from darnax.topologies.names import Finder, Name, Names
from darnax.topologies.plain import as_roles
from darnax.topologies.tables import Columns, Problems, Roles, find_roles

ROLES = {"input": "inputs", "output": "outputs", "held": "held"}
"""Every role, and the argument of `Topology` that names the nodes which have it."""


@checks.by_hand
def read_roles(
    graph: NxGraph,
    named: Mapping[str, Names | None],
    find: Finder,
) -> Roles:
    """The nodes of every role: those that an argument names, or else those that are marked.

    `named` holds the three arguments by name.
    """
    nodes = dict(named)
    for role, marked in _marked(graph).items():
        argument = ROLES[role]
        # Names in an argument replace the marks, and [] does too: it says that there are none.
        if nodes[argument] is None:
            _check_names_on_graph(role, marked, graph)
            nodes[argument] = marked
    return find_roles(find, **nodes)


def _marked(graph: NxGraph) -> dict[str, list[Name]]:
    """The marked nodes of every role, by their places (0 by default) and then as drawn."""
    found: dict[str, list[tuple[int, Name]]] = {role: [] for role in ROLES}
    problems = Problems("node")
    for node, role in graph.nodes(data="role"):
        if role is None:
            continue
        try:
            for part, place in _parsed(role).items():
                found[part].append((place, node))
        except ValueError as error:
            problems.add(str(error), node)
    problems.check()
    nodes = {}
    for role, pairs in found.items():
        # By place alone: the sort is stable, and names of several types have no order.
        pairs.sort(key=lambda pair: pair[0])
        nodes[role] = [node for _, node in pairs]
    return nodes


def _parsed(role: object) -> dict[str, int]:
    """The roles in the attribute of one node, each with the node's place among those that have it.

    A mapping gives places, and so keeps an order of inputs that is not the order of drawing.
    """
    if isinstance(role, Mapping):
        places = list(role.items())
    elif isinstance(role, str):
        places = list(as_roles(role).items())
    else:
        places = [(part, 0) for part in _parts(role)]
    parsed: dict[str, int] = {}
    for part, place in places:
        # An exact type, because True is an int to Python.
        if not isinstance(part, str) or part not in ROLES or type(place) is not int:
            raise ValueError(
                "`role` is 'input', 'output' or 'held', or several such as 'input, output', but "
                f"got {checks.came(role)}; write one of these, or leave it out"
            )
        parsed[part] = place
    return parsed


def _parts(role: object) -> list[object]:
    """The entries of an attribute that gives no places."""
    if isinstance(role, (Sequence, Set)):
        return list(role)
    return [role]


def _check_names_on_graph(role: str, marked: Sequence[Name], graph: NxGraph):
    """Refuse names on `graph.graph` other than those of the marked nodes: they may be outdated."""
    argument = ROLES[role]
    named = graph.graph.get(argument)
    if named is None:
        return
    listed = isinstance(named, (list, tuple))
    if listed and list(named) == list(marked):
        return
    hint = ""
    # The likeliest reason is a graph that was written as JSON and read again.
    if listed and list in map(type, named):
        hint = " A list is no name: JSON turns tuples into lists."
    raise ValueError(
        f"`graph.graph[{argument!r}]` is {checks.came(named)}, but names that are kept on a graph "
        "do not follow nodes that are renamed; mark the nodes, as in graph.nodes[name]['role'] = "
        f"{role!r}, and drop it, or give Topology(graph, {argument}=[...]).{hint}"
    )


def role_places(columns: Columns) -> dict[int, dict[str, int]]:
    """For every node with a role, its roles and its place in each: 0 where nodes are as drawn."""
    # Inputs are held without a mark.
    held = set(columns.held) - set(columns.inputs)
    nodes_of = {
        "input": columns.inputs,
        "output": columns.outputs,
        "held": sorted(held),
    }
    found: dict[int, dict[str, int]] = {}
    for role, nodes in nodes_of.items():
        # Places are written only where the order of nodes is not that of drawing: then the marks
        # of a drawn graph are plain words, such as "input".
        as_drawn = list(nodes) == sorted(nodes)
        for place, node in enumerate(nodes):
            found.setdefault(node, {})[role] = 0 if as_drawn else place
    return found
