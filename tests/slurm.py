"""A Slurm of one node on the loopback interface, for tests: started from Debian's packages, ended by process ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from processes import Child

CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldParameters=preempt_send_user_signal
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
SlurmdTimeout=5
SlurmctldTimeout=10
MinJobAge=10
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here, or nothing."""
    programs = [name for name in ("slurmctld", "slurmd", "munged", "srun", "sbatch") if shutil.which(name) is None]
    if programs:
        return f"no Slurm here: {', '.join(programs)} are missing (Debian: slurm-wlm, munge)"
    if os.getuid() != 0:
        return "a Slurm of one's own needs root"
    try:
        import submitit  # noqa: F401
    except ImportError:
        return "no submitit here"
    return ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Slurm:
    """A running cluster of one node with so many cores; ``SLURM_CONF`` says where it is."""

    def __init__(self, folder: Path, cpus: int | None = None):
        self.folder, self.conf = folder, folder / "slurm.conf"
        for name in ("ctld", "d"):
            (folder / name).mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        self.conf.write_text(
            CONFIG.format(
                host=host, folder=folder, cpus=cpus or os.cpu_count(), ctld_port=_free_port(), d_port=_free_port()
            )
        )
        os.environ["SLURM_CONF"] = str(self.conf)
        _start_munge()
        subprocess.run(["slurmctld", "-f", self.conf], check=True, timeout=30)
        self.start_node()
        self.wait_until(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%t"), 60)

    def start_node(self) -> None:
        """Starts the node's daemon."""
        subprocess.run(["slurmd", "-f", self.conf], check=True, timeout=30)

    def lose_node(self) -> None:
        """Ends the node's daemon and all that runs under it, without a word."""
        daemon = int((self.folder / "d.pid").read_text())
        steps = [pid for pid in map(int, self.ask("pgrep", "slurmstepd").split()) if self._is_ours(pid)]
        for pid in [daemon, *steps, *(child for step in steps for child in _descendants(step))]:
            end(pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.conf).encode() in Path(f"/proc/{pid}/environ").read_bytes() or any(
                str(self.conf).encode() in Path(f"/proc/{child}/environ").read_bytes() for child in _descendants(pid)
            )
        except OSError:  # it ended meanwhile
            return False

    def ask(self, *command: str) -> str:
        """What a command of the cluster says."""
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout

    def finish(self, child: Child, limit_s: float = 300) -> int:
        """The exit code of a process that waits for jobs; those put back begin at once, not after two minutes."""
        deadline = time.monotonic() + limit_s
        while child.process.is_alive() and time.monotonic() < deadline:
            for job in self.ask("squeue", "--noheader", "--states=PENDING", "--format=%A").split():
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(0.5)
        return child.end(1)

    def wait_until(self, condition, limit_s: float = 120) -> None:
        """Until the condition holds."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, self.ask("squeue", "--states=all") + self.ask("sinfo")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends all jobs and both daemons."""
        self.ask("scancel", "--user=root")
        deadline = time.monotonic() + 30
        while self.ask("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in ("d.pid", "ctld.pid"):
            if (self.folder / name).exists():
                end(int((self.folder / name).read_text()), signal.SIGTERM)
        os.environ.pop("SLURM_CONF", None)


def _start_munge() -> None:
    if subprocess.run(["munge", "--no-input"], capture_output=True, check=False).returncode == 0:
        return
    for folder in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "/usr/sbin/munged"], check=True, timeout=30)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(grandchild for child in children for grandchild in _descendants(child))]


def end(pid: int, how: signal.Signals) -> None:
    """Sends a signal, if the process still lives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
