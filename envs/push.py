"""A local dataset to Minari's place on the Hugging Face Hub, by Minari's own call."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import minari

from envs.dataset import one_line, open_dataset
from groundwork.errors import UserError

REMOTE = "MINARI_REMOTE"
"""Where Minari reads the place; its call takes none."""


def push(dataset_id: str, to: str) -> None:
    """Uploads a local dataset and, of a combined one, its parts; Minari makes the repository public.

    Args:
        dataset_id: Minari's id.
        to: ``hf://USER``, the user or organization on the Hub; nothing is assumed.

    Raises:
        UserError: a dataset that is not here or damaged, another kind of place, no access token, an id that is there
            already, or a refusal by the Hub.
    """
    if not re.fullmatch(r"hf://[\w.-]+", to):
        raise UserError(f"to = {to!r}; allowed: hf://USER, a user or organization on the Hugging Face Hub")
    if not Path(minari.storage.get_dataset_path(dataset_id), "data").is_dir():
        raise UserError(f"id: dataset {dataset_id!r} is not here; `maze-data list` shows what is")
    open_dataset(dataset_id)  # whole and readable
    token = huggingface_hub.get_token()
    if token is None:
        raise UserError(f"to = {to!r} needs an access token: `hf auth login`, or HF_TOKEN in the environment")
    try:
        with _remote(to), contextlib.redirect_stdout(sys.stderr):
            if dataset_id in minari.list_remote_datasets(remote_path=to, prefix=dataset_id.rpartition("-v")[0]):
                raise UserError(f"id: dataset {dataset_id} exists at {to}; allowed: another id or version")
            minari.upload_dataset(dataset_id, token)
    except UserError:
        raise
    except Exception as error:  # the network's and the Hub's errors are of many kinds
        raise UserError(f"dataset {dataset_id} was not pushed to {to} ({one_line(error)})") from error


@contextlib.contextmanager
def _remote(to: str) -> Iterator[None]:
    before = os.environ.get(REMOTE)
    os.environ[REMOTE] = to
    try:
        yield
    finally:
        os.environ.pop(REMOTE)
        if before is not None:
            os.environ[REMOTE] = before
