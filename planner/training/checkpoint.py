"""One checkpoint on disk: written whole or not at all, read only if it is what was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from groundwork.errors import UserError
from groundwork.files import read_json, verify_checksums, write_atomically, write_checksums
from planner.unet import TemporalUNet
from planner.unet_files import SETTINGS_FILE, WEIGHTS_FILE, load_weights, read_settings, read_tensors

OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter."""


def write_checkpoint(
    final: Path, step: int, model: TemporalUNet, ema: TemporalUNet, optimizer_state: Mapping[str, Tensor]
) -> None:
    """Writes a checkpoint aside and renames it into place.

    Args:
        final: its folder, ``…/step_N``.
        step: optimizer steps done.
        model: the raw weights.
        ema: their moving average.
        optimizer_state: tensors by ``index of the parameter.name``.

    Raises:
        OSError: it does not fit on the disk, or may not be written; nothing of it is left.
    """
    aside = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name, network in (("model", model), ("ema", ema)):
            (aside / name).mkdir(parents=True)
            save_file(network.state_dict(), aside / name / WEIGHTS_FILE, metadata={"format": "pt"})
        save_file(dict(optimizer_state), aside / "optimizer.safetensors")
        write_atomically(aside / "state.json", json.dumps({"step": step}))
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        write_checksums(aside, [path.relative_to(aside).as_posix() for path in files])
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        reason = " ".join(str(error).split())
        raise OSError(
            0, f"checkpoint of step {step} not written ({reason}); older ones are whole", str(final)
        ) from error
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)


def read_network(folder: Path, weights: str, network: TemporalUNet) -> None:
    """Puts the weights ``model`` or ``ema`` of a checkpoint into the network of its run, from safetensors only.

    Earlier checkpoints carry settings of their own, which must be the run's.

    Raises:
        UserError: missing, damaged, or of another network.
    """
    verify_checksums(folder, [f"{weights}/{SETTINGS_FILE}", f"{weights}/{WEIGHTS_FILE}"], _remedy(folder))
    own = folder / weights / SETTINGS_FILE
    if own.exists():
        wanted = json.loads(network.to_json_string())
        for name, found in read_settings(own).items():
            if found != wanted.get(name):
                raise UserError(
                    f"{own} has {name} = {found}, but the run in {folder.parent.parent} has {wanted.get(name)}"
                )
    load_weights(network, folder / weights / WEIGHTS_FILE)


def read_optimizer(folder: Path, parameters: Sequence[Tensor]) -> tuple[int, dict[int, dict[str, Tensor]]]:
    """Step and optimizer state of a checkpoint, as ``{index of the parameter: {name: tensor}}``.

    Raises:
        UserError: missing, damaged, or not fitting ``parameters``.
    """
    path, remedy = folder / "optimizer.safetensors", _remedy(folder)
    verify_checksums(folder, [path.name, "state.json"], remedy)
    tensors = read_tensors(path, remedy)
    state: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(parameters))}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) not in state or name not in OPTIMIZER_STATE:
            raise UserError(f"{path}: tensor {key} is one too many for its network; {remedy}")
        wanted = () if name == "step" else parameters[int(index)].shape
        if value.shape != wanted:
            raise UserError(f"{path}: tensor {key} is {list(value.shape)}, its network needs {list(wanted)}; {remedy}")
        state[int(index)][name] = value
    for which, values in state.items():
        for name in OPTIMIZER_STATE:
            if name not in values:
                raise UserError(f"{path}: tensor {which}.{name} is missing; {remedy}")
    counters = read_json(folder / "state.json")
    if not isinstance(counters, dict) or type(counters.get("step")) is not int:
        raise UserError(f"{folder / 'state.json'} is damaged (it holds no step); {remedy}")
    return counters["step"], state


def _remedy(folder: Path) -> str:
    return f"delete {folder} to go on from the checkpoint before it, if one is kept"
