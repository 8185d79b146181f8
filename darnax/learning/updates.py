"""From local signals to updates of every coupling, through its own vector-Jacobian product."""

import inspect
import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.network import messages
from darnax.network.messages import SILENT, Speakers, field_dtype, outer, receiver_rows, rows_of
from darnax.network.network import Network, check_state, known_rules, partition, trainable
from darnax.states.graph import GraphState
from darnax.states.values import as_array


@any_rank
def local_updates(
    network: Any,
    state: Any,
    rules: Any,
    *,
    target: Any = None,
    silence: Any = (),
    kinds: Any = None,
    normalise: Any = None,
    samples: Any = None,
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
    _check_target(network, target)
    if target.batch_size != state.batch_size:
        raise ValueError(
            f"`target` has a batch of {target.batch_size}, but `state` one of {state.batch_size}"
        )
    rules = check_rules(network, rules)
    samples = None if samples is None else _mask(samples, state.batch_size)
    check_normalise(normalise)
    kinds = None if kinds is None else checks.names("kinds", kinds)
    speakers = messages.speakers(network.topology, checks.names("silence", silence), kinds)
    return _local_updates(
        network, state, target, speakers, tuple(sorted(rules.items())), normalise, samples
    )


def _check_target(network: Network, target: Any):
    checks.instance(
        "target", target, GraphState, "a darnax.GraphState", "make one of network.topology"
    )
    if target.topology != network.topology:
        raise ValueError(
            f"`target` belongs to another topology: {target.topology!r}, but the network to "
            f"{network.topology!r}; make it with GraphState(network.topology)"
        )


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
        check_takes("normalise", normalise, 2, "(batch, fan_in)")


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
        check_takes(argument, rule, 2, "(field, state)", {"mean"})
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


def check_takes(argument: str, function: Any, count: int, call: str, known: Collection[str] = ()):
    """A function can be called with some arguments by position, and with those of known names."""
    if inspect.isclass(function):
        checks.refuse(
            argument, f"a function {call}", function, "make one of it first, as in Rule()"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # built-in functions show none
        return
    named = {name: None for name in signature.parameters if name in known}
    try:
        signature.bind(*range(count), **named)
    except TypeError as error:
        advice = f"write it for just these ({error})"
        checks.refuse(argument, f"a function called as {call}", function, advice)


def check_rules(network: Network, rules: Any) -> dict[str, Callable[..., Any]]:
    """Rules by edge kind: all of the network, all of them functions, and all with something to
    train.
    """
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


@eqx.filter_jit
def _local_updates(network, state, target, speakers, rules, normalise, samples) -> Network:
    rules = dict(rules)
    params, rest = partition(network, rules)
    batch = (
        state.batch_size if samples is None else jnp.maximum(jnp.sum(samples, dtype=jnp.float32), 1)
    )
    topology, arrays = network.topology, messages.arrays_of(state)
    learning = [
        i
        for i, group in enumerate(topology.groups)
        if group.kind in rules and speakers.modes[i] != SILENT
    ]
    fields, goals = network.fields(state, speakers), list(target.arrays.values())
    lesson = _Lesson(network, speakers, fields, goals, rules, learning, samples)
    kernels, heard = {}, {}
    for i in learning:
        residual = getattr(rules[topology.groups[i].kind], "residual", False)
        kernels[i] = None if residual else network.kernel(i, speakers)
        if kernels[i] is None:
            heard[i] = messages.heard_from(network, i, arrays)
        else:
            heard[i] = messages.both_ends(network, i, arrays)
        if residual:
            heard[i] = heard[i][0] - _explained(lesson, i, heard[i]), *heard[i][1:]
        if samples is not None:  # nothing times NaN is NaN: what does not count must not be there
            heard[i] = tuple(jnp.where(samples, end, 0) for end in heard[i])

    def divide(fan_in: int) -> Any:
        return batch if normalise is None else _divisor(normalise(batch, fan_in))

    def said(params: Network) -> list[Array]:
        whole, result = eqx.combine(params, rest), []
        for i, kernel in kernels.items():
            coupling, group = whole.coupling(i), topology.groups[i]
            if kernel is None:
                result.append(messages.said(network, i, coupling, heard[i]))
            else:
                dtype = field_dtype(topology.layout.arrays[group.receiver_array])
                result.append(kernel(kernel.prepare(coupling), *heard[i], dtype))
        return result

    _, pull = jax.vjp(said, params)
    signals = [signal(lesson, i, summed=kernel is not None) for i, kernel in kernels.items()]
    fan_ins = [math.prod(topology.groups[i].sender_shape) for i in kernels]
    (updates,) = pull(
        [told / divide(fan_in) for told, fan_in in zip(signals, fan_ins, strict=True)]
    )
    biases = {
        kind: {
            name: None if leaf is None else bias_signal(lesson, kind, name) / divide(1)
            for name, leaf in leaves.items()
        }
        for kind, leaves in params.biases.items()
    }
    return eqx.tree_at(lambda tree: tree.biases, updates, biases, is_leaf=lambda leaf: leaf is None)


def _divisor(value: Any) -> Any:
    """What `normalise` gives: a number above 0, or a traced one."""
    if isinstance(value, Tracer) and value.shape == ():
        return value
    return checks.number("normalise(batch, fan_in)", value, above=0.0)


class _Lesson(NamedTuple):
    """What signals are made of: fields and goals of every array, as its rows."""

    network: Network
    speakers: Speakers
    fields: dict[int, Array]
    goals: list[Array]
    rules: dict[str, Any]
    learning: list[int]
    samples: Bool[Array, " batch"] | None

    def goal(self, at: int) -> Array:
        """The state that the rows of an array should be in."""
        return rows_of(self.network.topology.layout.arrays[at], self.goals[at])

    def speaks(self, i: int) -> Bool[Array, " edges"] | None:
        """Which edges of a group speak; None for all."""
        group = self.network.topology.groups[i]
        sender = self.network.topology.layout.arrays[group.sender_array]
        return messages.spoken(self.speakers, i, self.network.plan.groups[i], group, sender)


def _explained(lesson: _Lesson, i: int, ends: messages.Heard) -> Array:
    """What the receivers of group `i` expect of its senders: their state, through the transposed
    coupling.
    """
    network = lesson.network
    group, coupling = network.topology.groups[i], network.coupling(i)
    said, pull = jax.vjp(
        lambda senders: messages.said(network, i, coupling, (senders, *ends[1:])), ends[0]
    )
    goal = lesson.goal(group.receiver_array)[receiver_rows(network, i)]
    return pull(goal.astype(said.dtype))[0]


def signal(lesson: _Lesson, i: int, summed: bool) -> Float[Array, "edges *receiver batch"]:
    """What the receivers of group `i` tell its edges; or, to take back what a kernel summed, one
    signal a row.
    """
    group, index = lesson.network.topology.groups[i], lesson.network.plan.groups[i]
    rows = slice(index.start, index.stop) if summed else receiver_rows(lesson.network, i)
    at = group.receiver_array
    result = per_node(
        lesson.rules[group.kind], lesson.fields[at][rows], lesson.goal(at)[rows], lesson.samples
    )
    speaks = None if summed else lesson.speaks(i)
    return result if speaks is None else jnp.where(outer(speaks, result.ndim), result, 0)


def per_node(rule: Callable[..., Any], field: Array, state: Array, samples: Array | None) -> Array:
    """The signals of many nodes `(nodes, *shape, B)`, each by itself; 0 for samples that do not
    count.
    """
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


def bias_signal(lesson: _Lesson, kind: str, name: str) -> Float[Array, "..."]:
    """The signals of the rules that reach the biases of a kind in an array, summed over rules and
    the batch.
    """
    network, topology = lesson.network, lesson.network.topology
    at = list(topology.arrays).index(name)
    spec, index = topology.layout.arrays[at], network.plan.arrays[at]
    reached: dict[Any, tuple[Any, Bool[Array, " rows"]]] = {}
    for i in lesson.learning:
        group = topology.groups[i]
        if group.receiver_array == at:
            rule, speaks = lesson.rules[group.kind], lesson.speaks(i)
            speaks = jnp.ones(len(group.edges), bool) if speaks is None else speaks
            # equal rules reach a bias together, others add up; those that hold arrays cannot be
            # compared
            same = rule if _hashable([rule], None) else group.kind
            before = reached.get(same, (rule, jnp.zeros(spec.rows, bool)))[1]
            reached[same] = (
                rule,
                before.at[receiver_rows(network, i)].max(outer(speaks, group.receivers.ndim)),
            )
    total = jnp.zeros((spec.rows, *spec.item), field_dtype(spec))
    for rule, rows in reached.values():
        result = per_node(rule, lesson.fields[at], lesson.goal(at), lesson.samples)
        if kind in index.covers:
            rows = rows & index.covers[kind]
        total = total + jnp.sum(jnp.where(outer(rows, result.ndim), result, 0), axis=-1)
    return total.reshape(spec.shape)
