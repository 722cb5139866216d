import minari
import numpy as np
import pytest
from wanted import d4rl_stream, write_d4rl

from envs.convert import convert, map_of_file
from envs.maps import get_map
from groundwork.errors import UserError
from planner.config import DataConfig
from planner.data import load_data

UMAZE = get_map("umaze")


@pytest.fixture(scope="module")
def converted(datasets_root, tmp_path_factory):
    path = write_d4rl(tmp_path_factory.mktemp("d4rl") / "maze2d-umaze-sparse-v1.hdf5", d4rl_stream())
    return convert(path, "mazes/umaze-d4rl-v1", map_of_file(path), progress=False)


def test_episodes_end_at_goals_timeouts_and_leaps_and_keep_the_row_behind_where_a_step_reaches_it(converted):
    episodes = list(converted.iterate_episodes())
    # the first is followed by the second without a break; behind the second the ball is set elsewhere
    assert [len(episode.actions) for episode in episodes] == [81, 79, 39]
    first, second, third = (episode.observations["observation"] for episode in episodes)
    assert np.allclose(first[-1], second[0])
    assert [episode.rewards[0] for episode in episodes] == [0, 81, 161]
    assert all(episode.truncations[-1] and not episode.terminations.any() for episode in episodes)
    steps = np.concatenate(
        [np.linalg.norm(np.diff(states[:, :2], axis=0), axis=1) for states in (first, second, third)]
    )
    assert steps.min() > 0.02, "the stale row was read"
    assert steps.max() < 0.03


def test_d4rl_axes_become_ours(converted):
    first = next(converted.iterate_episodes([0]))
    states, goal = first.observations["observation"], first.observations["desired_goal"][0]
    # row 1, column 1 to row 1, column 3: along the top of the U, to the right
    assert np.allclose(states[0, :2], UMAZE.cell_to_xy((1, 1)), atol=1e-6)
    assert np.allclose(states[80, :2], UMAZE.cell_to_xy((1, 3)), atol=1e-6)
    assert (states[5:75, 2] > 2).all()
    assert np.allclose(states[5:75, 3], 0, atol=1e-6)
    assert UMAZE.xy_to_cell(goal).tolist() == [1, 3]
    # D4RL pushed 0.5 down and 0.25 to the left
    assert np.allclose(first.actions[0], [-0.25, -0.5])


def test_a_converted_dataset_has_what_our_collections_have_and_trains(converted, hash_dataset):
    theirs, ours = next(converted.iterate_episodes()), next(minari.load_dataset(hash_dataset).iterate_episodes())
    assert set(theirs.observations) == set(ours.observations)
    assert set(theirs.infos) == set(ours.infos)
    assert theirs.actions.dtype == ours.actions.dtype
    data = load_data(DataConfig(dataset="mazes/umaze-d4rl-v1", horizon=16, stride=2, validation_share=0.0))
    assert data.statistics.maze == UMAZE
    assert data.statistics.episodes == 3


def test_a_file_without_timeouts_ends_its_episodes_at_terminals_and_new_goals(datasets_root, tmp_path):
    stream = d4rl_stream()
    del stream["timeouts"]
    ends = np.zeros(201, bool)
    ends[[80, 160, 200]] = True  # the ball is at its goal: what its action leads to is another episode's
    for name, terminals in (("goals", {}), ("terminals", {"terminals": ends})):
        arrays = {key: values for key, values in stream.items() if key != "terminals"} | terminals
        path = write_d4rl(tmp_path / f"{name}-umaze.hdf5", arrays)
        dataset = convert(path, f"mazes/no-timeouts-{name}-v0", UMAZE, progress=False)
        lengths = [len(episode.actions) for episode in dataset.iterate_episodes()]
        assert lengths == ([80, 79, 39] if terminals else [81, 79, 39])


def spoil(name, values):
    return {**d4rl_stream(), name: values}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({key: value for key, value in d4rl_stream().items() if key != "infos/goal"}, ["infos/goal", "layout"]),
        (spoil("observations", np.zeros((201, 29))), ["observations", "(201, 29)", "(201, 4)"]),
        (spoil("actions", np.zeros((7, 2))), ["actions", "(7, 2)"]),
        (spoil("infos/qpos", np.where(np.arange(201)[:, None] == [9, 9], np.nan, 1.0)), ["infos/qpos", "NaN", "row 9"]),
        (spoil("infos/qpos", np.full((201, 2), 1.8)), ["map", "umaze"]),
        ({name: values[:0] for name, values in d4rl_stream().items()}, ["no steps"]),
        (spoil("observations", np.float32(1)), ["observations", "(1,)"]),
    ],
)
def test_a_file_of_another_layout_is_one_line(refused, datasets_root, tmp_path, arrays, words):
    path = write_d4rl(tmp_path / "maze2d-umaze-v1.hdf5", arrays)
    line = refused("envs.main", "convert", path, "--id", "mazes/bad-d4rl-v1")
    for word in words:
        assert word in line
    assert not (datasets_root / "mazes" / "bad-d4rl-v1").exists()


def test_a_file_cut_short_or_of_another_kind_is_one_line(refused, datasets_root, tmp_path):
    whole = write_d4rl(tmp_path / "maze2d-umaze-v1.hdf5", d4rl_stream())
    for name, content in (("cut", whole.read_bytes()[: whole.stat().st_size // 2]), ("text", b"no data at all")):
        path = tmp_path / f"{name}-umaze.hdf5"
        path.write_bytes(content)
        assert "damaged" in refused("envs.main", "convert", path, "--id", "mazes/bad-d4rl-v1")
    assert "no file" in refused("envs.main", "convert", tmp_path / "none-umaze.hdf5", "--id", "mazes/bad-d4rl-v1")


def test_the_command_takes_the_map_from_the_file_or_the_option(command, datasets_root, tmp_path):
    path = write_d4rl(tmp_path / "walk.hdf5", d4rl_stream())
    with pytest.raises(UserError, match="--map"):
        map_of_file(path)
    done = command("envs.main", "convert", path, "--id", "mazes/walk-v0", "--map", "umaze")
    assert done.returncode == 0, done.stderr
    assert "3 episodes, 199 steps" in done.stdout
