"""The console command ``planner``: train diffusion planners, plan, roll out, compare norms."""

from __future__ import annotations

import sys

from groundwork.program import Command, Compute, Jobs, JsonOutput, Later, Program, ShortJobs
from planner.settings import (
    AblationOutput,
    AblationSettings,
    AnimatedRuns,
    BenchSettings,
    ComparedRollouts,
    ComparedRuns,
    DenoiseSettings,
    PlanSettings,
    Problem,
    PushSettings,
    RolloutSettings,
    ShowSettings,
    SweepSettings,
    Tasks,
    TrainedRun,
    TrainSettings,
    Weights,
)

OVERRIDES = "Settings given here override the preset's; their defaults are those without a preset."

PROGRAM = Program(
    "planner",
    "Train diffusion planners, plan, roll out, compare norms.",
    {
        "train": Command(
            f"Train a planner, or continue one. {OVERRIDES}",
            (TrainSettings, Compute),
            Later("planner.commands:train"),
        ),
        "sweep": Command(
            f"Train planners of several norms and seeds, and compare them. {OVERRIDES}",
            (SweepSettings, Jobs, Compute),
            Later("planner.commands:sweep"),
        ),
        "plan": Command(
            "Draw plans from a start to a goal.",
            (TrainedRun, Problem, PlanSettings, Weights, Compute),
            Later("planner.commands:plan"),
        ),
        "animate": Command(
            "Show a plan of each of several planners for one task. A ball follows each; what jumps is red.",
            (AnimatedRuns, Problem, Compute),
            Later("planner.commands:animate"),
        ),
        "rollout": Command(
            "Plan and execute episodes.",
            (TrainedRun, RolloutSettings, Tasks, JsonOutput, Weights, Compute),
            Later("planner.commands:rollout"),
        ),
        "compare": Command(
            "Compare several runs on one page with tables and figures.",
            (ComparedRuns, ComparedRollouts, Tasks, ShortJobs, Compute),
            Later("planner.commands:compare"),
        ),
        "show": Command(
            "Say what a run is: its settings, its data, its curves, and plans drawn on its map.",
            (TrainedRun, ShowSettings, Compute),
            Later("planner.commands:show"),
        ),
        "push": Command(
            "Upload a planner to the Hugging Face Hub. Settings, what it knows of its data, the moving average of the "
            "weights, checksums and a card go there, privately, and nothing else of the run; Planner.from_pretrained "
            "reads it.",
            (TrainedRun, PushSettings),
            Later("planner.commands:push"),
        ),
        "samplers": Command(
            "Measure how few network evaluations a planner needs. Every sampler rolls out the same episodes at every "
            "number of steps, and one plan of each is timed.",
            (TrainedRun, AblationSettings, AblationOutput, Compute),
            Later("planner.commands:samplers"),
        ),
        "denoise": Command(
            "Measure how near networks come to the best denoiser that their training windows give, and how real the "
            "windows are that they draw.",
            (DenoiseSettings, Compute),
            Later("planner.commands:denoise"),
        ),
        "bench": Command(
            f"Time training, planning and rolling out beside a plain loop of diffusers' parts. {OVERRIDES}",
            (BenchSettings, JsonOutput, Compute),
            Later("planner.commands:bench"),
        ),
    },
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
