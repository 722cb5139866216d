"""What stored questions of earlier days mean today: the one table of names, values and files that have changed.

A setting that is new and whose default does what was done before needs no line here. One whose default changes needs
``Renamed(place, absent=the old default)``.
"""

from __future__ import annotations

from typing import Any

from envs.settings import usual_id
from groundwork.answers import Answer, Pairs, Renamed, Translations

_HOW_IT_WENT = ("device", "threads", "torch", "seconds")


def _experiments(stored: Answer) -> Pairs | None:
    """Rows of an experiment with its sizes, seeds and duration in ``config``: one answer per seed."""
    config = stored.get("config")
    if not isinstance(config, dict) or "experiment" not in config:
        return None
    sizes = {name: value for name, value in config.items() if name not in ("experiment", "seeds", *_HOW_IT_WENT)}
    pairs = []
    for seed in config["seeds"]:
        question = {"experiment": config["experiment"], "sizes": dict(sizes), "seed": seed}
        rows = [row for row in stored["rows"] if row["seed"] == seed]
        pairs.append((question, {**stored, "rows": rows} if len(config["seeds"]) > 1 else stored))
    return pairs


def _leakage(stored: Answer) -> Pairs | None:
    """The stitching study's audits, all in one file: one answer per planner, each trained for 4,000 steps."""
    if set(stored.get("config", ())) != {"multiple", "times", "seed"}:
        return None
    return [
        (
            {"leakage": dict(stored["config"]), "run": row["run"], "steps": 4000},
            {"row": {"reach" if name == "field" else name: value for name, value in row.items()}},
        )
        for row in stored["rows"]
    ]


def _audits(stored: Answer) -> Pairs | None:
    """An audit with its settings in ``config``."""
    config = stored.get("config")
    if not isinstance(config, dict) or "module" not in config:
        return None
    return [({"audit": {name: value for name, value in config.items() if name not in _HOW_IT_WENT}}, stored)]


def _grid_cell(question: dict[str, Any]) -> None:
    """A cell of the stitching grid in words of the command line, over its preset: today the whole of its config."""
    if "preset" not in question:
        return
    config = question["config"] = question.pop("preset")
    if steps := question.pop("steps"):
        config["steps"] = steps
    for setting, word in question.pop("run").items():
        place, name = config, setting
        while "." in name:
            step, _, name = name.partition(".")
            place = place[step]
        place[name] = [int(part) for part in word.split(",")] if name == "dim_mults" else _value(word)


def _none_again(question: dict[str, Any]) -> None:
    """No step is taken again where nobody asks for it: that was 0, between levels that meant nothing then."""
    settings = question.get("settings")
    if isinstance(settings, dict) and settings.get("resample") == 0:
        settings |= {"resample": None, "resample_levels": None}


def _short_hash(question: dict[str, Any]) -> None:
    """The preset ``hash`` of the study of the planner's untrained networks is ``hash-short`` today."""
    if question.get("experiment") == "init-bias-unet" and question["sizes"].get("preset") == "hash":
        question["sizes"]["preset"] = "hash-short"


def _usual_size(asked: Any) -> Any:
    """Every dataset in a question by today's id."""
    if isinstance(asked, dict):
        for name, value in asked.items():
            asked[name] = _usual_size(value)
    elif isinstance(asked, str):
        return usual_id(asked)
    return asked


def _value(word: str) -> int | str:
    return int(word) if word.isdecimal() else word


RENAMED = Translations(
    files=(_experiments, _leakage, _audits),
    names=(
        _grid_cell,
        Renamed("sizes.place", values={"before": "pre", "after": "post"}),
        Renamed("closed_loop.ways", absent=["few", "best", "cold", "warm"]),
        _none_again,
        _short_hash,
        _usual_size,
    ),
)
