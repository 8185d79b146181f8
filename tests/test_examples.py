"""The examples run, and say what they promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(example, *arguments, cwd):
    """As a user runs it: a fresh process, in a folder of its own."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    done = subprocess.run(command, cwd=cwd, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_digits_json_is_one_line_of_numbers_and_leaves_no_file(tmp_path):
    done = run("digits.py", "--json", "--epochs", "3", cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    numbers = json.loads(line)
    assert list(numbers) == ["accuracy", "settled", "steps", "seconds"]
    assert numbers["accuracy"] > 0.93
    assert numbers["settled"] > 0.99
    assert 3 <= numbers["steps"] <= 30
    assert numbers["seconds"] > 0
    assert "3/3" in done.stderr
    assert not list(tmp_path.iterdir())


def test_digits_prints_the_table_and_writes_the_picture(tmp_path):
    done = run("digits.py", "--epochs", "1", cwd=tmp_path)
    names = ["this network", "left as drawn", "read-out on all of v1", "LogisticRegression", "MLPClassifier(256)"]
    for name in names:
        (row,) = [line for line in done.stdout.splitlines() if name in line]
        accuracy = next(float(word) for word in row.split() if word.startswith("0."))
        assert 0.5 < accuracy < 1
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
