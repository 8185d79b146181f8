"""From local signals to updates of every coupling, through its own vector-Jacobian product."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from darnax import _text
from darnax.network import messages
from darnax.network.messages import SILENT, Speakers, as_names, field_dtype, rows_of
from darnax.network.network import Network, check_state, partition, trainable
from darnax.states.graph import GraphState


def local_updates(
    network: Network,
    state: GraphState,
    rules: Any,
    *,
    target: GraphState | None = None,
    silence: Any = (),
    kinds: Any = None,
    normalise: Callable[[int, int], float] | None = None,
) -> Network:
    """What every trained leaf learns from one state, as a descent direction for optax.

    Senders and fields are those of `state`, the receivers' states those of `target`. For an edge it is the
    vector-Jacobian product of its message with `rule(field, target)`, with respect to its own parameters alone: no gradient
    crosses a node. Edges that do not speak learn nothing. A bias learns as a coupling from a unit that is always 1, by
    the rules of the edges that reach it; different ones add up.

    **Arguments:**

    - `rules`: by edge kind, a rule such as `dx.perceptron(0.5)` or any function `(field, state) -> signal`.
    - `target`: the state that receivers should be in; None for `state` itself.
    - `silence`, `kinds`: who is not heard, and which edge kinds speak, as for `step`.
    - `normalise`: `(batch, fan_in) -> number` that sums over the batch are divided by, fan-in being the number of the
      sender's units; None for the batch, that is for means.

    **Returns:** the structure of `params` in `params, rest = dx.partition(network, rules)`.

    Raises `ValueError` or `TypeError` for unknown kinds or nodes, a rule for couplings without parameters, and states
    of another topology or batch.

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
    check_state(network, target)
    if target.batch_size != state.batch_size:
        raise ValueError(f"`target` has a batch of {target.batch_size}, but `state` one of {state.batch_size}")
    params, _ = partition(network, rules)
    wrong = [kind for kind, rule in rules.items() if not callable(rule)]
    if wrong:
        raise TypeError(f"`rules` {_text.names(wrong)} are not rules; give functions such as dx.perceptron(0.5)")
    empty = [
        kind for kind in rules if kind in network.couplings and not any(jax.tree.leaves(trainable(network.couplings[kind])))
    ]
    if empty:
        raise ValueError(f"`rules` names {_text.names(empty)}, whose couplings have nothing to train; drop them")
    kinds = None if kinds is None else as_names("kinds", kinds)
    speakers = messages.speakers(network.topology, as_names("silence", silence), kinds)
    return _local_updates(network, state, target, speakers, tuple(sorted(rules.items())), normalise)


@eqx.filter_jit
def _local_updates(network: Network, state: GraphState, target: GraphState, speakers: Speakers, rules: tuple, normalise: Any):
    rules = dict(rules)
    params, rest = partition(network, rules)
    topology, batch = network.topology, state.batch_size
    divide = (lambda batch, fan_in: batch) if normalise is None else normalise
    arrays, goals = list(state.arrays.values()), list(target.arrays.values())
    fields = network.fields(state, speakers)
    specs = topology.layout.arrays
    learning = [
        i for i, group in enumerate(topology.groups) if group.kind in rules and speakers.modes[i] != SILENT
    ]

    def said(params: Network) -> list[Array]:
        whole = eqx.combine(params, rest)
        result = []
        for i in learning:
            group = topology.groups[i]
            sender, receiver = specs[group.sender_array], specs[group.receiver_array]
            x = messages.gather(group, network.plan.groups[i], sender, arrays[group.sender_array])
            result.append(messages.send(whole.coupling(i), group.tie is not None, x, field_dtype(receiver)))
        return result

    signals = []
    for i in learning:
        group, spec = topology.groups[i], specs[topology.groups[i].receiver_array]
        rows = receiver_rows(network, i)
        field = fields[group.receiver_array][rows]
        signal = per_node(rules[group.kind], field, rows_of(spec, goals[group.receiver_array])[rows])
        speaks = messages.spoken(speakers, i, network.plan.groups[i], group, specs[group.sender_array])
        if speaks is not None:
            signal = jnp.where(speaks.reshape(-1, *[1] * (signal.ndim - 1)), signal, 0)
        signals.append(signal / divide(batch, math.prod(group.sender_shape)))
    _, pull = jax.vjp(said, params)
    (updates,) = pull(signals)
    biases = {
        kind: {name: None if leaf is None else _bias_update(network, name, kind, fields, goals, rules, learning, speakers) / divide(batch, 1)
               for name, leaf in leaves.items()}
        for kind, leaves in params.biases.items()
    }  # fmt: skip
    return eqx.tree_at(lambda tree: tree.biases, updates, biases, is_leaf=lambda leaf: leaf is None)


def receiver_rows(network: Network, i: int) -> Any:
    """The rows that the edges of group `i` end at, `(E, *lead)`: a slice where they are regular."""
    group, index = network.topology.groups[i], network.plan.groups[i]
    if index.receivers is not None:
        return (index.receivers + index.start).reshape(group.receivers.shape)
    if network.topology.layout.arrays[group.receiver_array].shared:
        return jnp.asarray(group.receivers)
    return slice(index.start, index.stop)


def per_node(rule: Callable[..., Any], field: Array, state: Array) -> Array:
    """The signals of many nodes `(nodes, *shape, B)`, each by itself."""
    one_batch = jax.vmap(rule, in_axes=-1, out_axes=-1)
    return jax.vmap(one_batch)(field, state.astype(field.dtype)).astype(field.dtype)


def _bias_update(network: Network, name: str, kind: str, fields, goals, rules, learning, speakers) -> Array:
    """The signals of the rules that reach an array, summed over rules and the batch."""
    topology = network.topology
    at = list(topology.arrays).index(name)
    spec, index = topology.layout.arrays[at], network.plan.arrays[at]
    reached: dict[Any, Bool[Array, " rows"]] = {}
    for i in learning:
        group = topology.groups[i]
        if group.receiver_array != at:
            continue
        rule, rows = rules[group.kind], receiver_rows(network, i)
        speaks = messages.spoken(speakers, i, network.plan.groups[i], group, topology.layout.arrays[group.sender_array])
        speaks = jnp.ones(len(group.edges), bool) if speaks is None else speaks
        speaks = speaks.reshape(-1, *[1] * (group.receivers.ndim - 1))
        reached[rule] = reached.get(rule, jnp.zeros(spec.rows, bool)).at[rows].max(speaks)
    total = jnp.zeros((spec.rows, *spec.item), field_dtype(spec))
    for rule, rows in reached.items():
        signal = per_node(rule, fields[at], rows_of(spec, goals[at]))
        if index.owner is not None:
            rows = rows & (index.owner == index.kinds.index(kind))
        total = total + jnp.sum(jnp.where(rows.reshape(-1, *[1] * (signal.ndim - 1)), signal, 0), axis=-1)
    return total.reshape(spec.shape)
