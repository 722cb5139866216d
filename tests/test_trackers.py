import json
import sqlite3
import struct
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from groundwork.errors import UserError
from planner.training.run import RunFolder
from planner.training.trackers import Tracker
from planner.training.train import train
from planner.training.trainer import Trainer


def wandb_scalars(run):
    """(name, step) → value, of all that the offline runs in a folder hold; fails where a step comes twice."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        content, at, whole = path.read_bytes(), 7, b""
        while at + 7 <= len(content):  # LevelDB's log: blocks of 32 KiB, records in one or several pieces
            left = 32768 - at % 32768
            if left < 7:
                at += left
                continue
            _, length, kind = struct.unpack("<IHB", content[at : at + 7])
            whole += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                record, whole = Record.FromString(whole), b""
                for item in record.history.item:
                    name = "/".join([item.key, *item.nested_key]).lstrip("/")
                    if not name.startswith("_"):
                        assert (name, record.history.step.num) not in found
                        found[name, record.history.step.num] = json.loads(item.value_json)
    return found


def trackio_scalars(folder):
    found = {}
    with sqlite3.connect(folder / "temporal-norm-planner.db") as base:
        for step, metrics in base.execute("select step, metrics from metrics"):
            for name, value in json.loads(metrics).items():
                assert (name, step) not in found
                found[name, step] = value
    return found


def tensorboard_scalars(run):
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_holds_tensorboards_scalars_and_no_step_twice_after_a_kill(
    tiny, hash_dataset, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip(name)
    config, path = tiny(steps=12, evaluate_every=12, evaluate_episodes=1), tmp_path / "run"
    update = Trainer.update

    def stopped(self):
        if self.step == 9:  # the checkpoint is of step 5; rows 5 and 8 are sent
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, path, "cpu", progress=False, log=("tensorboard", name))
    train(config, path, "cpu", progress=False, log=("tensorboard", name))
    theirs = wandb_scalars(path) if name == "wandb" else trackio_scalars(tmp_path / "trackio")
    ours = tensorboard_scalars(path)
    assert {step for _, step in ours} == {4, 5, 8, 10, 12}
    timing = "train/steps_per_second"  # of a row that is written again it differs
    assert theirs.keys() == ours.keys()
    for key, value in ours.items():
        if key[0] != timing:
            assert np.float32(theirs[key]) == np.float32(value), key


def test_a_step_is_sent_once_and_the_end_once(tmp_path):
    sent = []

    def tracker():
        return Tracker(tmp_path / "note", lambda values, step: sent.append((dict(values), step)), lambda: None)

    first = tracker()
    first.scalars({"a": 1.0}, 4)
    first.scalars({"a": 2.0}, 8)
    again = tracker()
    again.scalars({"a": 2.0}, 8)
    again.scalars({"a": 3.0}, 12)
    for end in (again, tracker()):
        end.scalars({"final/a": 3.0}, 12, final=True)
    assert sent == [({"a": 1.0}, 4), ({"a": 2.0}, 8), ({"a": 3.0}, 12), ({"final/a": 3.0}, 12)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_says_what_to_install_and_is_imported_only_when_asked_for(
    tiny, hash_dataset, tmp_path, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install 'temporal-norm-planner\[{name}\]'"):
        train(tiny(steps=1), tmp_path / "asked", "cpu", progress=False, log=(name,))
    train(tiny(steps=1), tmp_path / "not", "cpu", progress=False)


def test_without_tensorboard_a_run_has_its_metrics_and_no_events(tiny, hash_dataset, tmp_path, monkeypatch):
    sent = []
    tracker = Tracker(tmp_path / "note", lambda values, step: sent.append(step), lambda: None)
    monkeypatch.setattr("planner.training.monitor.open_tracker", lambda *_: tracker)
    run = train(tiny(evaluate_every=12, evaluate_episodes=1), tmp_path / "run", "cpu", progress=False, log=("wandb",))
    assert not list(run.path.glob("events.out*"))
    assert sent == [row["step"] for row in RunFolder(run.path).metrics()] + [12]
