import shutil

import gymnasium
import minari
import numpy as np
import pytest
import torch
from minari.data_collector import EpisodeBuffer

from envs.collect import collect, collect_missing
from envs.maps import get_map
from envs.splits import STITCH_CELLS, stitched
from groundwork.errors import UserError
from planner.config import DataConfig, from_dict
from planner.data import DataStatistics, load_data

STATE = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTION = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def write(name, lengths, spoil=None, space=STATE):
    """A flat dataset whose states count up along each episode; ``spoil`` edits the observations."""
    buffers = []
    for index, length in enumerate(lengths):
        observations = (np.arange(length + 1)[:, None] + np.array([0, 1000 * index, 0.5])).astype(space.dtype)
        observations = observations[:, : space.shape[0]]
        if spoil is not None:
            spoil(index, observations)
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=list(observations),
                actions=[np.full(2, 0.25, np.float32)] * length,
                rewards=[0.0] * length,
                terminations=[False] * length,
                truncations=[False] * (length - 1) + [True] if length else [],
            )
        )
    minari.create_dataset_from_buffers(name, buffers, observation_space=space, action_space=ACTION)
    return name


def config(name, **over):
    return DataConfig(**({"dataset": name, "horizon": 4, "stride": 2, "validation_share": 0.0} | over))


def test_windows_are_strided_pieces_of_one_episode(datasets_root):
    data = load_data(config(write("flat/pieces-v0", [9, 4, 12])))
    assert data.statistics.skipped_episodes == 1
    assert len(data.training) == (10 - 6) + (13 - 6)
    windows = data.training.gather(torch.arange(len(data.training)))
    points = data.statistics.normalizer.denormalize(windows.transpose(1, 2))
    assert torch.allclose(points[:, 1:, 0] - points[:, :-1, 0], torch.tensor(2.0))
    assert (points[:, :, 1] - points[:, :1, 1] - (points[:, :, 0] - points[:, :1, 0])).abs().max() < 1e-2
    assert windows.abs().max() <= 1


def test_actions_stand_behind_the_state(datasets_root):
    data = load_data(config(write("flat/actions-v0", [9]), actions=True))
    layout = data.statistics.layout
    assert (layout.state_dim, layout.action_dim, layout.transition_dim) == (3, 2, 5)
    assert len(data.training) == 9 - 6
    known = layout.known(4)
    assert known[:3, 0].all()
    assert not known[3:].any()


def test_a_maze_dataset_knows_its_map_and_conditions(hash_dataset):
    data = load_data(DataConfig(dataset=hash_dataset, horizon=32, stride=4))
    statistics = data.statistics
    assert statistics.maze.name == "hash"
    assert statistics.layout.known(32).sum() == 4 + 2
    assert 0.1 < statistics.longest_step_m < 5.3 * 0.04
    assert 0 < statistics.median_step_m < statistics.longest_step_m
    assert len(data.validation) > 0


def splits(dataset_id, **choice):
    """What a dataset's maze has of tasks: (family, split, length in cells)."""
    maze = load_data(DataConfig(dataset=dataset_id, horizon=16), **choice).statistics.maze
    return {(task.family, task.split, maze.distances_from(task.start)[task.goal]) for task in maze.tasks}


@pytest.fixture(scope="module")
def halves(datasets_root):
    """Two collections of each recipe on '#', by recipe."""
    found = {}
    for recipe in ("stitch", "tasks"):
        found[recipe] = [f"mazes/{recipe}-half{seed}-v0" for seed in (0, 1)]
        for seed, name in enumerate(found[recipe]):
            collect(get_map("hash"), recipe, 3000, seed, name, progress=False)
    return found


@pytest.mark.parametrize("recipe", ["stitch", "tasks"])
def test_a_combined_dataset_has_the_splits_of_its_parts(halves, recipe):
    minari.combine_datasets([minari.load_dataset(name) for name in halves[recipe]], f"mazes/{recipe}-both-v0")
    assert splits(f"mazes/{recipe}-both-v0") == splits(halves[recipe][0])


def test_tasks_combined_with_stitch_data_count_as_demonstrated_as_far_as_either_shows_them(halves):
    parts = [minari.load_dataset(halves[recipe][0]) for recipe in ("stitch", "tasks")]
    minari.combine_datasets(parts, "mazes/mixed-v0")
    tasks, stitch, mixed = (splits(name) for name in (halves["tasks"][0], halves["stitch"][0], "mazes/mixed-v0"))
    demonstrated = {row for row in tasks | stitch if row[1] == "demonstrated"}
    assert {row for row in mixed if row[1] == "demonstrated"} == demonstrated
    held_out = {row for row in tasks if row[1] == "held_out" and row[2] > STITCH_CELLS}
    assert {row for row in mixed if row[1] == "held_out"} == held_out


def test_filtered_and_split_datasets_load_without_an_id_and_keep_their_splits(halves):
    whole = minari.load_dataset(halves["stitch"][0])
    long = whole.filter_episodes(lambda episode: len(episode.rewards) > 100)
    half, _ = minari.split_dataset(whole, [len(whole) // 2, len(whole) - len(whole) // 2], seed=0)
    config = DataConfig(dataset="mazes/nobody-has-this-v0", horizon=16, validation_share=0.0)
    for part in (long, half):
        statistics = load_data(config, dataset=part).statistics
        assert statistics.episodes == len(part) < len(whole)
        assert splits(config.dataset, dataset=part) == splits(halves["stitch"][0])


def test_held_ends_let_windows_run_past_an_episode_into_rest(hash_dataset):
    free, held = (
        load_data(DataConfig(hash_dataset, 64, 8, hold_end=held, validation_share=0.0)) for held in (False, True)
    )
    lengths = [len(episode.rewards) + 1 for episode in minari.load_dataset(hash_dataset).iterate_episodes()]
    assert len(held.training) == sum(length - 1 for length in lengths) > len(free.training)
    assert held.statistics.skipped_episodes == 0
    last_of_first = held.training.gather(torch.tensor([lengths[0] - 2])).transpose(1, 2)
    points = held.statistics.normalizer.denormalize(last_of_first)[0]
    end = next(minari.load_dataset(hash_dataset).iterate_episodes()).observations["observation"]
    assert torch.allclose(points[0], torch.tensor(end[-2]).float(), atol=1e-5)
    assert torch.allclose(points[1:, :2], torch.tensor(end[-1, :2]).float(), atol=1e-5)
    assert points[1:, 2:].abs().max() < 1e-5
    assert held.statistics.longest_step_m == free.statistics.longest_step_m


def test_windows_of_the_moving_part_end_where_the_ball_comes_to_where_it_stays(hash_dataset):
    within_m = 0.3
    whole, cut = (
        load_data(DataConfig(hash_dataset, 16, 2, cut_waiting=within, validation_share=0.0)).training
        for within in (0.0, within_m)
    )
    lengths = []
    for episode in minari.load_dataset(hash_dataset).iterate_episodes():
        positions = episode.observations["observation"][:, :2]
        off = np.linalg.norm(positions - positions[-1], axis=1)
        arrived = 1 + max(np.flatnonzero(off > within_m), default=-1)
        assert (off[arrived:] <= within_m).all()
        lengths.append(arrived + 1)
    assert len(cut) == sum(max(0, length - 30) for length in lengths) < len(whole)
    assert torch.unique(cut.gather(torch.arange(len(cut)))[..., -1], dim=0).shape[0] > 100


def test_one_place_for_all_is_no_way(hash_dataset):
    with pytest.raises(UserError, match="needs episodes of 31 points; the longest of .* has 1"):
        load_data(DataConfig(hash_dataset, 16, 2, cut_waiting=100.0))


@pytest.mark.parametrize("over", [{"hold_end": True}, {"cut_waiting": 0.5}])
def test_without_a_maze_there_is_no_rest_to_hold_or_cut(datasets_root, over):
    (setting,) = over
    with pytest.raises(UserError, match=rf"{setting}.*maze"):
        load_data(config(write(f"flat/{setting.replace('_', '-')}-v0", [9]), **over))


def test_validation_episodes_are_the_same_for_every_horizon_and_apart_from_training(datasets_root):
    name = write("flat/split-v0", [20] * 10)
    data = load_data(config(name, validation_share=0.3))

    def episodes(windows):
        points = data.statistics.normalizer.denormalize(windows.series_ND)
        return set(((points[:, 1] - points[:, 0]) / 1000).round().int().tolist())

    assert len(episodes(data.validation)) == 3
    assert not episodes(data.validation) & episodes(data.training)


def test_statistics_round_trip_through_json(hash_dataset):
    statistics = load_data(DataConfig(dataset=hash_dataset, horizon=32, stride=4)).statistics
    assert DataStatistics.from_dict(statistics.to_dict()).to_dict() == statistics.to_dict()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_name_the_episode(datasets_root, value):
    def spoil(index, observations):
        if index == 1:
            observations[3, 0] = value

    name = write(f"flat/spoilt{'n' if np.isnan(value) else 'i'}-v0", [9, 9], spoil)
    with pytest.raises(UserError, match="episode 1"):
        load_data(config(name))


def test_no_episode_long_enough_names_both_lengths(datasets_root):
    name = write("flat/short-v0", [1, 3])
    with pytest.raises(UserError, match=r"needs episodes of 7 points; the longest of 2 .* has 4"):
        load_data(config(name))


def test_a_missing_dataset_says_what_to_do_and_leaves_nothing(datasets_root):
    with pytest.raises(UserError, match=r"offline or misspelt.*maze-data list"):
        load_data(config("nowhere/misspelt-v0"))
    assert not (datasets_root / "nowhere" / "misspelt-v0").exists()


def test_a_missing_dataset_of_ours_says_what_collects_it_and_which_is_like_it(hash_dataset):
    with pytest.raises(UserError, match=rf"maze-data collect hash .* --collect; --data.dataset {hash_dataset} takes"):
        load_data(config("mazes/hash-tasks6000-v0"))
    with pytest.raises(UserError, match="maze-data collect comb .* --collect$"):
        load_data(config("mazes/comb-tasks-v0"))


def test_a_dataset_of_the_usual_size_is_found_under_its_earlier_id_and_named_by_todays(datasets_root):
    write("mazes/serpentine-tasks300000-v0", [9, 12])
    assert len(load_data(config("mazes/serpentine-tasks-v0")).training) == (10 - 6) + (13 - 6)
    for older in ("mazes/serpentine-tasks300000-v0", "mazes/serpentine-tasks-v0"):
        assert from_dict({"data": {"dataset": older}}).data.dataset == "mazes/serpentine-tasks-v0"
    assert from_dict({"data": {"dataset": "mazes/hash-tasks6000-v0"}}).data.dataset == "mazes/hash-tasks6000-v0"
    collect_missing("mazes/serpentine-tasks-v0")  # is there
    assert not (datasets_root / "mazes" / "serpentine-tasks-v0").exists()


def test_an_ill_formed_id_is_refused(datasets_root):
    with pytest.raises(UserError, match="no id"):
        load_data(config("no id"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused(datasets_root, share):
    name = write(f"flat/cut{int(10 * share)}-v0", [50] * 20)
    file = datasets_root / name / "data" / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="again"):
        load_data(config(name))


def test_images_are_refused(datasets_root):
    space = gymnasium.spaces.Box(0, 255, (2, 2), np.uint8)
    buffer = EpisodeBuffer(
        id=0,
        observations=[np.zeros((2, 2), np.uint8)] * 9,
        actions=[np.zeros(2, np.float32)] * 8,
        rewards=[0.0] * 8,
        terminations=[False] * 8,
        truncations=[False] * 7 + [True],
    )
    minari.create_dataset_from_buffers("flat/image-v0", [buffer], observation_space=space, action_space=ACTION)
    with pytest.raises(UserError, match="flat"):
        load_data(config("flat/image-v0"))


# datasets of Minari's server


@pytest.fixture
def unreachable(monkeypatch):
    """Minari's server at a port where nobody listens, whatever network there is."""
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize(("maze", "order"), [("umaze", ""), ("large", " --order depth")])
def test_offline_a_published_maze_set_says_how_to_get_it_and_how_to_make_an_equal_one(
    refused, unreachable, datasets_root, tmp_path, maze, order
):
    name = f"D4RL/pointmaze/{maze}-v2"
    line = refused("planner.main", "train", "hash", "--data.dataset", name, "--run", tmp_path / "run")
    assert f"`minari download {name}`" in line
    assert f"`maze-data collect {maze} --recipe navigate{order}`" in line
    assert not (datasets_root / "D4RL").exists()


def test_a_dataset_of_the_server_is_downloaded_and_half_a_download_leaves_nothing(
    monkeypatch, datasets_root, hash_dataset, capsys
):
    """The server is played by a function that copies a dataset, and by one that is cut short."""
    config = DataConfig(dataset="served/hash-tasks-v0", horizon=32, stride=4)

    def cut_short(name):
        (datasets_root / name / "data").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setenv("MINARI_REMOTE", "nowhere://")
    monkeypatch.setattr(minari, "download_dataset", cut_short)
    with pytest.raises(KeyboardInterrupt):
        load_data(config)
    assert not (datasets_root / config.dataset).exists()

    def served(name):
        print("progress")
        shutil.copytree(datasets_root / hash_dataset, datasets_root / name)

    monkeypatch.setattr(minari, "download_dataset", served)
    assert len(load_data(config).training) == len(load_data(DataConfig(hash_dataset, 32, 4)).training)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "asking Minari's server" in captured.err


def test_stitch_data_bring_their_own_splits(datasets_root):
    maze = get_map("umaze")
    for recipe in ("stitch", "navigate"):
        collect(maze, recipe, 1500, 0, f"mazes/{recipe}-small-v0", progress=False)
    read = {r: load_data(DataConfig(f"mazes/{r}-small-v0", horizon=8, stride=2)) for r in ("stitch", "navigate")}
    assert read["stitch"].statistics.maze == stitched(maze)
    assert read["navigate"].statistics.maze == maze
