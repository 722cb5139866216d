"""Where a training's scalars go beside TensorBoard: Weights & Biases and Trackio, imported only when asked for."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundwork.errors import UserError
from groundwork.files import read_json, write_atomically
from groundwork.options import to_dict
from planner.config import Config

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "temporal-norm-planner"
Send = Callable[[Mapping[str, float], int], Any]


@dataclass
class Tracker:
    """Hands the scalars of a step on once, whatever is killed and resumed.

    A step is noted in the run folder before it is sent: one that a kill hits in between is lost there, and none is
    sent twice. ``metrics.jsonl`` has them all.

    Attributes:
        note: the file that remembers what was sent.
        send: takes the scalars by name, and the step.
        end: ends the tracker's run.
    """

    note: Path
    send: Send
    end: Callable[[], Any]

    def scalars(self, values: Mapping[str, float], step: int, *, final: bool = False) -> None:
        """Sends the scalars of a step, or those of the run's end, unless an earlier process did."""
        mark = [step, final]
        if mark > (read_json(self.note) if self.note.exists() else [0, False]):
            write_atomically(self.note, json.dumps(mark))
            self.send(values, step)

    def close(self) -> None:
        """Ends the tracker's run, once all is sent."""
        with contextlib.redirect_stdout(sys.stderr):
            self.end()


def open_tracker(name: str, run: Path, config: Config) -> Tracker:
    """A tracker of a run; a resumed run goes on in the tracker's own.

    Args:
        name: ``wandb`` or ``trackio``.
        run: the run folder.
        config: the settings, shown there.

    Raises:
        UserError: its package is not installed, or it does not start.
    """
    identity = run / ".tracker-id"
    if not identity.exists():
        write_atomically(identity, uuid.uuid4().hex[:8])
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            begin = {"wandb": _wandb, "trackio": _trackio}[name]
            send, close = begin(run, identity.read_text(encoding="utf-8"), config)
    except ImportError as error:
        raise UserError(f"log = {name} needs its package: pip install '{PROJECT}[{name}]'") from error
    except Exception as error:  # no account, no network: each has errors of its own
        raise UserError(f"log = {name} does not start ({' '.join(str(error).split())[:200]})") from error
    return Tracker(run / f".logged-{name}", send, close)


def _wandb(run: Path, identity: str, config: Config) -> tuple[Send, Callable[[], Any]]:
    import wandb

    # WANDB_MODE=offline keeps everything in the run folder.
    began = wandb.init(
        project=PROJECT,
        id=identity,
        name=run.name,
        dir=str(run),
        resume="allow",
        config=to_dict(config),
        settings=wandb.Settings(console="off"),
    )
    return began.log, began.finish


def _trackio(run: Path, identity: str, config: Config) -> tuple[Send, Callable[[], Any]]:
    import trackio

    began = trackio.init(project=PROJECT, name=f"{run.name}-{identity}", config=to_dict(config), resume="allow")
    return began.log, began.finish
