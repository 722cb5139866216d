"""What lies in a folder, read as sections of a report: those that studies wrote, and what older folders hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from groundwork.errors import UserError
from groundwork.section import Section, read_sections, read_stored
from norm_study.report.measurements import measurement_section
from norm_study.reproduce.parts import collect, load_parts, parts_file
from norm_study.reproduce.results import reproduction_section
from norm_study.stitching.cells import Grid
from norm_study.stitching.fix import fix_section
from norm_study.stitching.grid import all_runs
from norm_study.stitching.tables import study_section
from planner.comparison.report import comparison_section
from planner.comparison.sampler_ablation import ablation_section
from planner.training.find import find_run, shipped_names
from planner.training.run import RunFolder

KINDS = (
    "planner train (config.yaml), planner compare (comparison.json), norm-study reproduce (claims.json), "
    "norm-study stitch (summary.json, fix.json.gz), or files of --json"
)


def read_folders(paths: Sequence[Path]) -> tuple[list[Section], list[RunFolder]]:
    """Sections and run folders of all ``paths``, in their order.

    A folder stands for what is known in the folders directly in it, too, such as the runs of a comparison. The name of
    a shipped planner stands for its run.

    Raises:
        UserError: no such folder, one with nothing that is known, or a damaged file.
    """
    sections: dict[Path, list[Section]] = {}
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        if str(path) in shipped_names():
            path = find_run(path).path
        if not path.is_dir():
            raise UserError(f"{path} is {'no folder' if path.exists() else 'missing'}: report takes folders")
        own = [] if _is_run(path) else list(_sections_of(path))
        children = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
        found = {path.resolve(): own} if own else {}
        if not _is_run(path):
            studies = [child for child in children if not _is_run(child) and child.name != "rows"]
            found |= {child.resolve(): list(_sections_of(child)) for child in studies}
        inside = {folder.resolve(): RunFolder(folder) for folder in [path, *children] if _is_run(folder)}
        if not any(found.values()) and not inside:
            raise UserError(f"{path} holds nothing to report; known are outputs of {KINDS}")
        sections, runs = sections | found, runs | inside
    return [section for own in sections.values() for section in own], list(runs.values())


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _sections_of(folder: Path) -> Iterator[Section]:
    """What studies wrote there, and what is made of the numbers of which none of those tells."""
    try:
        written = list(read_sections(folder))
        yield from map(_drawn, written)
        told = {file for section in written for file in section.data}
        for file, read in _READERS.items():
            if file not in told and (folder / file).is_file():
                yield _drawn(replace(read(folder / file), folder=folder))
        section = measurement_section(folder, {*told, *_READERS})
        if section is not None:
            yield section
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UserError(f"{folder} holds a result that cannot be read ({error!r})") from error


def _drawn(section: Section) -> Section:
    """The section with those of its pictures that are there."""
    there = [picture for picture in section.pictures if (section.folder / picture.file).is_file()]
    return replace(section, pictures=there)


def _reproduction(file: Path) -> Section:
    claims, rows = read_stored(file), file.parent / "rows"
    if not claims or not {"sentence", "verdict"} <= set(claims[0]):
        raise UserError(f"{file} holds no claims")
    return reproduction_section(file.parent, collect(load_parts(parts_file()), rows, None))


def _stitching(file: Path) -> Section:
    grid = Grid()  # whose order tells which cell the others are held against
    order = {value: at for at, value in enumerate((*grid.norms, *grid.paddings, *grid.reaches))}
    stored = [(run, result) for run, result in all_runs(file.parent).items() if run.norm in order]
    stored.sort(key=lambda one: (order[one[0].reach], order[one[0].padding], order[one[0].norm], one[0].seed))
    return study_section(stored, read_stored(file), f"{len(stored)} runs are stored", "")


def _samplers(file: Path) -> Section:
    stored = read_stored(file)
    return ablation_section(stored["config"], stored["summary"]["settings"])


_READERS: dict[str, Callable[[Path], Section]] = {
    "claims.json": _reproduction,
    "comparison.json": lambda file: comparison_section(read_stored(file)),
    "comparison.json.gz": lambda file: comparison_section(read_stored(file)),
    "summary.json": _stitching,
    "fix.json.gz": lambda file: fix_section(read_stored(file)),
    "samplers.json": _samplers,
}
"""How the numbers of a study become its section, by the file that holds them."""
