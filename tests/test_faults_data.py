"""What may happen to a dataset: damage, full disks, contents that no planner can use."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from processes import start, start_command
from test_data import ACTION, config, write

from envs.collect import collect
from envs.maps import get_map
from groundwork.errors import UserError
from planner.config import DataConfig
from planner.data import load_data

BOX = gymnasium.spaces.Box


@pytest.fixture
def collected(datasets_root, hash_dataset):
    """A collected dataset that a test may damage: its id and its folder."""
    name = "mazes/damaged-v0"
    folder = datasets_root / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(datasets_root / hash_dataset, folder)
    yield DataConfig(name, 32, 4), folder / "data"
    shutil.rmtree(folder)


@pytest.mark.parametrize("file", ["main_data.hdf5", "metadata.json"])
def test_a_flipped_bit_and_a_collection_cut_short_are_refused_by_name(collected, refused, tmp_path, file):
    asked, folder = collected
    path = folder / file
    whole, random = path.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:length] for length in (0, 1, len(whole) // 2, len(whole) - 1)]
    for position in random.integers(len(whole), size=8):
        content = bytearray(whole)
        content[position] ^= 1 << random.integers(8)
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError) as refusal:
            load_data(asked)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    line = refused("envs.main", "show", asked.dataset, "--out", tmp_path / "x.png")
    assert str(path) in line
    path.write_bytes(whole)
    assert len(load_data(asked).training)


def load_each_flip(dataset_id: str, path: Path, flips: int) -> int:
    """Loads a dataset with one bit flipped, again and again; fails on anything but data or a one-line refusal."""
    whole, random = path.read_bytes(), np.random.default_rng(1)
    for position in random.integers(len(whole), size=flips):
        content = bytearray(whole)
        content[position] ^= 1 << random.integers(8)
        path.write_bytes(content)
        try:
            load_data(config(dataset_id))
        except UserError as refusal:
            print(f"refused {len(str(refusal).splitlines())}", flush=True)
        else:
            print("read", flush=True)
    return 0


@pytest.mark.parametrize("file", ["main_data.hdf5", "metadata.json"])
def test_a_dataset_without_checksums_is_read_or_refused_in_one_line_whatever_bit_flips(datasets_root, tmp_path, file):
    name = write(f"flat/flipped-{file.split('.')[1]}-v0", [9, 8])
    path = datasets_root / name / "data" / file
    child = start(tmp_path, load_each_flip, name, path, 40)
    assert child.end(limit_s=60) == 0, child.printed()
    verdicts = child.printed().splitlines()
    assert verdicts.count("read") + verdicts.count("refused 1") == 40 <= len(verdicts)  # Minari may warn between


def test_a_dataset_of_no_episodes_says_so(datasets_root):
    name = write("flat/none-v0", [9])
    folder = datasets_root / name / "data"
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"total_episodes": 0, "total_steps": 0}))
    with pytest.raises(UserError, match="longest of 0 in 'flat/none-v0' has 0"):
        load_data(config(name))


def test_one_step_episodes_are_skipped_and_counted_or_refused_when_there_is_nothing_else(datasets_root):
    assert load_data(config(write("flat/some-v0", [1, 9, 1]))).statistics.skipped_episodes == 2
    with pytest.raises(UserError, match="needs episodes of 7 points; the longest of 2 .* has 2"):
        load_data(config(write("flat/ones-v0", [1, 1])))


def test_episodes_shorter_than_a_stride_are_refused_where_a_maze_needs_its_steps(datasets_root):
    collect(get_map("hash"), "tasks", 3, 0, "mazes/three-v0", progress=False)
    with pytest.raises(UserError, match="stride = 4: no training episode"):
        load_data(DataConfig("mazes/three-v0", 8, 4, hold_end=True))


@pytest.mark.parametrize(
    ("dtype", "word"), [(np.bool_, "neither flat"), (np.complex64, "cannot be read|neither flat|damaged")]
)
def test_states_that_are_no_numbers_are_refused(datasets_root, dtype, word):
    space = gymnasium.spaces.MultiBinary(3) if dtype == np.bool_ else BOX(-1, 1, (3,), np.float64)
    name = write(f"flat/{np.dtype(dtype).name}-v0", [9], space=space)
    import h5py

    with h5py.File(Path(minari.storage.get_dataset_path(name)) / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/observations"]
        file["episode_0/observations"] = np.zeros((10, 3), dtype)
    with pytest.raises(UserError, match=word):
        load_data(config(name))


def test_whole_numbers_are_states_like_any_other(datasets_root):
    space = BOX(-(2**31), 2**31 - 1, (3,), np.int32)
    assert len(load_data(config(write("flat/whole-v0", [9], space=space))).training) == 4


def test_values_too_large_for_single_precision_name_the_episode(datasets_root):
    def spoil(index, observations):
        observations[2, 1] = 1e300

    with pytest.raises(UserError, match="too large values in episode 0"):
        load_data(config(write("flat/large-v0", [9], spoil)))


def test_a_state_that_never_varies_is_data_too(datasets_root):
    def spoil(index, observations):
        observations[:] = 7

    data = load_data(config(write("flat/constant-v0", [9], spoil)))
    assert (data.training.series_ND == 0).all()


@pytest.mark.parametrize("dimensions", [3, 5])
def test_a_maze_with_states_of_another_dimension_is_refused(datasets_root, dimensions):
    name = write(f"flat/maze{dimensions}-v0", [9], space=BOX(-np.inf, np.inf, (dimensions,), np.float64))
    path = datasets_root / name / "data" / "metadata.json"
    environment = json.dumps(json.loads(gymnasium.spec("maze/hash-v0").to_json()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"env_spec": environment}))
    with pytest.raises(UserError, match=r"states of 3 values|states of 5 values"):
        load_data(config(name))


def test_planning_actions_that_are_no_vectors_is_refused(datasets_root):
    name = "flat/discrete-v0"
    buffer = minari.data_collector.EpisodeBuffer(
        id=0,
        observations=list(np.arange(30.0).reshape(10, 3)),
        actions=[1] * 9,
        rewards=[0.0] * 9,
        terminations=[False] * 9,
        truncations=[False] * 8 + [True],
    )
    space = BOX(-np.inf, np.inf, (3,), np.float64)
    minari.create_dataset_from_buffers(
        name, [buffer], observation_space=space, action_space=gymnasium.spaces.Discrete(3)
    )
    assert len(load_data(config(name)).training)
    with pytest.raises(UserError, match="actions of 0 dimensions"):
        load_data(config(name, actions=True))
    assert ACTION.shape == (2,)


def test_a_disk_that_fills_up_while_a_dataset_is_collected_leaves_the_old_one(tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    try:
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(disk))
        collect(get_map("hash"), "tasks", 500, 0, "mazes/hash-tasks-v0", progress=False)
        child = start_command(tmp_path, "envs.main", "collect", "hash", "--steps", 200_000)
        assert child.end() == 2, child.printed()
        assert "Traceback" not in child.printed()
        assert (
            child.printed().splitlines()[-1]
            == "error: mazes/hash-navigate-v0: No space left on device; nothing was stored"
        )
        assert minari.load_dataset("mazes/hash-tasks-v0").total_steps == 500
        assert not list(disk.glob(".*"))
        assert list(minari.list_local_datasets()) == ["mazes/hash-tasks-v0"]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_ctrl_c_during_a_collection_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    child = start_command(tmp_path, "envs.main", "collect", "hash", "--steps", 100_000_000)
    child.wait_until(lambda: list((tmp_path / "data").glob(".collecting-*/new/data/main_data.hdf5")))
    assert child.send(signal.SIGINT) == 130
    assert child.printed().splitlines()[-1].endswith("interrupted")
    assert "Traceback" not in child.printed()
    assert not list((tmp_path / "data").glob(".*"))
