"""The network: couplings on edges, biases and activations on nodes, as one pytree."""

import math
from collections.abc import Callable, Container, Hashable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.activations import described, name
from darnax.couplings.coupling import Fixed, pick
from darnax.couplings.prepared import how, prepared
from darnax.network import build, messages
from darnax.network.kernels import Kernel
from darnax.network.plan import Plan, plan
from darnax.states.graph import GraphState
from darnax.static import sealed, unsealed
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology


class Network(eqx.Module):
    """Couplings, biases and activations on a topology.

    Parameters are stacked along a leading axis of edges, one leaf for all edges of equal kind, tie,
    shapes and being a self-loop; tied edges have no such axis. The initial weights of an edge
    depend on its kind, ends and key, not on the order of drawing.

    **Arguments:**

    - `topology`: a `Topology`.
    - `couplings`: by edge kind, a factory `(sender_shape, receiver_shape, key) -> module`, such as
      `dx.dense()` or `lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key)`; a module takes one
      sender's state of one sample and gives one receiver's message.
    - `activations`: one callable `(field) -> state` for all nodes, or one for each node kind that
      hears somebody.
    - `biases`: by node kind, `dx.bias(...)`.
    - `key`: for the initial weights.

    Raises `ValueError` or `TypeError` naming the kind or edge for a missing or unknown kind, a
    message that does not fit its receiver, a tie across kinds or shapes, or values that a node's
    dtype cannot hold.

    !!! example

        ```python
        network = dx.Network(
            topology,
            couplings={"forward": dx.dense(), "recurrent": dx.dense(self_coupling=1.0)},
            activations=dx.sign,
            key=jax.random.key(0),
        )
        ```
    """

    couplings: dict[str, tuple[Any, ...]]
    activations: dict[str, Callable[..., Any]]
    biases: dict[str, dict[str, Float[Array, "..."]]]
    plan: Plan
    topology: Topology
    structures: tuple[Any, ...] = eqx.field(static=True)
    axes: tuple[int, ...] = eqx.field(static=True)

    @any_rank
    @checks.by_hand
    def __init__(
        self,
        topology: Topology,
        couplings: Any,
        activations: Any,
        *,
        biases: Any = None,
        key: Any,
    ):
        if not isinstance(topology, Topology):
            raise TypeError(
                f"`topology` is a darnax.Topology, but got {type(topology).__name__}; compile a "
                "graph with it"
            )
        _refuse_complex(topology)
        key = build.as_key(key)
        self.topology = topology
        self.couplings, self.structures = build.couplings(topology, couplings, key)
        self.activations = build.activations(topology, activations)
        self.biases = build.biases(topology, biases, key)
        self.axes = _axes_of(self)
        self.plan = plan(
            topology,
            self.couplings,
            {kind: described(fn).elementwise for kind, fn in self.activations.items()},
        )

    def coupling(self, i: int) -> Any:
        """The coupling of group `i`, ready for a loop, with a leading axis of its edges where
        `per_edge` says so.
        """
        group, place = self.topology.groups[i], self.topology.places[i]
        module = self.couplings[group.kind][place.bundle]
        if self.structures[i] is not None:
            module = jax.tree.unflatten(
                jax.tree.structure(self.structures[i]), jax.tree.leaves(module)
            )
        module = unsealed(module)
        if place.stop - place.start < place.size:
            module = pick(module, group.tie is not None, slice(place.start, place.stop))
        return prepared(module, group.tie is not None)

    def ready(self, speakers: messages.Speakers, plain: Container[int] = ()) -> dict[int, Any]:
        """The couplings of all groups that speak, as `messages.landings` takes them; of `plain`
        ones edge by edge.
        """
        result = {}
        for i, mode in enumerate(speakers.modes):
            if mode != messages.SILENT:
                kernel, coupling = self.kernel(i, speakers), self.coupling(i)
                result[i] = coupling if i in plain or kernel is None else kernel.prepare(coupling)
        return result

    def kernel(self, i: int, speakers: messages.Speakers) -> Kernel | None:
        """How all edges of group `i` are run; None for edge by edge, as where only some of them
        speak.
        """
        return self.plan.groups[i].kernel if speakers.modes[i] == messages.ALL else None

    def bias(self, at: int) -> Float[Array, "rows *item"] | None:
        """The biases of array `at`, as its rows; None without any."""
        spec = self.topology.layout.arrays[at]
        total = None
        for biases in self.biases.values():
            if spec.name not in biases:
                continue
            # on a cell that nodes of several kinds cover the biases of all of them add up, as their
            # messages do
            rows = messages.rows_of(spec, biases[spec.name])
            total = rows if total is None else total + rows
        return total

    def fields(
        self, state: GraphState, speakers: messages.Speakers
    ) -> dict[int, Float[Array, "rows *item batch"]]:
        """For every array that hears anybody the local field of its rows, bias included."""
        result, arrays = {}, messages.arrays_of(state)
        for at, landings in messages.landings(self, arrays, speakers, self.ready(speakers)).items():
            spec = self.topology.layout.arrays[at]
            field, bias = (
                messages.fields(messages.runs(landings, spec.rows), spec, state.batch_size),
                self.bias(at),
            )
            result[at] = field if bias is None else field + bias[..., None]
        return result

    # what a user reads

    @any_rank
    @checks.by_hand
    def messages(self, state: GraphState) -> dict[tuple, Float[Array, "batch *receiver"]]:
        """What every edge says of `state`: a mapping from edges to messages
        `(B, *receiver shape)`.
        """
        check_state(self, state)
        topology, result = self.topology, {}
        for group, sent in zip(topology.groups, _sent(self, state), strict=True):
            result |= {topology.edge(edge): sent[j] for j, edge in enumerate(group.edges.tolist())}
        return result

    @any_rank
    @checks.by_hand
    def local_field(self, state: GraphState) -> dict[Name, Float[Array, "batch *shape"]]:
        """What arrives: for every node that hears somebody, messages and bias summed,
        `(B, *shape)`.

        The field lives on cells: where views overlap, each shows all that lands on its cells.
        """
        check_state(self, state)
        topology, result = self.topology, {}
        fields = _fields(self, state, messages.speakers(topology, (), None))
        for at in np.unique(topology.columns.receivers).tolist():
            field = fields[int(topology.layout.node_array[at])]
            rows = topology.layout.address(np.asarray([at]))[0]
            result[topology.nodes[at]] = jnp.moveaxis(field[rows], -1, 0)
        return result

    def __getitem__(self, key: Any) -> Any:
        """The coupling of one edge, `network[u, v]` or `network[u, v, key]` where edges are
        parallel; or of a tie.
        """
        kind, bundle, row = self._find(key)
        module, tie = (
            unsealed(self.couplings[kind][bundle]),
            self.topology.bundles[kind][bundle].tie,
        )
        return module if row is None else pick(module, tie is not None, row)

    def replace_val(self, key: Any, module: Any) -> "Network":
        """The network with another coupling on one edge, of the same structure; tied edges are
        named by their tie.
        """
        kind, bundle, row = self._find(key)
        tie = self.topology.bundles[kind][bundle].tie
        if tie is not None and row is not None:
            raise ValueError(
                f"edge {key} is tied: name the tie, replace_val({tie!r}, module), to change all "
                "its edges"
            )
        old = self[key]
        alike = type(module) is type(old) and jax.tree.structure(module) == jax.tree.structure(old)
        if not alike or _signature(module) != _signature(old):
            raise ValueError(
                f"`module` for {key!r} is a {_describe(old)}, but got {_describe(module)}; "
                "start from network[u, v] and change its leaves with eqx.tree_at"
            )
        stacked, module = self.couplings[kind][bundle], sealed(module)
        if row is not None:
            module = jax.tree.map(lambda leaf, new: leaf.at[row].set(new), stacked, module)
        bundles = tuple(
            module if i == bundle else other for i, other in enumerate(self.couplings[kind])
        )
        return eqx.tree_at(lambda network: network.couplings[kind], self, bundles)

    def _find(self, key: Any) -> tuple[str, int, int | None]:
        """Kind and bundle of an edge or tie, and of an edge its row in the bundle."""
        topology, columns = self.topology, self.topology.columns
        if not isinstance(key, tuple):
            for kind, bundles in topology.bundles.items():
                for i, bundle in enumerate(bundles):
                    if bundle.tie is not None and bundle.tie == key:
                        return kind, i, None
            raise KeyError(f"`key`: no tie is named {checks.came(key)}; an edge is network[u, v]")
        if len(key) not in (2, 3):
            raise KeyError(
                "`key`: an edge is network[u, v], or network[u, v, key] where edges are parallel, "
                f"but got {checks.came(key)}; name both ends"
            )
        u, v = topology.index(key[0]), topology.index(key[1])
        found = np.flatnonzero((columns.senders == u) & (columns.receivers == v)).tolist()
        keys = {edge: 0 if columns.keys is None else columns.keys[edge] for edge in found}
        if len(key) == 3:
            found = [edge for edge in found if keys[edge] == key[2]]
        if not found:
            others = (
                f"; between these nodes there are the keys {_text.names(keys.values())}"
                if keys
                else ""
            )
            raise KeyError(f"there is no edge {key!r}{others}")
        if len(found) > 1:
            raise KeyError(
                f"edge {key!r} is ambiguous: there are parallel ones with the keys "
                f"{_text.names(keys.values())}; name one, as in network[u, v, key]"
            )
        kind = columns.edge_classes[columns.edge_class[found[0]]][0]
        for i, bundle in enumerate(topology.bundles[kind]):
            rows = np.flatnonzero(bundle.edges == found[0])
            if len(rows):
                return kind, i, int(rows[0])
        raise AssertionError("every edge is in a bundle")

    def labels(self) -> "Network":
        """A tree like the network with the edge or node kind in place of every trainable leaf and
        None elsewhere.

        On `params` it labels just what `params` holds, as `optax.multi_transform` wants it for
        rates of each kind.

        !!! example

            ```python
            rates = {"forward": optax.sgd(0.1), "recurrent": optax.sgd(0.01)}
            optimiser = optax.multi_transform(rates, params.labels())
            ```
        """
        empty = jax.tree.map(lambda _: None, self)
        named = [
            {
                kind: jax.tree.map(lambda on, kind=kind: kind if on else None, trainable(part))
                for kind, part in parts.items()
            }
            for parts in (self.couplings, self.biases)
        ]
        return eqx.tree_at(
            lambda network: (network.couplings, network.biases),
            empty,
            tuple(named),
            is_leaf=lambda leaf: leaf is None,
        )

    def __repr__(self) -> str:
        kinds = {kind: name(unsealed(bundles[0])) for kind, bundles in self.couplings.items()}
        units = {kind: name(fn) for kind, fn in self.activations.items()}
        size = sum(
            leaf.size for leaf in jax.tree.leaves(eqx.filter(self.couplings, eqx.is_inexact_array))
        )
        return (
            f"Network({self.topology!r}, couplings {kinds}, activations {units}, {size} parameters)"
        )

    def summary(self) -> str:
        """Parameters, kernels and activations of every kind as a table."""
        topology = self.topology
        rows = []
        for i, group in enumerate(topology.groups):
            place = topology.places[i]
            module = unsealed(self.couplings[group.kind][place.bundle])
            count = sum(
                math.prod(leaf.shape)
                for leaf in jax.tree.leaves(eqx.filter(module, trainable(module)))
            )
            if group.tie is None:
                count = count // place.size * (place.stop - place.start)
            shapes = f"{group.sender_shape} -> {group.receiver_shape}"
            kernel = self.plan.groups[i].kernel
            ways = _plain(group, module) if kernel is None else (str(kernel), kernel.why())
            rows.append(
                (group.kind, group.tie or "", len(group.edges), shapes, name(module), count, *ways)
            )
        units = [
            (kind, name(fn), "yes" if kind in self.biases else "")
            for kind, fn in self.activations.items()
        ]
        parts = [f"Network on {topology!r}"]
        if rows:
            titles = (
                "edges",
                "tie",
                "count",
                "shapes",
                "coupling",
                "parameters",
                "kernel",
                "because",
            )
            parts.append(_text.table(titles, rows))
        parts.append(_text.table(("nodes", "activation", "bias"), units))
        return "\n\n".join(parts)


@eqx.filter_jit
def _sent(network: Network, state: GraphState) -> list[Float[Array, "edges batch *receiver"]]:
    """The messages of every edge group."""
    arrays = messages.arrays_of(state)
    said = [
        messages.say(network, i, network.coupling(i), arrays)
        for i in range(len(network.topology.groups))
    ]
    return [jnp.moveaxis(sent, -1, 1) for sent in said]


@eqx.filter_jit
def _fields(network: Network, state: GraphState, speakers: messages.Speakers) -> dict[int, Array]:
    """The local fields of all arrays."""
    return network.fields(state, speakers)


def _plain(group: Any, module: Any) -> tuple[str, str]:
    """How a group is run edge by edge, and why."""
    words = ["slice" if group.sender_index is not None else "gather"]
    words += ["single" if len(group.edges) == 1 else "batched"]
    if len(group.edges) == 1:
        reason = "one edge"
    elif group.receiver_index is not None:
        words, reason = [*words, "rows in place"], "each hears one edge"
    else:
        words, reason = [*words, "segment sum"], "no kernel suits"
    inside = how(module, group.tie is not None)
    return (
        (", ".join(words), reason)
        if inside is None
        else (", ".join([*words, inside[0]]), f"{reason}, {inside[1]}")
    )


def _describe(module: Any) -> str:
    if not isinstance(module, eqx.Module):
        return checks.came(module)
    return f"{type(module).__name__} of {_text.listing(_signature(module))}"


def _signature(module: Any) -> list[Hashable]:
    """Shape and dtype of array leaves, others as they are."""
    return [
        f"{leaf.dtype}{leaf.shape}" if eqx.is_array(leaf) else repr(leaf)
        for leaf in jax.tree.leaves(module)
    ]


def _refuse_complex(topology: Topology):
    columns, ends = topology.columns, np.zeros(len(topology), bool)
    ends[columns.senders] = ends[columns.receivers] = True
    refused = np.asarray(["complex" in kind.dtype for kind in columns.node_classes])
    wrong = [
        topology.nodes[at] for at in np.flatnonzero(ends & refused[columns.node_class]).tolist()
    ]
    if wrong:
        raise ValueError(
            f"nodes {_text.names(wrong)} are complex; messages are real, so give them a real dtype "
            "or no edges"
        )


def _axes_of(network: Network) -> tuple[int, ...]:
    """How many axes each parameter has: more than when the network was made if it is several at
    once.
    """
    return tuple(leaf.ndim for leaf in jax.tree.leaves((network.couplings, network.biases)))


def check_network(network: Any, one: bool = True):
    """`network` is a network, and `one` and not several at once."""
    checks.instance(
        "network", network, Network, "a darnax.Network", "make one, as dx.Network(topology, ...)"
    )
    now = _axes_of(network)
    if one and now != network.axes:
        raise ValueError(
            f"`network` is one network, but its parameters have {now} axes where they were made "
            f"with {network.axes}; call an ensemble of networks by jax.vmap or equinox.filter_vmap "
            "over it"
        )


def check_state(network: Any, state: Any):
    """`state` is a state of the network's topology."""
    check_network(network)
    checks.instance(
        "state", state, GraphState, "a darnax.GraphState", "make one of network.topology"
    )
    if state.topology != network.topology:
        raise ValueError(
            f"`state` belongs to another topology: {state.topology!r}, but the network to "
            f"{network.topology!r}; make it with GraphState(network.topology)"
        )


def trainable(tree: Any) -> Any:
    """True on every leaf that rules may train: floating-point arrays that are not marked
    `Fixed`.
    """
    return jax.tree.map(
        lambda leaf: (
            jax.tree.map(lambda _: False, leaf)
            if isinstance(leaf, Fixed)
            else eqx.is_inexact_array(leaf)
        ),
        tree,
        is_leaf=lambda leaf: isinstance(leaf, Fixed),
    )


@checks.by_hand
def partition(network: Network, rules: Any) -> tuple[Network, Network]:
    """`(params, rest)`: exactly the leaves that `rules` train, and everything else; `eqx.combine`
    joins them.

    `rules` is keyed by edge kind. A bias is trained if a trained edge reaches a node of its kind.
    Temperatures, rates, fixed strengths and self-couplings are in `rest`, where no optimiser sees
    them.

    Raises `ValueError` for an edge kind that the topology does not have.
    """
    check_network(network, one=False)
    rules = known_rules(network.topology, rules)
    couplings = {
        kind: trainable(part) if kind in rules else jax.tree.map(lambda _: False, part)
        for kind, part in network.couplings.items()
    }
    reached = reached_biases(network.topology, rules)
    biases = {
        kind: {name: (kind, name) in reached for name in arrays}
        for kind, arrays in network.biases.items()
    }
    nothing = jax.tree.map(lambda _: False, network)
    return eqx.partition(
        network,
        eqx.tree_at(lambda mask: (mask.couplings, mask.biases), nothing, (couplings, biases)),
    )


def known_rules(topology: Topology, rules: Any) -> dict[str, Any]:
    """Rules by edge kind, all of them of the topology."""
    return checks.by_kind(
        "rules", rules, topology.edge_kinds, set(), "a local rule such as dx.perceptron(0.5)"
    )


def reached_biases(topology: Topology, edge_kinds: Iterable[str]) -> set[tuple[str, str]]:
    """Node kinds and arrays that edges of some kinds end at: where biases learn with them."""
    ends = [
        topology.columns.receivers[b.edges]
        for kind in edge_kinds
        for b in topology.bundles.get(kind, ())
    ]
    if not ends:
        return set()
    classes = np.unique(topology.columns.node_class[np.concatenate(ends)]).tolist()
    layout = topology.layout
    return {
        (topology.columns.node_classes[i].kind, layout.arrays[layout.class_array[i]].name)
        for i in classes
    }
