"""Energy: one number a sample, which passes of a network with connections both ways go down.

    E = - Σ_pairs ⟨s_v, C(s_u)⟩ - ½ Σ_loops ⟨s, C s⟩ - ⟨bias + drive, s⟩ + Σ ∫ f⁻¹(s) ds

A pair are the edges u -> v and v -> u of which one is the transpose of the other, a loop is a
symmetric coupling of a node with itself, and the last sum are the potentials of the activations f.
The derivative of E by a state that can move is

    ∂E/∂s = f⁻¹(s) - h,

h being its local field: it is zero where the network rests, and a unit whose answer rises with its
field goes to where E is least for this unit. Nothing else makes E the energy of a call: each field
that an update in this call reads must be its derivative. So it is asked edge by edge, in NumPy,
which edges have a part in it: what senders say that cannot move counts once, a pair both of whose
nodes can move counts once if both edges send, and an edge that is heard one way leaves no energy at
all.

Sources: J. J. Hopfield, Proc. Natl. Acad. Sci. 79, 2554 (1982) for ±1 units; 81, 3088 (1984),
equation 7, for the potentials of graded ones.
"""

import enum
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from darnax import _text, checks
from darnax._arrays import any_rank
from darnax.activations import name
from darnax.couplings.coupling import Coupling, has_own_numbers
from darnax.dynamics.adjoint import free_cells
from darnax.dynamics.arguments import Clamp, Drive, DriveFunction, Kinds, Nodes, clamped
from darnax.dynamics.problem import Problem, arguments, pose
from darnax.dynamics.schedules import synchronous
from darnax.network.active import Given, active_edges, concrete, moving_rows
from darnax.network.bias import Bias
from darnax.network.message_passing import Rows, outer
from darnax.network.network import Network
from darnax.network.reverse import Reverses, owner_edges
from darnax.states.graph import GraphState
from darnax.topologies.memory import remembered
from darnax.topologies.topology import Topology

Terms: TypeAlias = dict[str, Float[Array, " batch"]]
"""Parts of an energy by kind."""


class NoEnergyError(ValueError):
    """A call has no energy: its connections go one way, or what units or drives add is unknown."""


class EnergyTerms(NamedTuple):
    """An energy by edge kind and by node kind; all of them add up to it.

    **Fields:**

    - `edges`: minus what senders and receivers agree in; pairs are counted at the kind that has
      the parameters, and a reverse kind is not named.
    - `nodes`: potentials, less the part of biases and drives.
    """

    edges: Terms
    nodes: Terms


class Counted(eqx.Module):
    """Edges of a group that have a part in an energy.

    **Fields:**

    - `group`: the position of the group.
    - `factor`: how often each of them counts: a pair, or what cannot move, once; else half.
    - `edges`: which edges; None for all of them.
    """

    group: int = eqx.field(static=True)
    factor: float = eqx.field(static=True)
    edges: Bool[Array, " edges"] | None


@any_rank
@checks.by_hand
def energy(
    network: Network,
    state: GraphState,
    *,
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
) -> Float[Array, " batch"]:
    """The energy of every sample, `(B,)`, if connections that matter go both ways.

    `E = - Σ_pairs ⟨s_v, C(s_u)⟩ - ½ Σ_loops ⟨s, C s⟩ - ⟨bias + drive, s⟩ + Σ ∫ f⁻¹(s) ds`, of the
    cells that can move in a call of `dx.step` with these arguments, and of the edges that they
    hear. Its derivative by the state of such a cell is `f⁻¹(s) - field`. For ±1 units it is that of
    Hopfield and Ising, and never rises under `unit_by_unit` where no unit sends to itself by a
    negative number. For means of ±1 units at a temperature, numbers between -1 and 1 in place of
    `dx.glauber` units, it is the free energy of mean-field theory.

    A sample is NaN where its state is, and infinite where the state of a unit is one that its
    activation never gives.

    **Arguments:** as for `dx.step`. A drive that is a function of the state needs a method
    `energy(state) -> (B,)`, as `dx.nudge` has it.

    Raises `ValueError` that lists the edges that are heard one way between nodes that can move (see
    `dx.transpose`, and `symmetric` of `dx.dense`), kinds of nodes whose activation has no known
    potential (see `dx.elementwise`), and nodes of units that answer together, as those of
    `dx.softmax`, of which a mask holds a part.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.hopfield(100))
        couplings = {"recurrent": dx.dense(symmetric=True, self_coupling=0.0)}
        network = dx.Network(topology, couplings, dx.sign, key=jax.random.key(0))
        before = dx.GraphState(topology).init({"units": jnp.ones((8, 100))})
        after = dx.step(network, before, schedule=dx.unit_by_unit())
        assert (dx.energy(network, after) <= dx.energy(network, before)).all()
        ```
    """
    problem, counted = _posed(network, state, clamp, silence, kinds, drive)
    return _total(problem, counted, state)


@any_rank
@checks.by_hand
def energy_terms(
    network: Network,
    state: GraphState,
    *,
    clamp: Clamp = (),
    silence: Nodes = (),
    kinds: Kinds = None,
    drive: Drive = None,
) -> EnergyTerms:
    """The energy by edge kind and by node kind, for plots; arguments and errors as for `energy`.

    !!! example

        ```python
        topology = dx.Topology(dx.topologies.hopfield(100))
        couplings = {"recurrent": dx.dense(symmetric=True)}
        network = dx.Network(topology, couplings, dx.tanh, key=jax.random.key(0))
        state = dx.GraphState(topology).init({"units": jnp.full((8, 100), 0.5)})
        terms = dx.energy_terms(network, state)
        terms.edges["recurrent"] + terms.nodes["unit"]  # dx.energy(network, state)
        ```
    """
    problem, counted = _posed(network, state, clamp, silence, kinds, drive)
    return _terms(problem, counted, state)


@checks.by_hand
def _posed(
    network: Network,
    state: GraphState,
    clamp: Clamp,
    silence: Nodes,
    kinds: Kinds,
    drive: Drive,
) -> tuple[Problem, tuple[Counted, ...]]:
    """A call, checked, and the edges that have a part in its energy."""
    args = arguments(
        schedule=synchronous(),
        clamp=clamp,
        silence=silence,
        kinds=kinds,
        drive=drive,
    )
    problem = pose(network, state, **args)
    # Asked again, and no part of the problem: programs are the same whoever is held.
    held, _ = clamped(network.topology, state.batch_size, args["clamp"])
    needs = tuple(_reciprocity(network, i) for i in range(len(network.message_passing)))
    counted = _counted_edges(
        network.topology,
        network.reverses,
        needs,
        held,
        args["silence"],
        args["kinds"],
        problem.driven,
    )
    return problem, counted


# which edges count


class Reciprocity(enum.IntEnum):
    """What the coupling of a group needs the other way to have a part in an energy."""

    ONE_WAY = enum.auto()
    """It needs its transpose the other way."""
    SYMMETRIC = enum.auto()
    """Within a node it is its own transpose."""
    MUTUAL = enum.auto()
    """Besides, all edges have the same one, so that two of them can be a pair."""
    CONSTANT = enum.auto()
    """It does not depend on its sender, and needs nothing the other way."""
    NONE = enum.auto()
    """It depends on its receiver, or on chance: no energy has its messages for derivatives."""


def _reciprocity(network: Network, i: int) -> Reciprocity:
    """What the coupling of a group needs the other way."""
    coupling = network.block_coupling(i)
    if isinstance(coupling, Bias):
        return Reciprocity.CONSTANT
    # Reverse edges ask for their receiver on their owner's behalf, which is looked at itself.
    if network.message_passing[i].asks and i not in network.owners:
        return Reciprocity.NONE
    if not coupling.is_symmetric:
        return Reciprocity.ONE_WAY
    return Reciprocity.MUTUAL if _is_shared(network, i, coupling) else Reciprocity.SYMMETRIC


def _is_shared(network: Network, i: int, coupling: Coupling) -> bool:
    """Whether all edges of a group have one coupling: they are tied, or it has no numbers."""
    if not jax.tree.leaves(eqx.filter(coupling, eqx.is_array)):
        return True
    return network.message_passing[i].tied and not has_own_numbers(coupling)


@remembered
def _counted_edges(
    topology: Topology,
    reverses: Reverses,
    needs: tuple[Reciprocity, ...],
    held: tuple[int, ...],
    silence: Given,
    kinds: Given | None,
    driven: tuple[int, ...],
) -> tuple[Counted, ...]:
    """The edges that have a part in the energy of a call, group by group.

    Raises `ValueError` that lists the edges for which there is none.
    """
    edges = _Edges.of(topology, reverses, needs, held, silence, kinds, driven)
    factor = edges.factors(topology)
    counted: list[Counted] = []
    for i, group in enumerate(topology.groups):
        own = factor[group.edges]
        for value in np.unique(own[own > 0]).tolist():
            these = own == value
            mask = None if these.all() else concrete(these)
            counted.append(Counted(i, value, mask))
    return tuple(counted)


class _Edges(NamedTuple):
    """What a call makes of the edges of a topology, a column each.

    **Fields:**

    - `sends`: whether an edge sends.
    - `there`: how often an edge sends by parameters of its own, 0 or 1; 0 for reverse edges.
    - `back`: how often reverse edges send by its parameters.
    - `sender_moves`, `receiver_moves`: whether the nodes at its ends can move.
    - `needs`: the `Reciprocity` of its coupling.
    - `block`: the number of its parameter block.
    - `owner`: the edge whose parameters it uses.
    """

    sends: np.ndarray
    there: np.ndarray
    back: np.ndarray
    sender_moves: np.ndarray
    receiver_moves: np.ndarray
    needs: np.ndarray
    block: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(
        cls,
        topology: Topology,
        reverses: Reverses,
        needs: tuple[Reciprocity, ...],
        held: tuple[int, ...],
        silence: Given,
        kinds: Given | None,
        driven: tuple[int, ...],
    ) -> "_Edges":
        columns = topology.columns
        count = len(columns.senders)
        sends = np.zeros(count, bool)
        needed = np.empty(count, np.int8)
        active = active_edges(topology, silence, kinds)
        for group, own, mask in zip(topology.groups, needs, active, strict=True):
            needed[group.edges] = own
            if mask is not None:
                sends[group.edges[mask]] = True
        block = np.zeros(count, np.int64)
        every = [block for blocks in topology.parameter_blocks.values() for block in blocks]
        for number, found in enumerate(every):
            block[found.edges] = number
        owner = owner_edges(topology, reverses)
        is_reverse = owner != np.arange(count)
        moving: dict[int, np.ndarray] = {}
        rows = moving_rows(topology, held, silence, kinds, driven)
        for array, spec in enumerate(topology.layout.arrays):
            if spec.name in rows:
                moving[array] = np.flatnonzero(rows[spec.name])
        moves = topology.layout.covering(moving)
        return cls(
            sends=sends,
            there=(sends & ~is_reverse).astype(int),
            back=np.bincount(owner[sends & is_reverse], minlength=count),
            sender_moves=moves[columns.senders],
            receiver_moves=moves[columns.receivers],
            needs=needed,
            block=block,
            owner=owner,
        )

    def factors(self, topology: Topology) -> np.ndarray:
        """How often the message of each edge counts, times the state of its receiver."""
        columns = topology.columns
        both = self.sender_moves & self.receiver_moves
        # What does not move hears nothing. So its edges count as often as they are heard.
        factor = np.where(self.receiver_moves, self.there, 0)
        only_back = self.sender_moves & ~self.receiver_moves
        factor = np.where(only_back, self.back, factor).astype(float)
        # Of a pair both of whose nodes move, one message is the derivative by either state.
        unpaired = both & (self.there != self.back)

        # Half of what loops and mutual edges say: the derivative of ½ ⟨s, C s⟩ is the whole.
        alone = unpaired & (self.back == 0)
        symmetric = (self.needs == Reciprocity.SYMMETRIC) | (self.needs == Reciprocity.MUTUAL)
        halves = alone & symmetric & (columns.senders == columns.receivers)
        candidates = np.flatnonzero(alone & ~halves & (self.needs == Reciprocity.MUTUAL))
        halves[candidates[self._in_pairs(topology, candidates)]] = True
        factor[halves] = 0.5

        # A constant message is a bias.
        constant = self.needs == Reciprocity.CONSTANT
        factor[constant] = (self.there * self.receiver_moves)[constant]

        heard = self.there * self.receiver_moves + self.back * self.sender_moves > 0
        one_way = (unpaired & ~halves & ~constant) | (heard & (self.needs == Reciprocity.NONE))
        if one_way.any():
            self._refuse(topology, one_way)
        return factor

    def _in_pairs(self, topology: Topology, edges: np.ndarray) -> np.ndarray:
        """Which of some edges have as many the other way, of the same parameters."""
        columns = topology.columns
        senders = columns.senders[edges].astype(np.int64)
        receivers = columns.receivers[edges].astype(np.int64)
        # Block and ends as the digits of one number
        first = self.block[edges] * len(topology)
        ends = (first + senders) * len(topology) + receivers
        turned = (first + receivers) * len(topology) + senders
        known, place, count = np.unique(ends, return_inverse=True, return_counts=True)
        other = np.minimum(np.searchsorted(known, turned), max(len(known) - 1, 0))
        return (known[other] == turned) & (count[other] == count[place])

    def _refuse(self, topology: Topology, wrong: np.ndarray) -> None:
        """Raise the error for edges that no energy has for a part."""
        unfit = np.flatnonzero(wrong & (self.needs == Reciprocity.NONE)).tolist()
        if unfit:
            raise NoEnergyError(
                f"`network` has no energy in this call: what edges "
                f"{_text.names(map(topology.edge, unfit))} say depends on their receiver, or on "
                "chance; use couplings of their sender alone"
            )
        # Where an edge is silent itself, its reverse edges are what is heard.
        silent = wrong & (self.there == 0)
        is_reverse = self.owner != np.arange(len(self.owner))
        back = is_reverse & self.sends & silent[self.owner]
        heard = np.flatnonzero((wrong & ~silent) | back).tolist()
        raise NoEnergyError(
            f"`network` has no energy in this call: edges {_text.names(map(topology.edge, heard))} "
            "are heard one way between nodes that can move; let edges the other way send, as "
            "dx.transpose of their kind (dx.topologies.reciprocal draws them), or make couplings "
            "within a node `symmetric`"
        )


# the sums


def _check_units(problem: Problem) -> None:
    """Refuse units that move and have no potential, and drives that have no energy."""
    network = problem.network
    missing: list[str] = []
    for kind in problem.moving_kinds:
        activation = network.activations[kind]
        # as many samples as it holds numbers for, or one node
        shape = (activation.samples or 1,)
        if not activation.elementwise:
            shape = _node_shape(network.topology, kind)
        units = jax.ShapeDtypeStruct(shape, jnp.float32)
        if jax.eval_shape(activation.potential, units) is None:
            missing.append(kind)
    if missing:
        kind = missing[0]
        raise NoEnergyError(
            f"`network` has no energy in this call: activations of nodes of kinds "
            f"{_text.names(missing)} ({name(network.activations[kind])}) have no "
            "potential; give one, as dx.elementwise(fn, potential=...), or hold these nodes"
        )
    wrong: list[int] = []
    for node, value in zip(problem.driven, problem.drives, strict=True):
        if callable(value) and not callable(getattr(value, "energy", None)):
            wrong.append(node)
    if wrong:
        raise NoEnergyError(
            f"`drive` of nodes {network.topology.named(wrong)} is a function of the state without "
            "a method `energy(state)`; give an array, dx.nudge, or a function that has one"
        )


def _check_masks(problem: Problem) -> None:
    """Refuse masks that hold a part of units that answer together."""
    network = problem.network
    # Units that answer together answer as if none were held: what is left of them by a mask does
    # not rest where its part of the sum is least.
    together: list[int] = []
    for node in problem.masked:
        activation = network.activations.get(network.topology.node_class(node).kind)
        if activation is not None and not activation.elementwise:
            together.append(node)
    if together:
        raise NoEnergyError(
            f"`clamp` has masks for nodes {network.topology.named(together)}, whose units answer "
            "together, and a part of them has no energy; hold these nodes as a whole, by name"
        )


def _node_shape(topology: Topology, kind: str) -> tuple[int, ...]:
    """The shape of some node of a kind."""
    return next(found.shape for found in topology.columns.node_classes if found.kind == kind)


@eqx.filter_jit
def _terms(
    problem: Problem,
    counted: tuple[Counted, ...],
    state: GraphState,
) -> EnergyTerms:
    # Asked when a program is made: to ask for potentials takes milliseconds.
    _check_units(problem)
    _check_masks(problem)
    edges: Terms = {}
    for part in counted:
        kind = problem.network.topology.groups[part.group].kind
        _add(edges, kind, _edge_term(problem.network, part, state.rows()))
    nodes: Terms = {}
    rows = state.rows()
    fields = problem.driven_fields(state, functions=False)
    for array, free in free_cells(problem.constants(state), rows).items():
        for kind, term in _node_terms(problem, array, rows[array], free, fields.get(array)):
            _add(nodes, kind, term)
    for node, value in zip(problem.driven, problem.drives, strict=True):
        if callable(value):
            _add(nodes, problem.network.topology.node_class(node).kind, _driven_term(value, state))
    return EnergyTerms(edges, nodes)


@eqx.filter_jit
def _total(
    problem: Problem,
    counted: tuple[Counted, ...],
    state: GraphState,
) -> Float[Array, " batch"]:
    terms = _terms(problem, counted, state)
    parts = [*terms.edges.values(), *terms.nodes.values()]
    double = any(part.dtype == jnp.float64 for part in parts)
    dtype = jnp.float64 if double else jnp.float32
    total = jnp.zeros(state.batch_size, dtype)
    for part in parts:
        total = total + part.astype(dtype)
    return total


def _add(terms: Terms, kind: str, term: Array) -> None:
    terms[kind] = terms[kind] + term if kind in terms else term


def _edge_term(network: Network, part: Counted, arrays: Rows) -> Float[Array, " batch"]:
    """Minus the product of some messages of a group with the states of their receivers."""
    passing = network.message_passing[part.group]
    kernel = passing.kernel if part.edges is None else None
    ready = passing.prepare(network.stacked_coupling(part.group), kernel)
    field = passing.field(ready, arrays, part.edges)
    # Messages add up on the rows that they end at: one product serves all of them.
    receivers = arrays[passing.group.receiver.name][passing.start : passing.stop]
    return -part.factor * _per_sample(field * receivers.astype(field.dtype))


def _node_terms(
    problem: Problem,
    array: str,
    rows: Shaped[Array, "rows *item batch"],
    free: Bool[Array, "rows *item batch"],
    driven: Float[Array, "rows *item batch"] | None,
) -> Iterator[tuple[str, Float[Array, " batch"]]]:
    """By kind, the potentials of the free cells of an array, less biases and drives."""
    network = problem.network
    spec, units = network.topology.arrays[array], network.units[array]
    states = rows.astype(spec.field_dtype)
    field = jnp.zeros(states.shape, spec.field_dtype)
    bias = network.bias(spec)
    if bias is not None:
        field = field + bias[..., None]
    if driven is not None:
        field = field + driven
    for i, kind in enumerate(units.kinds):
        own = free
        if units.owner is not None:
            own = free & outer(units.owner == i, free.ndim)
        # Cells that are left out get a state at which every potential is finite, and so are its
        # derivatives: zero times infinity would be NaN.
        inside = jnp.where(own, states, 0.5)
        cost = units.potential(kind, network.activations[kind], inside)
        yield kind, _per_sample(jnp.where(own, cost - field * inside, 0))


def _driven_term(drive: DriveFunction, state: GraphState) -> Float[Array, " batch"]:
    """The energy of a drive that is a function of the state."""
    term = drive.energy(state)  # pyright: ignore[reportFunctionMemberAccess] (`_check_units`)
    if jnp.shape(term) != (state.batch_size,):
        raise ValueError(
            f"`drive`: the method `energy` gives one number a sample, ({state.batch_size},), but "
            f"gave {jnp.shape(term)}; sum over the units"
        )
    return jnp.asarray(term)


def _per_sample(values: Float[Array, "*cells batch"]) -> Float[Array, " batch"]:
    return jnp.sum(values, axis=tuple(range(values.ndim - 1)))
