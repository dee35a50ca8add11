"""Checkpoints in the published names: recognised by their shapes, with the published output, and never run."""

import pickle

import numpy as np
import pytest
import soundfile
import torch

from lib import STEMS, UserError, separate
from lib.model import checkpoints
from lib.model.locoformer import Size
from lib.model.published import load_published
from lib.model.separator import Separator
from tests.toys import GOLDEN

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
            checkpoints.load(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_published_weights_give_the_published_output(golden):
    separator = load_published(GOLDEN / "bslocoformer_tiny.npz")
    vectors = golden("bslocoformer_tiny")
    with torch.inference_mode():
        estimates = separator(vectors["wav"])
    assert (estimates - vectors["est"]).abs().max() < 1e-5 * vectors["est"].abs().max()


@pytest.mark.parametrize("prefix", ["model.", "model.model."])
def test_published_names_with_either_prefix(golden, tmp_path, prefix):
    weights = {name: value.float() for name, value in golden("bslocoformer_tiny").items() if name.startswith("model.")}
    renamed = {prefix + name.removeprefix("model."): value for name, value in weights.items()}
    torch.save(renamed, tmp_path / "model.pth")
    loaded = checkpoints.load(tmp_path / "model.pth").state_dict()
    original = load_published(GOLDEN / "bslocoformer_tiny.npz").state_dict()
    assert all(torch.equal(loaded[name], original[name]) for name in original)
