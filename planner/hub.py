"""A planner on the Hugging Face Hub: which files it consists of, and how they come here."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import huggingface_hub

from groundwork.errors import UserError
from groundwork.files import CHECKSUMS, read_json, verify_checksums
from planner.unet_files import WEIGHTS_FILE

EMA = "ema"
CONTENT = ("config.yaml", "data.json", f"{EMA}/{WEIGHTS_FILE}")
"""All that a planner needs; nothing else of a run is uploaded, and nothing else is fetched."""
CARD = "README.md"


def require_repo(repo: str) -> None:
    """Refuses what is no name of a repository.

    Raises:
        UserError: it is not of the form USER/NAME.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"repo = {repo!r} must be USER/NAME, a repository on the Hugging Face Hub")


def fetch(repo: str, revision: str | None = None) -> Path:
    """The folder of a planner's files, fetched where they are not in the cache, each with its checksum checked.

    Args:
        repo: USER/NAME.
        revision: branch, tag or commit; ``None``: the newest.

    Raises:
        UserError: no such repository, revision or access, or files that are missing or not what was uploaded.
    """
    require_repo(repo)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are no news to the user
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=[*CONTENT, CHECKSUMS]))
    except (OSError, ValueError) as error:  # the Hub's and the network's errors are of these kinds
        reason = " ".join(str(error).split())[:200]
        wanted = f"{repo} at {revision}" if revision else repo
        raise UserError(f"{wanted} cannot be fetched from the Hugging Face Hub ({reason})") from error
    missing = [name for name in (*CONTENT, CHECKSUMS) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{repo} is no planner that `planner push` uploaded: it has no {', '.join(missing)}")
    if not set(read_json(folder / CHECKSUMS)) >= set(CONTENT):
        raise UserError(f"{repo}: {CHECKSUMS} does not name every file")
    verify_checksums(folder, CONTENT, f"delete {folder} and fetch it again")
    return folder
