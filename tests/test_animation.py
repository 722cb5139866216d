import numpy as np
import pytest
from PIL import Image

from planner.animation import panel
from planner.plan import Planner

TURN = ([-4, 2], [2, 4])


def test_the_picture_of_the_readme_shows_a_jump_of_groups_plan_and_a_way_of_channels():
    group, channel = (panel(Planner.from_run(f"hash-{norm}", device="cpu"), *TURN) for norm in ("group", "channel"))
    assert group.jumps.any()
    assert group.title.startswith("group\nnot valid, longest step")
    assert not channel.jumps.any()
    assert channel.title == "channel\nvalid"
    for one in (group, channel):
        assert np.allclose(one.plan[[0, -1]], TURN)
        assert np.linalg.norm(one.positions[-1] - TURN[1]) < 0.45


def test_several_planners_are_animated_side_by_side_and_wait_for_each_other(command, refused, tmp_path):
    out = tmp_path / "turn.gif"
    task = ["--start=-4,2", "--goal=2,4", "--out"]
    assert command("planner.main", "animate", "hash-group", "hash-none", *task, out).returncode == 0
    with Image.open(out) as animation:
        assert animation.n_frames > 30
        assert animation.size[0] == pytest.approx(2 * animation.size[1], rel=0.01)
    assert "must end in .gif" in refused("planner.main", "animate", "hash-group", *task, tmp_path / "turn.png")
    assert "on one maze" in refused("planner.main", "animate", "hash-group", "umaze", *task, out)
    line = refused("planner.main", "animate", "hash-group", "--start=0,0", "--goal=2,4", "--out", out)
    assert "start: (0, 0) is in no free cell" in line
