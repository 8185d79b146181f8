"""networkx, imported at its first use, and the types of its graphs for annotations."""

from typing import TYPE_CHECKING, Any, ForwardRef, TypeAlias

from darnax._lazy import Lazy

if TYPE_CHECKING:
    import networkx as nx

    # Any and not `Name`: a graph whose nodes are str is no graph of `Name` to a type checker.
    NxGraph: TypeAlias = nx.Graph[Any]
    NxDiGraph: TypeAlias = nx.DiGraph[Any]
else:
    nx = Lazy("networkx")
    # The classes of a running networkx take no type arguments, and `nx.Graph` would import it here.
    NxGraph = ForwardRef("Graph", module="networkx")
    NxDiGraph = ForwardRef("DiGraph", module="networkx")
