"""What runs leave behind: their learning curves."""

from types import SimpleNamespace

import pytest

from lib import arms
from lib.arms import Finetuning, Pretraining
from lib.experiments import records
from tests import toys


def test_learning_curves_hold_what_lies_between_validations(tmp_path):
    log = "step,loss,validation_loss\n1,3.0,\n2,1.0,0.5\n3,nan,\n4,-1.0,\n5,-2.0,-0.5\n6,9.0,\n"
    (tmp_path / "log.csv").write_text(log)
    curves = records.learning_curves(None, [("scratch", 0, 4, None, SimpleNamespace(folder=tmp_path))])
    found = curves.pivot(index="step", columns="metric", values="value")
    assert found["loss"].to_dict() == {2: 2.0, 5: -1.5} and found["validation_loss"].to_dict() == {2: 0.5, 5: -0.5}


def test_what_was_spent_holds_the_steps_really_taken_and_the_pretraining(tmp_path, monkeypatch):
    study = toys.study(tmp_path, {"compute.threads": 2})
    monkeypatch.setattr(arms, "example_flops", lambda study, stage: {"pretrain": 5e14, "finetune": 1e14}[stage])
    monkeypatch.setattr(arms.Training, "trained", lambda training: training.run)
    trainings = [Pretraining(study, 0), Finetuning(study, "scratch", 0, 1), Finetuning(study, "sliced", 0, 1)]
    facts = dict.fromkeys(("waited_seconds", "skipped_steps", "audio_seconds", "peak_memory_mib"), 0)
    for training, steps, seconds in zip(trainings, (10, 7, 4), (100.0, 20.0, 30.0), strict=True):
        training.run.begin().finish(
            steps=steps, seconds=seconds, weights="", best_validation_loss=0.0, processes=1, **facts
        )
    records.cost(study, trainings)
    spent = records.spent(study)
    scratch, sliced = (spent.loc[(training.method, 1)] for training in trainings[1:])
    assert scratch.to_list() == pytest.approx([7, 2 * 20, 7 * 2 * 0.1, 0])
    assert sliced.to_list() == pytest.approx([4, 2 * (30 + 100), 4 * 2 * 0.1 + 10 * 2 * 0.5, 10 * 2 * 0.5])


def test_a_run_on_gpus_says_its_rate_for_each_and_its_peak(tmp_path, monkeypatch):
    training = Pretraining(toys.study(tmp_path, {"pretrain.batch": 4}), 0)
    monkeypatch.setattr(arms, "example_flops", lambda study, stage: 5e12)
    monkeypatch.setattr(arms.Training, "trained", lambda training: training.run)
    facts = dict.fromkeys(("waited_seconds", "skipped_steps", "audio_seconds", "peak_memory_mib"), 0)
    facts |= {"steps": 100, "seconds": 10.0, "processes": 2, "threads": 1, "weights": "", "best_validation_loss": 0.0}
    training.run.begin().finish(**facts, gpu="a card", peak_gpu_memory_mib=123.0, accumulate=1)
    cost = records.cost(training.study, [training]).set_index("metric")["value"]
    assert cost["peak GPU memory in MiB"] == 123
    assert cost["TFLOP/s of a GPU"] == pytest.approx(100 * 4 * 5 / 10 / 2)
