"""Files: every bit comes back, every changed byte is noticed, and no save takes away what was
there."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

import darnax as dx
from darnax.files import writing
from darnax.files.container import opened
from darnax.files.leaves import digest

TREE = {"weights": jnp.arange(6.0).reshape(2, 3), "count": jnp.asarray(3, jnp.int8)}


def read(path):
    """The arrays and facts of a file."""
    with opened(path) as file:
        return {name: file.array(name) for name in file.entries}, json.loads(file.texts["facts"])


def equal(a, b):
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


def test_files_keep_every_dtype_and_bit(tmp_path):
    tree = {
        "half": jnp.asarray([1.5, -0.0], jnp.bfloat16),
        "flags": jnp.array([True, False]),
        "none": jnp.zeros((0, 3)),
        "one": jnp.asarray(3, jnp.int8),
        "key": jax.random.key(5),
        "text": "not an array",
    }
    dx.save(tmp_path / "tree", tree, {"epoch": 3})
    like = jax.tree.map(
        lambda a: jnp.zeros_like(a) if eqx.is_array(a) and a.dtype != tree["key"].dtype else a, tree
    )
    like["key"] = jax.random.key(0)
    again = dx.load(tmp_path / "tree", like | {"text": ""})
    for name in ("half", "flags", "one", "none"):
        assert again[name].dtype == tree[name].dtype
        np.testing.assert_array_equal(again[name], tree[name])
    assert (jax.random.key_data(again["key"]) == jax.random.key_data(tree["key"])).all()
    assert again["text"] == "not an array"
    assert dx.files.load_facts(tmp_path / "tree") == {"epoch": 3}
    with pytest.raises(ValueError, match=r"'one'.* is int8\(\) in the file and float32\(\) here"):
        dx.load(tmp_path / "tree", like | {"one": jnp.zeros(())})
    with pytest.raises(ValueError, match=r"'more'.* is missing; load it into what was saved"):
        dx.load(tmp_path / "tree", like | {"more": jnp.zeros(())})


def test_other_readers_of_the_format_read_them(tmp_path):
    dx.save(tmp_path / "tree", TREE)
    with safe_open(tmp_path / "tree", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("['weights']"), TREE["weights"])


# damage


def test_every_bit_of_a_file_counts(tmp_path):
    """All of them, one after another: header, metadata, padding, seal and arrays."""
    path = tmp_path / "tree"
    dx.save(path, TREE, {"seal": "0" * 64, "text": 'a "quoted" word'})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(
            ValueError,
            match=r"`path` '.*tree' (is|has).*(damaged|another version|not a file of darnax)",
        ):
            read(path)
    path.write_bytes(whole)
    equal(dx.load(path, TREE), TREE)


def test_a_file_with_more_or_less_is_damaged(tmp_path):
    path = tmp_path / "tree"
    dx.save(path, TREE)
    whole = path.read_bytes()
    for data in (
        whole[:-1],
        whole + b"\0",
        whole[: len(whole) // 2],
        whole[:8],
        b"",
        b"\xff" * 100,
        b"[" * 100_000,
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged"):
            read(path)


def test_files_of_others_and_of_other_versions_are_told_apart(tmp_path):
    path = tmp_path / "file"
    save_file({"a": np.ones(3)}, path, {"made": "elsewhere"})
    with pytest.raises(ValueError, match=r"is not a file of darnax; give one it saved"):
        read(path)
    path.write_bytes(save({"a": np.ones(3)}, {"format": "darnax 2", "facts": "null"}))
    with pytest.raises(
        ValueError,
        match=r"has the format 'darnax 2' of another version, and this one reads 'darnax 3'",
    ):
        read(path)
    with pytest.raises(FileNotFoundError, match=r"`path` '.*none' cannot be read: No such file"):
        read(tmp_path / "none")


def test_digests_tell_trees_apart():
    same = {"count": jnp.asarray(3, jnp.int8), "weights": jnp.arange(6.0).reshape(2, 3)}
    others = [
        TREE | {"weights": jnp.arange(6.0).reshape(3, 2)},
        TREE | {"weights": -jnp.arange(6.0).reshape(2, 3)},
        TREE | {"count": jnp.asarray(3, jnp.int16)},
        {"weight": TREE["weights"], "count": TREE["count"]},
        TREE | {"key": jax.random.key(0)},
        TREE | {"key": jax.random.key(1)},
        TREE | {"zero": jnp.zeros(1)},
        TREE | {"zero": -jnp.zeros(1)},
    ]
    digests = [digest(tree) for tree in (TREE, *others)]
    assert len(set(digests)) == len(digests)
    assert digest(same) == digests[0]


# writing


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda folder: folder / "missing" / "run", FileNotFoundError, "missing.*No such file"),
        (lambda folder: folder, IsADirectoryError, "it is a folder"),
        (lambda folder: str(folder) + "/", IsADirectoryError, "it is a folder"),
        (lambda folder: folder / "file" / "run", NotADirectoryError, "Not a directory"),
        (lambda folder: folder / "fifo", OSError, "it is no plain file"),
        (lambda folder: folder / "kept", PermissionError, "may not be written"),
        (lambda folder: folder / "loop", OSError, "symbolic links"),
        (lambda folder: folder / ("x" * 300), OSError, "too long"),
        (lambda folder: "/proc/run", OSError, "/proc/run"),
    ],
    ids=["missing", "folder", "slash", "in a file", "fifo", "read-only", "loop", "long", "proc"],
)
def test_what_cannot_be_written_is_said(tmp_path, make, error, reason):
    (tmp_path / "file").write_text("text")
    (tmp_path / "kept").write_text("text")
    (tmp_path / "kept").chmod(0o444)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    for write in (
        lambda path: writing.check_writable("path", path),
        lambda path: dx.save(path, TREE),
    ):
        with pytest.raises(error, match=f"`path` '.*{reason}.*what was there is as it was"):
            write(make(tmp_path))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("value", [None, 3, b"run", ["run"], "a\0b"], ids=repr)
def test_a_path_is_a_path(value):
    for call in (
        read,
        lambda path: dx.save(path, TREE),
        lambda path: writing.check_writable("path", path),
    ):
        with pytest.raises((TypeError, ValueError), match=r"`path` is the path of a file"):
            call(value)


def test_facts_are_what_json_can_say(tmp_path):
    loop = []
    loop.append(loop)
    for facts in (np.ones(3), {1, 2}, {"a": jnp.ones(2)}, loop):
        with pytest.raises(
            TypeError, match=r"`facts` are what JSON can say, but .*; give text, numbers"
        ):
            dx.save(tmp_path / "run", TREE, facts)
    assert not list(tmp_path.iterdir())


def test_asking_whether_it_can_be_written_leaves_nothing(tmp_path):
    writing.check_writable("path", tmp_path / "run")
    assert not list(tmp_path.iterdir())
    dx.save(tmp_path / "run", TREE)
    before = (tmp_path / "run").read_bytes()
    writing.check_writable("path", tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777], ids=oct)
def test_the_mode_is_kept(tmp_path, mode):
    path = tmp_path / "run"
    dx.save(path, TREE)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(mode)
    dx.save(path, TREE)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_is_private_is_so_from_the_start(tmp_path, monkeypatch):
    path, modes = tmp_path / "run", []
    dx.save(path, TREE)
    path.chmod(0o600)
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda at: modes.append(stat.S_IMODE(os.fstat(at).st_mode)))
    dx.save(path, TREE)
    assert modes == [0o600]


def test_symbolic_links_are_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "disk" / "run")
    for tree in (TREE, {"weights": -TREE["weights"], "count": TREE["count"]}):
        dx.save(tmp_path / "link", tree)
        equal(dx.load(tmp_path / "disk" / "run", tree), tree)
        equal(dx.load(tmp_path / "link", tree), tree)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["run"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr
)
def test_a_save_that_fails_leaves_the_last_file(tmp_path, monkeypatch, failing, error):
    dx.save(tmp_path / "run", TREE)
    before = (tmp_path / "run").read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)) as raised:
        dx.save(tmp_path / "run", {"other": jnp.ones(3)})
    assert isinstance(error, KeyboardInterrupt) or "No space left" in str(raised.value)
    assert (tmp_path / "run").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


KILLED = """
    import os, sys
    import darnax
    import jax.numpy as jnp

    def wait(_):
        print("written", flush=True)
        sys.stdin.read()

    os.fsync = wait
    darnax.save(sys.argv[1], {"weights": jnp.ones(3)})
"""


def test_parts_of_killed_writers_are_removed_and_those_of_others_are_not(tmp_path):
    path = tmp_path / "run"
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    writer = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    (part,) = tmp_path.iterdir()
    mine = [tmp_path / "run.notes.part", tmp_path / "other.0123456789abcdef.part"]
    for file in mine:
        file.write_text("of the user")
    dx.save(path, TREE)  # the other one is still at it
    assert part.exists()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdin.close()
    writer.stdout.close()
    writing.check_writable("path", path)
    assert sorted(tmp_path.iterdir()) == sorted([path, *mine])
    equal(dx.load(path, TREE), TREE)


def test_two_writers_never_mix(tmp_path):
    path, failed = tmp_path / "run", []

    def write(number):
        try:
            for _ in range(20):
                dx.save(path, {"a": np.full(5000, number)}, number)
        except BaseException as error:
            failed.append(error)

    def look():
        try:
            for _ in range(100):
                arrays, facts = read(path)
                assert (arrays["['a']"] == facts).all()
        except BaseException as error:
            failed.append(error)

    write(0)
    threads = [threading.Thread(target=write, args=(i,)) for i in range(3)] + [
        threading.Thread(target=look)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
