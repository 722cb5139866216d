"""Jobs on a Slurm cluster, through submitit: arrays of packs of jobs, which outlive the process that submits them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundwork.claims import EXPIRY_S
from groundwork.errors import UserError
from groundwork.files import read_checked, with_checksum, write_atomically
from groundwork.jobs import RETRY_S, Chain, Outcome, perform
from groundwork.options import Settings, option

LARGEST_ARRAY = 1000
"""Slurm's own default refuses larger ones (``MaxArraySize``)."""
POLL_S = 5.0
RETRIES = 3
"""How often a job that ended without a word, killed or out of memory, is submitted again."""
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


@dataclass(frozen=True)
class SlurmSettings(Settings):
    """What the cluster is asked for, per job."""

    partition: str | None = option(None, "The partition.", default_text="the cluster's")
    account: str | None = option(None, "The account that pays.", default_text="the user's")
    qos: str | None = option(None, "The quality of service.", default_text="the cluster's")
    constraint: str | None = option(None, "What nodes must have.", default_text="")
    time_min: int = option(240, "The time limit in minutes; a job that reaches it is put back and resumes.", low=1)
    memory_gb: float = option(4.0, "The memory in gigabytes.", low=0.1)
    cpus: int = option(1, "The processor cores, as many as threads.", low=1)
    gpus: int = option(0, "The GPUs.", low=0)
    tasks: int = option(
        1, "Train a network by this many processes together, each on its own GPU if there are any.", low=1
    )
    at_a_time: int = option(256, "Run at most this many jobs of an array at a time.", low=1)
    timeouts: int = option(1000, "Put a job that reaches its time limit back this often.", low=0)
    warning_s: int = option(90, "Warn a job this many seconds before its time limit.", low=1)
    setup: tuple[str, ...] | None = option(
        None, "Lines of shell before the job.", repeated=True, metavar="LINE", default_text=""
    )
    sbatch: tuple[str, ...] | None = option(
        None, "Other options of sbatch.", repeated=True, metavar="NAME=VALUE", default_text=""
    )

    def parameters(self, name: str) -> dict[str, Any]:
        """The same in submitit's words, for jobs of that name."""
        others = dict(text.split("=", 1) for text in self.sbatch or ())
        asked = {
            "job_name": name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "time": self.time_min,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "ntasks_per_node": self.tasks,
            "array_parallelism": self.at_a_time,
            "signal_delay_s": self.warning_s,
            "setup": [*(self.setup or ()), f"export OMP_NUM_THREADS={self.cpus} TQDM_DISABLE=1"],
            "additional_parameters": {"mem": f"{round(1024 * self.memory_gb)}M", **others},
        }
        return {name: value for name, value in asked.items() if value is not None}

    def check(self) -> None:
        """Options of sbatch have a name and a value."""
        for text in self.sbatch or ():
            if "=" not in text:
                raise UserError(f"sbatch = {text!r} is not NAME=VALUE")


@dataclass(frozen=True)
class Pack:
    """Chains that one job of the cluster does one after the other.

    Preempted or at its time limit, submitit asks it for a checkpoint and puts it back: what is done is found by its
    answer, and a training resumes from its own checkpoint.
    """

    chains: tuple[Chain, ...]

    def __call__(self) -> list[Outcome]:
        """Does the chains; one that another process is at, or was when it died, is waited for for a while."""
        outcomes = []
        for chain in self.chains:
            patience = time.monotonic() + EXPIRY_S + 10
            while (outcome := perform(chain)).again and time.monotonic() < patience:
                time.sleep(RETRY_S)
            outcomes.append(outcome)
        return outcomes

    def checkpoint(self) -> Any:
        """What submitit puts back."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class SlurmExecutor:
    """Jobs of a Slurm cluster.

    Attributes:
        settings: what each is asked for.
        folder: logs, and which job does what: ``NAME.json`` says so of a chain, by its first job's name.
        pack: how many chains one job does.
        dry_run: say what would be submitted, and stop.
    """

    settings: SlurmSettings
    folder: Path
    pack: int = 1
    dry_run: bool = False
    _lost: dict[str, int] = field(default_factory=dict)

    def run(self, chains: Sequence[Chain]) -> Iterator[tuple[Chain, Outcome]]:
        """Submits what is not submitted yet, and tells of each chain as its job ends.

        Raises:
            UserError: no submitit, or no Slurm.
        """
        submitit = _submitit()
        if self.dry_run:
            self._print_plan(chains)
        if shutil.which("sbatch") is None:
            raise UserError("executor = slurm: this machine has no sbatch")
        active = _active()
        submitted = {chain: found for chain in chains if (found := self._submitted(chain)) and found[0] in active}
        self._submit(submitit, [chain for chain in chains if chain not in submitted], submitted)
        try:
            yield from self._watch(submitit, submitted)
        except KeyboardInterrupt:
            print("submitted jobs go on; the same command finds them again", file=sys.stderr)
            raise

    @property
    def name(self) -> str:
        """What the cluster calls its jobs: the folder of the study."""
        return self.folder.absolute().parent.name

    def _note(self, chain: Chain) -> Path:
        return self.folder / (re.sub(r"[^\w.=,-]+", "-", chain[0].name).strip("-") + ".json")

    def _submitted(self, chain: Chain) -> tuple[str, int] | None:
        """The cluster's job that does a chain, and the chain's place in it."""
        note = read_checked(self._note(chain))
        return (note["job"], note["place"]) if note else None

    def _submit(self, submitit: Any, chains: Sequence[Chain], submitted: dict[Chain, tuple[str, int]]) -> None:
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=self.settings.timeouts)
        executor.update_parameters(**self.settings.parameters(self.name))
        for array in self._arrays(chains):
            try:
                with executor.batch():
                    jobs = [executor.submit(pack) for pack in array]
            except submitit.core.utils.FailedJobError as error:
                raise UserError(f"the cluster refused the jobs: {str(error).strip().splitlines()[-1]}") from error
            for job, pack in zip(jobs, array, strict=True):
                for place, chain in enumerate(pack.chains):
                    submitted[chain] = (job.job_id, place)
                    note = {"job": job.job_id, "place": place, "jobs": [one.name for one in chain]}
                    write_atomically(self._note(chain), with_checksum(note))

    def _arrays(self, chains: Sequence[Chain]) -> list[list[Pack]]:
        packs = [Pack(tuple(chains[first : first + self.pack])) for first in range(0, len(chains), self.pack)]
        return [packs[first : first + LARGEST_ARRAY] for first in range(0, len(packs), LARGEST_ARRAY)]

    def _print_plan(self, chains: Sequence[Chain]) -> None:
        from submitit.slurm.slurm import _make_sbatch_string

        arrays = self._arrays(chains)
        for array in arrays:
            for pack in array:
                print(f"job: {'; '.join(' then '.join(job.name for job in chain) for chain in pack.chains)}")
            command = f"{sys.executable} -u -m submitit.core._submit {self.folder}"
            size: dict[str, Any] = {"map_count": len(array)} if len(array) > 1 else {}
            print(_make_sbatch_string(command, self.folder, **self.settings.parameters(self.name), **size))
        print(f"{len(chains)} chains in {sum(map(len, arrays))} jobs; nothing was submitted")
        raise SystemExit(0)

    def _watch(self, submitit: Any, submitted: dict[Chain, tuple[str, int]]) -> Iterator[tuple[Chain, Outcome]]:
        waiting = dict(submitted)
        while waiting:
            active = _active()
            for name in {name for name, _ in waiting.values()}:
                outcomes = self._outcomes(submitit.SlurmJob(self.folder, name), name in active)
                if outcomes is None:
                    continue
                for chain, (owner, place) in list(waiting.items()):
                    if owner == name:
                        del waiting[chain]
                        yield chain, outcomes[place] if outcomes else self._loss(chain, name)
            if waiting:
                time.sleep(POLL_S)

    def _outcomes(self, job: Any, active: bool) -> list[Outcome] | None:
        """What a job says of its chains; ``None`` while it runs, nothing if it ended without a word."""
        if job.paths.result_pickle.exists():
            return job.result() if job.exception() is None else []
        return None if active else []

    def _loss(self, chain: Chain, job: str) -> Outcome:
        if all(one.done for one in chain):
            return Outcome()
        name = chain[0].name
        self._lost[name] = self._lost.get(name, 0) + 1
        if self._lost[name] <= RETRIES:
            return Outcome(again=True)
        return Outcome(
            f"{name}: its Slurm job {job} ended without an answer {self._lost[name]} times; see {self.folder}"
        )


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError("executor = slurm needs submitit: pip install 'temporal-norm-planner[slurm]'") from None
    return submitit


class _Everything:
    """All jobs, while the cluster does not answer."""

    def __contains__(self, _: object) -> bool:
        return True


def _active() -> Any:
    """The jobs of the cluster that wait or run."""
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return _Everything()
    return {words[0] for line in done.stdout.splitlines() if (words := line.split())[1] not in _ENDED}
