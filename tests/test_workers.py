"""Runs made by several processes at once: the same bits, faults that name themselves."""

import os
import signal

import pytest

from lib import UserError, evaluation, probes, workers
from lib.profile import load
from lib.stages import SCRATCH, Study
from lib.workers import MIXIT, Job, ahead

SMALL = ["corpus.rendered.unlabeled_songs=4", "pretrain.steps=2", "finetune.steps=2", "pretrain.seeds=[0,1]"]


def weights(study: Study) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in study.results.glob("runs/*-*/model.safetensors")}


def jobs(study: Study) -> list[Job]:
    arms = [(SCRATCH, 0), ("body", 0), ("body", 1), (SCRATCH, 0)]
    return [Job(study.profile, MIXIT, 0), *(Job(study.profile, how, seed, 1, "validation") for how, seed in arms)]


def test_two_processes_make_the_bits_of_one(tmp_path):
    one, two = (Study(load("smoke", [f"results={tmp_path / name}", *SMALL])) for name in "ab")
    two = two.variant({"compute.jobs": 2})
    ahead(jobs(two))
    for seed in (0, 1):
        one.pretrain(seed)
        one.supervised("body", seed, 1)
    one.supervised(SCRATCH, 0, 1)
    assert len(weights(one)) == 5 and weights(one) == weights(two)
    assert len(list(two.results.glob("runs/*-*/scores-*.csv"))) == 3


def test_processes_probe_what_the_notebook_asks_for_later(tmp_path, monkeypatch):
    study = Study(load("smoke", [f"results={tmp_path}", *SMALL, "compute.jobs=2", "finetune.seeds=[0]"]))
    found = {(kind, seed): run for kind, seed, _, run in probes.pretrainings(study)}
    assert {kind for kind, _ in found} == {probes.COMPOSED, probes.REDEALT, probes.ONE_SONG}
    monkeypatch.setattr(Study, "load", None)  # nothing is looked at again
    gains = probes.correlation(study)
    assert set(gains["trained"]) == {kind for kind, _ in found}
    monkeypatch.setattr(probes, "references", lambda study: None)
    seeds = probes.probe(study).query("method == 'MixIT'")["seed"].unique()
    assert set(seeds) == {seed for kind, seed in found if kind == probes.COMPOSED}


def test_a_record_counts_as_done_and_its_weights_are_made_again_for_what_starts_from_them(tmp_path):
    study = Study(load("smoke", [f"results={tmp_path}", *SMALL, "compute.jobs=2"]))
    study.pretrain(0)
    evaluation.scores(study, study.supervised(SCRATCH, 0, 1), SCRATCH, 0, 1, "validation")
    before = weights(study)
    for path in study.results.glob("runs/*-*/model.safetensors"):
        path.unlink()
    ahead([Job(study.profile, MIXIT, 0), Job(study.profile, SCRATCH, 0, 1, "validation")])
    assert weights(study) == {}
    ahead([Job(study.profile, "body", 0, 1)])
    again = weights(study)
    start = study.pretrain_run(0).name
    assert set(again) == {start, study.supervised_run("body", 0, 1).name} and again[start] == before[start]
    assert study.load(study.supervised(SCRATCH, 0, 1)).sources == 4
    assert weights(study).items() >= before.items()


def test_scores_belong_to_the_weights(tmp_path):
    study = Study(load("smoke", [f"results={tmp_path}", *SMALL]))
    run = study.supervised(SCRATCH, 0, 1)
    first = evaluation.scores(study, run, SCRATCH, 0, 1, "validation")
    run.weights.unlink()
    assert evaluation.scores(study, run, SCRATCH, 0, 1, "validation").equals(first) and not run.weights.exists()
    run.finish(**{**run.facts(), "weights": "others"})  # as if another machine had trained
    assert evaluation.scores(study, run, SCRATCH, 0, 1, "validation").equals(first) and run.weights.exists()
    assert len(list(run.folder.glob("scores-*.csv"))) == 1


def test_one_job_does_nothing_ahead(tmp_path):
    study = Study(load("smoke", [f"results={tmp_path}", *SMALL]))
    ahead(jobs(study))
    assert not weights(study)


def test_a_fault_in_a_process_is_the_callers(tmp_path):
    study = Study(load("smoke", [f"results={tmp_path}", *SMALL, "compute.jobs=2"]))
    run = study.supervised_run(SCRATCH, 0, 1).begin()
    (run.folder / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"last\.ckpt: damaged checkpoint"):
        ahead([Job(study.profile, SCRATCH, 0, 1)])


def kill_oneself(job: Job) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_named(tmp_path, monkeypatch):
    study = Study(load("smoke", [f"results={tmp_path}", *SMALL, "compute.jobs=2"]))
    monkeypatch.setattr(workers, "_work", kill_oneself)
    with pytest.raises(UserError, match=r"lower compute\.jobs"):
        ahead([Job(study.profile, SCRATCH, 0, 1)])
