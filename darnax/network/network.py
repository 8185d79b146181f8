"""The network: couplings on edges, biases and activations on nodes, as one pytree."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.activations import Activation, name
from darnax.couplings.adapt import as_coupling
from darnax.couplings.coupling import Coupling, pick, trainable
from darnax.network.activations import Activations
from darnax.network.activations import activations as checked_activations
from darnax.network.active import Active, EdgeMasks, active_groups, edge_masks
from darnax.network.as_jraph import as_jraph
from darnax.network.bias import Biases, BiasFactory, total_bias
from darnax.network.bias import biases as made_biases
from darnax.network.message_passing import (
    MessagePassing,
    Ready,
    Rows,
    fitted,
    message_passing,
)
from darnax.network.parameters import Factories, Stacked, check_message, linear_message
from darnax.network.parameters import couplings as made_couplings
from darnax.network.reverse import Owners, Reverses, owner_edges
from darnax.network.summary import as_html, summary
from darnax.network.units import Units, units_of
from darnax.noise import sample_keys
from darnax.states.graph import GraphState
from darnax.static import sealed, unsealed
from darnax.topologies.layout import ArraySpec
from darnax.topologies.names import Name
from darnax.topologies.topology import Topology

if TYPE_CHECKING:
    import jraph

EdgeName: TypeAlias = tuple[Name, ...]
"""The name of an edge, `(u, v)`, or `(u, v, key)` where edges are parallel."""

T = TypeVar("T")


class Network(eqx.Module):
    """Couplings, biases and activations on a topology.

    Parameters are stacked along a leading axis of edges: one leaf for all edges of equal kind, tie,
    shapes and being self-loops, however many there are. Tied edges have no such axis. The initial
    weights of an edge depend on its kind, ends and key, not on the order of drawing.

    A network is a plain pytree. Its leaves are arrays: parameters, temperatures and rates, and the
    index arrays of message passing. Functions, shapes and the topology are part of its structure,
    so that `jax.jit`, `jax.grad` and `jax.tree.map` take it as it is.

    **Fields:**

    - `couplings`: by edge kind, a module for each parameter block of `topology.parameter_blocks`,
      its arrays with a leading axis of edges, or without where the edges are tied.
    - `activations`: by node kind.
    - `biases`: by node kind and array.
    - `message_passing`: one for each edge group of `topology.groups`.
    - `units`: by array.
    - `owners`: for each edge group of a reverse kind, the edges whose parameters it uses.
    - `reverses`: pairs of a reverse kind, which has no parameters, and the kind that has them.
    - `structures`: for each edge group its coupling with numbers for arrays, where its structure is
      not that of its parameter block; else None.
    - `axes`: the number of axes of every parameter, by which a stack of networks is told from one.

    **Arguments:**

    - `topology`: a `Topology`.
    - `couplings`: by edge kind, a factory `(sender_shape, receiver_shape, key) -> module`, such as
      `dx.dense()` or `lambda s, r, key: eqx.nn.Linear(s[0], r[0], key=key)`; a module takes one
      sender's state of one sample and gives one receiver's message. Or `dx.transpose(kind)`, for
      edges that go the other way with the same parameters.
    - `activations`: one callable `(field) -> state` for all nodes, or one for each node kind that
      edges end at.
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

    couplings: dict[str, tuple[Stacked, ...]]
    activations: dict[str, Activation]
    biases: Biases
    message_passing: tuple[MessagePassing, ...]
    units: dict[str, Units]
    owners: dict[int, Owners]
    topology: Topology
    reverses: Reverses = eqx.field(static=True)
    structures: tuple[object, ...] = eqx.field(static=True)
    axes: tuple[int, ...] = eqx.field(static=True)

    @any_rank
    @checks.by_hand
    def __init__(
        self,
        topology: Topology,
        couplings: Factories,
        activations: Activations,
        *,
        biases: Mapping[str, BiasFactory] | None = None,
        key: Key[Array, ""],
    ):
        if not isinstance(topology, Topology):
            raise TypeError(
                f"`topology` is a darnax.Topology, but got {type(topology).__name__}; compile a "
                "graph with it"
            )
        _refuse_complex(topology)
        key = checks.key("key", key)
        # Couplings come first: message passing asks them for what kernels need to know, and units
        # ask activations for whether they answer node by node.
        self.topology = topology
        self.couplings, structures, self.reverses = made_couplings(topology, couplings, key)
        groups = range(len(topology.groups))
        self.structures = tuple(map(structures.get, groups))
        self.activations = checked_activations(topology, activations)
        self.biases = made_biases(topology, biases, key)
        self.axes = _axes_of(self)
        self.owners = {}
        owners = owner_edges(topology, self.reverses)
        reverse_kinds = dict(self.reverses)
        passings: list[MessagePassing] = []
        for i, group in enumerate(topology.groups):
            # No method yet: Equinox makes a module of one that is called here, and looks at all
            # leaves of the network for each.
            parts = self.couplings, self.structures, self.owners
            if group.kind in reverse_kinds:
                self.owners[i] = _owners(topology, parts, owners[group.edges])
            passings.append(_message_passing(topology, parts, i, owners[group.edges]))
        self.message_passing = tuple(passings)
        self.units = {}
        for array in topology.arrays:
            self.units[array] = units_of(topology, array, self.activations)

    # what the rest of the library reads

    def owner_kind(self, kind: str) -> str:
        """The edge kind that has the parameters of a kind: of a reverse kind another one."""
        return dict(self.reverses).get(kind, kind)

    def block_coupling(self, i: int) -> Coupling:
        """The coupling of the edges of group `i` and of all others in its parameter block."""
        parts = self.couplings, self.structures, self.owners
        return _block_coupling(self.topology, parts, i)

    def stacked_coupling(self, i: int) -> Coupling:
        """The coupling of the edges of group `i`, stacked along a leading axis of edges."""
        if i in self.owners:
            return self.owners[i].coupling(self.topology, self.stacked_coupling)
        group = self.topology.groups[i]
        _, start, stop, size = group.parameters
        coupling = self.block_coupling(i)
        if stop - start == size:
            # As nearly always, the group is the whole block.
            return coupling
        return pick(coupling, group.tie is not None, slice(start, stop))

    def ready(self, active: EdgeMasks, by_edge: bool = False) -> dict[int, Ready]:
        """The parameters of all groups that send, as `MessagePassing.field` takes them.

        With `by_edge` they are those of single edges, as `MessagePassing.send` takes them.
        """
        result: dict[int, Ready] = {}
        for i, edges in active.items():
            passing = self.message_passing[i]
            # A kernel sums over all edges of a group: it can neither list them nor leave some out.
            kernel = None if by_edge or edges is not None else passing.kernel
            result[i] = passing.prepare(self.stacked_coupling(i), kernel)
        return result

    def bias(self, spec: ArraySpec) -> Float[Array, "rows *item"] | None:
        """The biases of an array, as its rows; None without any."""
        return total_bias(self.biases, spec)

    def fields(
        self,
        arrays: Rows,
        active: EdgeMasks,
        keys: Key[Array, " batch"] | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """The local field of every array that active edges end at, messages and biases."""
        result: dict[str, Array] = {}
        ready = self.ready(active)
        for i, edges in active.items():
            passing = self.message_passing[i]
            spec = passing.group.receiver
            field = passing.field(ready[i], arrays, edges, keys)
            field = fitted(field, passing.start, 0, spec.rows)
            before = result.get(spec.name)
            # Several groups may send to one array.
            result[spec.name] = field if before is None else before + field
        for array, field in result.items():
            bias = self.bias(self.topology.arrays[array])
            if bias is not None:
                result[array] = field + bias[..., None]
        return result

    # what a user reads

    @any_rank
    @checks.by_hand
    def messages(
        self,
        state: GraphState,
        *,
        key: Key[Array, "..."] | None = None,
    ) -> dict[EdgeName, Float[Array, "batch *receiver"]]:
        """The message of every edge: a mapping from edges to `(B, *receiver shape)`.

        `key` is for couplings that ask for one: a key, or one for each sample.
        """
        check_state(self, state)
        keys = self._keys(state, key)
        topology = self.topology
        messages: OrderedDict[EdgeName, Array] = OrderedDict()
        by_group = _messages(self, state, keys)
        for group, sent in zip(topology.groups, by_group, strict=True):
            for j, edge in enumerate(group.edges.tolist()):
                messages[topology.edge(edge)] = sent[j]
        return messages

    @any_rank
    @checks.by_hand
    def local_field(
        self,
        state: GraphState,
        *,
        key: Key[Array, "..."] | None = None,
    ) -> dict[Name, Float[Array, "batch *shape"]]:
        """The local field of every node that edges end at, messages and bias summed, `(B, *shape)`.

        The field lives on cells: where views overlap, each shows all that is sent to its cells.
        `key` is for couplings that ask for one: a key, or one for each sample.
        """
        check_state(self, state)
        topology = self.topology
        active = active_groups(topology, (), None)
        fields = _fields(self, state, active, self._keys(state, key))
        result: OrderedDict[Name, Array] = OrderedDict()
        for node in np.unique(topology.columns.receivers).tolist():
            rows = topology.layout.address(np.asarray([node]))[0]
            field = fields[topology.array_of(node).name][rows]
            # Users have the batch first.
            result[topology.nodes[node]] = jnp.moveaxis(field, -1, 0)
        return result

    @any_rank
    @checks.by_hand
    def as_jraph(
        self,
        edge_kind: str,
        *,
        key: Key[Array, "..."] | None = None,
    ) -> "Callable[[jraph.GraphsTuple], jraph.GraphsTuple]":
        """The message passing of one edge kind as a `jraph.GraphNetwork`.

        It takes what `state.graphs_tuple(edge_kind)` gives. Its `edges` are the messages, in the
        order of `topology.edges`, and its `nodes` the messages summed at their receivers, in the
        form of the nodes that it was given. This is the definition of what passes compute; kernels
        compute the same in other ways. Where views overlap, a cell gets the messages to all nodes
        that cover it: there the sums of several nodes add up to the local field.

        **Arguments:**

        - `edge_kind`: a kind of edges; `ValueError` if no edge is of this kind.
        - `key`: for couplings that ask for one, a key or one for each sample.

        !!! example

            ```python
            graphs = network.as_jraph("recurrent")(state.graphs_tuple("recurrent"))
            graphs.edges.shape  # (B, 100)
            ```
        """
        return as_jraph(self, edge_kind, key)

    def _keys(self, state: GraphState, key: object) -> Key[Array, " batch"] | None:
        """A key for each sample, if any coupling asks for one."""
        random = random_couplings(self, range(len(self.message_passing)))
        return sample_keys(key, state.batch_size, random)

    # `Any`, because the module is of the class that the user's factory has made.
    @checks.by_hand
    def __getitem__(self, key: str | EdgeName) -> Any:
        """The coupling of an edge, `network[u, v]`, or of a tie, `network["tie"]`.

        Where edges are parallel it is `network[u, v, key]`. That of a reverse edge is the transpose
        of the coupling that it belongs to.
        """
        kind, i, row = self._find(key)
        if kind != self.owner_kind(kind):
            assert isinstance(key, tuple)
            return self._reverse_coupling(key)
        module = unsealed(self.couplings[kind][i])
        if row is None:
            return module
        block = self.topology.parameter_blocks[kind][i]
        return pick(module, block.tie is not None, row)

    @checks.by_hand
    def replace_val(self, key: str | EdgeName, module: object) -> "Network":
        """The network with another coupling on one edge, of the same structure.

        Tied edges are named by their tie.
        """
        kind, block, row = self._find(key)
        if isinstance(key, tuple) and kind != self.owner_kind(kind):
            edge = owner_edges(self.topology, self.reverses)[self.topology.edge_position(key)]
            raise ValueError(
                f"edge {key} has no parameters of its own: it is the transpose of "
                f"{self.topology.edge(int(edge))}; replace that one"
            )
        tie = self.topology.parameter_blocks[kind][block].tie
        if tie is not None and row is not None:
            raise ValueError(
                f"edge {key} is tied: name the tie, replace_val({tie!r}, module), to change all "
                "its edges"
            )
        old = self[key]
        if not _alike(module, old):
            raise ValueError(
                f"`module` for {key!r} is a {_described(old)}, but got {_described(module)}; "
                "start from network[u, v] and change its leaves with eqx.tree_at"
            )
        new = sealed(module)
        blocks = list(self.couplings[kind])
        if row is not None:
            # One edge of many: its numbers are one row of every leaf of the block.
            new = jax.tree.map(
                lambda leaf, own: leaf.at[row].set(own),
                blocks[block],
                new,
            )
        blocks[block] = new
        return eqx.tree_at(lambda network: network.couplings[kind], self, tuple(blocks))

    def _reverse_coupling(self, key: EdgeName) -> Coupling:
        """The coupling of a reverse edge."""
        edge = self.topology.edge_position(key)
        for i in self.owners:
            rows = np.flatnonzero(self.topology.groups[i].edges == edge)
            if len(rows):
                passing = self.message_passing[i]
                coupling = pick(self.stacked_coupling(i), passing.tied, int(rows[0]))
                # A matrix is written out, as that of an edge with its own has it.
                return coupling.prepared() if coupling.linear == "matrix" else coupling
        raise AssertionError("every reverse edge is in a group that has owners")

    def _find(self, key: object) -> tuple[str, int, int | None]:
        """Kind and parameter block of an edge or tie, and of an edge its row in the block."""
        # Tuples name edges. A tie is a str, which no edge is named by.
        if not isinstance(key, tuple):
            return *self._find_tie(key), None
        topology = self.topology
        edge = topology.edge_position(key)
        kind, _ = topology.columns.edge_classes[topology.columns.edge_class[edge]]
        for i, block in enumerate(topology.parameter_blocks[kind]):
            rows = np.flatnonzero(block.edges == edge)
            if len(rows):
                return kind, i, int(rows[0])
        raise AssertionError("every edge is in a parameter block")

    def _find_tie(self, tie: object) -> tuple[str, int]:
        """Kind and parameter block of a tie."""
        for kind, blocks in self.topology.parameter_blocks.items():
            # Ties of reverse kinds say nothing: their parameters are those of their owners.
            if kind != self.owner_kind(kind):
                continue
            for i, block in enumerate(blocks):
                if block.tie is not None and block.tie == tie:
                    return kind, i
        raise KeyError(f"`key`: no tie is named {checks.came(tie)}; an edge is network[u, v]")

    def labels(self) -> "Network":
        """A tree like the network with the edge or node kind in place of every trainable leaf.

        Elsewhere it is None. On `params` it labels just what `params` holds, as
        `optax.multi_transform` wants it for rates of each kind.

        !!! example

            ```python
            rates = {"forward": optax.sgd(0.1), "recurrent": optax.sgd(0.01)}
            optimiser = optax.multi_transform(rates, params.labels())
            ```
        """
        empty = jax.tree.map(lambda _: None, self)
        parts = _labelled(self.couplings), _labelled(self.biases)
        # None is no leaf to JAX, and would be an empty place that nothing can be put into.
        return eqx.tree_at(
            lambda network: (network.couplings, network.biases),
            empty,
            parts,
            is_leaf=lambda leaf: leaf is None,
        )

    def __repr__(self) -> str:
        kinds: dict[str, str] = {}
        for kind, blocks in self.couplings.items():
            owner = self.owner_kind(kind)
            kinds[kind] = name(unsealed(blocks[0])) if owner == kind else f"transpose of {owner}"
        units = {kind: name(activation) for kind, activation in self.activations.items()}
        parameters = jax.tree.leaves(eqx.filter(self.couplings, eqx.is_inexact_array))
        size = sum(leaf.size for leaf in parameters)
        return (
            f"Network({self.topology!r}, couplings {kinds}, activations {units}, {size} parameters)"
        )

    def summary(self) -> str:
        """Parameters, kernels and activations of every kind as a table."""
        return summary(self)

    def _repr_html_(self) -> str:
        """The summary with a diagram of the topology, for notebooks."""
        return as_html(self)


@eqx.filter_jit
def _messages(
    network: Network,
    state: GraphState,
    keys: Key[Array, " batch"] | None,
) -> list[Float[Array, "edges batch *receiver"]]:
    """The messages of every edge group, `(E, B, *receiver_shape)`, by one program."""
    arrays = state.rows()
    result: list[Array] = []
    for i, passing in enumerate(network.message_passing):
        # Without its kernel, which would have summed the messages.
        ready = passing.prepare(network.stacked_coupling(i), None)
        sent = passing.send(ready, passing.gather(arrays, keys))
        result.append(jnp.moveaxis(sent, -1, 1))
    return result


@eqx.filter_jit
def _fields(
    network: Network,
    state: GraphState,
    active: Active,
    keys: Key[Array, " batch"] | None,
) -> dict[str, Array]:
    """The local fields of all arrays, by one program."""
    return network.fields(state.rows(), edge_masks(network.topology, active), keys)


def random_couplings(network: Network, groups: Iterable[int]) -> str | None:
    """What to call the first of some groups whose coupling asks for a key; None for none."""
    for i in groups:
        passing = network.message_passing[i]
        if "key" in passing.asks:
            kind = passing.group.kind
            # All blocks of a kind come from one factory, so that the first tells what they are.
            module = unsealed(network.couplings[network.owner_kind(kind)][0])
            return f"edges of kind {kind!r} are random ({name(module)})"
    return None


def _labelled(by_kind: Mapping[str, object]) -> dict[str, object]:
    """The kind in place of every trainable leaf."""
    labels: dict[str, object] = {}
    for kind, tree in by_kind.items():
        labels[kind] = jax.tree.map(
            lambda trains, kind=kind: kind if trains else None,
            trainable(tree),
        )
    return labels


def _alike(one: object, other: object) -> bool:
    """Whether two modules agree in class, structure, and the shapes and dtypes of their arrays."""
    if type(one) is not type(other):
        return False
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    # Shapes and dtypes are no part of the structure.
    return _signature(one) == _signature(other)


def _described(module: object) -> str:
    """A module with its leaves, in a few words for errors."""
    if not isinstance(module, eqx.Module):
        return checks.came(module)
    return f"{type(module).__name__} of {_text.listing(_signature(module))}"


def _signature(module: object) -> list[str]:
    """Shape and dtype of array leaves, others as they are."""
    words: list[str] = []
    for leaf in jax.tree.leaves(module):
        if eqx.is_array(leaf):
            words.append(f"{leaf.dtype}{leaf.shape}")
        else:
            words.append(repr(leaf))
    return words


def _refuse_complex(topology: Topology) -> None:
    """Refuse complex nodes that an edge starts or ends at."""
    columns = topology.columns
    ends = np.zeros(len(topology), bool)
    ends[columns.senders] = ends[columns.receivers] = True
    refused = np.asarray(["complex" in kind.dtype for kind in columns.node_classes])
    wrong = np.flatnonzero(ends & refused[columns.node_class]).tolist()
    if wrong:
        raise ValueError(
            f"nodes {topology.named(wrong)} are complex; messages are real, so give them a real "
            "dtype or no edges"
        )


_Parts: TypeAlias = tuple[Mapping[str, Sequence[object]], Sequence[object], Mapping[int, Owners]]
"""The couplings, structures and owners of a network."""


def _block_coupling(topology: Topology, parts: _Parts, i: int) -> Coupling:
    couplings, structures, owners = parts
    if i in owners:
        owner = owners[i].parts[0].group
        return owners[i].turned(topology, _block_coupling(topology, parts, owner))
    group = topology.groups[i]
    module = couplings[group.kind][group.parameters.block]
    if structures[i] is not None:
        # Tied edges of another shape: the leaves of the block in the structure of the group.
        structure = jax.tree.structure(structures[i])
        module = jax.tree.unflatten(structure, jax.tree.leaves(module))
    return as_coupling(unsealed(module))


def _message_passing(
    topology: Topology,
    parts: _Parts,
    i: int,
    owners: np.ndarray,
) -> MessagePassing:
    """The message passing of a group whose edges use the parameters of `owners`."""
    group = topology.groups[i]
    coupling = _block_coupling(topology, parts, i)
    own = parts[2].get(i)
    if own is None:
        return message_passing(topology, i, coupling, owners, tied=group.tie is not None)
    # That of a factory was checked when it was made. A transpose may not exist.
    check_message(topology, group, coupling, own.uses_tie(topology))
    return message_passing(
        topology,
        i,
        coupling,
        owners,
        tied=own.tied(topology),
        alike=own.place is None,
    )


def _owners(topology: Topology, parts: _Parts, edges: np.ndarray) -> Owners:
    """The owners of a reverse group, from the owner of each of its edges."""

    def linear(i: int) -> bool:
        coupling = _block_coupling(topology, parts, i)
        return linear_message(topology.groups[i], coupling)

    return Owners.of(topology, edges, linear)


def _axes_of(network: Network) -> tuple[int, ...]:
    """The number of axes of every parameter; a stack of several networks has more."""
    parameters = network.couplings, network.biases
    return tuple(leaf.ndim for leaf in jax.tree.leaves(parameters))


def check_network(network: object, one: bool = True) -> Network:
    """`network`, which is a network, and if `one` is set not a stack of several."""
    advice = "make one, as dx.Network(topology, ...)"
    network = checks.instance("network", network, Network, "a darnax.Network", advice)
    # A stack, as `vmap` over keys makes it, has one more axis on each of its parameters.
    now = _axes_of(network)
    if one and now != network.axes:
        raise ValueError(
            f"`network` is one network, but its parameters have {now} axes where they were made "
            f"with {network.axes}; call an ensemble of networks by jax.vmap or equinox.filter_vmap "
            "over it"
        )
    return network


def check_state(network: object, state: object, argument: str = "state") -> None:
    """`state` is a state of the network's topology."""
    network = check_network(network)
    advice = "make one of network.topology"
    state = checks.instance(argument, state, GraphState, "a darnax.GraphState", advice)
    if state.topology != network.topology:
        raise ValueError(
            f"`{argument}` belongs to another topology: {state.topology!r}, but the network to "
            f"{network.topology!r}; make it with GraphState(network.topology)"
        )


@checks.by_hand
def partition(
    network: Network,
    rules: Mapping[str, object] | Iterable[str],
) -> tuple[Network, Network]:
    """`(params, rest)`: the leaves that `rules` train, and everything else.

    `equinox.combine` joins them. `rules` is keyed by edge kind, or is just the edge kinds that are
    trained. A bias is trained if a trained edge reaches a node of its kind. A rule for a reverse
    kind trains the couplings that it is the transpose of. Temperatures, rates, fixed strengths and
    self-couplings are in `rest`, where no optimiser sees them.

    Raises `ValueError` for an edge kind that the topology does not have.
    """
    check_network(network, one=False)
    if not isinstance(rules, Mapping):
        rules = dict.fromkeys(checks.names("rules", rules))
    rules = known_rules(network.topology, rules)
    nothing = jax.tree.map(lambda _: False, network)
    trained = set(map(network.owner_kind, rules))
    couplings: dict[str, object] = {}
    for kind, part in network.couplings.items():
        couplings[kind] = trainable(part) if kind in trained else nothing.couplings[kind]
    reached = reached_biases(network.topology, rules)
    biases: dict[str, dict[str, bool]] = {}
    for kind, by_array in network.biases.items():
        biases[kind] = {array: (kind, array) in reached for array in by_array}
    mask = eqx.tree_at(
        lambda mask: (mask.couplings, mask.biases),
        nothing,
        (couplings, biases),
    )
    return eqx.partition(network, mask)


@checks.by_hand
def known_rules(
    topology: Topology,
    rules: Mapping[str, T],
    argument: str = "rules",
) -> dict[str, T]:
    """Rules by edge kind, all of them of the topology."""
    advice = "a local rule such as dx.perceptron(0.5)"
    return checks.by_kind(argument, rules, topology.edge_kinds, set(), advice)


def reached_biases(
    topology: Topology,
    edge_kinds: Iterable[str],
) -> set[tuple[str, str]]:
    """Node kinds and arrays that edges of some kinds end at: there biases learn with them."""
    # A look at the classes of nodes, which are few, and not at each node by itself.
    classes: set[int] = set()
    for kind in edge_kinds:
        for block in topology.parameter_blocks.get(kind, ()):
            receivers = topology.columns.receivers[block.edges]
            here = np.unique(topology.columns.node_class[receivers])
            classes.update(here.tolist())
    layout = topology.layout
    reached = set()
    for i in classes:
        array = layout.arrays[layout.class_array[i]]
        reached.add((topology.columns.node_classes[i].kind, array.name))
    return reached
