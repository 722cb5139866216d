"""``norm-study audit``: JSON as promised, files that stand alone, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import re

import pytest
import torch
from torch import nn

from norm_study.audit import audit
from norm_study.audit.report import write_audit
from norm_study.main import main

FACTORIES = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(6, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Conv1d(6, 6, 3, padding=1))

    def forward(self, x, level=None, condition=None):
        shift = 0 if level is None else level.to(x.dtype)[:, None, None]
        return self.layers(x) + shift + (0 if condition is None else condition.mean())

def network():
    return Network()

def last_axis_is_channels():
    return nn.Linear(6, 6)

def with_inputs():
    return Network(), (torch.randn(2, 6, 40), torch.tensor([1, 2]))

def nothing():
    return 5

def breaks():
    raise KeyError("lost")
"""
QUICK = ["--times", "6", "--redraws", "1"]


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "foreign_networks.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return lambda name: ["audit", "--factory", f"foreign_networks:{name}"]


def result_of(capsys, *argv):
    assert main([*argv, *QUICK, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_of_a_foreign_network(capsys, factories):
    result = result_of(capsys, *factories("network"), "--shape", "2,6,48", "--time-dim", "-1")
    assert set(result) == {"config", "rows", "summary"}
    summary = result["summary"]
    assert set(summary["leakage"]) == set(summary["jacobian_change"]) == {"value", "standard_error"}
    assert summary["leakage"]["value"] > 0
    assert summary["receptive_field"] == [2, 2]
    assert summary["leaking_modules"] == 1
    assert [row["name"] for row in result["rows"] if row["verdict"] == "mixes time"] == ["layers.1"]
    assert {"name", "type", "verdict", "leakage_alone", "leakage_without"} <= set(result["rows"][0])


def test_levels_conditions_and_layouts(capsys, factories):
    result = result_of(
        capsys, *factories("network"), "--shape", "2,6,48", "--shape", "2,3", "--levels", "1,9", "--mode", "eval"
    )
    assert result["config"]["levels"] == [1, 9]
    assert len(result["summary"]["finite"]) == 2
    result = result_of(capsys, *factories("last_axis_is_channels"), "--shape", "2,48,6", "--time-dim", "1")
    assert (result["summary"]["receptive_field"], result["summary"]["leaking_modules"]) == ([0, 0], 0)
    assert result_of(capsys, *factories("with_inputs"))["summary"]["leaking_modules"] == 1


def test_a_run_is_audited_at_several_levels_without_its_dataset(capsys, tiny_run, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", "/nowhere")
    result = result_of(capsys, "audit", str(tiny_run), "--length", "96", "--no-attribution")
    assert result["summary"]["receptive_field"] == [32, 31]
    assert result["summary"]["leaking_modules"] == 17
    assert result["config"]["levels"] == [2, 4, 6]
    assert len(result["summary"]["finite"]) == 3


def test_a_run_with_diffusers_network_needs_what_that_can_express(capsys, tiny_run):
    assert main(["audit", str(tiny_run), "--diffusers"]) == 2
    assert "UNet1DModel cannot express kernel_size = 3" in capsys.readouterr().err


def test_the_readable_summary_says_it_in_words(capsys, factories):
    assert main([*factories("network"), *QUICK, "--shape", "1,6,48"]) == 0
    printed = capsys.readouterr().out
    assert "layers.1 (GroupNorm) mixes time" in printed
    assert "receptive_field: 2 left, 2 right" in printed
    assert main([*factories("network"), *QUICK, "--shape", "1,6,3"]) == 0
    assert "no leakage is given" in capsys.readouterr().out


@pytest.mark.parametrize("length", [48, 3], ids=["long enough", "too short"])
def test_files_stand_alone(tmp_path, length):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(6, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Conv1d(6, 6, 3, padding=1))
    report = audit(module, torch.randn(1, 6, length), times=6)
    report.settings["network"] = "<the network>"
    report.settings["levels"] = None
    write_audit(report, tmp_path)
    expected = {"map_full.png", "map_frozen.png", "map_difference.png", "distance.png", "modules.csv", "audit.json"}
    assert expected <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "modules.png").exists() == (length == 48)
    page = (tmp_path / "audit.html").read_text()
    assert "&lt;the network&gt;" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", page)
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href=\"#([^\"]+)\"", page)) <= set(ids)
    with (tmp_path / "modules.csv").open() as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["local", "mixes time", "local"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["audit"], "either RUN or --factory"),
        (["audit", "nowhere"], "no run folder"),
        (["audit", "--factory", "foreign_networks"], "package.module:function"),
        (["audit", "--factory", "no_such_module:f"], "ModuleNotFoundError"),
        (["audit", "--factory", "foreign_networks:missing"], "AttributeError"),
        (["audit", "--factory", "foreign_networks:breaks"], "KeyError"),
        (["audit", "--factory", "foreign_networks:nothing"], "not a torch.nn.Module"),
        (["audit", "--factory", "foreign_networks:network"], "--shape"),
        (["audit", "--factory", "foreign_networks:with_inputs", "--shape", "1,6,8"], "not both"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,5,48"], "fails on inputs"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,6,0"], "shape = 1,6,0"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,6,x"], "1,6,x"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,6,48", "--time-dim", "4"], "no axis 4"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,6,48", "--times", "0"], "times = 0"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,6,48", "--seed", "-1"], "seed = -1"),
        (["audit", "--factory", "foreign_networks:network", "--shape", "1,6,48", "--length", "9"], "--length"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(capsys, factories, argv, named):
    try:
        code = main(argv)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert named in captured.err
