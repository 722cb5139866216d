import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from test_distributed import TOLERANCE, apart, losses

from envs.collect import collect
from envs.maps import get_map
from groundwork.errors import UserError
from planner.config import to_yaml
from planner.data import load_data
from planner.norms import NORM_KINDS
from planner.plan import Planner
from planner.training.monitor import Monitor
from planner.training.run import RunFolder
from planner.training.train import NotFiniteError, train
from planner.training.trainer import Trainer, learning_rate, make_network


def digest(path):
    """A hash of all weights and optimizer state of the last checkpoint."""
    checkpoint = RunFolder(path).checkpoint()
    files = sorted(checkpoint.rglob("*.safetensors"))
    assert len(files) == 3
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def train_until(step, config, path, monkeypatch):
    """A training that is interrupted after some steps."""
    update = Trainer.update

    def stopped(self):
        if self.step == step:
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, path, "cpu", progress=False)


@pytest.mark.parametrize("norm", NORM_KINDS)
def test_one_batch_is_overfit(tiny, hash_dataset, norm):
    config = tiny(model={"norm": norm, "dim": 16}, learning_rate=3e-3, steps=10_000)
    trainer = Trainer(config, load_data(config.data), torch.device("cpu"))
    batch = trainer.draw(trainer.data.training, 4, seed=0)
    first = trainer.loss(trainer.network, batch).item()
    for _ in range(150):
        trainer.loss(trainer.network, batch).backward()
        trainer.apply_gradients()
    assert trainer.loss(trainer.network, batch).item() < 0.15 * first


def test_equal_seeds_give_equal_bits_and_other_seeds_others(tiny, hash_dataset, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(seed=seed), tmp_path / name, "cpu", progress=False)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


@pytest.mark.slow  # compiling takes a minute
def test_a_compiled_training_has_the_losses_of_a_plain_one_also_from_a_checkpoint(
    tiny, hash_dataset, tmp_path, monkeypatch
):
    plain = train(tiny(), tmp_path / "plain", "cpu", progress=False)
    train_until(8, tiny(compile=True), tmp_path / "compiled", monkeypatch)
    compiled = train(tiny(compile=True), tmp_path / "compiled", "cpu", progress=False)
    assert losses(compiled.path) == [[step, pytest.approx(loss, rel=1e-4)] for step, loss in losses(plain.path)]
    assert apart(compiled.path, plain.path) < TOLERANCE


@pytest.mark.parametrize(
    "model",
    [
        {"norm": "group"},
        {"norm": "batch"},
        {"norm": "rms", "weights": "magnitude_preserving", "norm_conditioned": True},
    ],
)
def test_a_run_stopped_between_checkpoints_ends_with_the_same_bits(tiny, hash_dataset, tmp_path, model, monkeypatch):
    config = tiny(model=model)
    train(config, tmp_path / "whole", "cpu", progress=False)
    train_until(8, config, tmp_path / "stopped", monkeypatch)
    assert not RunFolder(tmp_path / "stopped").done
    time.sleep(1)  # TensorBoard reads event files in the order of their names, which begin with the second
    train(config, tmp_path / "stopped", "cpu", progress=False)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")
    whole, stopped = (
        [(row["step"], row["loss"], row["gradient_norm"]) for row in RunFolder(tmp_path / name).metrics()]
        for name in ("whole", "stopped")
    )
    assert [step for step, _, _ in stopped] == [4, 5, 8, 10, 12], "a row ends at each checkpoint, too"
    assert stopped == whole
    events = EventAccumulator(str(tmp_path / "stopped"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [4, 5, 8, 10, 12]


def test_evaluations_happen_when_they_are_due_whatever_the_rows(tiny, hash_dataset, tmp_path):
    config = tiny(steps=14, log_every=5, checkpoint_every=14, evaluate_every=7, evaluate_episodes=1)
    rows = train(config, tmp_path / "run", "cpu", progress=False).metrics()
    assert [row["step"] for row in rows] == [5, 7, 10, 14]
    assert [row["step"] for row in rows if "validation_loss" in row] == [7, 14]


def test_what_changes_no_weight_may_change_between_a_run_and_its_resumption(tiny, hash_dataset, tmp_path, monkeypatch):
    whole = train(tiny(), tmp_path / "whole", "cpu", progress=False)
    watched = {
        "log_every": 3,
        "evaluate_every": 6,
        "evaluate_episodes": 1,
        "checkpoint_every": 4,
        "keep_checkpoints": 1,
    }
    train_until(7, tiny(), tmp_path / "run", monkeypatch)
    run = train(tiny(**watched), tmp_path / "run", "cpu", progress=False)
    assert digest(run.path) == digest(whole.path)
    assert [folder.name for folder in run.checkpoints()] == ["step_00000012"]
    assert run.config() == tiny(**watched)
    # of a finished run it changes nothing, and nothing is refused
    before = (run.path / "config.yaml").read_bytes()
    train(tiny(), run.path, "cpu", progress=False)
    assert (run.path / "config.yaml").read_bytes() == before


def test_a_run_asked_for_more_steps_names_what_trains_on(tiny, tiny_run):
    with pytest.raises(UserError, match=f"steps = 12, not 13.*init_from = {re.escape(str(tiny_run))}"):
        train(tiny(steps=13), tiny_run, "cpu", progress=False)
    with pytest.raises(UserError, match="batch_size = 4, not 5") as refusal:
        train(tiny(batch_size=5), tiny_run, "cpu", progress=False)
    assert "init_from" not in str(refusal.value)


def test_a_run_whose_dataset_was_collected_anew_is_refused(tiny, hash_dataset, tmp_path):
    other = "mazes/hash-changed-v0"
    collect(get_map("hash"), "tasks", 4000, 0, other, progress=False)
    config = tiny(data={"dataset": other})
    train(config, tmp_path / "run", "cpu", progress=False)
    collect(get_map("hash"), "tasks", 4000, 1, other, overwrite=True, progress=False)
    with pytest.raises(UserError, match=f"other data: {other} has changed"):
        train(config, tmp_path / "run", "cpu", progress=False)


def test_an_infinite_gradient_is_not_saved(tiny, hash_dataset, tmp_path, monkeypatch):
    apply = Trainer.apply_gradients

    def blown_up(self):
        if self.step == 9:
            next(self.network.parameters()).grad[0] = float("inf")
        return apply(self)

    monkeypatch.setattr(Trainer, "apply_gradients", blown_up)
    with pytest.raises(NotFiniteError, match="gradient at step 10 is not finite; the checkpoint of step 5 is good"):
        train(tiny(), tmp_path / "run", "cpu", progress=False)
    assert [path.name for path in RunFolder(tmp_path / "run").checkpoints()] == ["step_00000005"]


def test_kill_minus_nine_then_the_same_command_gives_the_same_bits(tiny, hash_dataset, tmp_path):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(to_yaml(tiny(steps=300, checkpoint_every=20, log_every=10)))
    command = [sys.executable, "-m", "planner.main", "train", str(preset), "--device", "cpu", "--run"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True, timeout=200)
    killed = subprocess.Popen(
        [*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.time() + 100
    while time.time() < deadline and len(RunFolder(tmp_path / "killed").checkpoints()) < 2:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not RunFolder(tmp_path / "killed").done
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True, timeout=200)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(tiny, hash_dataset, tmp_path):
    train(tiny(), tmp_path / "run", "cpu", progress=False)
    before = digest(tmp_path / "run")
    train(tiny(), tmp_path / "run", "cpu", progress=False)
    assert digest(tmp_path / "run") == before
    with pytest.raises(UserError, match=r"model\.norm = group, not none"):
        train(tiny(model={"norm": "none"}), tmp_path / "run", "cpu", progress=False)


def test_a_folder_in_use_is_refused(tiny, hash_dataset, tmp_path):
    other = RunFolder(tmp_path / "run")
    with other.claim(), pytest.raises(UserError, match="in use"):
        train(tiny(), tmp_path / "run", "cpu", progress=False)
    train(tiny(), tmp_path / "run", "cpu", progress=False)


def test_another_thread_count_is_said(tiny, hash_dataset, tmp_path, capsys):
    folder = train(tiny(), tmp_path / "run", "cpu", progress=False)
    origin = json.loads((folder.path / "provenance.json").read_text())
    origin["threads"] = 7
    (folder.path / "provenance.json").write_text(json.dumps(origin))
    (folder.path / "checksums.json").unlink()
    train(tiny(), tmp_path / "run", "cpu", progress=False)
    assert "began with 7 threads" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tiny, hash_dataset, tmp_path, monkeypatch):
    loss = Trainer.loss

    def spoilt(self, network, batch):
        value = loss(self, network, batch)
        return value * float("nan") if self.step == 7 else value

    monkeypatch.setattr(Trainer, "loss", spoilt)
    with pytest.raises(NotFiniteError, match="step 8 .* checkpoint of step 5"):
        train(tiny(), tmp_path / "run", "cpu", progress=False)
    network = RunFolder(tmp_path / "run").load_network("model")
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_only_the_newest_checkpoints_are_kept(tiny, hash_dataset, tmp_path):
    folder = train(tiny(checkpoint_every=2, keep_checkpoints=2), tmp_path / "run", "cpu", progress=False)
    assert [path.name for path in folder.checkpoints()] == ["step_00000010", "step_00000012"]
    assert (folder.path / "last").read_text() == "step_00000012"


def test_the_moving_average_follows_parameters_and_batch_statistics(tiny, hash_dataset):
    config = tiny(model={"norm": "batch"}, ema_decay=0.5)
    trainer = Trainer(config, load_data(config.data), torch.device("cpu"))
    expected = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    for count in range(4):
        trainer.update()
        decay = min(0.5, (1 + count) / (10 + count)) if count else 0.0  # the first average is the first value
        for name, value in trainer.network.state_dict().items():
            old = expected[name]
            expected[name] = torch.lerp(old, value, 1 - decay) if old.is_floating_point() else value.clone()
    averaged = trainer.ema.module.state_dict()
    assert any("running" in name for name in averaged)
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value, msg=name)


def test_learning_rate_warms_up_and_decays_to_zero(tiny):
    config = tiny(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(later < earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))


def test_tensorboards_reader_finds_scalars_images_and_hparams(tiny_run):
    events = EventAccumulator(str(tiny_run), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    for name in ("loss", "learning_rate", "gradient_norm", "steps_per_second"):
        assert f"train/{name}" in tags["scalars"]
    assert {"evaluation/validation_loss", "evaluation/rollout_success"} <= set(tags["scalars"])
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [4, 5, 8, 10, 12]
    assert events.Images("plans")[0].width > 100
    found = events.summary_metadata
    content = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
        for tag, metadata in found.items()
        if metadata.plugin_data.plugin_name == "hparams"
    }
    assert any(item.session_start_info.hparams["model.norm"].string_value == "group" for item in content.values())


def test_each_chart_of_tensorboards_layout_shows_a_scalar_that_was_written(tiny_run):
    events = EventAccumulator(str(tiny_run))
    events.Reload()
    metadata = events.summary_metadata["custom_scalars__config__"]
    assert metadata.plugin_data.plugin_name == "custom_scalars"
    stored = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    charts = [chart for category in layout_pb2.Layout.FromString(stored).category for chart in category.chart]
    assert len(charts) >= 6
    for chart in charts:
        [pattern] = chart.multiline.tag
        assert [tag for tag in events.Tags()["scalars"] if re.match(pattern, tag)], chart.title


def test_tensorboard_gets_a_moving_picture_of_a_rollout_of_each_split(tiny_run):
    events = EventAccumulator(str(tiny_run), size_guidance={"images": 0})
    events.Reload()
    for split in ("demonstrated", "held_out"):
        shown = events.Images(f"rollout/{split}")[0]
        with Image.open(io.BytesIO(shown.encoded_image_string)) as movie:
            assert movie.format == "GIF"
            assert 10 <= movie.n_frames <= 20
            assert movie.size == (shown.width, shown.height)
        assert len(shown.encoded_image_string) < 100_000


def test_the_layout_holds_on_a_run_that_was_continued(tiny, hash_dataset, tmp_path):
    config = tiny(steps=12)
    monitor = Monitor(RunFolder(tmp_path), config, load_data(config.data), purge_step=0)
    monitor.log({"step": 8, "loss": 1.0})
    monitor.close()
    Monitor(RunFolder(tmp_path), config, load_data(config.data), purge_step=4).close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tensors("custom_scalars__config__")


def test_bfloat16_and_float32_losses_agree_roughly(tiny, hash_dataset):
    losses = []
    for precision in ("float32", "bfloat16"):
        config = tiny(precision=precision)
        trainer = Trainer(config, load_data(config.data), torch.device("cpu"))
        losses.append(trainer.loss(trainer.network, trainer.draw(trainer.data.training, 32, 0)).item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_weights_do_not_depend_on_the_global_generator(tiny):
    torch.manual_seed(1)
    one = make_network(tiny(), 4)
    torch.manual_seed(2)
    other = make_network(tiny(), 4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("file", ["ema/diffusion_pytorch_model.safetensors", "ema/config.json"])
def test_a_truncated_checkpoint_is_refused_by_name(tiny, hash_dataset, tmp_path, file):
    folder = train(tiny(), tmp_path / "run", "cpu", progress=False)
    folder.load_network().save_config(folder.checkpoint() / "ema")  # as earlier checkpoints have it
    damaged = folder.checkpoint() / file
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(UserError, match=r"ema"):
        Planner.from_run(folder.path, device="cpu")


def test_a_full_disk_while_a_checkpoint_is_written_keeps_the_older_ones(tiny, hash_dataset, tmp_path, monkeypatch):
    import planner.training.checkpoint

    calls = []

    def full(tensors, path, **more):
        calls.append(path)
        if len(calls) == 6:  # three files are one checkpoint
            raise OSError(28, "No space left on device")
        return load_and_save(tensors, path, **more)

    load_and_save = planner.training.checkpoint.save_file
    monkeypatch.setattr(planner.training.checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        train(tiny(), tmp_path / "run", "cpu", progress=False)
    folder = RunFolder(tmp_path / "run")
    assert [path.name for path in folder.checkpoints()] == ["step_00000005"]
    assert load_file(folder.checkpoint() / "optimizer.safetensors")
    monkeypatch.undo()
    assert train(tiny(), tmp_path / "run", "cpu", progress=False).done
