import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from envs.draw import Panel, dataset_figure, draw_maze, draw_trajectories, figure_to_array, rollout_gif
from envs.maps import get_map


def blank_axis():
    figure = Figure(figsize=(3, 3), dpi=100)
    return figure, figure.add_axes((0, 0, 1, 1))


def test_the_picture_is_grey_where_the_walls_are_and_white_where_they_are_not():
    maze = get_map("medium")
    figure, axis = blank_axis()
    draw_maze(axis, maze)
    axis.set_axis_off()
    pixels = figure_to_array(figure)
    assert pixels.shape == (300, 300, 3)
    assert pixels.dtype == np.uint8
    rows, columns = maze.walls.shape
    for cell, wall in np.ndenumerate(maze.walls):
        centre = pixels[int((cell[0] + 0.5) * 300 / rows), int((cell[1] + 0.5) * 300 / columns)]
        assert (centre.max() < 250) == wall, cell


def test_axes_are_in_metres_and_equally_scaled():
    _, axis = blank_axis()
    draw_maze(axis, get_map("tee"))
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x (m)", "y (m)")
    assert axis.get_aspect() == 1.0
    assert axis.get_xlim() == (-4.5, 4.5)
    assert axis.get_ylim() == (-3.0, 3.0)


def test_trajectories_appear_where_they_run_and_none_is_allowed():
    maze = get_map("cross")
    figure, axis = blank_axis()
    draw_maze(axis, maze)
    draw_trajectories(axis, [])
    before = figure_to_array(figure)
    path = np.linspace(maze.cell_to_xy((4, 1)), maze.cell_to_xy((4, 7)), 20)
    draw_trajectories(axis, [path, path + 0.1], dots=True)
    changed = np.argwhere((figure_to_array(figure) != before).any(axis=-1))
    assert len(changed) > 100
    assert np.abs(changed[:, 0] - 150).max() < 30


def test_a_gif_has_a_picture_every_few_steps_and_they_differ(tmp_path):
    positions = np.linspace((-3, 0), (3, 0), 41)
    rollout_gif(tmp_path / "rollout.gif", get_map("cross"), [Panel(positions, positions[::4])], fps=20, every_s=0.1)
    with Image.open(tmp_path / "rollout.gif") as movie:
        assert movie.n_frames == 5
        assert movie.info["duration"] == 50
        first = np.asarray(movie.convert("RGB"))
        movie.seek(4)
        assert (np.asarray(movie.convert("RGB")) != first).any()


@pytest.mark.parametrize(("name", "pictures"), [("cross", 11), ("ogbench-medium", 41)])
def test_a_gif_plays_in_real_time_in_every_world(tmp_path, name, pictures):
    maze = get_map(name)
    positions = np.linspace(*maze.cell_to_xy([maze.free_cells[0], maze.free_cells[-1]]), 41)
    rollout_gif(tmp_path / "rollout.gif", maze, [Panel(positions, positions[::4])])
    with Image.open(tmp_path / "rollout.gif") as movie:
        assert movie.n_frames == pictures
        last_s = 1e-3 * movie.info["duration"] * (pictures - 1)
    assert last_s == pytest.approx(40 * maze.world.dt_s)


def test_a_dataset_of_one_short_episode_can_be_drawn():
    figure = dataset_figure(get_map("cross"), [np.zeros((2, 4))], "tiny")
    assert figure_to_array(figure).ndim == 3
