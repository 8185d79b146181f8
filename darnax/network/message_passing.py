"""Message passing: how the edges of one group send, and how their messages add up."""

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from darnax._arrays import on_device
from darnax._lazy import Lazy
from darnax.couplings.adapt import prepared
from darnax.couplings.coupling import Coupling, asks, per_edge, pick
from darnax.kernels.graph import Graph, take
from darnax.kernels.kernel import Kernel, Site
from darnax.kernels.table import choose
from darnax.noise import named_keys
from darnax.topologies import names as naming
from darnax.topologies.groups import EdgeGroup
from darnax.topologies.layout import ArraySpec
from darnax.topologies.topology import Topology
from darnax.topologies.views import Index

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

Rows: TypeAlias = dict[str, Shaped[Array, "..."]]
"""The arrays of a state by name, each as its rows `(rows, *item, B)`."""

Ready: TypeAlias = Any
"""What `MessagePassing.prepare` gives: a `Coupling`, or whatever pytree a kernel makes of one."""


class Ends(NamedTuple):
    """The states at the ends of several edges, from which their messages are made.

    **Fields:**

    - `senders`: the states of senders, `(E, *sender_shape, B)`.
    - `asked`: what the coupling asks for besides: `receiver`, the states of receivers
      `(E, *receiver_shape, B)`, and `key`, keys `(E, B)`.
    """

    senders: Shaped[Array, "edges *sender batch"]
    asked: dict[str, Array]


class MessagePassing(eqx.Module):
    """The edges of one group, and the three steps of their messages: gather, send, aggregate.

    ```
    array of the senders     (rows, *item, B)
        gather                   the rows `sender_rows`: one a stacked node, or one a cell of a view
    states of the senders    (E, *sender_shape, B)
        send                     the coupling, mapped over edges and samples
    messages                 (E, *receiver_shape, B)
        aggregate                the sum over all messages, or cells of messages, of each row
    field                    (stop - start, *item, B)
    ```

    The field is that of the rows `start` to `stop` of the receivers' array. `fitted` brings it to
    another range of rows, on which the fields of several groups add up.

    This is jraph's message passing, with addresses in place of node numbers. Messages are added on
    the rows of the receivers' array and not node by node: where views overlap, all messages to a
    cell are added there once, whichever node they were sent to. Edges are sorted by receiver, so
    that the order of a sum does not depend on the order of drawing.

    A `kernel` takes the three steps at once, where the wiring allows it. It sums over all edges: a
    call in which only some of them send goes edge by edge, and a mask leaves out the others.

    Index arrays are leaves of the network. As constants of a compiled program they would cost
    seconds of compile time and a copy in every program. Regular addresses, such as a range of rows
    or a single view, have no leaf: they are static in the topology, and XLA reads a slice.

    **Fields:**

    - `topology`, `position`: the group is `topology.groups[position]`.
    - `sender_rows`: the rows to gather, `(E, *lead)`; None where a static index does it.
    - `landings`: the row that each message, or each cell of it, is added to, counted from `start`;
      None where edge e sends to row `start + e`, and where the one edge of a group sends to a view.
    - `words`: two words that name each edge, if its coupling asks for a key; else None.
    - `kernel`: how all edges are run at once; None for edge by edge.
    - `start`, `stop`: the rows that messages are summed over.
    - `asks`: which of `receiver` and `key` the coupling asks for.
    - `tied`: whether the edges share their parameters, by a tie of theirs or of those they reverse.
    - `is_product`: whether a message is the product of a matrix with its sender, and no more.

    !!! example

        ```python
        topology = dx.Topology.from_edges([0, 4, 2], [11, 11, 13], n=20, shape=2)
        network = dx.Network(topology, {"edge": dx.dense()}, dx.sign, key=jax.random.key(0))
        passing = network.message_passing[0]
        passing.sender_rows.tolist(), passing.landings.tolist()  # ([0, 4, 2], [0, 0, 2])
        passing.start, passing.stop  # (11, 14)
        ```
    """

    topology: Topology
    position: int = eqx.field(static=True)
    sender_rows: Int[Array, "edges *lead"] | None
    landings: Int[Array, " landings"] | None
    words: UInt32[Array, "edges 2"] | None
    kernel: Kernel | None
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)
    asks: frozenset[str] = eqx.field(static=True)
    tied: bool = eqx.field(static=True)
    is_product: bool = eqx.field(static=True)

    @property
    def group(self) -> EdgeGroup:
        """The edges, their addresses and what they have in common."""
        # A static field would make the group a part of the network's structure, which JAX keeps in
        # its caches: of the topology nothing stays there but a digest.
        return self.topology.groups[self.position]

    # parameters

    def prepare(self, coupling: Coupling, kernel: Kernel | None) -> Ready:
        """Everything that follows from the parameters alone, worked out before a loop."""
        ready = prepared(coupling, self.tied)
        return ready if kernel is None else kernel.prepare(ready)

    # the three steps

    def gather(
        self,
        arrays: Rows,
        keys: Key[Array, " batch"] | None = None,
        edges: Int[Array, " some"] | None = None,
    ) -> Ends:
        """The states at the ends of all edges, or of some."""
        group = self.group
        asked: dict[str, Array] = {}
        if "receiver" in self.asks:
            rows = self.receiver_rows(edges)
            asked["receiver"] = arrays[group.receiver.name][rows]
        if "key" in self.asks:
            assert self.words is not None
            assert keys is not None
            words = self.words if edges is None else self.words[edges]
            asked["key"] = named_keys(words, keys)
        senders = self._sender_states(arrays[group.sender.name], edges)
        return Ends(senders, asked)

    def send(
        self,
        coupling: Coupling,
        ends: Ends,
    ) -> Float[Array, "edges *receiver batch"]:
        """The messages of edges, from their stacked coupling and their ends."""
        field_dtype = self.group.receiver.field_dtype
        # A coupling works in the dtype of its parameters, whatever the states at both ends are:
        # JAX promotes nothing where users have set its promotion to strict.
        leaves = jax.tree.leaves(eqx.filter(coupling, eqx.is_inexact_array))
        dtype = leaves[0].dtype if leaves else field_dtype
        senders = ends.senders.astype(dtype)
        asked = dict(ends.asked)
        if "receiver" in asked:
            asked["receiver"] = asked["receiver"].astype(dtype)
        # Functions and sizes in a coupling are the same for all edges: `vmap` sees arrays alone.
        arrays, static = eqx.partition(coupling, eqx.is_array)

        def of_one(
            arrays: Coupling,
            x: Array,
            asked: dict[str, Array],
        ) -> Array:
            return eqx.combine(arrays, static).batched(x, **asked)

        if len(senders) == 1:
            # A plain matrix product is faster than a batched one of a batch of one.
            one = pick(arrays, self.tied, 0)
            sender = senders[0]
            asked = {name: values[0] for name, values in asked.items()}
            return of_one(one, sender, asked)[None].astype(field_dtype)
        # Parameters that tied edges share have no axis of edges, and `vmap` is told so.
        own = per_edge(arrays, self.tied)
        axes = jax.tree.map(lambda own: 0 if own else None, own)
        of_all = jax.vmap(of_one, in_axes=(axes, 0, 0))
        return of_all(arrays, senders, asked).astype(field_dtype)

    def aggregate(
        self,
        messages: Float[Array, "edges *receiver batch"],
        active: Bool[Array, " edges"] | None = None,
    ) -> Float[Array, "rows *item batch"]:
        """The messages of active edges, summed on rows `start` to `stop`."""
        spec = self.group.receiver
        if active is not None:
            # A product with the mask would let NaN through: zero times NaN is NaN.
            messages = jnp.where(outer(active, messages.ndim), messages, 0)
        if self.landings is not None:
            # On a shared array `item` is (), so that the cells of a message become rows here.
            cells = messages.reshape(-1, *spec.item, messages.shape[-1])
            return jraph.segment_sum(cells, self.landings, self.stop - self.start)
        if not spec.shared:
            # Edge e alone sends to row `start + e`: the messages are the field.
            return messages
        view = self.group.receiver_index
        assert view is not None
        return _in_place(view, spec, messages[0])

    def field(
        self,
        ready: Ready,
        arrays: Rows,
        active: Bool[Array, " edges"] | None = None,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "rows *item batch"]:
        """The summed messages on rows `start` to `stop`: gather, send and aggregate.

        `ready` is what `prepare` made for the kernel, if all edges are active, or else without one.
        """
        if self.kernel is None or active is not None:
            ends = self.gather(arrays, keys)
            return self.aggregate(self.send(ready, ends), active)
        sender, receiver = self.group.sender, self.group.receiver
        # Couplings of both ends need the states of their receivers as well.
        received = arrays[receiver.name][self.start : self.stop]
        return self.kernel(
            ready,
            arrays[sender.name],
            received,
            receiver.field_dtype,
        )

    # addresses

    def _sender_states(
        self,
        rows: Shaped[Array, "rows *item batch"],
        edges: Int[Array, " some"] | None,
    ) -> Shaped[Array, "edges *sender batch"]:
        """The states of the senders of all edges, or of some, from the rows of their array."""
        group = self.group
        if self.sender_rows is not None:
            addresses = self.sender_rows if edges is None else self.sender_rows[edges]
            return take(rows, addresses)
        index = group.sender_index
        assert index is not None
        if group.sender.shared:
            # A view has a static index only where one edge is the group, which `edges` cannot part.
            array = rows.reshape(*group.sender.lead, rows.shape[-1])
            return array[index][None]
        if edges is None:
            return rows[index]
        return take(rows, _rows_of_edges(index, edges))

    def sender_numbers(self) -> Int[Array, " edges"]:
        """The row of the sender of every edge; senders must be rows, not views."""
        if self.sender_rows is not None:
            return self.sender_rows
        group = self.group
        assert group.sender_index is not None
        return _rows_of_edges(group.sender_index, jnp.arange(len(group.edges), dtype=jnp.int32))

    def receiver_rows(
        self,
        edges: Int[Array, " some"] | None = None,
    ) -> Int[Array, "edges *lead"] | slice:
        """The rows of the receivers of all edges, or of some: `(E, *lead)`, or a static slice."""
        group = self.group
        if self.landings is not None:
            # The same numbers as `group.receivers`, but from a leaf: no constant of the program.
            addresses = (self.landings + self.start).reshape(group.receivers.shape)
            return addresses if edges is None else addresses[edges]
        if group.receiver.shared:
            return jnp.asarray(group.receivers)
        if edges is None:
            return slice(self.start, self.stop)
        assert group.receiver_index is not None
        return _rows_of_edges(group.receiver_index, edges)


def message_passing(
    topology: Topology,
    position: int,
    coupling: Coupling,
    owners: np.ndarray,
    tied: bool,
    alike: bool = True,
) -> MessagePassing:
    """The message passing of a group with this coupling, with the kernel that suits it.

    `owners` are the edges by whose names random couplings draw, for each of the group its own or
    the one that it reverses. `alike` says that parameters are shared by all edges or by none; else
    no kernel suits.
    """
    group = topology.groups[position]
    start, stop = _summed_rows(group)
    landings = group.receivers.ravel() - start
    regular = group.receiver_index is not None
    # Kernels that sum along edges want nodes that are rows, and more than one message a receiver.
    graph = None
    if not (regular or group.sender.shared or group.receiver.shared):
        graph = Graph.of(group.senders, landings, stop - start, group.sender.rows)
    asked = asks(coupling)
    words = None
    if "key" in asked:
        words = on_device(naming.words(topology.edge_hashes[owners]))
    sender_rows = None
    if group.sender_index is None:
        sender_rows = on_device(group.senders, jnp.int32)
    kernel = None
    if alike:
        kernel = choose(Site(group, coupling, landings, stop - start, tied, graph))
    return MessagePassing(
        topology=topology,
        position=position,
        sender_rows=sender_rows,
        landings=None if regular else on_device(landings, jnp.int32),
        words=words,
        kernel=kernel,
        start=start,
        stop=stop,
        asks=asked,
        tied=tied,
        is_product=coupling.linear == "matrix" and coupling.offset() is None,
    )


def _summed_rows(group: EdgeGroup) -> tuple[int, int]:
    """The range of rows that the messages of a group are summed over."""
    every_row = 0, group.receiver.rows
    if group.receiver.shared:
        return every_row
    start = int(group.receivers.min())
    stop = int(group.receivers.max()) + 1
    # Messages to most of an array are summed over all of it: fewer cuts through the array. Where
    # each row gets one message there is no sum, and the range is that of the messages themselves.
    most = 4 * (stop - start) > group.receiver.rows
    if most and group.receiver_index is None:
        return every_row
    return start, stop


def outer(
    rows: Bool[Array, " rows"],
    ndim: int,
) -> Bool[Array, "..."]:
    """A mask of rows with axes for the item and the batch."""
    return rows.reshape(-1, *[1] * (ndim - 1))


def fitted(
    field: Float[Array, "rows *item batch"],
    start: int,
    new_start: int,
    new_stop: int,
) -> Float[Array, "new_rows *item batch"]:
    """A field of the rows from `start` on as one of the rows `new_start` to `new_stop`.

    Rows outside of the new range are cut off, and rows that the field lacks are zero.
    """
    before = start - new_start
    after = new_stop - start - len(field)
    if before == after == 0:
        return field
    # A negative padding cuts off, so that one operation serves both ends.
    pads = [(0, 0, 0)] * field.ndim
    pads[0] = before, after, 0
    zero = jnp.zeros((), field.dtype)
    return jax.lax.pad(field, zero, pads)


def _rows_of_edges(
    index: Index,
    edges: Int[Array, " some"],
) -> Int[Array, " some"]:
    """The rows of some edges, where all edges have the rows of one slice."""
    (rows,) = index
    assert isinstance(rows, slice)
    return rows.start + edges * rows.step


def _in_place(
    view: Index,
    spec: ArraySpec,
    value: Shaped[Array, "*view batch"],
) -> Shaped[Array, "rows batch"]:
    """The value of a view as rows of its shared array, zero elsewhere.

    A view of ints and slices is padded into its place, which fuses with what comes after.
    """
    sizes: list[int] = []
    pads: list[tuple[int, int, int]] = []
    for part, size in zip(view, spec.lead, strict=True):
        cells = part if isinstance(part, slice) else slice(part, part + 1, 1)
        # Zeros before the first cell, behind the last one, and between cells of a step above 1.
        pads.append((cells.start, size - cells.stop, cells.step - 1))
        sizes.append(len(range(size)[cells]))
    # An int takes an axis away from the view; here it has it again, with one cell.
    value = value.reshape(*sizes, -1)
    pads.append((0, 0, 0))
    zero = jnp.zeros((), value.dtype)
    return spec.as_rows(jax.lax.pad(value, zero, pads))
