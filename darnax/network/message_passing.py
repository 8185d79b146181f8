"""Message passing: how the edges of one group send, and how their messages add up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
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

if TYPE_CHECKING:
    import jraph
else:
    jraph = Lazy("jraph")

Rows = dict[str, Shaped[Array, "..."]]
"""The arrays of a state by name, each as its rows."""


class Ends(NamedTuple):
    """What the messages of several edges are made of.

    **Fields:**

    - `senders`: the states of senders, `(E, *sender_shape, B)`.
    - `asked`: what the coupling asks for besides: `receiver`, the states of receivers
      `(E, *receiver_shape, B)`, and `key`, keys `(E, B)`.
    """

    senders: Shaped[Array, "edges *sender batch"]
    asked: dict[str, Array]


class MessagePassing(eqx.Module):
    """All edges of one group, and the three steps of their messages: gather, send, aggregate.

    ```
    rows of the sending array --gather--> senders (E, *sender_shape, B)
                              --send----> messages (E, *receiver_shape, B)
                              --aggregate-> rows `start` to `stop` of the receiving array
    ```

    This is jraph's message passing, with addresses in place of node numbers. Messages are added on
    the rows of the receiving array and not node by node: where views overlap, all messages to a
    cell are added there once, whichever node they were sent to. A `kernel` makes the three steps at
    once, where the wiring allows it.

    Index arrays are leaves of the network. As constants of a compiled program they would cost
    seconds of compile time and a copy in every program. Regular addresses, such as a range of rows
    or a single view, have no leaf: they are static in the topology, and XLA reads a slice.

    **Fields:**

    - `topology`, `position`: the group is `topology.groups[position]`.
    - `sender_rows`: rows to gather, or None where a static index does it.
    - `landings`: the row that each message, or each cell of it, is added to, counted from `start`;
      None where edge e sends to row `start + e`, and where the one edge of a group sends to a view.
    - `words`: two words that name each edge, if its coupling asks for a key; else None.
    - `kernel`: how all edges are run at once; None for edge by edge.
    - `start`, `stop`: the rows that messages are summed over.
    - `asks`: which of `receiver` and `key` the coupling asks for.
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

    @property
    def group(self) -> EdgeGroup:
        """The edges, their addresses and what they have in common."""
        return self.topology.groups[self.position]

    @property
    def tied(self) -> bool:
        """Whether the edges share their parameters."""
        return self.group.tie is not None

    # parameters

    def prepare(self, coupling: Coupling, kernel: Kernel | None) -> Any:
        """What follows from the parameters, worked out before a loop."""
        ready = prepared(coupling, self.tied)
        return ready if kernel is None else kernel.prepare(ready)

    # the three steps

    def gather(
        self,
        arrays: Rows,
        keys: Key[Array, " batch"] | None = None,
        edges: Int[Array, " some"] | None = None,
    ) -> Ends:
        """The states that the messages of all edges, or of some, are made of."""
        group = self.group
        asked: dict[str, Array] = {}
        if "receiver" in self.asks:
            rows = self.receiver_rows(edges)
            states = arrays[group.receiver.name][rows]
            asked["receiver"] = states.reshape(-1, *group.receiver_shape, states.shape[-1])
        if "key" in self.asks:
            assert self.words is not None
            assert keys is not None
            words = self.words if edges is None else self.words[edges]
            asked["key"] = named_keys(words, keys)
        return Ends(self._senders(arrays[group.sender.name], edges), asked)

    def send(self, coupling: Coupling, ends: Ends) -> Float[Array, "edges *receiver batch"]:
        """The messages of edges, from their stacked coupling and their ends."""
        dtype = self.group.receiver.field_dtype
        leaves = jax.tree.leaves(eqx.filter(coupling, eqx.is_inexact_array))
        working = leaves[0].dtype if leaves else dtype
        senders = ends.senders.astype(working)
        asked = dict(ends.asked)
        if "receiver" in asked:
            asked["receiver"] = asked["receiver"].astype(working)
        arrays, static = eqx.partition(coupling, eqx.is_array)

        def of_one(arrays: Any, x: Array, asked: dict[str, Array]) -> Array:
            return eqx.combine(arrays, static).batched(x, **asked)

        if len(senders) == 1:
            # one edge: a plain matrix product is faster than a batched one of a batch of one
            one = pick(arrays, self.tied, 0)
            return of_one(one, senders[0], {k: v[0] for k, v in asked.items()})[None].astype(dtype)
        axes = jax.tree.map(lambda own: 0 if own else None, per_edge(arrays, self.tied))
        return jax.vmap(of_one, in_axes=(axes, 0, 0))(arrays, senders, asked).astype(dtype)

    def aggregate(
        self,
        messages: Float[Array, "edges *receiver batch"],
        active: Bool[Array, " edges"] | None = None,
    ) -> Float[Array, "rows *item batch"]:
        """The messages of active edges, summed on rows `start` to `stop`."""
        spec = self.group.receiver
        if active is not None:
            messages = jnp.where(outer(active, messages.ndim), messages, 0)
        if self.landings is not None:
            cells = messages.reshape(-1, *spec.item, messages.shape[-1])
            return jraph.segment_sum(cells, self.landings, self.stop - self.start)
        view = self.group.receiver_index
        assert view is not None
        return _in_place(view, spec, messages[0]) if spec.shared else messages

    def field(
        self,
        ready: Any,
        arrays: Rows,
        active: Bool[Array, " edges"] | None = None,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "rows *item batch"]:
        """The summed messages on rows `start` to `stop`: gather, send and aggregate.

        `ready` is what `prepare` made for the kernel, if all edges are active, or else without one.
        """
        kernel = self.kernel if active is None else None
        if kernel is None:
            return self.aggregate(self.send(ready, self.gather(arrays, keys)), active)
        group = self.group
        received = arrays[group.receiver.name][self.start : self.stop]
        return kernel(ready, arrays[group.sender.name], received, group.receiver.field_dtype)

    # addresses

    def _senders(
        self, rows: Shaped[Array, "rows *item batch"], edges: Int[Array, " some"] | None
    ) -> Shaped[Array, "edges *sender batch"]:
        group = self.group
        if self.sender_rows is not None:
            addresses = self.sender_rows if edges is None else self.sender_rows[edges]
            return take(rows, addresses)
        index = group.sender_index
        assert index is not None
        if group.sender.shared:
            array = rows.reshape(*group.sender.lead, rows.shape[-1])
            return array[index][None]
        if edges is None:
            return rows[index]
        return take(rows, _rows_of_slice(index[0], edges))

    def receiver_rows(self, edges: Int[Array, " some"] | None = None) -> Any:
        """The rows of the receivers of all edges, or of some: `(E, *lead)`, or a static slice."""
        group = self.group
        if self.landings is not None:
            addresses = (self.landings + self.start).reshape(group.receivers.shape)
            return addresses if edges is None else addresses[edges]
        if group.receiver.shared:
            return jnp.asarray(group.receivers)
        assert group.receiver_index is not None
        if edges is None:
            return slice(self.start, self.stop)
        return _rows_of_slice(group.receiver_index[0], edges)


def message_passing(topology: Topology, position: int, coupling: Coupling) -> MessagePassing:
    """The message passing of a group with this coupling, with the kernel that suits it."""
    group = topology.groups[position]
    rows = group.receivers.ravel()
    start, stop = int(rows.min()), int(rows.max()) + 1
    regular = group.receiver_index is not None
    large = 4 * (stop - start) > group.receiver.rows and not regular
    if group.receiver.shared or large:
        # what lands on most of an array is summed over all of it: fewer cuts through the array
        start, stop = 0, group.receiver.rows
    sender_rows = landings = graph = None
    if group.sender_index is None:
        sender_rows = on_device(group.senders, jnp.int32)
    if not regular:
        landings = on_device(rows - start, jnp.int32)
        if not group.sender.shared and not group.receiver.shared:
            graph = Graph.of(group.senders, rows - start, stop - start, group.sender.rows)
    words = None
    asked = asks(coupling)
    if "key" in asked:
        words = on_device(naming.words(topology.edge_hashes[group.edges]))
    return MessagePassing(
        topology=topology,
        position=position,
        sender_rows=sender_rows,
        landings=landings,
        words=words,
        kernel=choose(Site(group, coupling, rows - start, stop - start, graph)),
        start=start,
        stop=stop,
        asks=asked,
    )


def outer(rows: Bool[Array, " rows"], ndim: int) -> Bool[Array, "..."]:
    """A mask of rows with axes for the item and the batch."""
    return rows.reshape(-1, *[1] * (ndim - 1))


def fitted(
    field: Float[Array, "rows *item batch"], start: int, new_start: int, new_stop: int
) -> Float[Array, "new_rows *item batch"]:
    """A field of the rows from `start` on as one of rows `new_start` to `new_stop`.

    What lies outside is cut off, and what is new is zero.
    """
    before, after = start - new_start, new_stop - start - len(field)
    if before == after == 0:
        return field
    pads = [(before, after, 0), *[(0, 0, 0)] * (field.ndim - 1)]
    return jax.lax.pad(field, jnp.zeros((), field.dtype), pads)


def _rows_of_slice(rows: Any, edges: Int[Array, " some"]) -> Int[Array, " some"]:
    return rows.start + edges * rows.step


def _in_place(
    view: Sequence[Any], spec: ArraySpec, value: Shaped[Array, "*view batch"]
) -> Shaped[Array, "rows batch"]:
    """A value of a view as rows of its shared array, zero elsewhere.

    A view of ints and slices is padded into its place, which fuses with what comes after.
    """
    sizes, pads = [], []
    for part, size in zip(view, spec.lead, strict=True):
        span = slice(part, part + 1, 1) if isinstance(part, int) else part
        sizes.append(len(range(size)[span]))
        pads.append((span.start, size - span.stop, span.step - 1))
    value = value.reshape(*sizes, -1)
    return spec.as_rows(jax.lax.pad(value, jnp.zeros((), value.dtype), [*pads, (0, 0, 0)]))
