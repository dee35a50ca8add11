"""Checkpoints from elsewhere: files in the published names, and files that stand for a study's pre-training."""

import pickle

import numpy as np
import pytest
import soundfile
import torch

from lib import STEMS, UserError, separate
from lib.losses import stem_snr_loss
from lib.model import Separator, Size, load_published
from lib.profile import load
from lib.stages import Study

SMALL_ONE_BLOCK = Size(1, 96, 128, 4, 4, 1e-3)


def published_names(separator: Separator) -> dict[str, torch.Tensor]:
    """The weights of a separator at 44.1 kHz under the published names and in the published shapes."""
    state, found = separator.masker.state_dict(), {}
    for i in range(len(separator.masker.blocks)):
        for ours, theirs in (("frequency", "freq_path"), ("time", "frame_path")):
            source, target = f"blocks.{i}.{ours}", f"blocks.{i}.{theirs}"
            for index, name, norm in ((1, "before", 0), (0, "after", 2)):
                for conv in ("conv", "deconv"):
                    found[f"{target}.ffn.{index}.{conv}1d.weight"] = state[f"{source}.{name}.{conv}.weight"].squeeze(-2)
                    found[f"{target}.ffn.{index}.{conv}1d.bias"] = state[f"{source}.{name}.{conv}.bias"]
                found[f"{target}.ffn_norm.{index}.gamma"] = state[f"{source}.norms.{norm}.gamma"]
            found[f"{target}.attn_norm.gamma"] = state[f"{source}.norms.1.gamma"]
            found[f"{target}.attn.qkv.weight"] = state[f"{source}.attention.qkv.weight"]
            found[f"{target}.attn.aggregate_heads.0.weight"] = state[f"{source}.attention.out.weight"]
    layers = {"encoder_norm": "band_split_module.{}.0", "encoder": "band_split_module.{}.1"}
    layers |= {"decoder_norm": "bandwise_decoding_module.{}.0"}
    layers |= {f"decoder.{i}": f"bandwise_decoding_module.{{}}.{i + 1}" for i in (0, 1)}
    for g, group in enumerate(separator.masker.groups):
        for part in ("weight", "bias"):
            for ours, theirs in layers.items():
                for band, value in zip(group.bands, state[f"groups.{g}.{ours}.{part}"], strict=True):
                    linear = "norm" not in ours and part == "weight"
                    found[f"band_split_module.{theirs.format(band)}.{part}"] = value.T[..., None] if linear else value
            masks = [state[f"groups.{g}.masks.{n}.{part}"] for n in range(separator.masker.sources)]
            for at, band in enumerate(group.bands):
                # ours: [input,] GLU half, channel, bin, real/imaginary
                both = torch.stack([mask[at] for mask in masks])
                order = (both.ndim - 4, both.ndim - 1, 0, both.ndim - 3, both.ndim - 2)
                both = both.permute(*order, *([1] if part == "weight" else [])).flatten(0, 4)
                name = f"band_split_module.bandwise_decoding_module.{band}.4.{part}"
                found[name] = both[..., None] if part == "weight" else both
    return {f"model.model.{name}": value.contiguous() for name, value in found.items()}


@pytest.mark.parametrize("sources", [12, 4])
def test_a_published_file_of_12_or_4_outputs_is_recognised_by_its_shapes_and_separates(tmp_path, sources):
    torch.manual_seed(sources)
    original = Separator(SMALL_ONE_BLOCK, sources).eval()
    torch.save(published_names(original), tmp_path / "model.pth")
    loaded = load_published(tmp_path / "model.pth")
    assert (loaded.size, loaded.sources, loaded.rate) == (SMALL_ONE_BLOCK, sources, 44100)
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in original.state_dict().items())
    if sources == len(STEMS):
        noise = np.random.default_rng(0).normal(0, 0.1, (22050, 2)).astype(np.float32)
        soundfile.write(tmp_path / "song.wav", noise, 44100)
        call = [tmp_path / "song.wav", "--checkpoint", tmp_path / "model.pth", "--out", tmp_path / "out"]
        assert separate.main([*map(str, call), "--device", "cpu", "--precision", "32-true"]) == 0
        assert {path.name for path in (tmp_path / "out" / "song").iterdir()} == {f"{stem}.wav" for stem in STEMS}


class Harmful:
    def __reduce__(self):
        return (open, ("harm", "w"))


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("zip.pth", torch.save),
        ("plain.pth", lambda value, path: path.write_bytes(pickle.dumps(value))),
    ):
        write({"model.x": Harmful()}, tmp_path / name)
        with pytest.raises(UserError, match=name):
            Separator.from_pretrained(tmp_path / name)
    assert not (tmp_path / "harm").exists()


@pytest.fixture
def study(tmp_path):
    changes = ["pretrain.seeds=[0]", "finetune.steps=2", "corpus.rendered.unlabeled_songs=4", "pretrain.steps=2"]
    return Study(load("smoke", [f"results={tmp_path / 'results'}", *changes]))


def test_a_file_stands_for_the_pretraining(study, tmp_path):
    given = study.new_separator(4, seed=7)
    given.save(tmp_path / "given.safetensors")
    taken = study.variant({"pretrain.checkpoint": str(tmp_path / "given.safetensors")})
    run = taken.pretrain()
    weights = taken.load(run).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in given.state_dict().items())
    assert run.facts()["steps"] == 0 and run == taken.pretrain_run()
    assert taken.supervised_run("sliced", 0, 1) != study.supervised_run("sliced", 0, 1)
    assert taken.supervised_run("scratch", 0, 1) == study.supervised_run("scratch", 0, 1)
    assert taken.load(taken.supervised("sliced", 0, 1)).sources == len(STEMS)
    given.save(tmp_path / "again.safetensors")
    assert taken.variant({"pretrain.checkpoint": str(tmp_path / "again.safetensors")}).pretrain_run() == run
    study.new_separator(4, seed=8).save(tmp_path / "given.safetensors")
    assert taken.pretrain_run() != run


def test_fields_that_runs_did_not_have_are_no_part_of_them_at_their_defaults(study):
    pretrain, finetune = study.pretrain_run().identity, study.supervised_run("sliced", 0, 1).identity
    assert "checkpoint" not in pretrain["pretrain"] and "validate_on" not in finetune["finetune"]
    windows = {"separate.window_seconds": 1.5}
    assert study.variant(windows).supervised_run("sliced", 0, 1) == study.supervised_run("sliced", 0, 1)
    on_songs = study.variant({"finetune.validate_on": "songs"})
    runs = [s.supervised_run("sliced", 0, 1) for s in (study, on_songs, on_songs.variant(windows))]
    assert len({run.name for run in runs}) == 3


def test_validation_on_whole_songs_is_their_mean_loss_in_overlapping_windows(study):
    whole = study.variant({"finetune.validate_on": "songs", "finetune.average_best": 1, "finetune.validate_every": 2})
    run = whole.supervised("scratch", 0, 1)
    losses = []
    for song in whole.songs("validation"):
        stems = torch.from_numpy(song.stems(rate=16000))
        estimates = separate.separate(whole.load(run), stems.sum(0), 32000, 16000)
        losses.append(stem_snr_loss(estimates[None], stems[None]).item())
    assert run.facts()["best_validation_loss"] == pytest.approx(np.mean(losses), abs=1e-4)


def test_another_pretraining_than_the_profiles_is_trained_beside_a_file(study, tmp_path):
    study.new_separator(4, seed=7).save(tmp_path / "given.safetensors")
    taken = study.variant({"pretrain.checkpoint": str(tmp_path / "given.safetensors")})
    for changes, steps in (({"model.sources": 5}, {}), ({"pretrain.same_song": True}, {}), ({}, {"pretrain": 3})):
        assert taken.variant(changes, **steps).pretrain_run() == study.variant(changes, **steps).pretrain_run()
    kept = taken.variant({"finetune.learning_rate": 0.5})
    assert kept.pretrain_run() == taken.pretrain_run()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pretrain.checkpoint": "nowhere.pth"}, r"pretrain\.checkpoint: no file .*nowhere\.pth"),
        ({"pretrain.checkpoint": "given.safetensors", "model.sources": 5}, "has sources 4, .* say sources 5"),
        ({"pretrain.checkpoint": "given.safetensors", "pretrain.seeds": [0, 1]}, r"pretrain\.seeds must name one seed"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(study, tmp_path, changes, expected):
    study.new_separator(4, seed=7).save(tmp_path / "given.safetensors")
    file = str(tmp_path / changes["pretrain.checkpoint"])
    with pytest.raises(UserError, match=expected):
        study.variant({**changes, "pretrain.checkpoint": file}).pretrain()
