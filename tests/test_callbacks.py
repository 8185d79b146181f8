"""Records of scores: they are the history, whatever happened on the way."""

import csv
import sys

import numpy as np
import pytest

import darnax as dx

ROWS = [
    {"loss": 3.0, "accuracy": 0.25},
    {"loss": float("nan"), "accuracy": 0.5},
    {"loss": 1.0, "accuracy": 1.0},
]


def record(log, rows, first=1):
    """What a log is told in a run of some epochs that begins with the epoch `first`."""
    for i in range(first, len(rows) + 1):
        assert log(None, dx.History(rows[:i])) is None


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


TABLE = [
    ["epoch", "loss", "accuracy"],
    ["1", "3.0", "0.25"],
    ["2", "nan", "0.5"],
    ["3", "1.0", "1.0"],
]


def test_a_csv_file_is_the_history(tmp_path):
    path = tmp_path / "history.csv"
    log = dx.callbacks.csv(path)
    for i in range(1, 4):
        log(None, dx.History(ROWS[:i]))
        assert read(path) == TABLE[: i + 1]
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


def test_a_line_is_added_and_not_the_file_written_anew(tmp_path):
    path = tmp_path / "history.csv"
    log = dx.callbacks.csv(path)
    record(log, ROWS[:2])
    with path.open("a") as file:
        file.write("a note\n")
    log(None, dx.History(ROWS))
    assert ["a note"] in read(path)


@pytest.mark.parametrize("there", ["", "half a li", "epoch,loss\r\n1,3"])
def test_a_run_that_goes_on_has_the_file_of_one_that_never_stopped(tmp_path, there):
    path = tmp_path / "history.csv"
    path.write_text(there)
    record(dx.callbacks.csv(path), ROWS, first=3)
    assert read(path) == TABLE


def test_one_callback_of_two_runs_has_the_last(tmp_path):
    path = tmp_path / "history.csv"
    log = dx.callbacks.csv(path)
    record(log, [{"loss": 9.0}, *ROWS[1:]])
    record(log, ROWS)
    assert read(path) == TABLE
    record(log, [*ROWS[:2], {"loss": 7.0, "accuracy": 0.0}], first=3)
    assert read(path)[-1] == ["3", "7.0", "0.0"]
    path.unlink()
    record(log, ROWS, first=3)
    assert read(path) == TABLE


def test_scores_that_come_later_have_a_column(tmp_path):
    path = tmp_path / "history.csv"
    rows = [{"loss": 3.0}, {"loss": 2.0, 'a "quoted", score': 1.0}]
    record(dx.callbacks.csv(path), rows)
    assert read(path) == [
        ["epoch", "loss", 'a "quoted", score'],
        ["1", "3.0", ""],
        ["2", "2.0", "1.0"],
    ]


def test_what_cannot_be_written_is_said_before_training(tmp_path):
    with pytest.raises(OSError, match=r"`path` '.*missing.*' cannot be written"):
        dx.callbacks.csv(tmp_path / "missing" / "history.csv")
    with pytest.raises(TypeError, match=r"`path` is the path of a file"):
        dx.callbacks.csv(3)
    with pytest.raises(TypeError, match=r"`path` is the path of a file"):
        dx.callbacks.tensorboard(None)


class Writer:
    """What tensorboardX does, as far as it is asked for it."""

    made: list = []  # noqa: RUF012

    def __init__(self, folder, purge_step):
        assert purge_step == 1
        self.folder, self.scalars, self.closed, self.flushed = folder, [], False, 0
        Writer.made.append(self)

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, value, step))

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True


def test_tensorboard_shows_the_history(tmp_path, monkeypatch):
    """By a stand-in for the writer: each score once, and all of them anew after a resumption."""
    monkeypatch.setattr("darnax.learning.callbacks.importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tensorboardX", type(sys)("tensorboardX"))
    sys.modules["tensorboardX"].SummaryWriter = Writer
    rows = [{"accuracy": 0.25}, {"accuracy": 0.5, "validation accuracy": 0.25}, {"my score": 1.0}]
    expected = [
        ("training/accuracy", 0.25, 1), ("training/accuracy", 0.5, 2), ("validation/accuracy", 0.25, 2),
        ("training/my_score", 1.0, 3),
    ]  # fmt: skip
    Writer.made.clear()
    log = dx.callbacks.tensorboard(tmp_path / "board")
    record(log, rows)
    (writer,) = Writer.made
    assert (writer.folder, writer.scalars, writer.flushed) == (str(tmp_path / "board"), expected, 3)
    record(dx.callbacks.tensorboard(tmp_path / "board"), rows, first=2)
    assert Writer.made[1].scalars == expected
    record(log, rows)
    assert writer.closed
    assert Writer.made[2].scalars == expected


def test_tensorboard_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("darnax.learning.callbacks.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'darnax\[loggers\]'"):
        dx.callbacks.tensorboard(tmp_path)


def test_tensorboard_writes_files_that_are_read(tmp_path):
    from tensorboardX.event_file_writer import EventFileWriter  # noqa: F401
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401

    log = dx.callbacks.tensorboard(tmp_path / "board")
    record(log, ROWS)
    log.close()
    (file,) = (tmp_path / "board").iterdir()
    data, found = file.read_bytes(), []
    while data:
        # a record: its length, a checksum of that, the record, and a checksum of it
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
        data = data[16 + size :]
    expected = [
        (f"training/{name}", row[name], i + 1) for i, row in enumerate(ROWS) for name in row
    ]
    assert [(tag, step) for tag, _, step in found] == [(tag, step) for tag, _, step in expected]
    np.testing.assert_allclose(
        [value for _, value, _ in found], [value for _, value, _ in expected]
    )
