import argparse
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envs.command_line import UserError
from envs.maps import get_map
from planner.config import (
    Config,
    add_options,
    from_dict,
    load_preset,
    merge,
    parse_overrides,
    preset_names,
    to_dict,
    to_yaml,
)
from planner.train import make_network


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parse_overrides(parser.parse_args(arguments))


def test_yaml_round_trip(tmp_path):
    config = from_dict({"model": {"dim_mults": [1, 2], "kernel_size": 3}, "learning_rate": 3e-4, "compile": True})
    (tmp_path / "stored.yaml").write_text(to_yaml(config))
    assert from_dict(load_preset(tmp_path / "stored.yaml")) == config
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_builds(name):
    assert isinstance(from_dict(load_preset(name)), Config)


def test_command_line_overrides_the_preset():
    over = parse("--model.norm", "none", "--steps", "7", "--model.dim_mults", "1,2", "--learning_rate", "1e-3")
    config = from_dict(merge({"model": {"norm": "group", "dim": 16}}, over))
    assert (config.model.norm, config.model.dim, config.steps) == ("none", 16, 7)
    assert config.model.dim_mults == (1, 2)
    assert config.learning_rate == 1e-3


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    (tmp_path / "p.yaml").write_text("learning_rate: 2e-4\n")
    assert from_dict(load_preset(tmp_path / "p.yaml")).learning_rate == 2e-4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stepz": 3}, ["stepz", "known are"]),
        ({"model": {"nrom": "none"}}, ["model.nrom", "norm_groups"]),
        ({"model": {"norm": "goup"}}, ["model.norm", "goup", "channel"]),
        ({"data": {"horizon": 50}, "model": {"dim_mults": [1, 2, 4]}}, ["50", "4"]),
        ({"steps": "many"}, ["steps", "many"]),
        ({"steps": 2.7}, ["steps", "2.7"]),
        ({"steps": math.nan}, ["steps", "nan"]),
        ({"steps": True}, ["steps", "True"]),
        ({"steps": 0}, ["steps", "0", "1"]),
        ({"compile": "false"}, ["compile", "false"]),
        ({"learning_rate": math.inf}, ["learning_rate", "inf"]),
        ({"model": {"dim_mults": [1, 2.5]}}, ["dim_mults", "2.5"]),
        ({"model": 3}, ["model"]),
        ({"model": {"dim": 12}}, ["12", "8"]),
        ({"model": {"norm": "packnorm_isolated"}}, ["num_packs", "2"]),
        ({"model": {"num_packs": 2}}, ["num_packs", "group"]),
        ({"diffusion": {"sampling_steps": 65}}, ["65", "64"]),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_names_it(values, words):
    with pytest.raises(UserError) as refusal:
        from_dict(values)
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*to_dict(Config()), "other"]), JSON, max_size=3))
def test_any_values_build_or_are_refused_in_one_line(values):
    try:
        config = from_dict(values)
    except UserError as refusal:
        message = str(refusal)
    else:
        message = ""
        assert from_dict(yaml.safe_load(to_yaml(config))) == config
    assert "\n" not in message


def test_a_preset_that_is_not_there_lists_those_that_are():
    with pytest.raises(UserError, match="hash"):
        load_preset("hsah")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1,", "\x00"])
def test_a_preset_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load_preset(tmp_path / "bad.yaml")


@pytest.mark.parametrize("name", ["umaze", "medium", "large"])
def test_plans_of_the_maze_presets_cover_the_farthest_way_and_fit_into_an_episode(name):
    config, maze = from_dict(load_preset(name)), get_map(name)
    covered = (config.data.horizon - 1) * config.data.stride
    farthest_m = max(max(maze.distances_from(cell).values()) for cell in maze.free_cells)
    expert_m_per_step = 0.034
    assert farthest_m / expert_m_per_step < covered < maze.episode_limit


@pytest.mark.parametrize(("name", "horizon", "levels"), [("umaze", 128, 64), ("medium", 256, 256), ("large", 384, 256)])
def test_the_reference_presets_have_the_sizes_of_the_reference(name, horizon, levels):
    config = from_dict(load_preset(f"janner-{name}"))
    assert (config.data.horizon, config.data.stride, config.diffusion.train_steps) == (horizon, 1, levels)
    network = make_network(config, transition_dim=6)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(3.68e6, rel=0.02)
