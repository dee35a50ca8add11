"""`fit`: interrupted runs end where undisturbed ones do, bad steps are skipped, finished runs are not repeated."""

import csv
import dataclasses
import hashlib
import math

import pytest
import torch
from torch.utils.data import Dataset

from lib import UserError
from lib.losses import stem_snr_loss
from lib.model import Separator
from lib.profile import Compute, Optimisation
from lib.runs import Run, atomic, code_fingerprint, fingerprint
from lib.training import PATIENCE, Task, average, fit, learning_rate

STAGE = Optimisation(
    steps=8,
    batch=2,
    crop_seconds=0.1,
    learning_rate=1e-3,
    warmup_steps=2,
    decay_every=3,
    decay_factor=0.5,
    validate_every=3,
    average_best=2,
    checkpoint_every=2,
)
COMPUTE = Compute(accelerator="cpu")


class Noise(Dataset):
    """Stems [4, 2, samples] that depend on the index alone."""

    def __getitem__(self, index):
        return torch.randn(4, 2, 64 * 16, generator=torch.Generator().manual_seed(index))


class Interrupted(Exception):
    pass


def task(fail_at=None, bad=(), dropout=0.2):
    """A task whose loss raises at one call, and is not finite at some."""
    calls = iter(range(10_000))
    separator = Separator.from_size("tiny", 4, 0, rate=8000, n_fft=256, hop=64, band_scale=4.0, dropout=dropout)

    def loss(model, stems):
        call = next(calls)
        if call == fail_at:
            raise Interrupted
        value = stem_snr_loss(model(stems.sum(1)), stems)
        return value * math.nan if call in bad else value

    def validate(model):
        stems = torch.stack([Noise()[1000 + i] for i in range(2)])
        return stem_snr_loss(model(stems.sum(1)), stems).mean().item()

    return Task(separator, Noise(), loss, validate)


def train(folder, stage=STAGE, **faults):
    run = Run(folder)
    folder.mkdir(exist_ok=True)
    return fit(task(**faults), stage, run, seed=5, compute=COMPUTE, workers=0, label="test"), run


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
    STAGE, steps=20, warmup_steps=0, decay_start=16, decay_every=1, decay_factor=0.5, validate_every=2, patience=2
)


def test_a_run_that_stalls_decays_early_and_ends(tmp_path):
    # lowest at step 4; two validations later, at step 8, the four steps of decay begin (the first at the full rate)
    assert stalling(tmp_path / "stalls", [-1, -2]) == (12, 3)
    assert stalling(tmp_path / "improves", range(0, -100, -1)) == (20, 3)


def test_a_stalled_run_goes_on_where_it_was_cut(tmp_path):
    stalling(tmp_path / "whole", [-1, -2])
    with pytest.raises(Interrupted):
        stalling(tmp_path / "cut", [-1, -2], fail_at=9)
    assert stalling(tmp_path / "cut", [-1, -2]) == (12, 3)
    assert rows(Run(tmp_path / "cut")) == rows(Run(tmp_path / "whole"))


@pytest.mark.parametrize("fail_at", [1, 3, 5, 7])
def test_interrupted_run_ends_bit_identical(tmp_path, fail_at):
    undisturbed, run = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", fail_at=fail_at)
    resumed, cut = train(tmp_path / "cut")
    assert (cut.folder / "model.safetensors").read_bytes() == (run.folder / "model.safetensors").read_bytes()
    assert rows(cut) == rows(run)
    assert len(rows(run)) == STAGE.steps
    assert undisturbed.config() == resumed.config()


def test_finished_run_is_not_repeated(tmp_path):
    first, run = train(tmp_path / "run")
    stamp = (run.folder / "model.safetensors").stat().st_mtime_ns
    again, _ = train(tmp_path / "run", fail_at=0)
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


def test_seed_changes_the_result(tmp_path):
    runs = [Run(tmp_path / str(seed)) for seed in (1, 2)]
    for seed, run in zip((1, 2), runs, strict=True):
        run.folder.mkdir()
        fit(task(), STAGE, run, seed=seed, compute=COMPUTE, workers=0, label="test")
    weights = [(run.folder / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] != weights[1]  # dropout is drawn from the seed


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
    assert [row["skipped"] for row in rows(run)] == ["0", "0", "1", "1", "2", "2", "2", "2"]
    assert all(torch.isfinite(v).all() for v in Separator.from_pretrained(run.folder).state_dict().values())


def test_a_run_that_stays_not_finite_is_given_up(tmp_path):
    stage = Optimisation(**{**vars(STAGE), "steps": PATIENCE + 5})
    with pytest.raises(UserError, match=f"not finite for {PATIENCE} steps in a row up to step {PATIENCE + 1};"):
        train(tmp_path / "run", stage, bad=range(1, 100))
    assert not Run(tmp_path / "run").finished


def test_training_learns(tmp_path):
    stage = Optimisation(**{**vars(STAGE), "steps": 60, "validate_every": 60, "learning_rate": 3e-3, "decay_every": 99})
    _, run = train(tmp_path / "run", stage, dropout=0.0)
    losses = [float(row["loss"]) for row in rows(run)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 10 * 0.5


def test_average_of_the_best(tmp_path):
    separators = [Separator.from_size("tiny", 4, seed, rate=8000, n_fft=256, hop=64) for seed in (0, 1)]
    for i, separator in enumerate(separators):
        separator.save(tmp_path / f"{i}.safetensors")
    mean = average([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    states = [separator.state_dict() for separator in separators]
    for name, value in mean.items():
        torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2)


def test_the_best_validations_are_averaged(tmp_path):
    _, run = train(tmp_path / "run")
    validations = {int(r["step"]): float(r["validation_loss"]) for r in rows(run) if r["validation_loss"]}
    assert sorted(validations) == [3, 6, 8]
    assert run.facts()["averaged_steps"] == sorted(validations, key=validations.get)[: STAGE.average_best]
    assert sorted(file.name for file in run.folder.iterdir()) == ["done.json", "lock", "log.csv", "model.safetensors"]


def test_damaged_checkpoint_names_the_file(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", fail_at=5)
    checkpoint = tmp_path / "run" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.ckpt: damaged checkpoint .* delete it"):
        train(tmp_path / "run")


def test_run_folder_depends_on_identity_alone(tmp_path):
    first = Run.of(tmp_path, "stage", {"a": 1, "b": STAGE}).begin()
    assert Run.of(tmp_path, "stage", {"b": STAGE, "a": 1}) == first
    assert Run.of(tmp_path, "stage", {"a": 2, "b": STAGE}) != first
    assert first.name == f"stage-{fingerprint({'a': 1, 'b': STAGE})}"


def test_code_fingerprint_ignores_comments(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.runs.LIB", tmp_path)
    digests = []
    for text in ("def f(x):\n    return x + 1\n", 'def f(x):\n    """Doc."""\n    # why\n    return x+1', "f = 2\n"):
        (tmp_path / "m.py").write_text(text)
        digests.append(code_fingerprint("m"))
    assert digests[0] == digests[1] != digests[2]


def test_code_of_the_same_bits_keeps_the_name_of_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.runs.LIB", tmp_path)
    (tmp_path / "m.py").write_text("x = 1 + 1\n")
    earlier = code_fingerprint("m")
    (tmp_path / "m.py").write_text("x = 2\n")
    monkeypatch.setattr("lib.runs.SAME_BITS", {code_fingerprint("m"): earlier})
    assert code_fingerprint("m") == earlier


def test_atomic_write_leaves_the_old_file_on_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(Interrupted), atomic(path) as temporary:
        temporary.write_text("new")
        raise Interrupted
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
