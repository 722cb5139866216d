"""Every answer that is committed is found by today's code, and by tomorrow's, which knows one more setting."""

import gzip
import json
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path

import pytest

from groundwork.answers import Answers
from norm_study.init_bias.settings import InitBiasUNetConfig
from norm_study.reproduce.parts import answers_in, full_rows_folder, load_parts, parts_file
from norm_study.stitching.cells import Grid
from norm_study.stitching.grid import Budget
from norm_study.stitching.grid import answers_in as cells_in
from norm_study.stitching.settings import AuditedPlans, StitchSettings
from planner.config import from_dict
from planner.renamed import RENAMED
from planner.rollout import RolloutSettings

ROOT = Path(__file__).resolve().parent.parent
STITCHING = sorted(
    path.parent for path in (ROOT / "docs" / "stitching").rglob("rows") if "closed_loop" not in path.parts
)


@dataclass(frozen=True)
class More:
    """A group of settings that does not exist yet."""

    strength: float = 0.0


def tomorrow(settings):
    """The same settings in code that knows one more, and a group of others."""
    new = [("one_more", str, field(default="off")), ("a_group", object, field(default_factory=More))]
    later = make_dataclass("Tomorrow", new, bases=(type(settings),), frozen=True)
    found = object.__new__(later)
    for item in fields(later):
        value = getattr(settings, item.name) if hasattr(settings, item.name) else new_value(item)
        object.__setattr__(found, item.name, value)
    return found


def new_value(item):
    return item.default if item.name == "one_more" else item.default_factory()


def today(settings):
    return settings


@pytest.mark.parametrize("when", [today, tomorrow])
@pytest.mark.parametrize("folder", STITCHING, ids=lambda path: path.name)
def test_every_cell_of_the_stitching_study_is_found(folder, when):
    store, found = cells_in(folder), 0
    for path in sorted((folder / "rows").glob("*.json.gz")):
        stored = json.loads(gzip.decompress(path.read_bytes()))
        asked = stored["question"]
        if "preset" in asked:
            steps = {"steps": asked["steps"]} if asked["steps"] else {}
            base, measured = from_dict(asked["preset"] | steps), StitchSettings(**asked["measured"])
            run = next(run for run in Grid().runs() if run.name == path.name.removesuffix(".json.gz"))
            question = Budget(base, measured).question(run)
            question = {name: when(settings) for name, settings in question.items()}
            assert store.find(question)["rows"] == stored["rows"], path
            question["measured"] = StitchSettings(**asked["measured"] | {"seed": 12345})
            assert store.find(question) is None
        else:
            question = {
                "config": from_dict(asked["config"]),
                "measured": StitchSettings(**asked["measured"]),
            }
            assert store.find({name: when(settings) for name, settings in question.items()})["rows"] == stored["rows"]
        found += 1
    assert found == len(list((folder / "rows").glob("*.json.gz"))) > 0


@pytest.mark.parametrize("when", [today, tomorrow])
def test_every_part_of_the_reproduction_is_found(when):
    store, found = answers_in(full_rows_folder()), 0
    for part in load_parts(parts_file()):
        for seed in part.seeds:
            question = part.question(seed)
            answer = store.find(question | {"sizes": when(question["sizes"])})
            assert {row["seed"] for row in answer["rows"]} == {seed}, (part.name, seed)
            found += 1
    assert found == len(list(full_rows_folder().glob("*.json")))


@pytest.mark.parametrize("when", [today, tomorrow])
def test_the_untrained_networks_of_the_planner_are_found(when):
    store = Answers(ROOT / "docs" / "init_bias", RENAMED)
    sizes = when(InitBiasUNetConfig(dataset="mazes/hash-tasks100000-v0"))
    for seed in range(3):
        rows = store.find({"experiment": "init-bias-unet", "sizes": sizes, "seed": seed})["rows"]
        assert {row["seed"] for row in rows} == {seed}


@pytest.mark.parametrize("when", [today, tomorrow])
def test_every_audit_is_found(when):
    store, folder = Answers(ROOT / "docs" / "audit", RENAMED), ROOT / "docs" / "audit"
    runs = json.loads((folder / "leakage.json").read_text())["rows"]
    for row in runs:
        answer = store.find({"leakage": when(AuditedPlans()), "run": row["run"], "steps": 4000})
        assert answer["row"]["leakage"] == row["leakage"]
    assert {row["run"] for row in runs} == {run.name for run in Grid(paddings=("zeros",), reaches=("half",)).runs()}
    audits = [answer for question, answer in store if "audit" in question]
    assert len(audits) + 1 == len(list(folder.glob("unet1d*.json"))) + 1
    for answer in audits:
        how_it_went = ("device", "threads")
        asked = {name: value for name, value in answer["config"].items() if name not in how_it_went}
        assert store.find({"audit": asked}) == answer


@pytest.mark.parametrize("when", [today, tomorrow])
def test_a_kept_rollout_is_found(when):
    run = ROOT / "tests" / "fixtures" / "run"
    settings = when(RolloutSettings(episodes=1, horizon=32, sampler="ddim", sampling_steps=2))
    question = {"settings": settings, "tasks": ("straight",), "checkpoint": (run / "last").read_text()}
    assert Answers(run / "rollouts", RENAMED).find(question)["rows"]
