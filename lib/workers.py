"""Several runs at once: worker processes train and score what the notebooks are about to ask for."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from lib import UserError, evaluation
from lib.profile import Profile
from lib.runs import Run, fingerprint
from lib.stages import EQUAL_COMPUTE, LONG, SCRATCH, Study
from lib.stopping import end_with_parent

MIXIT = "MixIT"
ORDER = {MIXIT: 0, EQUAL_COMPUTE: 1, LONG: 1, SCRATCH: 2}
"""Whose turn comes when; what starts from a pre-training comes last."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: pre-training (`MIXIT`), then looked at by ``probe``, if any, which takes its study and seed; or what
    `Study.supervised` takes, scored on the songs of ``split``, if any."""

    profile: Profile
    how: str
    seed: int
    labeled_songs: int = 0
    split: str = ""
    probe: Callable[[Study, int], None] | None = None


def ahead(jobs: Iterable[Job]) -> None:
    """Train, and score or probe, what is missing of ``jobs``, as many at a time as their profile's ``compute.jobs``.

    Whoever asks for one of these runs afterwards finds it finished; with ``compute.jobs`` 1 nothing is done here.
    Pre-trainings go first: others start from them, and wait for them where they must. Then comes what starts from
    nothing, the longest before the rest. Results do not depend on the number of jobs.

    Raises: UserError of a run, or if a process was killed.
    """
    jobs = list(jobs)
    processes = max((job.profile.compute.jobs for job in jobs), default=1)
    if processes > 1:
        _work_off(list(planned(jobs).values()), processes)


def planned(jobs: Iterable[Job], kind: type[Study] = Study) -> dict[Run, Job]:
    """The unfinished runs of ``jobs``, each once, and the pre-trainings that they start from, in their turn."""
    studies = {}  # corpora are listed, and made, once for all
    plan: dict[Run, tuple[int, Job]] = {}
    for job in jobs:
        study = studies.setdefault(fingerprint(job.profile), kind(job.profile))
        if job.how == MIXIT:
            turn, run = ORDER[MIXIT], study.pretrain_run(job.seed)
        else:
            turn, run = ORDER.get(job.how, len(ORDER)), study.supervised_run(job.how, job.seed, job.labeled_songs)
        if run.finished:
            continue
        plan.setdefault(run, (turn, job))
        if turn == len(ORDER):
            seed = study.pretraining_seed(job.seed)
            start = study.pretrain_run(seed)
            if not start.weights.exists():
                plan.setdefault(start, (ORDER[MIXIT], Job(job.profile, MIXIT, seed)))
    return {run: job for run, (_, job) in sorted(plan.items(), key=lambda item: item[1][0])}


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
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        if isinstance(error, BrokenProcessPool):
            reason = "a training process was killed, most likely for lack of memory: lower compute.jobs"
            raise UserError(reason) from None
        raise


def _work(job: Job) -> None:
    study = Study(job.profile)
    if job.how == MIXIT:
        study.load(study.pretrain_run(job.seed))
        if job.probe:
            job.probe(study, job.seed)
        return
    run = study.supervised(job.how, job.seed, job.labeled_songs)
    if job.split:
        evaluation.scores(study, run, job.how, job.seed, job.labeled_songs, job.split)
