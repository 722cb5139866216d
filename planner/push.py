"""A run to the Hugging Face Hub: the planner alone, with a card out of the run's own numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import minari
from safetensors.torch import save_file

from envs.settings import collection_of
from groundwork.errors import UserError
from groundwork.files import CHECKSUMS, read_checked, write_checksums
from groundwork.tables import Table, interval_text
from groundwork.yaml_files import to_yaml
from planner.config import Config
from planner.hub import CARD, CONTENT, EMA, require_repo
from planner.rollout import summarize
from planner.training.find import find_run
from planner.training.run import RunFolder
from planner.unet_files import WEIGHTS_FILE

OURS = "Demonstrations of a scripted expert on MuJoCo, collected with `maze-data collect` of this project; MIT licence."
D4RL = "D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219); Creative Commons Attribution 4.0 (CC BY)."
UNKNOWN = "Not known to this project: ask whoever made the dataset before you use the planner further."


def push(
    run: str | Path, repo: str, *, step: int | None = None, overwrite: bool = False, public: bool = False
) -> list[str]:
    """Uploads a run's planner: settings, what it knows of its data, the moving average, checksums and a card.

    Never uploaded are the optimizer's state, the raw weights, metrics, or what ``provenance.json`` says of the machine.

    Args:
        run: the run folder, or the name of a shipped planner.
        repo: USER/NAME; made if it does not exist, private unless ``public``.
        step: a kept checkpoint; by default the last.
        overwrite: whether files that are there already may be replaced.
        public: whether everybody may see it.

    Returns:
        The names of the uploaded files.

    Raises:
        UserError: no such run or checkpoint, files that are there already, a repository that everybody sees, no access
            token, or a refusal by the Hub.
    """
    require_repo(repo)
    folder = find_run(run)
    if huggingface_hub.get_token() is None:
        raise UserError(f"repo = {repo!r} needs an access token: `hf auth login`, or HF_TOKEN in the environment")
    with tempfile.TemporaryDirectory() as scratch:
        files = _write(folder, step, repo, Path(scratch))
        try:
            _upload(repo, {name: Path(scratch, name) for name in files}, overwrite, public)
        except (OSError, ValueError) as error:  # the Hub's and the network's errors are of these kinds
            if isinstance(error, UserError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder.path} was not pushed to {repo} ({reason})") from error
    return files


def _write(folder: RunFolder, step: int | None, repo: str, target: Path) -> list[str]:
    (target / EMA).mkdir()
    save_file(folder.load_network("ema", step).state_dict(), target / EMA / WEIGHTS_FILE, metadata={"format": "pt"})
    config = folder.config()  # but for paths of this machine, which nobody needs to plan
    config = replace(config, init_from="", diffusion=replace(config.diffusion, teacher=""))
    (target / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    (target / "data.json").write_bytes((folder.path / "data.json").read_bytes())
    write_checksums(target, CONTENT)
    trained = int(folder.checkpoint(step).name.removeprefix("step_"))
    (target / CARD).write_text(card(folder, config, trained, repo), encoding="utf-8")
    return [*CONTENT, CHECKSUMS, CARD]


def _upload(repo: str, files: dict[str, Path], overwrite: bool, public: bool) -> None:
    api = huggingface_hub.HfApi()
    api.create_repo(repo, private=not public, exist_ok=True)
    found = api.repo_info(repo)
    if not found.private and not public:
        raise UserError(f"repo: everybody sees {repo}; allowed: --public, or a private repository")
    there = sorted(set(api.list_repo_files(repo, revision=found.sha)) & set(files))
    if there and not overwrite:
        raise UserError(f"repo: {repo} has {', '.join(there)} already; allowed: another name, or --overwrite")
    api.create_commit(
        repo,
        [huggingface_hub.CommitOperationAdd(name, path) for name, path in files.items()],
        commit_message="planner push",
        parent_commit=found.sha,  # what was looked at is what is added to
    )


def card(folder: RunFolder, config: Config, step: int, repo: str) -> str:
    """The repository's page: what the planner is, how to use it, its run's own numbers, and where its data are from."""
    name, statistics = repo.partition("/")[2], folder.statistics()
    known = [
        ["norm", f"`{config.model.norm}`"],
        ["training steps", f"{step:,} of {config.steps:,}, seed {config.seed}"],
        ["plans", f"{config.data.horizon} points, {config.data.stride} environment steps apart"],
        ["environment", f"`{statistics.environment}`"],
        ["training split", f"{statistics.episodes:,} episodes, {statistics.windows:,} windows"],
        *_training_rows(folder.metrics(), step),
    ]
    rollouts = list(_rollout_rows(folder, step))
    measured = (
        Table(["tasks", "points", "episodes", "plans valid", "success"], rollouts).markdown()
        if rollouts
        else "No rollouts are stored with the run."
    )
    return f"""---
library_name: temporal-norm-planner
license: mit
tags: [diffusion, planning, {config.model.norm}]
---
# {name}

A diffusion planner (Janner et al. 2022) whose temporal U-Net normalizes with `{config.model.norm}`.

```python
from planner.plan import Planner

planner = Planner.from_pretrained("{repo}")
```

{Table(["setting", "value"], known).markdown()}

## Rollouts of this run

Means with 95 % intervals over episodes, as they are stored with the run.

{measured}

## Data

`{config.data.dataset}`. {origin(config.data.dataset)}
"""


def _training_rows(metrics: list[dict[str, Any]], step: int) -> list[list[str]]:
    names = {"loss": "training loss", "validation_loss": "validation loss"}
    last = {name: row[name] for row in metrics if row["step"] <= step for name in names if row.get(name) is not None}
    return [[names[name], f"{value:.4g}"] for name, value in last.items()]


def _rollout_rows(folder: RunFolder, step: int) -> Iterator[list[str]]:
    for path in sorted((folder.path / "rollouts").glob("*.json")):
        answer = read_checked(path)
        if answer is None or answer["question"]["checkpoint"] != f"step_{step:08d}":
            continue
        horizon = answer["question"]["settings"]["horizon"] or folder.config().data.horizon
        for split, measures in summarize(answer["rows"]).items():
            cells = [interval_text(measures[name], ".1f", " %") for name in ("plan_valid", "success")]
            yield [split.replace("_", " "), str(horizon), str(measures["success"]["n"]), *cells]


def origin(dataset_id: str) -> str:
    """Where a dataset comes from and under which licence it stands, as far as this project knows."""
    try:
        recipe = minari.load_dataset(dataset_id).storage.metadata.get("recipe")
    except Exception:  # not here, or not readable: its name has to tell
        recipe = None
    if dataset_id.startswith("D4RL/") or recipe == "converted":
        return D4RL
    return OURS if recipe in ("tasks", "navigate", "stitch") or collection_of(dataset_id) else UNKNOWN
