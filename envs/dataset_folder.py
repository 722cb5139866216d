"""Minari's local folder: is an id free, and how a dataset is written aside and appears only when whole."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage import get_dataset_path

from groundwork.errors import UserError
from groundwork.files import write_checksums

HIDDEN_PREFIX = ".collecting-"
"""Minari lists no folder whose name starts with a dot."""
DATASET_FILES = ("main_data.hdf5", "metadata.json")
"""What a dataset's ``data`` folder holds; ours also has their checksums."""


def require_vacant(dataset_id: str, overwrite: bool) -> None:
    """Refuses an id that Minari cannot parse, that is taken, or whose place cannot be written.

    Raises:
        UserError: which of these, and what is allowed.
    """
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:  # a TypeError where the version is missing
        raise UserError(f"id: {dataset_id!r} is malformed; allowed: NAMESPACE/NAME-vVERSION") from error
    folder = _root() / dataset_id
    for parent in folder.parents:
        if parent == _root():
            break
        if (parent / "data").exists():
            raise UserError(f"id: {dataset_id} lies inside the dataset {parent.name}; allowed: another id")
    if not folder.exists():
        return
    if not (folder / "data").is_dir():
        raise UserError(f"id: {dataset_id} is a folder of other datasets; allowed: another id")
    if not overwrite:
        raise UserError(f"id: dataset {dataset_id} exists; allowed: another id, or --overwrite")


@contextmanager
def written_aside(
    dataset_id: str, overwrite: bool, env: gymnasium.Env, metadata: dict[str, Any]
) -> Iterator[MinariStorage]:
    """A storage in a hidden folder that takes the place of ``dataset_id`` if the block ends well.

    Args:
        dataset_id: Minari's id.
        overwrite: whether a dataset of that id may be replaced.
        env: gives the spaces and the spec that ``recover_environment`` reads.
        metadata: what Minari's storage shall hold besides; plain values.

    Raises:
        UserError: the folder cannot be written, or the id was taken meanwhile.
        OSError: the disk is full.
    """
    try:
        aside = Path(tempfile.mkdtemp(prefix=HIDDEN_PREFIX, dir=_root()))
    except OSError as error:
        raise UserError(_cannot_write(error)) from error
    try:
        # mkdtemp lets only its owner read; a dataset shall be as readable as its neighbours.
        dataset = aside / "new"
        dataset.mkdir()
        storage = MinariStorage.new(
            dataset / "data",
            observation_space=env.observation_space,
            action_space=env.action_space,
            env_spec=env.spec,
        )
        storage.update_metadata(metadata)
        yield storage
        write_checksums(dataset / "data", DATASET_FILES)
        require_vacant(dataset_id, overwrite)
        _move_into_place(dataset, dataset_id, aside / "old")
    except (OSError, RuntimeError) as error:
        refusal = _system_error(error, dataset_id)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _system_error(error: Exception, dataset_id: str) -> OSError | None:
    """What the system refused, out of HDF5's page of details, which comes as either kind of error."""
    number = re.search(r"errno = (\d+)", str(error))
    if number is None:
        return None
    return OSError(int(number[1]), f"{os.strerror(int(number[1]))}; nothing was stored", dataset_id)


def _move_into_place(dataset: Path, dataset_id: str, old: Path) -> None:
    namespace, _, _ = parse_dataset_id(dataset_id)
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
    final = _root() / dataset_id
    replaced = final.exists()
    if replaced:
        final.rename(old)
    try:
        dataset.rename(final)
    except BaseException:
        if replaced:
            old.rename(final)
        raise


def _root() -> Path:
    try:
        return get_dataset_path()
    except OSError as error:
        raise UserError(_cannot_write(error)) from error


def _cannot_write(error: OSError) -> str:
    reason = error.strerror or error
    return f"datasets folder {error.filename}: {reason}; allowed: a writable folder (MINARI_DATASETS_PATH)"
