"""One runner of many jobs: it knows what is answered and what is not; processes belong to the executor behind it.

A job is done when its answer is there, whoever found it: an interrupted run of the same jobs goes on where it stopped,
and two runners of the same jobs share them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from groundwork.claims import InUseError
from groundwork.errors import UserError, out_of_memory

RETRY_S = 2.0
"""Between two looks at jobs that another runner works on."""
ENDING_S = 10.0
"""That a process without work may take to end."""


@dataclass(frozen=True)
class Job:
    """A piece of work with a name.

    Attributes:
        name: also of files that tell of it.
        work: finds the answer and keeps it; picklable, as is ``answered``. It raises
            :class:`groundwork.claims.InUseError` where another process is at it.
        answered: anything that is neither ``None`` nor ``False`` if the answer is there.
        after: the name of the job that it builds upon.
    """

    name: str
    work: Callable[[], Any]
    answered: Callable[[], Any]
    after: str | None = None

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self.answered() not in (None, False)


Chain = tuple[Job, ...]
"""A job and those that build upon it, in an order in which they can be done."""


@dataclass(frozen=True)
class Outcome:
    """How a chain ended.

    Attributes:
        problem: what went wrong, in one line; ``None``: nothing.
        again: it is to be looked at again: another process works on one of its jobs, or it was lost.
    """

    problem: str | None = None
    again: bool = False


class Executor(Protocol):
    """Where jobs run."""

    def run(self, chains: Sequence[Chain]) -> Iterator[tuple[Chain, Outcome]]:
        """Does the chains and tells of each as it ends, in any order."""
        ...


def run_jobs(jobs: Sequence[Job], executor: Executor, what: str) -> list[str]:
    """Does what is not yet answered, with a bar on standard error.

    Jobs that another runner is at are looked at again later.

    Args:
        jobs: each after the one that it builds upon.
        executor: where they run.
        what: the bar's title.

    Returns:
        The names of the jobs that were not answered before.

    Raises:
        UserError: some failed, told when the rest is done; the message is the first one's.
    """
    from tqdm import tqdm

    chains = waiting = _chains(jobs)
    if not chains:
        return []
    problems: list[str] = []
    with tqdm(total=len(chains), unit="job", desc=what) as bar:
        while waiting:
            others = []
            for chain, outcome in executor.run(waiting):
                if outcome.again:
                    others.append(chain)
                    continue
                problems += [outcome.problem] if outcome.problem else []
                bar.update()
            waiting = others
            if waiting:
                time.sleep(RETRY_S * random.uniform(0.5, 1.5))
    if problems:
        raise UserError(f"{len(problems)} of {len(chains)} jobs failed, the first: {problems[0]}")
    return [job.name for chain in chains for job in chain]


def _chains(jobs: Sequence[Job]) -> list[Chain]:
    """What is still to do; jobs that build upon one another, directly or not, are one chain."""
    chains: dict[str, list[Job]] = {}
    for job in jobs:
        chain = chains.setdefault(job.name, chains[job.after] if job.after else [])
        chain += [] if job.done else [job]
    return [tuple(chain) for chain in {id(chain): chain for chain in chains.values()}.values() if chain]


def perform(chain: Chain) -> Outcome:
    """Does the jobs of a chain one after the other, up to the first that fails."""
    for job in chain:
        try:
            if not job.done:
                job.work()
        except InUseError:
            return Outcome(again=True)
        except Exception as error:
            if not isinstance(error, UserError | OSError) and not out_of_memory(error):
                traceback.print_exc()  # our own mistake
            line = " ".join(str(error).split()) or type(error).__name__
            return Outcome(f"{job.name}: {line}")
    return Outcome()


@dataclass(frozen=True)
class LocalExecutor:
    """Processes of this machine, which end with this one.

    Attributes:
        jobs: so many at a time, with one thread each; 1: in this process, with all threads.
    """

    jobs: int = 1

    def run(self, chains: Sequence[Chain]) -> Iterator[tuple[Chain, Outcome]]:
        """Does the chains and tells of each as it ends."""
        if self.jobs == 1:
            yield from ((chain, perform(chain)) for chain in chains)
            return
        workers = [_Worker(slot) for slot in range(min(self.jobs, len(chains)))]
        waiting = deque(chains)
        try:
            for worker in workers:
                worker.begin(waiting.popleft())
            while busy := {worker.connection: worker for worker in workers if worker.chain}:
                for connection in wait(list(busy)):
                    worker = busy[connection]  # type: ignore[index]
                    yield worker.chain, worker.end()
                    if waiting:
                        worker.begin(waiting.popleft())
        finally:
            for worker in workers:
                worker.close()
            for worker in workers:
                worker.process.join(ENDING_S)
                worker.process.terminate()


class _Worker:
    """A process that does one chain after the other; if it is killed, another takes its place."""

    def __init__(self, slot: int):
        self.slot = slot
        self.chain: Chain = ()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment(OMP_NUM_THREADS="1", **_bar(self.slot)):
            self.process.start()
        theirs.close()

    def begin(self, chain: Chain) -> None:
        """Hands over a chain."""
        self.chain = chain
        if not self.process.is_alive():
            self._start()
        self.connection.send_bytes(pickle.dumps(chain))

    def end(self) -> Outcome:
        """What became of it."""
        first, self.chain = self.chain[0].name, ()
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return Outcome(f"{first}: its process ended with code {self.process.exitcode}")

    def close(self) -> None:
        """Ends the process: at once if it works, else by itself, so that it gives back the semaphores of its bars."""
        if self.chain:
            self.process.terminate()
        self.connection.close()


def _bar(slot: int) -> dict[str, str]:
    """Each worker's progress bar has a line of its own on a terminal, and is switched off elsewhere."""
    return {"TQDM_POSITION": str(slot + 1)} if sys.stderr.isatty() else {"TQDM_DISABLE": "1"}


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection) -> None:
    """Does what comes in; Ctrl-C is the parent's to handle, and a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):  # nothing more to do
        while True:
            connection.send(perform(pickle.loads(connection.recv_bytes())))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
