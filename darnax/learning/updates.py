"""From local signals to updates of every coupling, through its own vector-Jacobian product."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Key

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.couplings.coupling import trainable
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

Rule: TypeAlias = Callable[..., Any]
"""A local rule, `(field, state) -> signal` of one node of one sample."""
Normalise: TypeAlias = Callable[[Any, int], Any] | None
"""`(batch, fan_in) -> number` that sums over the batch are divided by; None for the batch."""


@any_rank
@checks.by_hand
def local_updates(
    network: Network,
    state: GraphState,
    rules: Mapping[str, Rule],
    *,
    target: GraphState | None = None,
    silence: Iterable[Name] = (),
    kinds: Iterable[str] | None = None,
    normalise: Normalise = None,
    samples: Bool[Array, " batch"] | None = None,
    key: Key[Array, "..."] | None = None,
) -> Network:
    """What every trained leaf learns from one state, as a descent direction for optax.

    Senders and fields are those of `state`, the receivers' states those of `target`. For an edge it
    is the vector-Jacobian product of its message with `rule(field, target)`, with respect to its
    own parameters alone: no gradient crosses a node. Edges that do not speak learn nothing. A bias
    learns as a coupling from a unit that is always 1, by the rules of the edges that reach it;
    different ones add up.

    **Arguments:**

    - `rules`: by edge kind, a rule such as `dx.perceptron(0.5)` or any function
      `(field, state) -> signal`.
    - `target`: the state that receivers should be in; None for `state` itself.
    - `silence`, `kinds`: who is not heard, and which edge kinds speak, as for `step`.
    - `normalise`: `(batch, fan_in) -> number` that sums over the batch are divided by, fan-in being
      the number of the sender's units; None for the batch, that is for means.
    - `samples`: a bool mask `(B,)` of those that count; None for all. The updates are those of a
      batch without the others, whatever is in them, NaN included.

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
    rules = check_rules(network, rules)
    counted = None if samples is None else _mask(samples, state.batch_size)
    check_normalise(normalise)
    kinds = None if kinds is None else checks.names("kinds", kinds)
    active = active_groups(network.topology, checks.names("silence", silence), kinds)
    keys = sample_keys(key, state.batch_size, random_couplings(network, active))
    ordered = tuple(sorted(rules.items()))
    return _local_updates(network, state, target, active, ordered, normalise, counted, keys)


def _mask(samples: Any, batch: int) -> Bool[Array, " batch"]:
    """Which samples count, as an array."""
    samples = as_array("`samples`", samples)
    if samples.shape != (batch,) or samples.dtype != bool:
        raise ValueError(
            f"`samples` is a bool mask of shape ({batch},), but got {samples.dtype} of shape "
            f"{samples.shape}; give one answer a sample"
        )
    return jnp.asarray(samples)


def check_normalise(normalise: Any):
    """`normalise` is None or a function of the batch and the fan-in."""
    holds = "None, or a function (batch, fan_in) -> number to divide by"
    if normalise is not None:
        checks.function(
            "normalise", normalise, holds, "write one, as in lambda batch, fan_in: batch"
        )
        checks.takes("normalise", normalise, 2, "(batch, fan_in)")


def as_rules(rules: Any) -> dict[Any, Callable[..., Any]]:
    """Rules by edge kind: functions of a field and a state."""
    rules = dict(checks.mapping("rules", rules, "edge kinds to rules such as dx.perceptron(0.5)"))
    wrong = [kind for kind, rule in rules.items() if not callable(rule)]
    if wrong:
        raise TypeError(
            f"`rules` {_text.names(wrong)} are not rules; give functions such as dx.perceptron(0.5)"
        )
    for kind, rule in rules.items():
        argument = f"rules[{kind!r}]"
        checks.called(argument, rule)
        checks.takes(argument, rule, 2, "(field, state)", {"mean"})
        if not _hashable(*jax.tree.flatten(eqx.filter(rule, eqx.is_array, inverse=True))):
            advice = "freeze its class, as dataclass(frozen=True) does"
            checks.refuse(
                argument, "part of a compiled program, and so can be hashed", rule, advice
            )
    return rules


def _hashable(leaves: list[Any], structure: Any) -> bool:
    try:
        hash((tuple(leaves), structure))
    except TypeError:
        return False
    return True


def check_rules(network: Network, rules: Any) -> dict[str, Callable[..., Any]]:
    """Rules by edge kind: functions, of kinds of the network that have something to train."""
    rules = known_rules(network.topology, as_rules(rules))
    empty = [
        kind
        for kind in rules
        if kind in network.couplings
        and not any(jax.tree.leaves(trainable(network.couplings[kind])))
    ]
    if empty:
        raise ValueError(
            f"`rules` names {_text.names(empty)}, whose couplings have nothing to train; drop them"
        )
    return rules


class _Lesson(NamedTuple):
    """What signals are made of.

    **Fields:**

    - `fields`, `goals`: the local field and the target of every array, as rows.
    - `rules`: by edge kind.
    - `learning`: the groups that learn.
    - `samples`: the samples that count; None for all.
    """

    network: Network
    active: EdgeMasks
    fields: Rows
    goals: Rows
    rules: dict[str, Rule]
    learning: tuple[int, ...]
    samples: Bool[Array, " batch"] | None

    def counted(self, values: Array) -> Array:
        """Values without what is in samples that do not count: zero times NaN is NaN."""
        return values if self.samples is None else jnp.where(self.samples, values, 0)

    def active_edges(self, i: int) -> Bool[Array, " edges"]:
        """The edges of a group that send."""
        active = self.active[i]
        if active is not None:
            return active
        return jnp.ones(len(self.network.topology.groups[i].edges), bool)


@eqx.filter_jit
def _local_updates(
    network: Network,
    state: GraphState,
    target: GraphState,
    active: Active,
    rules: tuple[tuple[str, Rule], ...],
    normalise: Normalise,
    samples: Bool[Array, " batch"] | None,
    keys: Key[Array, " batch"] | None,
) -> Network:
    by_kind = dict(rules)
    params, rest = partition(network, by_kind)
    arrays, groups = state.rows(), network.topology.groups
    learning = tuple(i for i in active if groups[i].kind in by_kind)
    masks = edge_masks(network.topology, active)
    fields = network.fields(arrays, masks, keys)
    lesson = _Lesson(network, masks, fields, target.rows(), by_kind, learning, samples)
    messages, signals = [], []
    for i in learning:
        summed = _is_summed(lesson, i)
        make = _summed_messages if summed else _messages
        messages.append(make(lesson, i, arrays, keys))
        signals.append(_signal(lesson, i, summed))

    def sent(params: Network) -> list[Array]:
        whole = eqx.combine(params, rest)
        return [message(whole) for message in messages]

    batch = state.batch_size
    if samples is not None:
        batch = jnp.maximum(jnp.sum(samples, dtype=jnp.float32), 1)

    def divided(signal: Array, fan_in: int) -> Array:
        return signal / (batch if normalise is None else _divisor(normalise(batch, fan_in)))

    _, pull = jax.vjp(sent, params)
    fan_ins = [math.prod(groups[i].sender_shape) for i in learning]
    (updates,) = pull([divided(s, fan_in) for s, fan_in in zip(signals, fan_ins, strict=True)])
    biases = {}
    for kind, by_array in params.biases.items():
        biases[kind] = dict.fromkeys(by_array)
        for array, leaf in by_array.items():
            if leaf is not None:
                biases[kind][array] = divided(_bias_signal(lesson, kind, array), 1)
    return eqx.tree_at(lambda tree: tree.biases, updates, biases, is_leaf=lambda leaf: leaf is None)


def _is_summed(lesson: _Lesson, i: int) -> bool:
    """Whether a group's messages are made by its kernel, which sums them."""
    if lesson.network.message_passing[i].kernel is None or lesson.active[i] is not None:
        return False
    # a rule that changes what senders sent needs every edge by itself
    return not getattr(lesson.rules[lesson.network.topology.groups[i].kind], "residual", False)


def _divisor(value: Any) -> Any:
    """What `normalise` gives: a number above 0, or a traced one."""
    if isinstance(value, Tracer) and value.shape == ():
        return value
    return checks.number("normalise(batch, fan_in)", value, above=0.0)


def _messages(
    lesson: _Lesson, i: int, arrays: Rows, keys: Key[Array, " batch"] | None
) -> Callable[[Network], Array]:
    """The messages of every edge of a group, as a function of the network's parameters."""
    passing = lesson.network.message_passing[i]
    ends = passing.gather(arrays, keys)
    if getattr(lesson.rules[passing.group.kind], "residual", False):
        ends = ends._replace(senders=ends.senders - _explained(lesson, i, ends))
    asked = dict(ends.asked)
    if "receiver" in asked:
        asked["receiver"] = lesson.counted(asked["receiver"])
    ends = Ends(lesson.counted(ends.senders), asked)

    def sent(network: Network) -> Array:
        return passing.send(passing.prepare(network.stacked_coupling(i), None), ends)

    return sent


def _summed_messages(
    lesson: _Lesson, i: int, arrays: Rows, keys: Key[Array, " batch"] | None
) -> Callable[[Network], Array]:
    """The messages of a group as its kernel sums them, as a function of the parameters."""
    passing = lesson.network.message_passing[i]
    group = passing.group
    counted = {
        name: lesson.counted(arrays[name]) for name in (group.sender.name, group.receiver.name)
    }

    def sent(network: Network) -> Array:
        ready = passing.prepare(network.stacked_coupling(i), passing.kernel)
        return passing.field(ready, counted)

    return sent


def _explained(lesson: _Lesson, i: int, ends: Ends) -> Array:
    """What the receivers of a group expect of its senders: their state, through the transpose."""
    network, passing = lesson.network, lesson.network.message_passing[i]
    coupling = passing.prepare(network.stacked_coupling(i), None)
    sent, pull = jax.vjp(
        lambda senders: passing.send(coupling, ends._replace(senders=senders)), ends.senders
    )
    goal = lesson.goals[passing.group.receiver.name][passing.receiver_rows()]
    return pull(goal.reshape(sent.shape).astype(sent.dtype))[0]


def _signal(lesson: _Lesson, i: int, summed: bool) -> Float[Array, "edges *receiver batch"]:
    """The signal of every edge's receiver; or, to take back what a kernel summed, of every row."""
    passing = lesson.network.message_passing[i]
    group = passing.group
    rows = slice(passing.start, passing.stop) if summed else passing.receiver_rows()
    field, goal = (arrays[group.receiver.name][rows] for arrays in (lesson.fields, lesson.goals))
    result = per_node(lesson.rules[group.kind], field, goal, lesson.samples)
    if summed or lesson.active[i] is None:
        return result
    return jnp.where(outer(lesson.active_edges(i), result.ndim), result, 0)


def per_node(rule: Callable[..., Any], field: Array, state: Array, samples: Array | None) -> Array:
    """The signals of many nodes `(nodes, *shape, B)`; 0 for samples that do not count."""
    counts = jnp.ones(field.shape[-1], bool) if samples is None else samples
    averages = _averages(rule)

    def one(field, state, counts):
        def mean(values):
            total = jax.lax.psum(jnp.where(counts, values, 0), "batch")
            return total / jnp.maximum(jax.lax.psum(counts.astype(values.dtype), "batch"), 1)

        result = rule(field, state, mean=mean) if averages else rule(field, state)
        if getattr(result, "shape", None) != field.shape:
            what = f"a rule gives a signal of the shape of the field, here {field.shape}"
            raise ValueError(
                f"{what}, but {rule!r} gave {checks.came(result)}; give one number a unit"
            )
        return jnp.where(counts, result, 0)

    one_batch = jax.vmap(one, in_axes=-1, out_axes=-1, axis_name="batch")
    result = jax.vmap(one_batch, in_axes=(0, 0, None))(field, state.astype(field.dtype), counts)
    return result.astype(field.dtype)


def _averages(rule: Callable[..., Any]) -> bool:
    """Whether a rule is given a function that averages over the batch."""
    try:
        return "mean" in inspect.signature(rule).parameters
    except ValueError:  # built-in functions show no signature
        return False


def _bias_signal(lesson: _Lesson, kind: str, array: str) -> Float[Array, "..."]:
    """The signals of the rules that reach the biases of a kind in an array, over all samples.

    Equal rules reach a bias together, whatever the number of their edges; different ones add up.
    """
    network, topology = lesson.network, lesson.network.topology
    spec, covers = topology.arrays[array], network.units[array].covers
    reached: dict[Any, tuple[Rule, Bool[Array, " rows"]]] = {}
    for i in lesson.learning:
        group = topology.groups[i]
        if group.receiver.name != array:
            continue
        rule = lesson.rules[group.kind]
        # rules that hold arrays cannot be compared
        same = rule if _hashable([rule], None) else group.kind
        _, before = reached.get(same, (rule, jnp.zeros(spec.rows, bool)))
        active = outer(lesson.active_edges(i), group.receivers.ndim)
        rows = network.message_passing[i].receiver_rows()
        reached[same] = rule, before.at[rows].max(active)
    total = jnp.zeros((spec.rows, *spec.item), spec.field_dtype)
    for rule, rows in reached.values():
        signal = per_node(rule, lesson.fields[array], lesson.goals[array], lesson.samples)
        if kind in covers:
            rows = rows & covers[kind]
        total = total + jnp.sum(jnp.where(outer(rows, signal.ndim), signal, 0), axis=-1)
    return total.reshape(spec.shape)
