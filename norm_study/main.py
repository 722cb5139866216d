"""The console command ``norm-study``: the paper's experiments, one by one or all of them."""

from __future__ import annotations

import sys
from functools import partial

from groundwork.program import Command, Compute, Jobs, JsonOutput, Later, Program, Seeds
from norm_study.audit.settings import AuditSettings
from norm_study.init_bias.settings import InitBiasBenchConfig
from norm_study.localization.settings import BenchConfig
from norm_study.report.settings import ReportSettings
from norm_study.reproduce.experiments import EXPERIMENTS
from norm_study.reproduce.settings import ReproduceSettings
from norm_study.stitching.cells import Grid
from norm_study.stitching.settings import CauseOptions, ClosedLoopOptions, LeakageSettings, StitchOptions

BENCHES = {
    "bench": Command(
        "Time one stacked training against one by one.",
        (BenchConfig, Compute, JsonOutput),
        partial(Later("norm_study.commands:bench"), Later("norm_study.localization.bench:run_bench")),
    ),
    "init-bias-bench": Command(
        "Time untrained networks at once against one by one.",
        (InitBiasBenchConfig, Compute, JsonOutput),
        partial(Later("norm_study.commands:bench"), Later("norm_study.init_bias.bench:run_init_bias_bench")),
    ),
}

PROGRAM = Program(
    "norm-study",
    "Measure what normalization layers tell through time.",
    {
        name: Command(
            experiment.help,
            (experiment.config, Seeds, Compute, JsonOutput),
            partial(Later("norm_study.commands:experiment"), name),
        )
        for name, experiment in EXPERIMENTS.items()
    }
    | BENCHES
    | {
        "stitch": Command(
            "Measure what compositionality a planner's norm leaves. Trained runs are measured, or one planner per cell "
            "of a grid is trained and measured (--suite).",
            (StitchOptions, JsonOutput, Compute),
            Later("norm_study.stitching.command:stitch"),
        ),
        "audit": Command(
            "Measure what a network leaks through time, and which module does it. That is its receptive field, the "
            "leakage beyond it, and each module's part in it.",
            (AuditSettings, Compute, JsonOutput),
            Later("norm_study.audit.command:command"),
        ),
        "cause": Command(
            "Sample a planner's plans while rules take the place of GroupNorm's statistics. A verdict for each "
            "explanation of why a norm that pools over time does not stitch.",
            (CauseOptions, Compute),
            Later("norm_study.stitching.cause_study:cause"),
        ),
        "closed-loop": Command(
            "Roll trained planners out with replanning, few evaluations or many candidates. Success beside what the "
            "plans are worth.",
            (ClosedLoopOptions, Compute),
            Later("norm_study.stitching.closed_loop:closed_loop"),
        ),
        "leakage": Command(
            "Measure the leakage of the stitching study's planners beside their held-out validity. Every finished run "
            "of the grid is audited, and one scatter figure drawn.",
            (LeakageSettings, Grid, Jobs, Compute, JsonOutput),
            Later("norm_study.commands:leakage"),
        ),
        "report": Command(
            "Write one HTML file out of any runs and studies. It needs no other file. Folders are outputs of planner "
            "train, planner compare, norm-study reproduce or norm-study stitch, hold files of --json, or hold such "
            "folders.",
            (ReportSettings,),
            Later("norm_study.report.command:report"),
        ),
        "reproduce": Command(
            "Run everything, with a verdict per claim. It resumes where it was stopped, and writes rows, figures, "
            "claims and a page.",
            (ReproduceSettings, Jobs, Compute),
            Later("norm_study.commands:reproduce"),
        ),
    },
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
