"""`fit`: interrupted runs end where undisturbed ones do, bad steps are skipped, finished runs are not repeated."""

import csv
import dataclasses
import hashlib
import itertools
import math

import pytest
import torch

from lib import UserError
from lib.model import checkpoints
from lib.profile.fields import Optimisation
from lib.store.runs import Run
from lib.training import PATIENCE, fit, learning_rate
from tests.toys import COMPUTE, STAGE, Interrupted, task, train


def rows(run):
    with open(run.folder / "log.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_learning_rate_warms_up_then_decays():
    stage = Optimisation(warmup_steps=4, decay_start=10, decay_every=5, decay_factor=0.5)
    rates = [learning_rate(stage, 1.0, step) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[14] == 1.0
    assert rates[15] == 0.5
    assert rates[20] == 0.25


def stalling(folder, losses, fail_at=None):
    """A run of `PATIENT` whose validations give ``losses``, then ever worse ones: (steps done, steps of decay)."""
    given, run = task(fail_at), Run(folder)
    folder.mkdir(exist_ok=True)
    seen = sum(row["validation_loss"] != "" for row in rows(run)) if (folder / "log.csv").exists() else 0
    values = iter([*losses, *range(100)][seen:])
    stalled = dataclasses.replace(given, validate=lambda model: float(next(values)))
    fit(stalled, PATIENT, run, seed=5, compute=COMPUTE, workers=0, label="test")
    rates = [float(row["learning_rate"]) for row in rows(run)]
    return len(rates), sum(rate < max(rates) for rate in rates)


PATIENT = dataclasses.replace(
    STAGE, steps=20, warmup_steps=0, decay_start=16, decay_every=1, decay_factor=0.5, validate_every=1, patience=4
)


def test_a_run_that_stalls_decays_early_and_ends(tmp_path):
    # lowest at step 2; four validations later, at step 6, the four steps of decay begin (the first at the full rate)
    assert stalling(tmp_path / "stalls", [-1, -2]) == (10, 3)
    assert stalling(tmp_path / "improves", range(0, -100, -1)) == (20, 3)


def test_a_stalled_run_goes_on_where_it_was_cut(tmp_path):
    stalling(tmp_path / "whole", [-1, -2])
    with pytest.raises(Interrupted):
        stalling(tmp_path / "cut", [-1, -2], fail_at=8)
    assert stalling(tmp_path / "cut", [-1, -2]) == (10, 3)
    assert rows(Run(tmp_path / "cut")) == rows(Run(tmp_path / "whole"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A separator that was trained undisturbed, and its run."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("fail_at", [1, 3, 5, 7])
def test_interrupted_run_ends_bit_identical(tmp_path, whole, fail_at):
    undisturbed, run = whole
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", fail_at=fail_at)
    resumed, cut = train(tmp_path / "cut")
    assert (cut.folder / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()
    assert rows(cut) == rows(run)
    assert [row["step"] for row in rows(run)] == ["3", "6", "8"]
    assert undisturbed.config() == resumed.config()


def test_finished_run_is_not_repeated(whole):
    first, run = whole
    stamp = (run.folder / "model.safetensors").stat().st_mtime_ns
    again, _ = train(run.folder, fail_at=0)
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_run_without_its_weights_is_trained_again_to_the_same_bits(tmp_path):
    _, run = train(tmp_path / "run")
    weights, digest = run.weights.read_bytes(), run.facts()["weights"]
    run.weights.unlink()
    assert run.finished
    train(tmp_path / "run")
    assert run.weights.read_bytes() == weights
    assert run.facts()["weights"] == digest == hashlib.sha256(weights).hexdigest()


def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    train(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_changes_the_result(tmp_path, whole):
    _, other = train(tmp_path / "other", seed=6)
    assert other.weights.read_bytes() != whole[1].weights.read_bytes()  # dropout is drawn from the seed


def test_accumulation_takes_the_same_step(tmp_path):
    whole, _ = train(tmp_path / "whole", dropout=0.0)
    parts, _ = train(tmp_path / "parts", Optimisation(**{**vars(STAGE), "accumulate": 2}), dropout=0.0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_what_is_to_learn_slower_does(tmp_path):
    def moved(rate):
        slow = dataclasses.replace(task(dropout=0.0), slower=lambda name: "blocks" in name, slower_rate=rate)
        before = {name: value.clone() for name, value in slow.separator.state_dict().items()}
        (tmp_path / str(rate)).mkdir()
        after = fit(slow, STAGE, Run(tmp_path / str(rate)), seed=5, compute=COMPUTE, workers=0, label="test")
        return {name: float((value - before[name]).norm()) for name, value in after.state_dict().items()}

    whole, tenth, none = (moved(rate) for rate in (1.0, 0.1, 0.0))
    for name in filter(whole.get, whole):
        assert (
            0.05 * whole[name] < tenth[name] < 0.2 * whole[name]
            if "blocks" in name
            else tenth[name] > 0.5 * whole[name]
        )
        assert (none[name] == 0) == ("blocks" in name)


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path):
    _, run = train(tmp_path / "run", bad=(2, 4))
    assert run.facts()["skipped_steps"] == 2
    assert [(row["step"], row["skipped"]) for row in rows(run)] == [("3", "1"), ("6", "2"), ("8", "2")]
    assert all(torch.isfinite(v).all() for v in checkpoints.load(run.folder).state_dict().values())


def test_a_run_that_stays_not_finite_is_given_up(tmp_path):
    stage = Optimisation(**{**vars(STAGE), "steps": PATIENCE + 5})
    with pytest.raises(UserError, match=f"not finite for {PATIENCE} steps in a row up to step {PATIENCE + 1};"):
        train(tmp_path / "run", stage, bad=range(1, 100))
    assert not Run(tmp_path / "run").finished


def test_training_learns(tmp_path):
    changes = {"steps": 60, "validate_every": 10, "learning_rate": 3e-3, "decay_every": 99}
    _, run = train(tmp_path / "run", dataclasses.replace(STAGE, **changes), dropout=0.0)
    losses = [float(row["loss"]) for row in rows(run)]  # means over ten steps
    assert losses[-1] < losses[0] - 0.5


def scaled(folder, factor, stage, at=range(99)):
    """The weights before and after a training whose loss is ``factor`` times as large at some of its steps."""
    given, calls = task(dropout=0.0), itertools.count()
    loud = lambda model, batch: given.loss(model, batch) * (factor if next(calls) in at else 1)  # noqa: E731
    before = {name: value.clone() for name, value in given.separator.named_parameters()}
    folder.mkdir()
    steps = dataclasses.replace(stage, validate_every=stage.steps, average_best=1)
    after = fit(dataclasses.replace(given, loss=loud), steps, Run(folder), 5, COMPUTE, 0, "test")
    return before, dict(after.named_parameters())


def test_gradients_are_clipped_so_that_no_step_outweighs_the_others(tmp_path):
    stage = dataclasses.replace(STAGE, clip_norm=1e-3)  # below the norm of every step
    _, plain = scaled(tmp_path / "plain", 1, stage)
    _, loud = scaled(tmp_path / "loud", 1000, stage, at=[3])
    for name, value in plain.items():
        torch.testing.assert_close(loud[name], value, rtol=1e-3, atol=1e-6)


def test_weights_decay_at_the_learning_rate_where_nothing_pulls(tmp_path):
    stage = dataclasses.replace(STAGE, weight_decay=20.0, warmup_steps=1)
    before, after = scaled(tmp_path / "run", 0.0, stage)
    left = math.prod(1 - 20.0 * learning_rate(stage, stage.learning_rate, step) for step in range(stage.steps))
    assert 0.5 < left < 0.95
    for name, value in after.items():
        torch.testing.assert_close(value, before[name] * left, rtol=1e-4, atol=1e-7)


def test_the_best_validations_are_averaged(tmp_path):
    _, run = train(tmp_path / "run")
    validations = {int(r["step"]): float(r["validation_loss"]) for r in rows(run) if r["validation_loss"]}
    assert sorted(validations) == [3, 6, 8]
    assert run.facts()["averaged_steps"] == sorted(validations, key=validations.get)[: STAGE.average_best]
    assert sorted(file.name for file in run.folder.iterdir()) == ["done.json", "lock", "log.csv", "model.safetensors"]
