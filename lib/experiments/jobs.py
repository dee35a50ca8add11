"""Several runs at once: worker processes train and score what the notebooks are about to ask for."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from lib import UserError
from lib.arms import EQUAL_COMPUTE, PRETRAINED_STALLED, SCRATCH, STALLED, Finetuning, Pretraining
from lib.experiments import evaluate
from lib.machine.processes import end_with_parent, ended
from lib.store.runs import Run

LAST = 3
TURN = {EQUAL_COMPUTE: 1, STALLED: 1, PRETRAINED_STALLED: 1, SCRATCH: 2}
"""Whose turn comes when: pre-trainings first (0), then these arms, `LAST` the others, which start from one."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A training, and what is to be measured of its model: ``measure`` takes the training."""

    training: Pretraining | Finetuning
    measure: Callable[[Pretraining | Finetuning], object] | None = None

    @property
    def processes(self) -> int:
        return self.training.study.profile.compute.jobs

    @property
    def turn(self) -> int:
        return TURN.get(self.training.arm, LAST) if isinstance(self.training, Finetuning) else 0


def scored(training: Finetuning, split: str = "test") -> Job:
    """The job of training a model and scoring it on the songs of a split."""
    return Job(training, functools.partial(evaluate.scores, split=split))


def train_in_parallel(jobs: Iterable[Job]) -> None:
    """Train, and score or probe, what is missing of ``jobs``, as many at a time as their profile's ``compute.jobs``.

    Whoever asks for one of these runs afterwards finds it finished; with ``compute.jobs`` 1 nothing is done here.
    Pre-trainings go first: others start from them, and wait for them where they must. Then comes what starts from
    nothing, the longest before the rest. Results do not depend on the number of jobs.

    Raises: UserError of a run, or if a process was killed.
    """
    jobs = list(jobs)
    processes = max((job.processes for job in jobs), default=1)
    if processes > 1:
        _work_off(list(planned(jobs).values()), processes)


def planned(jobs: Iterable[Job]) -> dict[Run, Job]:
    """The unfinished runs of ``jobs``, each once, and the pre-trainings that they start from, in their turn."""
    plan: dict[Run, Job] = {}
    for job in jobs:
        if job.training.run.finished:
            continue
        plan.setdefault(job.training.run, job)
        start = job.training.pretraining if isinstance(job.training, Finetuning) else None
        if start and not start.run.weights.exists():
            plan.setdefault(start.run, Job(start))
    return dict(sorted(plan.items(), key=lambda item: item[1].turn))


def _work_off(jobs: Sequence[Job], processes: int) -> None:
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")  # forked copies of a process with threads may hang
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, end_with_parent)
    try:
        for done in as_completed([pool.submit(_work, job) for job in jobs]):
            done.result()
        pool.shutdown()
    except BaseException as error:
        workers = list((pool._processes or {}).values())
        codes = [code for worker in workers if (code := worker.exitcode) not in (None, 0, -signal.SIGTERM)]
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        if isinstance(error, BrokenProcessPool):
            how = ended(codes[0] if codes else -signal.SIGKILL)
            raise UserError(f"a training process {how}: call again, with a lower compute.jobs if so") from None
        raise


def _work(job: Job) -> None:
    job.training.load() if job.turn == 0 else job.training.trained()
    if job.measure:
        job.measure(job.training)
