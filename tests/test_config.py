import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.collect import collect
from envs.maps import get_map
from envs.settings import collection_of
from groundwork.command_line import OneLineParser
from groundwork.command_options import add_options, read_options
from groundwork.errors import UserError
from planner.config import (
    Config,
    PaddingMode,
    Placement,
    Weights,
    from_dict,
    load_preset,
    merge,
    preset_names,
    to_dict,
    to_yaml,
    what_trains,
)
from planner.data import load_data
from planner.norms import NORM_KINDS
from planner.training.find import find_run
from planner.training.run import RunFolder
from planner.training.train import train
from planner.training.trainer import Trainer, make_network

LITTLE = "mazes/little-v0"


def parse(*arguments):
    parser = OneLineParser()
    add_options(parser, Config)
    return read_options(parser.parse_args(arguments), Config)


def test_yaml_round_trip(tmp_path):
    config = from_dict({"model": {"dim_mults": [1, 2], "kernel_size": 3}, "learning_rate": 3e-4, "compile": True})
    (tmp_path / "stored.yaml").write_text(to_yaml(config))
    assert from_dict(load_preset(tmp_path / "stored.yaml")) == config
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_builds(name):
    assert isinstance(from_dict(load_preset(name)), Config)


@pytest.mark.parametrize("name", preset_names())
def test_a_presets_dataset_can_be_collected_by_its_name(name):
    settings = collection_of(from_dict(load_preset(name)).data.dataset)
    assert settings is not None
    assert name.startswith((settings.map, f"janner-{settings.map}"))


def test_the_quick_starts_preset_is_that_of_the_shipped_planners_and_of_the_stitching_study():
    assert load_preset("stitch") == load_preset("hash")
    preset = from_dict(load_preset("hash"))
    for norm in ("group", "channel", "none"):
        shipped = find_run(f"hash-{norm}").config()
        trained = replace(shipped, seed=0, model=replace(shipped.model, norm="group"))
        assert what_trains(trained) == what_trains(preset)


def test_the_presets_of_ogbenchs_mazes_differ_in_what_they_say_alone():
    medium, large, giant = (from_dict(load_preset(f"ogbench-{size}")) for size in ("medium", "large", "giant"))
    assert medium.model.norm == "channel"
    assert replace(giant, data=large.data, steps=large.steps) == large
    same = replace(
        medium,
        data=replace(medium.data, dataset=large.data.dataset),
        steps=large.steps,
        model=replace(medium.model, dim_mults=(1, 2, 4), fourier_features=4),
        diffusion=replace(medium.diffusion, snr_cap=5.0),
    )
    assert same == large


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
        ({"warmup_steps": 10**400}, ["warmup_steps", "at most"]),
        ({"steps": math.nan}, ["steps", "nan"]),
        ({"steps": True}, ["steps", "True"]),
        ({"steps": 0}, ["steps", "0", "1"]),
        ({"compile": "false"}, ["compile", "false"]),
        ({"learning_rate": math.inf}, ["learning_rate", "inf"]),
        ({"model": {"dim_mults": [1, 2.5]}}, ["dim_mults", "2.5"]),
        ({"model": 3}, ["model"]),
        ({"model": {"dim": 12}}, ["12", "8"]),
        ({"model": {"norm": "packnorm_isolated", "num_packs": 1}}, ["num_packs", "2"]),
        ({"model": {"num_packs": 2}}, ["num_packs", "group"]),
        ({"diffusion": {"sampling_steps": 65}}, ["65", "64"]),
        ({"diffusion": {"resample": 2, "sampler": "ddim"}}, ["resample", "ddim", "ddpm"]),
        ({"diffusion": {"resample_levels": [0.5, 0.1]}}, ["resample_levels", "0.5,0.1"]),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_names_it(values, words):
    with pytest.raises(UserError) as refusal:
        from_dict(values)
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ABSURD = st.sampled_from([0, -1, 1, 3, 10**12, 10**400, 0.5, -0.0, math.nan, math.inf, "", "8", None, [], [0], {}])
SANE: dict[str, st.SearchStrategy] = {
    "data.dataset": st.just(LITTLE),
    "data.horizon": st.sampled_from([2, 4, 8, 16, 24, 32]),
    "data.stride": st.integers(1, 8),
    "data.actions": st.booleans(),
    "data.hold_end": st.booleans(),
    "data.cut_waiting": st.sampled_from([0.0, 0.1, 1.0]),
    "data.validation_share": st.floats(0, 0.9),
    "model.dim": st.sampled_from([4, 6, 8, 16, 32]),
    "model.dim_mults": st.lists(st.integers(1, 3), min_size=1, max_size=4),
    "model.kernel_size": st.sampled_from([1, 3, 5, 7]),
    "model.padding_mode": st.sampled_from(get_args(PaddingMode)),
    "model.norm": st.sampled_from(NORM_KINDS),
    "model.norm_groups": st.sampled_from([1, 2, 4, 8]),
    "model.norm_window": st.sampled_from([1, 2, 8, 64]),
    "model.tell_known": st.booleans(),
    "model.fourier_features": st.integers(0, 6),
    "model.overlap": st.sampled_from([0, 0, 0, 1, 8]),
    "diffusion.snr_cap": st.floats(0, 100),
    "diffusion.teacher": st.just(""),
    "diffusion.drop_ends": st.floats(0, 1),
    "model.norm_placement": st.sampled_from(get_args(Placement)),
    "model.num_packs": st.sampled_from([0, 1, 1, 2, 4]),
    "model.norm_conditioned": st.booleans(),
    "model.weights": st.sampled_from(get_args(Weights)),
    "diffusion.train_steps": st.one_of(st.integers(2, 200), st.just(1)),
    "diffusion.prediction": st.sampled_from(["sample", "noise"]),
    "diffusion.sampler": st.sampled_from(["ddpm", "ddim", "dpm"]),
    "diffusion.sampling_steps": st.integers(1, 64),
    "diffusion.temperature": st.floats(0, 1),
    "diffusion.resample": st.sampled_from([0, 0, 0, 0, 8]),
    "diffusion.resample_levels": st.sampled_from([[0.0, 1.0], [0.1, 0.5]]),
    "seed": st.integers(0, 2**31 - 1),
    "init_from": st.just(""),
    "steps": st.integers(1, 10**9),
    "batch_size": st.integers(1, 16),
    "optimizer": st.sampled_from(["adam", "adamw"]),
    "learning_rate": st.floats(0, 1e30),
    "warmup_steps": st.integers(0, 10**9),
    "decay": st.sampled_from(["none", "cosine"]),
    "weight_decay": st.floats(0, 10),
    "gradient_clip": st.floats(0, 10),
    "ema_decay": st.floats(0, 1),
    "precision": st.sampled_from(["float32", "bfloat16"]),
    "compile": st.booleans(),
    "log_every": st.integers(1, 10**9),
    "evaluate_every": st.integers(0, 10**9),
    "evaluate_episodes": st.integers(1, 10**9),
    "checkpoint_every": st.integers(1, 10**9),
    "keep_checkpoints": st.integers(0, 10**9),
}
"""Every setting, with values that fit on one core; which of them go together is for the config to say."""


@st.composite
def settings_of_a_run(draw):
    """Nested settings: sane ones, in half of the cases with one or two absurd values or unknown keys among them."""
    values = {name: draw(strategy) for name, strategy in SANE.items() if name == "data.dataset" or draw(st.booleans())}
    for name in draw(st.lists(st.sampled_from([*SANE, "data", "model", "other", "data.other"]), max_size=2)):
        if draw(st.booleans()):
            values[name] = draw(ABSURD | JUNK)
    nested: dict = {"batch_size": 4, "data": {"horizon": 16}, "model": {"dim": 8, "dim_mults": [1, 2]}}
    for name, value in sorted(values.items(), key=lambda item: "." not in item[0]):  # a room's own value goes last
        room, _, key = name.rpartition(".")
        (nested.setdefault(room, {}) if room else nested)[key] = value
    return nested


@pytest.fixture(scope="module")
def little_dataset(datasets_root):
    collect(get_map("hash"), "tasks", 600, 0, LITTLE, progress=False)


def first_loss(config):
    """The loss of the first optimizer step; compiling is left out, which takes minutes."""
    trainer = Trainer(replace(config, compile=False), load_data(config.data), torch.device("cpu"))
    if config.init_from:
        trainer.begin_with(RunFolder(config.init_from).load_network("ema").state_dict(), config.init_from)
    return trainer.update()[0]


def test_every_setting_has_a_strategy():
    rooms = to_dict(Config())
    names = {f"{room}.{key}" for room, inner in rooms.items() if isinstance(inner, dict) for key in inner}
    assert set(SANE) == names | {name for name, value in rooms.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_generated_configs_each_run_a_step_or_are_refused_in_one_line(little_dataset, record_property, count):
    counts = {"built": 0, "refused": 0}

    @settings(max_examples=count, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(settings_of_a_run())
    def build(values):
        try:
            config = from_dict(values)
            assert from_dict(yaml.safe_load(to_yaml(config))) == config
            loss = first_loss(config)
        except UserError as refusal:
            line = str(refusal)
            counts["refused"] += 1
        else:
            line = "built"
            assert torch.isfinite(loss)
            counts["built"] += 1
        assert line
        assert len(line.splitlines()) == 1

    build()
    for name, number in counts.items():
        record_property(name, number)
    print(
        f"\n{sum(counts.values())} configs: {counts['built']} built and ran a step, {counts['refused']} refused "
        "in one line, 0 tracebacks"
    )
    assert sum(counts.values()) == count
    assert min(counts.values()) > count / 5


def test_too_little_memory_is_one_line(tiny, hash_dataset, tmp_path, monkeypatch):
    def allocate(*arguments):
        return torch.empty(2**60)

    monkeypatch.setattr(Trainer, "draw", allocate)
    with pytest.raises(UserError, match="not enough memory: a smaller batch_size"):
        train(tiny(), tmp_path / "run", "cpu", progress=False)


def test_a_preset_that_is_not_there_lists_those_that_are():
    with pytest.raises(UserError, match="hash"):
        load_preset("hsah")


@pytest.mark.parametrize("text", ["1: 2", "on: true", "steps: 2024-99-99", "steps: 0x_", f"steps: {'9' * 5000}"])
def test_odd_keys_and_impossible_numbers_are_one_line(tmp_path, text):
    (tmp_path / "odd.yaml").write_text(text + "\n")
    with pytest.raises(UserError) as refusal:
        from_dict(load_preset(tmp_path / "odd.yaml"))
    assert "\n" not in str(refusal.value)


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
