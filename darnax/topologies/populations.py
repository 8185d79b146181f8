"""Topologies of a few nodes, each of which is a whole population.

A population is one node: the couplings inside it, and between two, are matrix products.
"""

from darnax import checks
from darnax.topologies.lazy_networkx import NxDiGraph, NxGraph, nx
from darnax.topologies.tables import Shape, parse_number, parse_shape


@checks.by_hand
def hopfield(n: Shape) -> NxDiGraph:
    """One population of units that all send to each other.

    The node is `"units"`, of shape `n` and kind `unit`, with one edge to itself, `recurrent`. There
    is no input: a pattern is a start, `GraphState(topology).init({"units": pattern})`. Source: J.
    J. Hopfield, Proc. Natl. Acad. Sci. 79, 2554 (1982).

    **Arguments:**

    - `n`: the number of units, or the shape of the population.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.hopfield(100))
        couplings = {"recurrent": dx.dense(symmetric=True, self_coupling=0.0)}
        network = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
        ```
    """
    shape = parse_shape(n, "n")
    graph = nx.DiGraph(
        node_kinds=("unit",),
        edge_kinds=("recurrent",),
    )
    graph.add_node("units", shape=shape, kind="unit")
    graph.add_edge("units", "units", kind="recurrent")
    return graph


@checks.by_hand
def bipartite(visible: Shape, hidden: Shape) -> NxDiGraph:
    """Two populations that send to each other and not to themselves.

    They are wired as a restricted Boltzmann machine. Nodes are `"visible"` and `"hidden"`, kinds of
    the same names; edges are `forward`, visible to hidden, and `backward`. There is no input: data
    are clamped, `clamp=["visible"]`. The stationary distribution of `glauber` units under
    `node_by_node` is Boltzmann's if the weights backward are the transpose of those forward, as
    `dx.transpose` makes them. Source: P. Smolensky, in Parallel Distributed Processing 1, 194
    (1986).

    **Arguments:**

    - `visible`, `hidden`: the number of units, or the shape of the population.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.bipartite((8, 8, 1), 100))
        couplings = {"forward": dx.dense(), "backward": dx.transpose("forward")}
        network = dx.Network(topology, couplings, dx.glauber(1.0), key=jax.random.key(0))
        ```
    """
    visible = parse_shape(visible, "visible")
    hidden = parse_shape(hidden, "hidden")
    # Two edges and not one: a coupling has one direction, and each may learn by a rule of its own.
    graph = nx.DiGraph(
        node_kinds=("visible", "hidden"),
        edge_kinds=("forward", "backward"),
    )
    graph.add_node("visible", shape=visible, kind="visible")
    graph.add_node("hidden", shape=hidden, kind="hidden")
    graph.add_edge("visible", "hidden", kind="forward")
    graph.add_edge("hidden", "visible", kind="backward")
    return graph


@checks.by_hand
def modular(modules: int | NxGraph, units: Shape) -> NxDiGraph:
    """Populations that are dense inside, with sparse links between them.

    Nodes are the modules, of kind `module`. Edges are `recurrent`, from every module to itself, and
    `between`, both ways between linked modules: made for `dx.scale(strength, fixed=True)`, by which
    each unit receives from the unit of the same position in the other module. Such excitatory links
    let asymmetric networks settle when they are updated `node_by_node`. Updated all at once,
    neighbours swap their states for ever. Source: Badalotti et al., arXiv:2509.05041.

    **Arguments:**

    - `modules`: how many, in a chain: nodes 0 to modules-1 and `2 (modules - 1)` edges `between`.
      Or a networkx graph whose vertices are the modules and whose edges the links; in a directed
      one a link goes one way.
    - `units`: the number of units of every module, or their shape.

    Raises `ValueError` for fewer than one module.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.modular(3, units=100))
        couplings = {"recurrent": dx.dense(self_coupling=0.0), "between": dx.scale(0.5, fixed=True)}
        network = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
        ```
    """
    if isinstance(modules, nx.Graph):
        links = modules
    else:
        links = nx.path_graph(parse_number("modules", modules))
    if not len(links):
        raise ValueError("`modules` is a graph without vertices; give it at least one")
    shape = parse_shape(units, "units")
    # A chain of one module has no links, and yet its couplings may name both kinds.
    graph = nx.DiGraph(
        node_kinds=("module",),
        edge_kinds=("recurrent", "between"),
    )
    graph.add_nodes_from(links, shape=shape, kind="module")
    graph.add_edges_from(links.to_directed().edges(), kind="between")
    # The edge of a module to itself is recurrent, also where the graph had a link there.
    for module in links:
        graph.add_edge(module, module, kind="recurrent")
    return graph
