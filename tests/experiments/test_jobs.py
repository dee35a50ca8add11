"""Runs made by several processes at once: the same bits, faults that name themselves."""

import os
import signal
from pathlib import Path

import pytest

from lib import UserError
from lib.arms import SCRATCH, Finetuning, Pretraining
from lib.experiments import evaluate, jobs, outputs, probes
from lib.experiments.jobs import Job, scored, train_in_parallel
from lib.study import Study
from tests import toys

BODY = ("body", 0), ("body", 1)


@pytest.fixture
def two(tmp_path):
    """A study of two pre-trainings, whose runs two processes share."""
    return toys.study(tmp_path, {"compute.jobs": 2, "pretrain.seeds": [0, 1]})


@pytest.fixture
def forked(fork_server, monkeypatch):
    """Processes start as forks; those of the last test are new ones, as in a study."""
    monkeypatch.setattr(jobs.multiprocessing, "get_context", lambda method: fork_server)


def weights(study: Study) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in study.results.glob("runs/*-*/model.safetensors")}


def several(study: Study) -> list[Job]:
    arms = [(SCRATCH, 0), *BODY, (SCRATCH, 0)]
    return [
        Job(Pretraining(study, 0)),
        *(scored(Finetuning(study, arm, seed, 1), "validation") for arm, seed in arms),
    ]


def test_two_processes_make_the_bits_of_one(two, forked, tmp_path):
    one = two.variant({"compute.jobs": 1, "results": str(tmp_path / "one")})
    train_in_parallel(several(two))
    for arm, seed in ((SCRATCH, 0), *BODY):
        Finetuning(one, arm, seed, 1).trained()
    assert len(weights(one)) == 5 and weights(one) == weights(two)
    assert len(list(two.results.glob("runs/*-*/scores-*.csv"))) == 3


def test_processes_measure_what_the_notebook_asks_for_later(two, forked, monkeypatch):
    study = two.variant({"probes.seeds": [0, 1], "probes.same_song": True})
    found = {(kind, training.seed): training for kind, training in probes.pretrainings(study)}
    assert {kind for kind, _ in found} == {probes.COMPOSED, probes.ONE_SONG}
    monkeypatch.setattr(outputs, "statistics", None)  # nothing is looked at again
    gains = probes.correlation(study)
    assert set(gains["trained"]) == {kind for kind, _ in found}
    monkeypatch.setattr(probes, "references", lambda study: None)
    seeds = probes.probe(study).query("method == 'MixIT'")["seed"].unique()
    assert set(seeds) == {seed for kind, seed in found if kind == probes.COMPOSED}


def test_a_record_counts_as_done_and_its_weights_are_made_again_for_what_starts_from_them(two, forked):
    start, scratch, body = Pretraining(two, 0), Finetuning(two, SCRATCH, 0, 1), Finetuning(two, "body", 0, 1)
    start.trained()
    evaluate.scores(scratch, "validation")
    before = weights(two)
    for path in two.results.glob("runs/*-*/model.safetensors"):
        path.unlink()
    train_in_parallel([Job(start), scored(scratch, "validation")])
    assert weights(two) == {}
    train_in_parallel([Job(body)])
    again = weights(two)
    assert set(again) == {start.run.name, body.run.name} and again[start.run.name] == before[start.run.name]
    assert scratch.load().sources == 4
    assert weights(two).items() >= before.items()


def test_one_job_does_nothing_in_advance(two):
    study = two.variant({"compute.jobs": 1})
    train_in_parallel(several(study))
    assert not weights(study)


def test_what_others_start_from_comes_first_and_every_run_once(two):
    plan = jobs.planned([Job(Finetuning(two, "body", 1, 1)), *several(two)])
    assert list(plan) == [job.training.run for job in plan.values()]
    assert [job.turn for job in plan.values()] == [0, 0, 2, 3, 3]


def test_a_fault_in_a_process_is_the_callers(two, forked):
    training = Finetuning(two, SCRATCH, 0, 1)
    (training.run.begin().folder / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"last\.ckpt: damaged checkpoint"):
        train_in_parallel([Job(training)])


def kill_oneself(training: Finetuning) -> None:
    Path(training.study.results / "began").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_named(two):  # not forked: how a fork ended can be asked once, and the pool asks too
    training = Finetuning(two, SCRATCH, 0, 1)
    with pytest.raises(UserError, match=r"was ended by SIGKILL, most likely .* lower compute\.jobs"):
        train_in_parallel([Job(training, kill_oneself)])
    assert (two.results / "began").exists()
