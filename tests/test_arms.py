"""Every run of a study as a value: what identifies it, what it starts from, how long it trains."""

import dataclasses
import itertools
from functools import partial

import numpy as np
import pytest
import torch

from lib import STEMS, UserError, arms, losses, separate, transfer
from lib.arms import Finetuning, Pretraining
from lib.losses import stem_snr_loss
from lib.model import checkpoints
from lib.profile.fields import PROFILES
from lib.profile.load import load
from lib.store.runs import Run
from lib.study import Study
from lib.training import fit
from tests import toys


@pytest.fixture
def study(tmp_path):
    return toys.study(tmp_path)


def name(study, arm: str = "scratch", songs: int = 1) -> str:
    """The name of the run of an arm, or of ``MixIT``."""
    return (Pretraining(study, 0) if arm == "MixIT" else Finetuning(study, arm, 0, songs)).run.name


ALL, LABELLED, STARTED = ("MixIT", "scratch", "sliced"), ("scratch", "sliced"), ("MixIT", "sliced")


@pytest.mark.parametrize(
    ("changes", "renamed"),
    [
        ({"finetune.learning_rate": 0.5}, LABELLED),
        ({"finetune.clip_norm": 9.0}, LABELLED),
        ({"pretrain.learning_rate": 0.5}, STARTED),
        ({"pretrain.same_song": True}, STARTED),
        ({"model.sources": 5}, STARTED),
        ({"model.size": "tiny"}, ALL),
        ({"audio.n_fft": 512}, ALL),
        ({"corpus.segment_seconds": 3.0}, STARTED),
        ({"finetune.accumulate": 2, "pretrain.accumulate": 2, "pretrain.checkpoint_every": 1}, ()),
        ({"separate.window_seconds": 1.5}, ()),
        ({"corpus.drop_whole_track": True}, STARTED),
        ({"finetune.frozen_blocks": True}, ("sliced",)),
        ({"finetune.validation_from_budget": True}, LABELLED),
        ({"scoring.primary": "uSDR per channel"}, ()),
        ({"compute.threads": 2, "corpus.workers": 1, "name": "another"}, ()),
        ({"finetune.seeds": [0, 1], "finetune.labeled_songs": [1, 2]}, ()),
    ],
    ids=str,
)
def test_runs_are_renamed_by_what_can_change_their_weights_and_by_nothing_else(study, changes, renamed):
    other = study.variant(changes)
    assert tuple(arm for arm in ALL if name(study, arm) != name(other, arm)) == renamed


@pytest.mark.parametrize(
    ("module", "renamed"),
    [(losses, ALL), (transfer, ("sliced",)), (separate, ())],
    ids=["losses", "transfer", "windows"],
)
def test_a_version_that_is_raised_renames_the_runs_that_use_it(study, monkeypatch, module, renamed):
    before = {arm: name(study, arm) for arm in ALL}
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert tuple(arm for arm in ALL if name(study, arm) != before[arm]) == renamed


def test_windows_count_where_whole_songs_are_validated(study):
    on_songs = study.variant({"finetune.validate_on": "songs"})
    assert len({name(study), name(on_songs), name(on_songs.variant({"separate.window_seconds": 1.5}))}) == 3


def test_arms_seeds_and_songs_have_runs_of_their_own(study):
    several = study.variant({"pretrain.seeds": [0, 1]})
    trainings = [Finetuning(several, arm, seed, songs) for arm in arms.ARMS for seed in (0, 1) for songs in (1, 2)]
    trainings += [Pretraining(several, seed) for seed in (0, 1)]
    assert len({training.run.name for training in trainings}) == len(trainings)
    starts = {training.pretraining.seed for training in trainings[-6:-2]}
    assert starts == {0, 1}


def test_a_shuffled_arm_starts_from_the_same_values_in_another_order(study):
    whole, shuffled = (Finetuning(study, arm, 0, 1).start() for arm in ("group", "shuffled"))
    for one, two in zip(whole.masker.parameters(), shuffled.masker.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values)
    assert torch.equal(whole.stem_matrix, shuffled.stem_matrix)
    assert any(
        not torch.equal(*both) for both in zip(whole.masker.parameters(), shuffled.masker.parameters(), strict=True)
    )


def test_arms_that_train_until_they_stall_are_the_longer_ones_and_are_compared_with_each_other(study):
    more, stage = arms.equivalent_steps(study), study.profile.finetune
    longer = {"finetune.steps": stage.steps + more, "finetune.decay_start": stage.decay_start + more}
    both = {arms.STALLED: "scratch", arms.PRETRAINED_STALLED: "group"}
    for arm, base in both.items():
        assert Finetuning(study, arm, 0, 1).run == Finetuning(study.variant(longer), base, 0, 1).run
    whole = {**longer, "finetune.patience": 0, "finetune.controls": []}
    assert Finetuning(study, arms.EQUAL_COMPUTE, 0, 1).run == Finetuning(study.variant(whole), "scratch", 0, 1).run
    found = arms.pairs(study)
    assert [pair for pair in found if set(pair) & set(both)] == [*((arm, "scratch") for arm in both), (*both,)[::-1]]
    assert {(how, arm) for how in ("group", "sliced") for arm in ("scratch", "equal compute", "shuffled")} < set(found)
    assert len(found) == len(set(found))


def test_equal_compute_takes_the_operations_that_pretraining_took(study):
    study = study.variant({"pretrain.steps": 300, "pretrain.batch": 4, "model.sources": 6})
    one = study.profile.finetune.batch * arms.example_flops(study, "finetune")
    pretraining = 300 * 4 * arms.example_flops(study, "pretrain")
    assert arms.example_flops(study, "pretrain") > arms.example_flops(study, "finetune")  # six outputs instead of four
    assert arms.equivalent_steps(study) * one == pytest.approx(pretraining, abs=one)
    whole = Finetuning(study, "equal compute", 0, 1).schedule.steps - Finetuning(study, "scratch", 0, 1).schedule.steps
    assert whole == arms.equivalent_steps(study) > 600


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_equal_compute_is_equal_to_one_per_cent_in_every_profile(name, monkeypatch):
    example = {"pretrain": 1_242, "finetune": 1_164}  # in proportion as the small model's are
    monkeypatch.setattr(arms, "example_flops", lambda study, stage: example[stage])
    study = Study(load(name))

    def flops(stage, kind):
        return stage.steps * stage.batch * example[kind]

    spent = flops(Finetuning(study, "equal compute", 0, 1).schedule, "finetune")
    given = flops(study.profile.pretrain, "pretrain") + flops(study.profile.finetune, "finetune")
    assert spent == pytest.approx(given, rel=0.01 if name != "smoke" else 0.1)  # a step of smoke is 8%


def steps_taken(training, folder, losses) -> int:
    """Steps of a training, by its schedule, of a toy in its place whose validations give ``losses``."""
    given, values, run = toys.task(dropout=0.0), iter(losses), Run(folder)
    run.begin()
    fake = dataclasses.replace(given, validate=lambda model: float(next(values)))
    fit(fake, training.schedule, run, 0, toys.COMPUTE, 0, "test")
    return run.facts()["steps"]


@pytest.mark.parametrize("falls", [True, False], ids=["falls", "stalls"])
def test_equal_compute_is_spent_whatever_validation_says_and_a_stalling_arm_ends(study, tmp_path, falls):
    changes = {"finetune.validate_every": 1, "finetune.decay_start": 1, "finetune.patience": 3, "pretrain.steps": 12}
    study = study.variant(changes)
    pretraining, base = Pretraining(study, 0).schedule, study.profile.finetune
    flops = partial(arms.example_flops, study)
    given = pretraining.steps * pretraining.batch * flops("pretrain") + base.steps * base.batch * flops("finetune")
    for arm in (arms.EQUAL_COMPUTE, arms.STALLED, arms.PRETRAINED_STALLED):
        training = Finetuning(study, arm, 0, 1)
        losses = itertools.count(0, -1) if falls else itertools.count()
        taken = steps_taken(training, tmp_path / arm, losses)
        spent = taken * training.schedule.batch * flops("finetune")
        if falls or arm == arms.EQUAL_COMPUTE:
            assert spent == pytest.approx(given, abs=training.schedule.batch * flops("finetune") / 2)
        else:
            assert taken == 1 + 3 + 1  # the first is the lowest, three bring none lower, one step of decay


def test_pretrained_arms_may_have_a_learning_rate_of_their_own(study):
    study = study.variant({"finetune.learning_rate": 1e-3, "finetune.transfer_learning_rate": 1e-4})
    rates = {arm: Finetuning(study, arm, 0, 1).schedule.learning_rate for arm in ("scratch", "sliced", "shuffled")}
    assert rates == {"scratch": 1e-3, "sliced": 1e-4, "shuffled": 1e-4}


def test_a_file_stands_for_the_pretraining(study, tmp_path):
    given, file = study.new_separator(4, seed=7), tmp_path / "given.safetensors"
    checkpoints.save(given, file)
    taken = study.variant({"pretrain.checkpoint": str(file)})
    training = Pretraining(taken, 0)
    weights = training.load().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in given.state_dict().items())
    assert training.run.facts()["steps"] == 0
    assert name(taken, "sliced") != name(study, "sliced") and name(taken) == name(study)
    assert Finetuning(taken, "sliced", 0, 1).load().sources == len(STEMS)
    checkpoints.save(given, tmp_path / "again.safetensors")
    assert (
        Pretraining(taken.variant({"pretrain.checkpoint": str(tmp_path / "again.safetensors")}), 0).run == training.run
    )
    checkpoints.save(study.new_separator(4, seed=8), file)
    assert Pretraining(taken, 0).run != training.run


def test_another_pretraining_than_the_profiles_is_trained_beside_a_file(study, tmp_path):
    checkpoints.save(study.new_separator(4, seed=7), tmp_path / "given.safetensors")
    taken = study.variant({"pretrain.checkpoint": str(tmp_path / "given.safetensors")})
    for changes, steps in (({"model.sources": 5}, {}), ({"pretrain.same_song": True}, {}), ({}, {"pretrain": 3})):
        assert name(taken.variant(changes, **steps), "MixIT") == name(study.variant(changes, **steps), "MixIT")
    assert name(taken.variant({"finetune.learning_rate": 0.5}), "MixIT") == name(taken, "MixIT")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pretrain.checkpoint": "nowhere.pth"}, r"pretrain\.checkpoint: no file .*nowhere\.pth"),
        ({"pretrain.checkpoint": "given.safetensors", "model.sources": 5}, "has sources 4, .* say sources 5"),
        ({"pretrain.checkpoint": "given.safetensors", "pretrain.seeds": [0, 1]}, r"pretrain\.seeds must name one seed"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(study, tmp_path, changes, expected):
    checkpoints.save(study.new_separator(4, seed=7), tmp_path / "given.safetensors")
    file = str(tmp_path / changes["pretrain.checkpoint"])
    with pytest.raises(UserError, match=expected):
        Pretraining(study.variant({**changes, "pretrain.checkpoint": file}), 0).trained()


def test_validation_on_whole_songs_is_their_mean_loss_in_overlapping_windows(study):
    whole = study.variant({"finetune.validate_on": "songs", "finetune.average_best": 1, "finetune.validate_every": 2})
    training, losses = Finetuning(whole, "scratch", 0, 1), []
    for song in whole.songs("validation"):
        stems = torch.from_numpy(song.stems(rate=toys.RATE))
        estimates = separate.separate(training.load(), stems.sum(0), toys.RATE, toys.RATE // 2)
        losses.append(stem_snr_loss(estimates[None], stems[None]).item())
    assert training.run.facts()["best_validation_loss"] == pytest.approx(np.mean(losses), abs=1e-4)


def test_what_was_not_trained_is_not_trained_where_that_is_forbidden(study):
    closed = study.variant({"compute.training": False})
    with pytest.raises(UserError, match=r"compute\.training=false: set it to true to train it"):
        Pretraining(closed, 0).trained()


def test_frozen_blocks_stay_as_they_were_pretrained_while_encoder_and_decoders_learn(study):
    study = study.variant(
        {"finetune.frozen_blocks": True, "finetune.weight_decay": 0.5, "finetune.learning_rate": 0.01}
    )
    training = Finetuning(study, "sliced", 0, 1)
    before = training.start().state_dict()
    after = checkpoints.load(training.trained().folder).state_dict()
    same = {name: torch.equal(value, after[name]) for name, value in before.items() if name.startswith("masker.")}
    assert all(same[name] for name in same if ".blocks." in name) and any(".blocks." in name for name in same)
    assert not any(same[name] for name in same if ".encoder" in name and name.endswith("weight"))
    assert not all(same[name] for name in same if ".blocks." not in name and ".encoder" not in name)
    scratch = Finetuning(study, "scratch", 0, 1)
    assert not scratch.schedule.frozen_blocks


def test_operations_are_counted_once_a_results_folder_that_has_runs(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(arms, "_example_flops", lambda *what: counted.append(what) or 7)
    for folder in (tmp_path / "none", tmp_path):
        for _ in range(2):  # two processes
            arms._known_flops.cache_clear()
            assert arms._known_flops(folder / "runs", "a model", 640) == 7
        (tmp_path / "runs").mkdir(exist_ok=True)
    assert len(counted) == 2 + 1 and not (tmp_path / "none").exists()
    arms._known_flops.cache_clear()
