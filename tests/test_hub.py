import json
import os
import subprocess
import sys

import pytest
from hub import Repository, running_hub

from planner.hub import CARD, CONTENT
from planner.push import D4RL, OURS, UNKNOWN, origin
from planner.training.run import RunFolder

TOKEN = "hf_secret_of_nobody"
WEIGHTS = "ema/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub():
    with running_hub() as server:
        yield server


@pytest.fixture
def python(hub, tmp_path):
    """Runs Python in a process whose Hub is the stand-in; returns what it printed."""
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}
    head = "from groundwork.errors import UserError\nfrom planner.main import main\nfrom planner.plan import Planner\n"

    def run(code, **over):
        command = [sys.executable, "-c", head + code]
        done = subprocess.run(command, env={**env, **over}, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done

    return run


PLANS = """
def plans(planner):
    return planner.plan([-4, 2], [2, 4], num_plans=3, seed=5).tobytes()
"""


def test_a_pushed_planner_comes_back_with_bit_equal_plans(hub, python, tiny_run):
    run = str(tiny_run)
    done = python(
        f"""{PLANS}
assert main(["push", {run!r}, "user/tiny"]) == 0
here = Planner.from_run({run!r}, device="cpu")
assert plans(Planner.from_pretrained("user/tiny", device="cpu")) == plans(here)
assert main(["push", {run!r}, "user/tiny"]) == 2
assert main(["push", {run!r}, "user/tiny", "--overwrite", "--checkpoint", "10"]) == 0
assert plans(Planner.from_pretrained("user/tiny", device="cpu")) != plans(here)
"""
    )
    assert "user/tiny has README.md" in done.stderr
    assert "--overwrite" in done.stderr
    repository = hub.repositories["models/user/tiny"]
    assert repository.private
    _, (first, files), _ = repository.commits
    # what was uploaded, file by file
    assert sorted(files) == sorted([*CONTENT, "checksums.json", CARD])
    whole = b"".join(files.values())
    for secret in (TOKEN, run, os.uname().nodename, "optimizer.", "git_commit", "platform"):
        assert secret.encode() not in whole, secret
    python(
        f"""{PLANS}
there = Planner.from_pretrained("user/tiny", revision={first!r}, device="cpu")
assert plans(there) == plans(Planner.from_run({run!r}, device="cpu"))
"""
    )


def test_the_card_has_the_runs_own_numbers_and_the_datas_origin(hub, python, tiny_run):
    run = RunFolder(tiny_run)
    python(
        f"""
from planner.comparison.kept import run_rollout
from planner.rollout import RolloutSettings
run_rollout({str(tiny_run)!r}, RolloutSettings(episodes=2, horizon=48), ("held_out",), "cpu")
assert main(["push", {str(tiny_run)!r}, "user/card", "--public"]) == 0
"""
    )
    assert not hub.repositories["models/user/card"].private
    text = hub.repositories["models/user/card"].commits[-1][1][CARD].decode()
    last = run.metrics()[-1]
    assert f"| training loss | {last['loss']:.4g} |" in text
    assert f"| validation loss | {last['validation_loss']:.4g} |" in text
    kept = [json.loads(path.read_text())["rows"] for path in (run.path / "rollouts").glob("*.json")]
    rows = [row for rows in kept for row in rows if (row["split"], row["horizon"]) == ("held_out", 48)]
    share = 100 * sum(row["success"] for row in rows) / len(rows)
    line = next(line for line in text.splitlines() if line.startswith("| held out | 48 |"))
    assert f"| {len(rows)} |" in line
    assert line.rpartition("|")[0].rpartition("|")[2].strip().startswith(f"{share:.1f} % [")
    assert 'Planner.from_pretrained("user/card")' in text
    assert OURS in text
    assert run.config().data.dataset in text


def test_the_datas_origin_is_told_by_its_name_and_recipe_and_never_guessed(datasets_root):
    assert origin("D4RL/pointmaze/umaze-v2") == D4RL
    assert origin("mazes/hash-tasks-v0") == OURS
    assert origin("mine/pendulum-v0") == UNKNOWN


def test_what_does_not_fit_what_was_uploaded_is_refused_by_name(hub, python, tiny_run):
    python(f"""assert main(["push", {str(tiny_run)!r}, "user/spoilt"]) == 0""")
    whole = hub.repositories["models/user/spoilt"].commits[-1][1]

    def without(name):
        return {key: value for key, value in whole.items() if key != name}

    flipped = bytearray(whole[WEIGHTS])
    flipped[-1] ^= 1
    seals = json.loads(whole["checksums.json"])
    del seals[WEIGHTS]
    settings = whole["config.yaml"].replace(b"  norm: group", b"  norm: layer")
    assert settings != whole["config.yaml"]
    cases = {
        "flipped": ({**whole, WEIGHTS: bytes(flipped)}, "is damaged"),
        "config": ({**whole, "config.yaml": settings}, "is damaged"),
        "weightless": (without(WEIGHTS), "has no ema/diffusion"),
        "sealless": (without("checksums.json"), "has no checksums.json"),
        "unnamed": ({**whole, "checksums.json": json.dumps(seals).encode()}, "does not name every file"),
        "pickle": ({**without(WEIGHTS), "ema/diffusion_pytorch_model.bin": b"\x80\x04."}, "has no ema/diffusion"),
    }
    for name, (files, _) in cases.items():
        hub.repositories[f"models/user/{name}"] = Repository(private=True)
        hub.repositories[f"models/user/{name}"].commit(files)
    wanted = [*((f"user/{name}", None, word) for name, (_, word) in cases.items())]
    wanted += [("user/nobody", None, "cannot be fetched"), ("user/spoilt", "v9", "user/spoilt at v9 cannot")]
    python(
        f"""
for repo, revision, word in {wanted!r}:
    try:
        Planner.from_pretrained(repo, revision=revision, device="cpu")
    except UserError as error:
        assert word in str(error), (repo, str(error))
        assert len(str(error).splitlines()) == 1
    else:
        raise AssertionError(repo)
"""
    )
    assert not any(request.endswith(".bin") for request in hub.seen)


def test_a_push_needs_a_name_a_token_and_a_private_place(hub, python, tiny_run):
    hub.repositories["models/user/open"] = Repository(private=False)
    done = python(
        f"""
assert main(["push", {str(tiny_run)!r}, "tiny"]) == 2
assert main(["push", {str(tiny_run)!r}, "user/open"]) == 2
"""
    )
    assert "must be USER/NAME" in done.stderr
    assert "everybody sees user/open" in done.stderr
    assert len(hub.repositories["models/user/open"].commits) == 1
    done = python(f"""assert main(["push", {str(tiny_run)!r}, "user/tiny"]) == 2""", HF_TOKEN="")
    assert "hf auth login" in done.stderr
