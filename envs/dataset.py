"""A Minari dataset by its id: the local one, or downloaded first, or what to do about it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import minari

from envs.dataset_folder import DATASET_FILES
from envs.settings import collect_command, collection_of, earlier_id
from groundwork.errors import UserError
from groundwork.files import verify_checksums

LOCAL_NAMESPACE = "mazes/"
"""Where ``maze-data collect`` writes by default; nobody hosts it."""
CONNECT_TIMEOUT_S = 10


def open_dataset(dataset_id: str) -> minari.MinariDataset:
    """The local dataset, downloaded first when Minari's server has it.

    Raises:
        UserError: neither here nor to be had (offline or misspelt), or not readable.
    """
    try:
        local = local_id(dataset_id)
        root = Path(minari.storage.get_dataset_path(local or dataset_id))
        if local is None and not dataset_id.startswith(LOCAL_NAMESPACE):
            _download(dataset_id, root)
        verify_checksums(
            root / "data", DATASET_FILES, "collect it again, or delete checksums.json if you changed it yourself"
        )
        return minari.load_dataset(local or dataset_id)
    except UserError:
        raise
    except FileNotFoundError:
        raise _missing(dataset_id) from None
    except ImportError as error:  # the message is Minari's and speaks of its own extras
        raise UserError(
            f"dataset {dataset_id!r} is in Arrow's format: pip install 'temporal-norm-planner[arrow]'"
        ) from error
    except Exception as error:  # Minari and HDF5 raise what they like about a damaged or ill-named dataset.
        raise UserError(f"dataset {dataset_id!r} cannot be read ({one_line(error)}); collect it again") from error


def local_id(dataset_id: str) -> str | None:
    """The id under which a dataset is here, today's or its earlier one; ``None``: it is not."""
    ids = (dataset_id, earlier_id(dataset_id))
    return next((one for one in ids if (minari.storage.get_dataset_path(one) / "data").is_dir()), None)


def _download(dataset_id: str, root: Path) -> None:
    """Fetches a dataset from Minari's server, with its progress on standard error; all of it or nothing."""
    existed = root.exists()
    print(f"dataset {dataset_id} is not here: asking Minari's server", file=sys.stderr)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are no news to the user
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            if os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://"):
                # Without a network the download itself would retry for 20 seconds.
                huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=CONNECT_TIMEOUT_S)
            minari.download_dataset(dataset_id)
    except BaseException as error:
        if not existed:  # half a download, also one that Ctrl-C cut short, would pass for a whole one
            shutil.rmtree(root, ignore_errors=True)
        if isinstance(error, Exception):  # no network, no such dataset, no such namespace: the remedy is the same
            raise _missing(dataset_id) from error
        raise


def _missing(dataset_id: str) -> UserError:
    """What to do about a dataset that is neither here nor to be had; for D4RL's mazes, how to make an equal one."""
    folder = minari.storage.get_dataset_path()
    if own := collection_of(dataset_id):
        alike = sorted((folder / LOCAL_NAMESPACE).glob(f"{own.map}-{own.recipe}*/"))
        instead = f"; --data.dataset {LOCAL_NAMESPACE}{alike[0].name} takes the one that is there" if alike else ""
        return UserError(
            f"dataset {dataset_id!r} is not in {folder}: `{collect_command(own)}` collects it, and so does "
            f"`planner train` with --collect{instead}"
        )
    remedy = "`maze-data list` shows what is there, `maze-data collect` makes one"
    published = re.fullmatch(r"D4RL/pointmaze/(umaze|medium|large)(-dense)?-v\d+", dataset_id)
    if published and (equal := collection_of(f"mazes/{published[1]}-navigate-v0")):
        # The experts of D4RL's larger mazes search depth first.
        equal = replace(equal, order="breadth" if published[1] == "umaze" else "depth")
        remedy = (
            f"get it online with `minari download {dataset_id}`, or make an equal one, {equal.id}, "
            f"with `{collect_command(equal)}`"
        )
    return UserError(
        f"dataset {dataset_id!r} is neither in {folder} nor to be downloaded (offline or misspelt): {remedy}"
    )


def one_line(error: BaseException) -> str:
    """Kind and message of an error, cut to what a line carries."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
