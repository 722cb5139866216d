"""The console command ``maze-data``: collect, convert, list, show and push Minari datasets of mazes."""

from __future__ import annotations

import sys

from envs.settings import CollectSettings, ConvertSettings, PushSettings, ReferenceSettings, ShowSettings
from groundwork.program import Command, Later, Program

PROGRAM = Program(
    "maze-data",
    "Collect, convert, list, show and push Minari datasets of mazes.",
    {
        "collect": Command("Collect a dataset on MuJoCo.", (CollectSettings,), Later("envs.commands:collect_dataset")),
        "convert": Command(
            "Make a dataset from a file of D4RL's or OGBench's.",
            (ConvertSettings,),
            Later("envs.commands:convert_file"),
        ),
        "references": Command(
            "Measure the returns that score 0 (a random policy) and 100 (the expert).",
            (ReferenceSettings,),
            Later("envs.commands:references"),
        ),
        "list": Command("List the local datasets.", (), Later("envs.commands:list_datasets")),
        "show": Command("Draw a dataset.", (ShowSettings,), Later("envs.commands:show_dataset")),
        "push": Command(
            "Upload a local dataset to the Hugging Face Hub. Minari does it, and makes the repository public.",
            (PushSettings,),
            Later("envs.commands:push_dataset"),
        ),
    },
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
