"""The examples run, and say what they promise."""

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import networkx as nx
import numpy as np

ROOT = Path(__file__).parent.parent


def run(example, *arguments, cwd, long=False):
    """As a script in a folder of its own, but in this process, whose start and programs it shares.

    Only an example that is `long` at work gains from programs compiled with care.
    """
    script = str(ROOT / "examples" / example)
    out, err = io.StringIO(), io.StringIO()
    hurried, given = "DARNAX_TEST_OPTIMISED" not in os.environ, sys.argv
    jax.config.update("jax_disable_most_optimizations", hurried and not long)
    sys.argv = [script, *arguments]
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            jax.numpy_dtype_promotion("standard"),
        ):
            runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv = given
        jax.config.update("jax_disable_most_optimizations", hurried)
    return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


def test_an_example_is_quiet_in_a_process_of_its_own(tmp_path):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / "examples" / "karate_club.py")]
    own = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("drawn in")


def test_digits_json_is_one_line_of_numbers_and_leaves_no_file(tmp_path):
    done = run("digits.py", "--json", "--epochs", "1", cwd=tmp_path, long=True)
    (line,) = done.stdout.splitlines()
    numbers = json.loads(line)
    assert list(numbers) == ["accuracy", "settled", "steps", "seconds"]
    assert numbers["accuracy"] > 0.9
    assert numbers["settled"] > 0.99
    assert numbers["steps"] == 2  # in order, and once more to see that nothing moves
    assert numbers["seconds"] > 0
    assert "1/1" in done.stderr
    assert not list(tmp_path.iterdir())


def test_digits_prints_the_table_and_writes_the_picture(tmp_path):
    done = run("digits.py", "--small", cwd=tmp_path)
    names = [
        "this network",
        "left as drawn",
        "read-out on all of pooled",
        "LogisticRegression",
        "MLPClassifier(256)",
        "SVC(rbf)",
    ]
    for name in names:
        (row,) = [line for line in done.stdout.splitlines() if name in line]
        accuracy = next(float(word) for word in row.split() if word.startswith("0."))
        assert 0.5 < accuracy < 1
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def rows(printed):
    """The numbers of a table, row by row; what is not there is None."""
    lines = [line.split() for line in printed.splitlines()]
    return [
        [None if word == "-" else float(word) for word in line]
        for line in lines
        if line and line[0][0].isdigit()
    ]


def test_hopfield_recalls_perfectly_below_its_capacity_and_fails_beyond(tmp_path):
    done = run("hopfield.py", "--small", cwd=tmp_path)
    overlap = dict(rows(done.stdout))
    assert list(overlap) == [0.05, 0.14, 0.25]
    assert overlap[0.05] == 1
    assert overlap[0.25] < 0.7 < overlap[0.14] < 1
    assert [path.name for path in tmp_path.iterdir()] == ["hopfield.png"]


def test_memories_hold_more_where_they_learn_and_most_by_softmax(tmp_path):
    done = run("memories.py", "--small", cwd=tmp_path)
    overlap = {load: np.reshape(rest, (3, 2)) for load, *rest in rows(done.stdout)}
    assert list(overlap) == [0.1, 0.5, 1.0]
    for load, ((classical, held), (learnt, kept), (softmax, same)) in overlap.items():
        assert softmax == same == kept == 1
        assert (min(classical, held) > 0.99) == (load == 0.1)
        assert (learnt > 0.85) == (load < 1.0)
        assert load == 0.1 or max(classical, held) < learnt
    lines = [line.split() for line in done.stdout.splitlines()]
    paths = {name: list(map(float, path)) for name, *path in lines[-4:-1]}
    assert list(paths) == ["classical", "learnt", "softmax"]
    for path in paths.values():
        assert path == sorted(path, reverse=True)
    # the classical one goes down beyond its pattern, the softmax one to it
    assert paths["classical"][-1] < -1.2 < -1.0 == paths["softmax"][1]
    assert [path.name for path in tmp_path.iterdir()] == ["memories.png"]


def test_ising_has_the_exact_mean_spin_away_from_the_transition(tmp_path):
    done = run("ising.py", "--small", cwd=tmp_path, long=True)
    found = {temperature: rest for temperature, *rest in rows(done.stdout)}
    assert list(found) == [1.8, 2.0, 2.3, 3.0]
    for temperature, m in {1.8: 0.9569, 2.0: 0.9113, 3.0: 0.0}.items():
        mean, error, exact = found[temperature]
        assert exact == m
        assert abs(mean - exact) < 4 * error < 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["ising.png"]


def test_settling_needs_self_coupling_or_links(tmp_path):
    done = run("settling.py", "--small", cwd=tmp_path)
    table = rows(done.stdout)
    assert [row[0] for row in table] == [0, 1, 2, 3]
    for first in (1, 5):  # where the columns of self-coupling and of links begin
        rest, cycle, moving, passes = zip(*(row[first : first + 4] for row in table), strict=True)
        assert all(abs(sum(shares) - 1) < 0.002 for shares in zip(rest, cycle, moving, strict=True))
        assert rest[0] == 0
        assert passes[0] is None
        assert list(rest) == sorted(rest)
        assert rest[-1] > 0.95
        assert passes[-1] < 5
    assert [path.name for path in tmp_path.iterdir()] == ["settling.png"]


def test_chaos_begins_where_silence_ends(tmp_path):
    done = run("chaos.py", "--small", cwd=tmp_path)
    table = rows(done.stdout)
    assert [row[0] for row in table] == [0.7, 1.5, 3.0]
    for gain, radius, logarithm, exponent, spread in table:
        assert abs(radius - gain) < 0.2 * gain
        if gain < 1:
            assert abs(exponent - logarithm) < 0.01
        else:
            assert 0 < exponent < logarithm
        assert spread < 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["chaos.png"]


def test_predictive_coding_learns_digits_as_backpropagation_does(tmp_path):
    done = run("predictive.py", "--small", cwd=tmp_path, long=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    accuracy = {line[0]: float(line[-1]) for line in lines[1:3]}
    assert accuracy["predictive"] > 0.9
    assert abs(accuracy["predictive"] - accuracy["backpropagation"]) < 0.04
    table = {int(line[0]): list(map(float, line[2:])) for line in lines if line[1:2] == ["between"]}
    assert list(table) == [1, 2]
    for *passes, mode in table.values():
        assert passes == sorted(passes)
        # from one tolerance to the next by the slowest mode of a pass
        assert abs(passes[2] - passes[1] - np.log(0.1) / np.log(mode)) < 0.25 * passes[2]
    assert [path.name for path in tmp_path.iterdir()] == ["predictive.png"]


def test_a_ladder_of_temperatures_finds_what_single_chains_do_not(tmp_path):
    done = run("frustrated.py", "--small", cwd=tmp_path)
    table = rows(done.stdout)
    assert [row[0] for row in table][:2] == [0.25, 0.32]
    for _, exact, alone, _, energy, wrong in table:
        assert abs(energy - exact) < 0.2
        assert abs(alone - exact) < 0.2
        assert wrong < 0.1
    assert table[0][3] > 0.4  # a half of the states of lowest energy is never seen
    assert [path.name for path in tmp_path.iterdir()] == ["frustrated.png"]


def test_boltzmann_machines_learn_bars_and_stripes(tmp_path):
    done = run("boltzmann.py", "--small", cwd=tmp_path)
    lines = [line.split() for line in done.stdout.splitlines()]
    found = {" ".join(line[:-2]): list(map(float, line[-2:])) for line in lines[1:4]}
    assert found["best"] == [-2.639, 1.0]
    divergence, chains = found["contrastive divergence"], found["persistent chains"]
    # at the start all 512 images are about equally likely: -6.2, and 0.03 for the 14
    assert -3.6 < divergence[0] < chains[0] < -2.639
    assert 0.4 < divergence[1] < chains[1] < 1
    assert [path.name for path in tmp_path.iterdir()] == ["boltzmann.png"]


def test_teachers_are_as_near_to_the_gradient_as_theory_says(tmp_path):
    done = run("teachers.py", "--small", cwd=tmp_path, long=True)
    lines = [line.replace("°", "").split() for line in done.stdout.splitlines()]
    found = {" ".join(line[:-3]): list(map(float, line[-3:])) for line in lines[1:5]}
    assert all(accuracy > 0.5 for accuracy, _, _ in found.values())
    before = {name: angle for name, (_, angle, _) in found.items()}
    assert 0 == before["true gradient"] < before["symmetric"] < 1.5
    assert 1.5 < before["one-sided"] < 6
    assert 10 < before["contrastive Hebbian"] < 60
    assert [path.name for path in tmp_path.iterdir()] == ["teachers.png"]


def test_custom_topology_settles_and_the_mask_holds_what_it_covers(tmp_path):
    done = run("custom_topology.py", cwd=tmp_path)
    assert "Topology(7 nodes, 12 edges, 5 arrays)" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    (free,), (held,) = (
        [[float(word) for word in line[-5:]] for line in lines if line[: len(name)] == name]
        for name in (["free"], ["half", "held"])
    )
    for settled, mean, most, _, other in (free, held):
        assert settled == 32
        assert 5 < mean < most < 100
        assert other > 0.5
    assert free[3] > 0.5
    assert held[3] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["custom_topology.png"]


def test_karate_club_finds_the_factions_and_the_exact_means(tmp_path):
    done = run("karate_club.py", cwd=tmp_path)
    found = {line[0]: line for line in map(str.split, done.stdout.splitlines())}
    assert found["settled"][1] == "True,"
    assert found["accuracy"] == ["accuracy", f"{33 / 34:.3f}"]
    (wrong,) = [line for line in done.stdout.splitlines() if line.startswith("wrong")]

    weights = nx.to_numpy_array(nx.karate_club_graph())
    laplacian = np.diag(weights.sum(1)) - weights
    told, rest = [0, 33], list(range(1, 33))
    exact = np.linalg.solve(laplacian[np.ix_(rest, rest)], -laplacian[np.ix_(rest, told)] @ [1, -1])
    assert wrong.split()[1:] == ["8,", "of", "Mr.", "Hi,", "at", f"{exact[7]:.3f}"]
    assert float(found["as"][-1]) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["karate_club.png"]


def test_mixed_parts_hear_each_other_through_hidden_alone(tmp_path):
    done = run("mixed.py", cwd=tmp_path)
    arrays = {
        line.rpartition("   ")[2] for line in done.stdout.splitlines() if line.endswith(", 32)")
    }
    assert arrays == {
        "(1, 8, 8, 1, 32)",
        "(1, 8, 8, 4, 32)",
        "(1, 24, 32)",
        "(1, 64, 32)",
        "(1, 6, 32)",
    }
    (settled,) = [
        int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("settled")
    ]
    assert settled >= 30
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("another")]
    moved = {
        " ".join(line[:-4]): dict(
            zip(("map", "hidden", "ring", "answer"), map(float, line[-4:]), strict=True)
        )
        for line in lines
    }
    assert moved["another image"]["ring"] > 0.3
    assert moved["another ring, held"]["map"] > 0.1
    assert moved["another image, hidden silent"]["ring"] == 0
    assert moved["another ring, held, hidden silent"]["map"] == 0
    assert moved["another image, hidden silent"]["map"] > 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["mixed.png"]


def test_image_patches_need_overlap_to_complete_an_image(tmp_path):
    done = run("image_patches.py", "--small", cwd=tmp_path)
    names = ("windows side by side", "windows overlapping", "mean digit", "nearest digit")
    apart, overlapping, mean, nearest = (
        [float(word) for word in line.split() if word.startswith(("0.", "1."))]
        for name in names
        for line in done.stdout.splitlines()
        if line.startswith(name)
    )
    assert abs(apart[0] - mean[0]) < 0.01
    assert overlapping[0] < mean[0] - 0.02
    assert overlapping[0] < nearest[0] + 0.02
    assert overlapping[1] > 0.9
    assert [path.name for path in tmp_path.iterdir()] == ["image_patches.png"]


def test_conv_digits_learns_a_kernel_that_tells_digits_apart(tmp_path):
    done = run("conv_digits.py", "--small", cwd=tmp_path)
    drawn, learnt = (
        [float(word) for word in line.split()[-4:]] for line in done.stdout.splitlines()[1:3]
    )
    for accuracy, settled, one_digit, two_digits in (drawn, learnt):
        assert accuracy > 0.75
        assert settled == 1
        assert one_digit > two_digits
    assert learnt[0] > drawn[0]
    assert learnt[2] > drawn[2] + 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["conv_digits.png"]


def test_mnist_trains_on_files_of_ones_own_and_resumes(tmp_path):
    """On images made here: a bright spot in one of three places."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 160)
    images = rng.integers(0, 60, (160, 12, 12)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4, 4:8] += 150
    parts = {
        "x_train": images[:120],
        "y_train": labels[:120],
        "x_test": images[120:],
        "y_test": labels[120:],
    }
    np.savez(tmp_path / "spots.npz", **parts)
    first = run("mnist.py", "spots.npz", "--epochs", "1", "--checkpoint", "run", cwd=tmp_path)
    assert first.stdout.startswith("epoch 1: accuracy ")
    done = run("mnist.py", "spots.npz", "--epochs", "2", "--checkpoint", "run", cwd=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert line.startswith("epoch 2: accuracy ")
    assert float(line.split()[3].rstrip(",")) > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist.png", "run", "spots.npz"]
