"""Updates of couplings and biases, from the signals of local rules.

A rule gives every receiver a signal, which stands where the gradient of a loss with respect to its
field would stand. The rest is linear. The messages of all groups that learn are one function of the
parameters, and the vector-Jacobian product of this function takes the signals back to the
parameters. Whatever several edges share (a tie, the weights of a convolution, the parameters of a
user's layer) thereby sums over its uses, without a case of its own.

States are constants of that function. So nothing is taken back beyond the edge, and what an update
needs does not grow with the passes that led to the state.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Key

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.couplings.coupling import trainable
from darnax.learning.rules import (
    Normalise,
    Rule,
    Rules,
    Units,
    as_rules,
    check_normalise,
    is_elementwise,
    is_hashable,
)
from darnax.network.active import Active, EdgeMasks, active_groups, edge_masks
from darnax.network.message_passing import Ends, Rows, outer
from darnax.network.network import (
    Network,
    check_state,
    known_rules,
    partition,
    random_couplings,
)
from darnax.noise import sample_keys
from darnax.states.graph import GraphState
from darnax.states.values import as_array
from darnax.topologies.names import Name

T = TypeVar("T")


@any_rank
@checks.by_hand
def local_updates(
    network: Network,
    state: GraphState,
    rules: Rules,
    *,
    target: GraphState | None = None,
    silence: Iterable[Name] = (),
    kinds: Iterable[str] | None = None,
    normalise: Normalise | None = None,
    samples: Bool[Array, " batch"] | None = None,
    key: Key[Array, "..."] | None = None,
) -> Network:
    """The updates of every trained leaf from one state, as a descent direction for optax.

    Senders and fields are those of `state`, the receivers' states those of `target`. The update
    from an edge is the vector-Jacobian product of its message with `rule(field, target)`, with
    respect to its own parameters alone: no gradient crosses a node. Edges that do not send learn
    nothing. A bias learns as a coupling from a unit that is always 1, by the rules of the edges
    that reach it; different ones add up.

    **Arguments:**

    - `rules`: by edge kind, a rule such as `dx.perceptron(0.5)` or any function
      `(field, state) -> signal`.
    - `target`: the state that receivers should be in; None for `state` itself.
    - `silence`, `kinds`: the nodes whose messages are dropped, and the edge kinds that send, as for
      `step`.
    - `normalise`: `(batch, fan_in) -> number` that sums over the batch are divided by, fan-in being
      the number of the sender's units; None for the batch, that is for means.
    - `samples`: a bool mask `(B,)` of those that count; None for all. The updates are those of a
      batch without the others, whatever is in them, NaN included.
    - `key`: for couplings that ask for one, a key or one for each sample.

    **Returns:** the structure of `params` in `params, rest = dx.partition(network, rules)`.

    Raises `ValueError` or `TypeError` for unknown kinds or nodes, a rule for couplings without
    parameters, and states of another topology or batch.

    !!! example

        ```python
        params, rest = dx.partition(network, rules)
        updates = dx.local_updates(network, state, rules)
        steps, memory = optimiser.update(updates, memory, params)
        network = eqx.combine(optax.apply_updates(params, steps), rest)
        ```
    """
    check_state(network, state)
    target = state if target is None else target
    check_state(network, target, "target")
    if target.batch_size != state.batch_size:
        raise ValueError(
            f"`target` has a batch of {target.batch_size}, but `state` one of {state.batch_size}"
        )
    by_kind = check_rules(network, rules)
    counted = None if samples is None else samples_that_count(samples, state.batch_size)
    check_normalise(normalise)
    kinds = None if kinds is None else checks.names("kinds", kinds)
    active = active_groups(network.topology, checks.names("silence", silence), kinds)
    keys = sample_keys(key, state.batch_size, random_couplings(network, active))
    # rules are part of the program, which is found by equality: sorted pairs are equal in whatever
    # order the mapping was written
    ordered = tuple(sorted(by_kind.items()))
    return _local_updates(network, state, target, active, ordered, normalise, counted, keys)


@checks.by_hand
def samples_that_count(samples: object, batch: int) -> Bool[Array, " batch"]:
    """The samples that count, as an array."""
    mask = as_array("`samples`", samples)
    if mask.shape != (batch,) or mask.dtype != bool:
        raise ValueError(
            f"`samples` is a bool mask of shape ({batch},), but got {mask.dtype} of shape "
            f"{mask.shape}; give one answer a sample"
        )
    return jnp.asarray(mask)


def check_rules(network: Network, rules: object) -> dict[str, Rule]:
    """Rules by edge kind: functions, of kinds of the network that have something to train."""
    by_kind = check_trained(network, as_rules(rules), "rules")
    _check_biases(network, by_kind)
    return by_kind


@checks.by_hand
def check_trained(network: Network, kinds: Mapping[str, T], argument: str) -> dict[str, T]:
    """Anything by edge kind, where these are kinds of the network that have something to train."""
    by_kind = known_rules(network.topology, kinds, argument)
    empty: list[str] = []
    for kind in by_kind:
        # a kind that is declared but has no edge has no couplings either; a reverse kind trains
        # those that it is the transpose of
        couplings = network.couplings.get(network.owner_kind(kind))
        if couplings is None:
            continue
        leaves = jax.tree.leaves(trainable(couplings))
        if not any(leaves):
            empty.append(kind)
    if empty:
        raise ValueError(
            f"`{argument}` names {_text.names(empty)}, whose couplings have nothing to train; drop "
            "them"
        )
    return by_kind


def _check_biases(network: Network, rules: dict[str, Rule]):
    """The bias of a cell that several nodes cover has one signal: so its rule is elementwise."""
    topology = network.topology
    overlaps = topology.layout.overlaps
    if not network.biases or not overlaps:
        return
    overlapping = np.concatenate(overlaps)
    for kind, rule in rules.items():
        if is_elementwise(rule):
            continue
        biased: set[int] = set()
        for block in topology.parameter_blocks.get(kind, ()):
            receivers = topology.columns.receivers[block.edges]
            for node in np.intersect1d(receivers, overlapping).tolist():
                biases = network.biases.get(topology.node_class(node).kind, {})
                if topology.array_of(node).name in biases:
                    biased.add(node)
        clashing = topology.layout.clashing(np.asarray(sorted(biased), np.int64))
        if clashing:
            raise ValueError(
                f"`rules` for edges of kind {kind!r}: nodes {topology.named(clashing)} overlap on "
                f"a shared array and have biases, but {rule!r} is not known to be elementwise; set "
                "`elementwise = True` on a rule that works out each unit for itself, or keep views "
                "apart"
            )


class _Lesson(NamedTuple):
    """The inputs of all signals and messages: the network, states, fields, targets and rules.

    **Fields:**

    - `active`: the groups that send, and which of their edges; None for all of them.
    - `senders`, `keys`: the state that is learnt from, as rows, and the keys of random couplings.
    - `fields`, `goals`: the local field and the target of every array, as rows.
    - `rules`: by edge kind.
    - `learning`: the groups that send and have a rule.
    - `samples`: the samples that count; None for all.
    """

    network: Network
    active: EdgeMasks
    senders: Rows
    keys: Key[Array, " batch"] | None
    fields: Rows
    goals: Rows
    rules: dict[str, Rule]
    learning: tuple[int, ...]
    samples: Bool[Array, " batch"] | None

    def rule(self, i: int) -> Rule:
        """The rule of a group."""
        return self.rules[self.network.topology.groups[i].kind]

    def of_residual(self, i: int) -> bool:
        """Whether the rule of a group takes from senders what the receivers explain of them."""
        return getattr(self.rule(i), "residual", False)

    def counted(self, values: Array) -> Array:
        """Values without those of samples that do not count."""
        # their signal is zero, but that is not enough: zero times NaN is NaN
        return values if self.samples is None else jnp.where(self.samples, values, 0)

    def active_edges(self, i: int) -> Bool[Array, " edges"]:
        """The edges of a group that send."""
        active = self.active[i]
        if active is not None:
            return active
        group = self.network.topology.groups[i]
        return jnp.ones(len(group.edges), bool)


class _Divisor(NamedTuple):
    """The number that sums over the batch are divided by."""

    batch: int | Float[Array, ""]
    normalise: Normalise | None

    def divide(self, signal: Array, fan_in: int) -> Array:
        """The signal over this number, for couplings with a fan-in."""
        number = self.batch
        if self.normalise is not None:
            number = _above_zero(self.normalise(self.batch, fan_in))
        # counted samples are an array of float32, and JAX may be told to promote nothing
        return signal / jnp.asarray(number, signal.dtype)


@eqx.filter_jit
def _local_updates(
    network: Network,
    state: GraphState,
    target: GraphState,
    active: Active,
    rules: tuple[tuple[str, Rule], ...],
    normalise: Normalise | None,
    samples: Bool[Array, " batch"] | None,
    keys: Key[Array, " batch"] | None,
) -> Network:
    by_kind = dict(rules)
    params, rest = partition(network, by_kind)
    groups = network.topology.groups
    senders = state.rows()
    masks = edge_masks(network.topology, active)
    lesson = _Lesson(
        network=network,
        active=masks,
        senders=senders,
        keys=keys,
        # the fields of all groups that send: those without a rule reach a receiver as well
        fields=network.fields(senders, masks, keys),
        goals=target.rows(),
        rules=by_kind,
        learning=tuple(i for i in active if groups[i].kind in by_kind),
        samples=samples,
    )

    # the messages as functions of the parameters, and the signals that go back through them
    messages: list[Callable[[Network], Array]] = []
    signals: list[Array] = []
    for i in lesson.learning:
        summed = _is_summed(lesson, i)
        make = _summed_messages if summed else _messages
        messages.append(make(lesson, i))
        signals.append(_signal(lesson, i, summed))

    batch = state.batch_size
    if samples is not None:
        # a batch in which nothing counts teaches nothing: 0 over 1, and not 0 over 0
        batch = jnp.maximum(jnp.sum(samples, dtype=jnp.float32), 1)
    divisor = _Divisor(batch, normalise)

    # one product for all groups, since groups may share a block of parameters
    def sent(params: Network) -> list[Array]:
        whole = eqx.combine(params, rest)
        return [message(whole) for message in messages]

    _, pull = jax.vjp(sent, params)
    divided: list[Array] = []
    for i, signal in zip(lesson.learning, signals, strict=True):
        fan_in = math.prod(groups[i].sender_shape)
        divided.append(divisor.divide(signal, fan_in))
    (updates,) = pull(divided)

    # no message depends on a bias: what the product gives for them is zero, and is replaced
    return eqx.tree_at(
        lambda tree: tree.biases,
        updates,
        _bias_updates(lesson, params, divisor),
        is_leaf=lambda leaf: leaf is None,
    )


# messages


def _is_summed(lesson: _Lesson, i: int) -> bool:
    """Whether the messages of a group are made and summed by its kernel."""
    kernel = lesson.network.message_passing[i].kernel
    # a kernel runs all edges of a group, and cannot leave out those that are silent
    if kernel is None or lesson.active[i] is not None:
        return False
    # residuals are taken edge by edge: a kernel reads the rows of senders, where all receivers of a
    # sender would find the same
    if lesson.of_residual(i):
        return False
    # sums on a shared array have a signal for each cell, and this rule asks for those of a node
    shared = lesson.network.message_passing[i].group.receiver.shared
    return is_elementwise(lesson.rule(i)) or not shared


def _messages(lesson: _Lesson, i: int) -> Callable[[Network], Array]:
    """The messages of every edge of a group, as a function of the network's parameters."""
    passing = lesson.network.message_passing[i]
    ends = passing.gather(lesson.senders, lesson.keys)
    if lesson.of_residual(i):
        ends = ends._replace(senders=ends.senders - _explained(lesson, i, ends))
    asked = dict(ends.asked)
    # keys are asked for as well, but they hold no NaN
    if "receiver" in asked:
        asked["receiver"] = lesson.counted(asked["receiver"])
    ends = Ends(lesson.counted(ends.senders), asked)

    def sent(network: Network) -> Array:
        return passing.send(passing.prepare(network.stacked_coupling(i), None), ends)

    return sent


def _summed_messages(lesson: _Lesson, i: int) -> Callable[[Network], Array]:
    """The messages of a group as its kernel sums them, as a function of the parameters."""
    passing = lesson.network.message_passing[i]
    group = passing.group
    counted: Rows = {}
    for name in (group.sender.name, group.receiver.name):
        counted[name] = lesson.counted(lesson.senders[name])

    def sent(network: Network) -> Array:
        ready = passing.prepare(network.stacked_coupling(i), passing.kernel)
        return passing.field(ready, counted)

    return sent


def _explained(lesson: _Lesson, i: int, ends: Ends) -> Float[Array, "edges *sender batch"]:
    """The senders of a group as its receivers expect them: their state, through the transpose."""
    network, passing = lesson.network, lesson.network.message_passing[i]
    coupling = passing.prepare(network.stacked_coupling(i), None)

    def sent(senders: Array) -> Array:
        return passing.send(coupling, ends._replace(senders=senders))

    # the transpose of any linear coupling is the product with respect to its senders
    messages, pull = jax.vjp(sent, ends.senders)
    rows = passing.receiver_rows()
    goal = lesson.goals[passing.group.receiver.name][rows]
    goal = goal.reshape(messages.shape).astype(messages.dtype)
    (explained,) = pull(goal)
    return explained


# signals


def _signal(lesson: _Lesson, i: int, summed: bool) -> Float[Array, "edges *receiver batch"]:
    """The signal of every edge's receiver.

    If the messages are summed it is the signal of every row that they are summed on: taken back
    through the sum, it reaches each edge as that of its receiver.
    """
    passing = lesson.network.message_passing[i]
    rows = slice(passing.start, passing.stop) if summed else passing.receiver_rows()
    array = passing.group.receiver.name
    field = lesson.fields[array][rows]
    goal = lesson.goals[array][rows]
    result = per_node(lesson.rule(i), field, goal, lesson.samples)
    if summed or lesson.active[i] is None:
        return result
    active = outer(lesson.active_edges(i), result.ndim)
    return jnp.where(active, result, 0)


def per_node(
    rule: Rule,
    field: Float[Array, "nodes *shape batch"],
    state: Array,
    samples: Bool[Array, " batch"] | None,
) -> Float[Array, "nodes *shape batch"]:
    """The signals of many nodes; 0 for samples that do not count."""
    counts = jnp.ones(field.shape[-1], bool) if samples is None else samples
    averages = _averages(rule)

    def one(field: Units, state: Units, counts: Bool[Array, ""]) -> Array:
        def mean(values: Units) -> Units:
            # here a node has one sample, and the others are reached by the name of their axis
            total = jax.lax.psum(jnp.where(counts, values, 0), "batch")
            number = jax.lax.psum(counts.astype(values.dtype), "batch")
            return total / jnp.maximum(number, 1)

        result = rule(field, state, mean=mean) if averages else rule(field, state)
        if getattr(result, "shape", None) != field.shape:
            what = f"a rule gives a signal of the shape of the field, here {field.shape}"
            raise ValueError(
                f"{what}, but {rule!r} gave {checks.came(result)}; give one number a unit"
            )
        return jnp.where(counts, result, 0)

    one_batch = jax.vmap(one, in_axes=-1, out_axes=-1, axis_name="batch")
    every_node = jax.vmap(one_batch, in_axes=(0, 0, None))
    # the state of ±1 units may be whole numbers, with which fields are not computed
    result = every_node(field, state.astype(field.dtype), counts)
    # a rule may compute in another dtype, but a signal goes back through messages of this one
    return result.astype(field.dtype)


def _averages(rule: Rule) -> bool:
    """Whether a rule is given a function that averages over the batch."""
    try:
        return "mean" in inspect.signature(rule).parameters
    except ValueError:  # built-in functions show no signature
        return False


def _above_zero(value: object) -> Array | float:
    """The divisor that `normalise` gives: a number above 0, or a traced one."""
    # where `samples` are given the batch is traced, and so is most of what follows from it
    if isinstance(value, Tracer) and value.shape == ():
        return value
    return checks.number("normalise(batch, fan_in)", value, above=0.0)


# biases


def _bias_updates(
    lesson: _Lesson, params: Network, divisor: _Divisor
) -> dict[str, dict[str, Array | None]]:
    """The updates of the biases that are trained, by node kind and array; None for the others."""
    updates: dict[str, dict[str, Array | None]] = {}
    for kind, by_array in params.biases.items():
        updates[kind] = {}
        for array, leaf in by_array.items():
            update = None
            if leaf is not None:
                # the fan-in of a bias is the one unit that is always 1
                update = divisor.divide(_bias_signal(lesson, kind, array), 1)
            updates[kind][array] = update
    return updates


def _bias_signal(lesson: _Lesson, kind: str, array: str) -> Float[Array, "..."]:
    """The signals of the rules that reach the biases of a kind in an array, over all samples."""
    spec = lesson.network.topology.arrays[array]
    covers = lesson.network.units[array].covers
    # the sum over samples is divided later, as those of couplings are
    total = jnp.zeros((spec.rows, *spec.item), spec.field_dtype)
    for reached in _reached_rows(lesson, array):
        rows = reached.rows
        signal = _row_signals(lesson, array, reached)
        # where nodes of several kinds live in one array, each kind has biases on its own cells
        if kind in covers:
            rows = rows & covers[kind]
        signal = jnp.where(outer(rows, signal.ndim), signal, 0)
        total = total + jnp.sum(signal, axis=-1)
    return total.reshape(spec.shape)


class _Reached(NamedTuple):
    """The rows of an array that learn by one rule, and the groups of the edges that end at them."""

    rule: Rule
    rows: Bool[Array, " rows"]
    groups: tuple[int, ...]


def _row_signals(
    lesson: _Lesson, array: str, reached: _Reached
) -> Float[Array, "rows *item batch"]:
    """The signals of a rule on the rows of an array, of use where it reaches them."""
    # looked up here: an array that no rule reaches need not have a field
    field = lesson.fields[array]
    goal = lesson.goals[array]
    if is_elementwise(reached.rule) or not lesson.network.topology.arrays[array].shared:
        return per_node(reached.rule, field, goal, lesson.samples)
    signal = jnp.zeros_like(field)
    for i in reached.groups:
        # the cells of each node together, which no other node has: `_check_biases` has seen to it
        cells = lesson.network.message_passing[i].receiver_rows()
        by_node = per_node(reached.rule, field[cells], goal[cells], lesson.samples)
        signal = signal.at[cells].set(by_node)
    return signal


def _reached_rows(lesson: _Lesson, array: str) -> list[_Reached]:
    """The rules that edges into an array learn by.

    A bias is one coupling. So equal rules reach it together, whatever the number of their edges;
    different ones add up.
    """
    rows = lesson.network.topology.arrays[array].rows
    reached: dict[object, _Reached] = {}
    for i in lesson.learning:
        passing = lesson.network.message_passing[i]
        group = passing.group
        if group.receiver.name != array:
            continue
        rule = lesson.rule(i)
        # rules that hold arrays cannot be compared: each kind of edges then counts by itself
        same = rule if is_hashable(rule) else group.kind
        before = reached.get(same, _Reached(rule, jnp.zeros(rows, bool), ()))
        active = outer(lesson.active_edges(i), group.receivers.ndim)
        # several edges may end at one row: it is reached if any of them sends
        receivers = passing.receiver_rows()
        reached[same] = _Reached(rule, before.rows.at[receivers].max(active), (*before.groups, i))
    return list(reached.values())
