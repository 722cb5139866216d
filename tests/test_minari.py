import json
import os
import subprocess
import sys

import minari
import pytest
import torch
from hub import running_hub

from planner.config import DataConfig
from planner.data import load_data


@pytest.fixture
def hub_command(tmp_path):
    """Runs ``maze-data`` in a process whose Hub is a local stand-in, and that stand-in."""
    with running_hub() as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_nobody"}

        def run(*arguments, **over):
            command = [sys.executable, "-m", "envs.main", *arguments]
            return subprocess.run(command, env={**env, **over}, capture_output=True, text=True, timeout=250)

        yield hub, run


def test_a_pushed_dataset_comes_back_and_its_id_is_taken(hash_dataset, datasets_root, hub_command, tmp_path):
    hub, run = hub_command
    done = run("push", hash_dataset, "--to", "hf://user")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"hf://user/{hash_dataset}\n"
    files = hub.repositories["datasets/user/mazes"].commits[-1][1]
    assert "hash-tasks-v0/data/main_data.hdf5" in files
    assert json.loads(files["namespace_metadata.json"])["datasets"] == [hash_dataset]

    again = run("push", hash_dataset, "--to", "hf://user")
    assert again.returncode == 2
    assert "exists at hf://user" in again.stderr.splitlines()[-1]

    code = f"import minari; minari.download_dataset({hash_dataset!r})"
    env = {"MINARI_DATASETS_PATH": str(tmp_path / "there"), "MINARI_REMOTE": "hf://user", "HF_ENDPOINT": hub.url}
    env |= {"HF_HOME": str(tmp_path / "hf")}
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, check=True, capture_output=True, timeout=250
    )
    here, there = (root / hash_dataset / "data" / "main_data.hdf5" for root in (datasets_root, tmp_path / "there"))
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["HASH"], "--to"),
        (["HASH", "--to", "user"], "allowed: hf://USER"),
        (["HASH", "--to", "gs://bucket"], "allowed: hf://USER"),
        (["mazes/nobody-has-this-v0", "--to", "hf://user"], "is not here"),
    ],
)
def test_a_push_names_its_target_and_a_dataset_that_is_here(refused, hash_dataset, arguments, words):
    assert words in refused("envs.main", "push", *(hash_dataset if word == "HASH" else word for word in arguments))


def test_a_push_without_a_token_says_how_to_get_one(hash_dataset, hub_command):
    _, run = hub_command
    done = run("push", hash_dataset, "--to", "hf://user", HF_TOKEN="")
    assert (done.returncode, "hf auth login" in done.stderr) == (2, True), done.stderr


def test_a_dataset_in_arrow_reads_as_the_same_in_hdf5(hash_dataset):
    pytest.importorskip("pyarrow")
    whole = minari.load_dataset(hash_dataset)
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=int(episode.id),
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=episode.truncations,
            infos={name: list(values) for name, values in episode.infos.items()},  # as Minari's collector has them
        )
        for episode in whole.iterate_episodes()
    ]
    minari.create_dataset_from_buffers("mazes/hash-arrow-v0", buffers, env=whole.env_spec, data_format="arrow")
    ours, theirs = (load_data(DataConfig(dataset=name, horizon=32)) for name in (hash_dataset, "mazes/hash-arrow-v0"))
    assert torch.equal(ours.training.series_ND, theirs.training.series_ND)
    assert ours.statistics.to_dict() == theirs.statistics.to_dict()


def test_arrow_without_its_library_says_what_to_install(refused, hash_dataset, tmp_path, monkeypatch):
    def missing(_):
        raise ImportError("pyarrow is not installed")

    monkeypatch.setattr(minari, "load_dataset", missing)
    line = refused("envs.main", "show", hash_dataset, "--out", tmp_path / "x.png")
    assert "pip install 'temporal-norm-planner[arrow]'" in line
