"""Pictures: each shows what it is given, in the axes it is given, and nothing on it meets."""

import functools
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from helpers import CASES
from PIL import Image

import darnax as dx
from darnax.diagrams import curves, diagram, picture, placed
from darnax.diagrams.picture import LINK_COLOURS, link_looks, spot_colours
from darnax.testing import AWKWARD_GRAPHS, cells_of, overlapping, random_state

GRAPHS = AWKWARD_GRAPHS | {
    "club": lambda: dx.topologies.graph_layer(nx.karate_club_graph(), features=()),
    "lattice": lambda: dx.topologies.lattice((4, 5), periodic=False),
    "small world": lambda: dx.topologies.small_world(60, 4, 0.1),
    "windows of an image": lambda: dx.topologies.convolutional(
        (6, 6, 1), window=3, stride=1, features=4, backward=True
    ),
    "modules": lambda: dx.topologies.modular(4, 20),
}
graphs = pytest.mark.parametrize("name", GRAPHS)


@pytest.fixture(autouse=True)
def no_figures():
    yield
    plt.close("all")


@functools.cache
def topology(name):
    return dx.Topology(GRAPHS[name]())


@functools.cache
def drawn(topology, bold=()):
    shown = diagram(topology)
    return shown, picture(shown, *placed(shown), bold=bold)


def solved(name="chain", batch=6, **options):
    network = CASES[name].network()
    return dx.relax(network, random_state(network.topology, batch), max_steps=20, **options)


# in the axes that are given, without a warning


HISTORY = dx.History(
    [{"accuracy": 0.5, "steps": 9.0}, {"accuracy": 0.75, "steps": 4.0, "validation accuracy": 0.6}]
)
STATES = {name: random_state(CASES[name].network().topology, 2) for name in CASES}
CALLS = {
    **{f"topology {name}": lambda ax, n=name: dx.plots.topology(topology(n), ax=ax) for name in GRAPHS},
    **{f"state {name}": lambda ax, n=name: dx.plots.state(STATES[n], ax=ax) for name in CASES},
    "trajectory": lambda ax: dx.plots.trajectory({"a": [1.0, 2.0], "_b": np.ones((2, 3))}, ax=ax),
    "trajectory settled": lambda ax: dx.plots.trajectory([1.0], solution=solved(), ax=ax),
    "history": lambda ax: dx.plots.history(HISTORY, ax=ax),
    "history of runs": lambda ax: dx.plots.history({"_one": HISTORY, "two": HISTORY}, ax=ax),
    "solution": lambda ax: dx.plots.solution(solved(), ax=ax),
    "solution lost": lambda ax: dx.plots.solution(lost(), ax=ax),
    "spectrum": lambda ax: dx.plots.spectrum([0.5, 1j, np.nan], ax=ax),
    "spectrum lost": lambda ax: dx.plots.spectrum([np.nan], ax=ax),
}  # fmt: skip


def lost():
    solution = solved()
    nothing = jnp.full_like(solution.residual, jnp.nan)
    return dx.Solution(
        solution.state, jnp.isfinite(nothing), solution.steps, nothing, solution.period * 0
    )


@pytest.mark.parametrize("call", CALLS)
def test_pictures_are_drawn_in_the_axes_that_are_given(call):
    figure, (other, ax) = plt.subplots(1, 2)
    before = len(other.get_children())
    assert CALLS[call](ax) is ax
    figure.canvas.draw()
    assert ax.get_figure() is figure
    assert plt.get_fignums() == [figure.number]
    assert len(other.get_children()) == before
    assert len(figure.axes) <= 3  # a right axis at most
    assert any(artist.get_visible() for artist in ax.get_children())


def test_without_axes_each_picture_makes_a_figure():
    axes = [dx.plots.topology(topology("chain")), dx.plots.state(STATES["chain"])]
    axes += [dx.plots.trajectory([1.0, 2.0]), dx.plots.history(HISTORY)]
    axes += [dx.plots.solution(solved()), dx.plots.spectrum([0.5])]
    assert len({ax.get_figure() for ax in axes}) == len(axes) == len(plt.get_fignums())


# topologies


@graphs
def test_every_node_stands_by_itself_under_its_own_name(name):
    shown, drawn_picture = drawn(topology(name))
    nodes = dx.Topology(GRAPHS[name]()).nodes
    assert [spot.name for spot in shown.spots] == list(nodes)
    circles = drawn_picture.circles[: len(nodes)]
    for one, other in itertools.combinations(circles, 2):
        assert np.hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius
    # The words of spots come first, and have as many lines as the spots.
    lines = [line for spot in shown.spots for line in spot.lines]
    words = drawn_picture.words[: len(lines)]
    assert [word.text for word in words] == lines
    for one, other in itertools.combinations(words, 2):
        assert not meet(one.box, other.box, 0.02), f"{one.text!r} on {other.text!r}"


def meet(one, other, by=0.0):
    return min(one[2], other[2]) - max(one[0], other[0]) > by and (
        min(one[3], other[3]) - max(one[1], other[1]) > by
    )


@graphs
def test_every_edge_is_an_arrow_between_the_borders_of_its_nodes(name):
    shown, drawn_picture = drawn(topology(name))
    columns = topology(name).columns
    # Links with two heads stand for two edges.
    assert sum(1 + link.both for link in shown.links) == len(columns.senders)
    assert len(drawn_picture.heads) == len(columns.senders)
    shafts = drawn_picture.strokes[: len(shown.links)]
    circles = np.asarray([circle[:3] for circle in drawn_picture.circles])
    for link, shaft in zip(shown.links, shafts, strict=True):
        along = curves.points(shaft.curve, np.linspace(0, 1, 33))
        away = np.hypot(*(along[:, None] - circles[:, :2]).transpose(2, 0, 1)) - circles[:, 2]
        ends = away[[0, -1], [link.sender, link.receiver]]
        assert (ends > -1e-6).all()
        assert (ends < 0.3).all()
        assert (away[:, [link.sender, link.receiver]] > -1e-6).all()


@pytest.mark.parametrize("name", ["chain", "views", "mixed", "hub", "lattice", "modules", "tied"])
def test_arrows_go_around_nodes_that_they_do_not_join(name):
    shown, drawn_picture = drawn(topology(name))
    circles = drawn_picture.circles[: len(shown.spots)]
    for link, shaft in zip(shown.links, drawn_picture.strokes, strict=False):
        along = curves.points(shaft.curve, np.linspace(0, 1, 33))
        for spot, circle in enumerate(circles):
            if spot not in (link.sender, link.receiver):
                assert (np.hypot(*(along - circle[:2]).T) > circle.radius).all()


def test_larger_nodes_have_larger_circles():
    graph = nx.DiGraph()
    for cells in (1, 10, 1000, 10):
        graph.add_node(len(graph), shape=cells)
    radii = [circle.radius for circle in drawn(dx.Topology(graph))[1].circles]
    assert radii[0] < radii[1] == radii[3] < radii[2]


def test_chains_run_from_left_to_right_and_feedback_is_not_their_direction():
    shown = diagram(topology("chain"))
    places, _ = placed(shown)
    assert (np.diff(places[:, 0]) > 1).all()
    assert np.ptp(places[:, 1]) == 0
    graph = nx.gnp_random_graph(12, 0.3, seed=2, directed=True)
    graph = nx.DiGraph([(u, v) for u, v in graph.edges if u < v])
    nx.set_node_attributes(graph, 1, "shape")
    shown = diagram(dx.Topology(graph))
    places, _ = placed(shown)
    for link in shown.links:
        assert places[link.sender, 0] < places[link.receiver, 0]


def test_inputs_stand_on_the_left_even_where_they_hear_others():
    graph = nx.DiGraph([("a", "x"), ("x", "b"), ("b", "x"), ("b", "c"), ("c", "a"), ("c", "x")])
    nx.set_node_attributes(graph, 1, "shape")
    shown = diagram(dx.Topology(graph, inputs=["x"]))
    places, _ = placed(shown)
    left = {spot.name: x for spot, x in zip(shown.spots, places[:, 0], strict=True)}
    assert min(left, key=left.__getitem__) == "x"
    assert left["x"] < left["b"] < left["c"] < left["a"]


@graphs
def test_bands_join_exactly_the_views_that_share_cells(name):
    shown = diagram(topology(name))
    by_hand = set()
    cells = [cells_of(topology(name), node) for node in topology(name).nodes]
    for one, other in itertools.combinations(range(len(cells)), 2):
        if cells[one] & cells[other]:
            by_hand.add((one, other))
    assert {tuple(pair) for pair in shown.shared} == by_hand
    assert len(drawn(topology(name))[1].bands) == len(by_hand) + bool(by_hand)  # and the legend


def test_above_sixty_nodes_a_circle_is_a_kind_and_nothing_is_lost():
    graph = dx.topologies.convolutional((28, 28, 1), window=5, stride=1, features=4, backward=True)
    large = dx.Topology(graph)
    shown, drawn_picture = drawn(large)
    assert shown.by_kind
    assert len(shown.spots) < 6
    kinds = {(large.kind(node), node in large.inputs) for node in large.nodes}
    assert len(shown.spots) >= len(kinds)
    counts = [int(spot.lines[1].split()[0].replace(",", "")) for spot in shown.spots]
    assert sum(counts) == len(large)
    edges = [int(link.text.split("×")[1].replace(",", "")) for link in shown.links]
    assert sum(edges) == len(large.edges)
    # Windows overlap each other: a ring, which stands out behind the circle of their kind.
    (patches,) = [
        i
        for i, pair in enumerate(shown.shared)
        if pair.one == pair.other
        and shown.spots[pair.one].kind == "image"
        and "input" not in shown.spots[pair.one].roles
    ]
    spot = shown.shared[patches].one
    ring, circle = drawn_picture.bands[patches].corners, drawn_picture.circles[spot]
    np.testing.assert_allclose(np.hypot(*(ring - circle[:2]).T), circle.radius + 0.08)


def test_kinds_are_told_apart():
    kinds = [f"k{i}" for i in range(20)]
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("ab", shape=1)
    for kind in kinds:
        graph.add_edge("a", "b", kind=kind)
    looks = link_looks(diagram(dx.Topology(graph)))
    assert list(looks) == kinds
    assert len(set(looks.values())) == len(kinds)
    assert [look.colour for look in looks.values()][:8] == list(LINK_COLOURS)
    assert len(set(spot_colours(diagram(topology("mixed"))).values())) == 4


def test_edges_there_and_back_and_parallel_ones_do_not_lie_on_each_other():
    shown, drawn_picture = drawn(topology("parallel"))
    middles = [curves.point(stroke.curve, 0.5) for stroke in drawn_picture.strokes]
    for one, other in itertools.combinations(middles[: len(shown.links)], 2):
        assert np.hypot(*np.subtract(one, other)) > 0.1
    assert any(link.both for link in shown.links)


def test_places_of_the_user_are_those_of_the_axes():
    club = topology("club")
    places = {
        node: (100 + 7 * x, 5 * y)
        for node, (x, y) in nx.circular_layout(nx.karate_club_graph()).items()
    }
    for place in (places, lambda graph: {node: places[node] for node in graph}):
        ax = dx.plots.topology(club, place=place)
        (circles,) = [c for c in ax.collections if type(c).__name__ == "PatchCollection"]
        for path, node in zip(circles.get_paths(), club.nodes, strict=False):
            np.testing.assert_allclose(
                (path.vertices.max(0) + path.vertices.min(0)) / 2, places[node], atol=1e-6
            )


def test_edges_carry_the_words_that_are_wanted():
    def words(**options):
        shown = diagram(topology("views"), **options)
        return [link.text for link in shown.links] if shown.wordy else []

    assert set(words()) == {"edge", "loop"}
    assert words(words=False) == []
    edge = ("far", "gate")
    texts = words(words={edge: 0.5})
    assert texts.count("0.5") == 1
    assert set(texts) == {"", "0.5"}
    assert words(words=True) == words()


def test_bold_kinds_stand_out():
    shown, drawn_picture = drawn(topology("mixed"), bold=("conv",))
    for link, stroke in zip(shown.links, drawn_picture.strokes, strict=True):
        assert (stroke.width > 0.03) == (link.kind == "conv")


def test_names_that_look_like_mathematics_are_letters():
    graph = nx.DiGraph()
    graph.add_nodes_from(["$x$", "a_b^c", "", "é\n", "\ud800", "x" * 100], shape=2, kind="$k$")
    graph.add_edge("$x$", "", kind="\\frac")
    ax = dx.plots.topology(dx.Topology(graph))
    ax.get_figure().canvas.draw()
    ax = dx.plots.state(dx.GraphState(dx.Topology(graph)))
    ax.get_figure().canvas.draw()
    lines = [spot.lines[0] for spot in diagram(dx.Topology(graph)).spots]
    assert lines[:4] == ["$x$", "a_b^c", "''", "'é\\n'"]
    assert len(lines[5]) == 24


# states


def tiles(ax):
    """The panels of a state by their titles."""
    panels = ax.child_axes or [ax]
    return {panel.get_title(): panel for panel in panels}


def image(panel):
    (shown,) = panel.get_images()
    return shown.get_array()


def test_images_vectors_and_channels_show_the_values_of_the_sample():
    graph = nx.DiGraph()
    for name, shape in {
        "image": (3, 4),
        "one": (3, 4, 1),
        "maps": (2, 3, 5),
        "vector": 150,
        "unit": (),
    }.items():
        graph.add_node(name, shape=shape)
    state = random_state(dx.Topology(graph), 3)
    rng = np.random.default_rng(0)
    state = state.replace(
        {node: rng.normal(size=state[node].shape).astype(np.float32) for node in state}
    )
    shown = tiles(dx.plots.state(state, sample=1))
    assert list(shown) == list(graph)
    np.testing.assert_array_equal(image(shown["image"]), state["image"][1])
    np.testing.assert_array_equal(image(shown["one"]), state["one"][1, ..., 0])
    np.testing.assert_array_equal(image(shown["vector"]).ravel()[:150], state["vector"][1])
    assert image(shown["vector"]).shape == (3, 50)
    np.testing.assert_array_equal(image(shown["unit"]), [[state["unit"][1]]])
    sheet = image(shown["maps"])
    for channel in range(5):
        i, j = divmod(channel, 3)
        part = sheet[2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
        np.testing.assert_array_equal(part, state["maps"][1, ..., channel])
    assert sheet.mask[2:, 6:].all()
    assert sheet.mask.sum() == 6
    # Each part has its own scale, whose end it names.
    for name, panel in shown.items():
        most = abs(np.asarray(state[name][1])).max()
        assert panel.get_images()[0].get_clim() == pytest.approx((-most, most))
        assert panel.get_xlabel().endswith(f"±{most:.3g}")


def test_negative_samples_count_from_the_end_and_limits_hold():
    state = STATES["chain"]
    one, other = (tiles(dx.plots.state(state, [1, 2], sample=s, limit={1: 4.0})) for s in (1, -1))
    for name in ("1", "2"):
        np.testing.assert_array_equal(image(one[name]), image(other[name]))
    assert one["1"].get_images()[0].get_clim() == (-4, 4)
    assert one["2"].get_images()[0].get_clim() == (-1, 1)
    alone = dx.plots.state(state, [2], limit=0.5)
    assert image(alone).max() == 0.5  # clipped, for what is above the scale is black


def test_values_that_are_not_finite_are_black():
    state = STATES["chain"].replace_val(
        1, np.asarray([[np.nan, np.inf, -np.inf, 3.0]] * 2, np.float32)
    )
    ax = dx.plots.state(state, [1])
    (shown,) = ax.get_images()
    colours = shown.to_rgba(shown.get_array())[0]
    assert [tuple(colour) == (0, 0, 0, 1) for colour in colours] == [True, True, True, False]


def test_shared_arrays_are_shown_once_and_views_by_name():
    state = STATES["views"]
    shown = tiles(dx.plots.state(state))
    assert list(shown) == ["image", "far", "gate"]
    np.testing.assert_array_equal(image(shown["image"]), state.arrays["image"][..., 0])
    named = tiles(dx.plots.state(state, ["right", "image"]))
    np.testing.assert_array_equal(image(named["right"]), state["right"][0])
    assert list(named) == ["right", "image"]
    scattered = STATES["any cells"]
    for node, panel in tiles(dx.plots.state(scattered, list(scattered), sample=1)).items():
        np.testing.assert_array_equal(image(panel).ravel(), np.ravel(scattered[node][1]))


def test_layers_of_vertices_are_shown_on_their_graph():
    club = nx.karate_club_graph()
    state = random_state(topology("club"), 2)
    place = nx.circular_layout(club)
    ax = dx.plots.state(state, place=place)
    lines, dots = ax.collections
    np.testing.assert_array_equal(dots.get_array(), [state[node][0] for node in club])
    np.testing.assert_allclose(dots.get_offsets(), [place[node] for node in club])
    assert len(lines.get_segments()) == len(club.edges)
    # The same layer as one node, whose graph the state does not know.
    whole = dx.Topology(dx.topologies.graph_layer(club, features=(), whole=True))
    coarse = random_state(whole, 2).replace(
        {"layer": np.stack([state[node] for node in club], axis=1)}
    )
    ax = dx.plots.state(coarse, graphs={"layer": club}, place=nx.circular_layout)
    np.testing.assert_array_equal(ax.collections[1].get_array(), dots.get_array())
    assert len(ax.collections[0].get_segments()) == len(club.edges)


def test_many_nodes_with_features_are_vertices_with_their_means():
    graph = dx.topologies.graph_layer(nx.karate_club_graph(), features=3)
    state = random_state(dx.Topology(graph), 1)
    ax = dx.plots.state(state)
    expected = [np.mean(state[node][0]) for node in graph]
    np.testing.assert_allclose(ax.collections[1].get_array(), expected, rtol=1e-6)
    assert "means" in ax.get_xlabel()


def test_sites_of_a_grid_are_an_image():
    state = random_state(topology("lattice"), 2)
    shown = image(dx.plots.state(state))
    for i, j in state:
        assert shown[i, j] == state[i, j][0]


def test_many_nodes_without_edges_are_rows():
    graph = nx.DiGraph()
    graph.add_nodes_from(range(300), shape=2)
    state = random_state(dx.Topology(graph), 1)
    assert image(dx.plots.state(state)).shape == (300, 2)
    assert image(dx.plots.state(random_state(dx.Topology.from_edges([0], [299]), 1))).size >= 300


# rollouts, solutions, trainings


def test_trajectories_show_means_and_the_samples_or_their_range():
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(7, 5)), rng.normal(size=(7, 10, 10))
    ax = dx.plots.trajectory({"few": few, "many": many, "line": np.arange(7)})
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_allclose(lines["few"].get_ydata(), few.mean(1))
    np.testing.assert_allclose(lines["many"].get_ydata(), many.mean((1, 2)))
    np.testing.assert_array_equal(lines["line"].get_ydata(), np.arange(7))
    np.testing.assert_array_equal(lines["line"].get_xdata(), np.arange(1, 8))
    assert len(ax.get_lines()) == 5 + 1 + 1 + 1
    (band,) = ax.collections
    low, high = np.quantile(many.reshape(7, -1), [0.1, 0.9], axis=1)
    np.testing.assert_allclose(band.get_datalim(ax.transData).bounds[1], low.min())
    np.testing.assert_allclose(band.get_datalim(ax.transData).y1, high.max())


def test_trajectories_leave_gaps_where_nothing_is_finite():
    values = np.asarray([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.inf]])
    *_, mean = dx.plots.trajectory(values).get_lines()
    np.testing.assert_array_equal(mean.get_ydata(), [2, 5, np.nan])


def test_the_share_of_settled_samples_is_that_of_the_solution():
    solution = solved(batch=40)
    ax = dx.plots.trajectory(solution=solution)
    (line,) = ax.get_lines()
    settled, steps = np.asarray(solution.settled), np.asarray(solution.steps)
    assert line.get_drawstyle() == "steps-post"  # a sample counts from its last pass on
    for t, share in zip(line.get_xdata(), line.get_ydata(), strict=True):
        assert share == pytest.approx(np.mean(settled & (steps <= t)))
    assert line.get_ydata()[-1] == pytest.approx(settled.mean())


def test_solutions_count_every_sample_once():
    state = STATES["chain"]
    solution = dx.Solution(
        state,
        settled=jnp.array([True, True, False, False, False, False]),
        steps=jnp.array([3, 5, 9, 9, 100, 4]),
        residual=jnp.array([0.0, 1e-6, 0.5, 0.5, 0.1, jnp.nan]),
        period=jnp.array([1, 1, 2, 64, 0, 0]),
    )
    ax = dx.plots.solution(solution)
    assert ax.get_title() == "2 of 6 settled, 2 in cycles, 1 still moving, 1 not finite"
    steps, residuals, periods = ax.child_axes
    heights = lambda panel: sum(patch.get_height() for patch in panel.patches)  # noqa: E731
    assert heights(steps) == 6
    assert heights(residuals) == 5
    assert heights(periods) == 2
    assert [text.get_text() for text in periods.get_xticklabels()] == ["2", "64"]
    labels = [text.get_text() for text in steps.get_legend().get_texts()]
    assert labels == ["settled", "cycle", "moving", "lost"]
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), solution)
    assert dx.plots.solution(stacked).get_title().startswith("4 of 12 settled")
    assert len(dx.plots.solution(solved()).child_axes) == 2  # no cycles


def test_histories_show_shares_or_what_is_named():
    lines = lambda ax: {line.get_label(): line for line in ax.get_lines()}  # noqa: E731
    shown = lines(dx.plots.history(HISTORY))
    assert list(shown) == ["accuracy", "validation accuracy"]
    np.testing.assert_array_equal(shown["accuracy"].get_ydata(), [0.5, 0.75])
    np.testing.assert_array_equal(shown["validation accuracy"].get_ydata(), [np.nan, 0.6])
    assert shown["accuracy"].get_color() == shown["validation accuracy"].get_color()
    assert shown["accuracy"].get_linestyle() != shown["validation accuracy"].get_linestyle()
    assert list(lines(dx.plots.history(HISTORY, ["steps"]))) == ["steps"]
    runs = lines(dx.plots.history({"a": HISTORY, "b": HISTORY}, ["accuracy", "steps"]))
    assert list(runs) == ["a: accuracy", "a: steps", "b: accuracy", "b: steps"]
    assert runs["a: accuracy"].get_color() != runs["b: accuracy"].get_color()
    assert runs["a: accuracy"].get_marker() != runs["a: steps"].get_marker()
    assert list(lines(dx.plots.history({"a": HISTORY, "b": HISTORY}, ["steps"]))) == ["a", "b"]
    none_is_a_share = dx.History([{"loss": 5.0}])
    assert list(lines(dx.plots.history(none_is_a_share))) == ["loss"]


def test_spectra_show_every_eigenvalue_on_one_scale():
    values = np.asarray([[0.5 + 0.5j, -2], [1j, np.inf]])
    ax = dx.plots.spectrum(values)
    (dots,) = ax.collections
    np.testing.assert_array_equal(dots.get_offsets(), [[0.5, 0.5], [-2, 0], [0, 1]])
    assert len({tuple(colour) for colour in dots.to_rgba(dots.get_array())}) == 2
    assert ax.get_title() == "largest size 2, 1 not finite"
    (circle, *_) = ax.get_lines()
    np.testing.assert_allclose(np.hypot(*circle.get_data()), 1)
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[1] > 2


# movies


def test_a_movie_has_a_frame_for_every_pass_on_one_scale(tmp_path):
    network = CASES["chain"].network()
    state = random_state(network.topology, 2)
    _, frames = dx.rollout(network, state, 3, observe=lambda state: state)
    growth = np.float32([2, 3, 1])
    frames = jax.tree.map(lambda leaf: (leaf.T * growth).T, frames)
    figure, ax = plt.subplots(figsize=(3, 2))
    assert dx.plots.movie(tmp_path / "a.gif", frames, ax=ax, fps=4) is ax
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3
        assert gif.info["duration"] == 250
    assert plt.get_fignums() == [figure.number]
    for name, panel in tiles(ax).items():
        view = frames.topology.view(int(name))
        passed = np.asarray(frames.arrays[view.array])[:, view.index[0], ..., 0]
        np.testing.assert_array_equal(image(panel).ravel(), passed[-1])
        assert panel.get_images()[0].get_clim()[1] == abs(passed).max()
    assert ax.get_title(loc="left") == "pass 3"


def test_a_movie_draws_what_the_user_draws(tmp_path):
    seen = []

    def draw(frame, ax):
        seen.append(float(frame["a"]))
        assert isinstance(frame["a"], jax.Array)
        ax.bar([0], [frame["a"]])
        ax.set_ylim(0, 4)

    dx.plots.movie(tmp_path / "b.gif", {"a": jnp.arange(4.0)}, draw=draw)
    assert seen == [0, 1, 2, 3]
    with Image.open(tmp_path / "b.gif") as gif:
        assert gif.n_frames == 4


# what is refused


CHAIN = topology("chain")
FRAMES = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), STATES["chain"])
REFUSED = [
    ("topology", lambda: dx.plots.topology(nx.DiGraph()), TypeError, "`topology` is a darnax.Topology"),
    ("topology ax", lambda: dx.plots.topology(CHAIN, ax=3), TypeError, "`ax` is one matplotlib axes"),
    ("topology axes", lambda: dx.plots.topology(CHAIN, ax=plt.subplots(2)[1]), TypeError, "`ax` is one matplotlib axes"),
    ("topology most", lambda: dx.plots.topology(CHAIN, most=-1), ValueError, "`most` is an int of at least 0"),
    ("topology bold", lambda: dx.plots.topology(CHAIN, bold=["fast", "forward"]), ValueError, "`bold` names 'fast'|'forward'"),
    ("topology bold text", lambda: dx.plots.topology(CHAIN, bold="forward"), TypeError, "`bold` is a sequence of names"),
    ("topology words", lambda: dx.plots.topology(CHAIN, words={(0, 4): "a", (0, 1): "b"}), ValueError, "`words` names (0, 4), which are no edges"),
    ("topology words of kinds", lambda: dx.plots.topology(CHAIN, words={(0, 1): "b"}, most=2), ValueError, "raise `most`"),
    ("topology words text", lambda: dx.plots.topology(CHAIN, words="kind"), TypeError, "`words` is a mapping from edges"),
    ("topology place", lambda: dx.plots.topology(CHAIN, place=[1, 2]), TypeError, "`place` is a mapping from nodes"),
    ("topology place lacks", lambda: dx.plots.topology(CHAIN, place={0: (0, 0)}), ValueError, "`place` lacks 1, 2, 3, 4"),
    ("topology place nan", lambda: dx.plots.topology(CHAIN, place=dict.fromkeys(range(5), (0, np.nan))), TypeError, "`place[0]` is two finite numbers"),
    ("state", lambda: dx.plots.state(CHAIN), TypeError, "`state` is a darnax.GraphState"),
    ("state stack", lambda: dx.plots.state(FRAMES), ValueError, "is a stack of states"),
    ("state sample", lambda: dx.plots.state(STATES["chain"], sample=2), ValueError, "`sample` is an int from -2 to 1"),
    ("state nodes", lambda: dx.plots.state(STATES["chain"], [0, "eye", "ear"]), ValueError, "`nodes` names 'eye', 'ear', which are neither"),
    ("state nodes text", lambda: dx.plots.state(STATES["chain"], "eye"), TypeError, "`nodes` is a sequence of names"),
    ("state nodes empty", lambda: dx.plots.state(STATES["chain"], []), ValueError, "`nodes` is empty"),
    ("state limit", lambda: dx.plots.state(STATES["chain"], limit=0), ValueError, "`limit` is a finite number above 0"),
    ("state limit name", lambda: dx.plots.state(STATES["chain"], limit={"eye": 1.0}), ValueError, "`limit` names 'eye', which are not shown"),
    ("state graphs", lambda: dx.plots.state(STATES["chain"], graphs={1: 3}), TypeError, "`graphs[1]` is a networkx graph"),
    ("state graphs size", lambda: dx.plots.state(STATES["chain"], graphs={1: nx.path_graph(3)}), ValueError, "`graphs[1]` has 3 vertices|4"),
    ("state graphs node", lambda: dx.plots.state(STATES["chain"], graphs={9: nx.path_graph(3)}), KeyError, "there is no node 9"),
    ("trajectory nothing", lambda: dx.plots.trajectory(), ValueError, "give `frames`, or a `solution`"),
    ("trajectory text", lambda: dx.plots.trajectory("abc"), TypeError, "`frames` is real numbers of shape (passes, ...)"),
    ("trajectory complex", lambda: dx.plots.trajectory({"a": np.ones(3, complex)}), TypeError, "`frames['a']` is real numbers"),
    ("trajectory scalar", lambda: dx.plots.trajectory(3.0), ValueError, "`frames` is real numbers of shape"),
    ("trajectory lengths", lambda: dx.plots.trajectory({"a": [1.0], "b": [1.0, 2.0]}), ValueError, "several numbers of passes"),
    ("trajectory solution", lambda: dx.plots.trajectory(solution=STATES["chain"]), TypeError, "`solution` is a darnax.Solution"),
    ("history", lambda: dx.plots.history([{"a": 1.0}]), TypeError, "`history` is a darnax.History"),
    ("history run", lambda: dx.plots.history({"a": 1.0}), TypeError, "`history['a']` is a darnax.History"),
    ("history empty", lambda: dx.plots.history(dx.History()), ValueError, "`history` is empty, and there is nothing to plot"),
    ("history scores", lambda: dx.plots.history(HISTORY, ["loss"]), ValueError, "`scores` names 'loss', which no epoch has|'accuracy'"),
    ("history no scores", lambda: dx.plots.history(HISTORY, []), ValueError, "`scores` is empty"),
    ("solution", lambda: dx.plots.solution(None), TypeError, "`solution` is a darnax.Solution"),
    ("solution tol", lambda: dx.plots.solution(solved(), tol=-1.0), ValueError, "`tol` is a finite number of at least 0"),
    ("spectrum", lambda: dx.plots.spectrum("ab"), TypeError, "`eigenvalues` is numbers of shape (k,) or (B, k)"),
    ("spectrum axes", lambda: dx.plots.spectrum(np.ones((2, 2, 2))), ValueError, "`eigenvalues` is numbers of shape"),
    ("spectrum empty", lambda: dx.plots.spectrum([]), ValueError, "`eigenvalues` is numbers of shape"),
    ("movie path", lambda: dx.plots.movie("a.mp4", FRAMES), TypeError, "`path` is the name of a file that ends with '.gif'"),
    ("movie fps", lambda: dx.plots.movie("a.gif", FRAMES, fps=0), ValueError, "`fps` is a finite number above 0"),
    ("movie one state", lambda: dx.plots.movie("a.gif", STATES["chain"]), ValueError, "`frames` is states stacked"),
    ("movie arrays", lambda: dx.plots.movie("a.gif", np.ones((3, 2))), TypeError, "`frames` is states stacked|give `draw`"),
    ("movie of no passes", lambda: dx.plots.movie("a.gif", jax.tree.map(lambda leaf: leaf[None][:0], STATES["hub"])), ValueError, "of one number of passes"),
    ("movie lengths", lambda: dx.plots.movie("a.gif", {"a": np.ones(3), "b": np.ones(2)}, draw=print), ValueError, "of one number of passes"),
    ("movie draw", lambda: dx.plots.movie("a.gif", FRAMES, draw=3), TypeError, "`draw` is a function called as draw(frame, ax=ax)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_refused(call, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        call()
    for word in words.split("|"):
        assert word in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'darnax\[plots\]'"):
        dx.plots.spectrum([1.0])


def test_blocks_are_the_parts_that_bands_join():
    for name in AWKWARD_GRAPHS:
        shown = diagram(topology(name))
        joined = nx.Graph()
        joined.add_nodes_from(range(len(shown.spots)))
        joined.add_edges_from(shown.shared)
        names = topology(name).nodes
        parts = sorted(sorted(part) for part in nx.connected_components(joined))
        assert [[names[i] for i in part] for part in parts] == overlapping(topology(name))
