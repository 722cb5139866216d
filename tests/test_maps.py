import json
import re
from itertools import pairwise

import gymnasium
import gymnasium_robotics.envs.maze.maps as library_maps
import numpy as np
import pytest
from gymnasium_robotics.envs.maze.maze_v4 import Maze
from wanted import OGBENCH_MAPS, POINT_MAZE_MAPS

import envs.point_maze  # noqa: F401  (registers the environments)
from envs.maps import from_env_spec, get_map, map_from_rows, map_names
from envs.maze_map import MazeMap
from envs.point_maze import CUSTOM_ID, make_env
from envs.shipped import OGBENCH_TASKS
from envs.splits import stitched
from groundwork.errors import UserError

OPEN_ROOM = ["#######", "#.....#", "#.###.#", "#.....#", "#######"]


@pytest.mark.parametrize(
    ("name", "library"),
    [("umaze", "U_MAZE"), ("medium", "MEDIUM_MAZE"), ("large", "LARGE_MAZE")],
)
def test_borrowed_maps_equal_the_library_cell_for_cell(name, library):
    assert get_map(name).to_gymnasium() == getattr(library_maps, library)


@pytest.mark.parametrize("name", POINT_MAZE_MAPS)
def test_coordinates_equal_the_library_and_invert(name):
    maze = get_map(name)
    library = Maze(maze.to_gymnasium(), 1, 0.4)
    for cell in maze.free_cells:
        np.testing.assert_allclose(maze.cell_to_xy(cell), library.cell_rowcol_to_xy(np.array(cell)))
    assert (maze.xy_to_cell(maze.cell_to_xy(maze.free_cells)) == np.array(maze.free_cells)).all()


@pytest.mark.parametrize("name", OGBENCH_MAPS)
def test_ogbenchs_maps_coordinates_tasks_and_limits_are_its_own(name):
    maze, env = get_map(name), gymnasium.make(f"maze/{name}-v0")
    library = env.unwrapped.ogbench
    assert maze.to_gymnasium() == library.maze_map.tolist()
    assert [(task.start, task.goal) for task in maze.tasks] == [
        (task["init_ij"], task["goal_ij"]) for task in library.task_infos
    ]
    assert [task.family for task in maze.tasks] == [task["task_name"] for task in library.task_infos]
    for cell in maze.free_cells:
        np.testing.assert_array_equal(maze.cell_to_xy(cell), library.ij_to_xy(cell))
    points = np.random.default_rng(0).uniform(*maze.bounds_m, size=(200, 2))
    assert maze.xy_to_cell(points).tolist() == [list(library.xy_to_ij(point)) for point in points]
    assert maze.world.goal_tolerance_m == library._goal_tol
    assert maze.world.cell_noise_m == library._noise * library._maze_unit / 4
    assert maze.world.dt_s == library.dt
    theirs = gymnasium.spec(f"pointmaze-{library._maze_type}-v0")
    assert env.spec.max_episode_steps == theirs.max_episode_steps == maze.episode_limit
    assert from_env_spec(theirs) == maze


def turns(path):
    steps = np.diff(np.array(path), axis=0)
    return int((np.abs(np.diff(steps, axis=0)).sum(axis=1) > 0).sum())


@pytest.mark.parametrize("name", ["cross", "hash", "tee"])
def test_only_straight_passages_are_demonstrated_and_families_keep_their_word(name):
    maze = get_map(name)
    number_of_turns = {"straight": 0, "turn": 1, "double-turn": 2}
    for task in maze.tasks:
        assert (task.split == "demonstrated") == (task.family == "straight")
        if task.family == "return":
            assert task.start == task.goal
        else:
            path = maze.shortest_path(task.start, task.goal)
            assert turns(path) == number_of_turns[task.family], task.name
            assert len(path) - 1 == sum(abs(a - b) for a, b in zip(task.start, task.goal, strict=True))


def test_the_ladders_rails_and_rungs_are_demonstrated_and_ways_over_a_rung_held_out():
    maze = get_map("ladder")
    paths = {
        split: [maze.shortest_path(task.start, task.goal) for task in maze.tasks if task.split == split]
        for split in ("demonstrated", "held_out")
    }
    assert len(paths["demonstrated"]) == len(paths["held_out"]) == 8
    assert {turns(path) for path in paths["demonstrated"]} == {0}
    steps = {(one, other) for path in paths["demonstrated"] for one, other in pairwise(path)}
    for path in paths["held_out"]:
        assert turns(path) == 2
        assert set(pairwise(path)) <= steps
        # From one rail to the other, with wall in the row of the start and in that of the goal.
        (row, column), (other_row, other_column) = path[0], path[-1]
        assert {column, other_column} == {1, 5}
        assert maze.walls[[row, other_row], 2:5].all()


@pytest.mark.parametrize("name", ["serpentine", "comb"])
def test_a_held_out_way_is_no_demonstration_and_its_pieces_are(name):
    maze = get_map(name)
    paths = {
        split: [maze.shortest_path(task.start, task.goal) for task in maze.tasks if task.split == split]
        for split in ("demonstrated", "held_out")
    }

    def parts(path, cells):
        return {tuple(path[begin : begin + cells]) for begin in range(len(path) - cells + 1)}

    pieces = set().union(*(parts(path, 4) for path in paths["demonstrated"]))
    for path in paths["held_out"]:
        assert not any(tuple(path) in parts(shown, len(path)) for shown in paths["demonstrated"])
        assert parts(path, 4) <= pieces


def test_stitch_data_demonstrate_four_cells_and_hold_out_what_is_farther():
    for name, far in (("umaze", 4), ("medium", 7), ("large", 7)):
        maze = stitched(get_map(name))
        lengths = {
            split: [maze.distances_from(t.start)[t.goal] for t in maze.tasks if t.split == split]
            for split in ("demonstrated", "held_out")
        }
        assert set(lengths["demonstrated"]) == {4}
        assert len(lengths["held_out"]) == far
        assert min(lengths["held_out"]) > 4


def test_ogbenchs_five_tasks_are_held_out_of_its_stitch_data_under_their_names():
    for name in OGBENCH_TASKS:
        maze = get_map(name)
        held_out = [task for task in stitched(maze).tasks if task.split == "held_out"]
        assert [task.family for task in held_out] == [f"task{number}" for number in range(1, 6)]
        assert held_out == list(maze.tasks)


@pytest.mark.parametrize("name", map_names())
def test_task_names_are_unique_and_plain_form_goes_round(name):
    maze = get_map(name)
    assert len({task.name for task in maze.tasks}) == len(maze.tasks) > 0
    assert MazeMap.from_dict(json.loads(json.dumps(maze.to_dict()))) == maze


def test_the_number_of_held_out_tasks_is_as_designed():
    families = [task.family for task in get_map("hash").tasks]
    counts = {family: families.count(family) for family in set(families)}
    assert counts == {"straight": 8, "turn": 8, "double-turn": 4, "return": 4}


@pytest.mark.parametrize("order", ["breadth", "depth"])
def test_paths_join_their_ends_over_free_neighbouring_cells(order):
    maze = get_map("large")
    rng = np.random.default_rng(0)
    for _ in range(30):
        start, goal = (maze.free_cells[index] for index in rng.integers(len(maze.free_cells), size=2))
        path = maze.shortest_path(start, goal, order, rng)
        assert path[0] == start
        assert path[-1] == goal
        assert len(set(path)) == len(path)
        assert all(after in maze.free_neighbours(before) for before, after in pairwise(path))
        shortest = maze.distances_from(start)[goal]
        assert len(path) - 1 == shortest if order == "breadth" else len(path) - 1 >= shortest


def test_depth_first_takes_detours_and_breadth_first_draws_among_equals():
    maze = map_from_rows(OPEN_ROOM)
    rng = np.random.default_rng(0)
    depth = {len(maze.shortest_path((1, 1), (1, 5), "depth", rng)) for _ in range(20)}
    assert depth == {5, 9}
    breadth = {tuple(maze.shortest_path((1, 1), (3, 5), "breadth", rng)) for _ in range(20)}
    assert len(breadth) == 2


@pytest.mark.parametrize(
    ("rows", "row", "column", "word"),
    [
        (["###", "#.#", "#.#", "#.#"], 3, 1, "closed"),
        (["####", "...#", "####"], 1, 0, "closed"),
        (["####", "#..#", "###"], 2, 3, "cells where row 0 has"),
        (["####", "#.x#", "####"], 1, 2, "unknown character"),
        (["#####", "#.#.#", "#####"], 1, 3, "connected"),
        (["###", "#.#", "###"], 1, 1, "at least 2"),
        (["####", "####", "####"], 0, 0, "at least 2"),
        ([], 0, 0, "empty"),
    ],
)
def test_a_picture_that_is_no_maze_is_refused_with_row_and_column(tmp_path, rows, row, column, word):
    picture = tmp_path / "mine.txt"
    picture.write_text("\n".join(rows))
    with pytest.raises(UserError, match=re.escape(f"row {row}, column {column} ")) as refusal:
        get_map(str(picture))
    assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_map_of_a_users_own_gets_tasks_between_far_cells(tmp_path):
    picture = tmp_path / "my room.txt"
    picture.write_text("\n".join(row.replace(".", " ") for row in OPEN_ROOM) + "\n\n")
    maze = get_map(str(picture))
    assert maze.name == "my_room"
    assert maze.rows == tuple(OPEN_ROOM)
    assert {task.split for task in maze.tasks} == {"demonstrated"}
    assert max(maze.distances_from(task.start)[task.goal] for task in maze.tasks) == 6
    assert maze.episode_limit >= 300


def test_an_unknown_name_lists_the_known_ones_and_binary_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cross, hash, tee, ladder, serpentine, comb, umaze, medium, large, ogbench-"):
        get_map("hsah")
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no text file"):
        get_map(str(tmp_path / "noise"))


def test_the_maze_is_read_from_an_environments_spec():
    for name in map_names():
        assert from_env_spec(gymnasium.spec(f"maze/{name}-v0")) == get_map(name)
    assert from_env_spec(gymnasium.spec("PointMaze_Medium-v3")) == get_map("medium")
    assert from_env_spec(gymnasium.spec("PointMaze_Large_Diverse_GR-v3")).rows == get_map("large").rows
    assert from_env_spec(gymnasium.spec("PointMaze_Open_Diverse_G-v3")).rows[1] == "#.....#"
    assert from_env_spec(make_env(map_from_rows(OPEN_ROOM)).spec).rows == tuple(OPEN_ROOM)
    for other in ("CartPole-v1", "AntMaze_UMaze-v5", CUSTOM_ID):
        assert from_env_spec(gymnasium.spec(other)) is None
