"""Weights on disk come back as they were, and files that are not checkpoints are refused."""

import argparse

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib import UserError
from lib.model.checkpoints import average, load, save
from lib.model.separator import Separator
from tests.toys import GOLDEN, Interrupted, train


def test_save_and_load_is_exact(tiny, tmp_path):
    tiny.set_stem_matrix(torch.ones(4, 5))
    save(tiny, tmp_path / "model.safetensors")
    loaded = load(tmp_path)
    assert loaded.config() == tiny.config()
    wave = torch.randn(1, 2, 64 * 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(wave), tiny(wave))


def test_half_as_large_as_float16(tiny, tmp_path):
    save(tiny, tmp_path / "whole.safetensors")
    save(tiny, tmp_path / "half.safetensors", torch.float16)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    rounded = load(tmp_path / "half.safetensors").state_dict()
    assert all(torch.equal(rounded[name], value.half().float()) for name, value in tiny.state_dict().items())


def test_not_a_checkpoint(tiny, tmp_path):
    save(tiny, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"model.x": torch.ones(1)}, tmp_path / "other.pth")
    for name in ("cut.safetensors", "empty.safetensors", "text.pth", "other.pth", "missing.pth", "missing"):
        with pytest.raises(UserError) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_average_of_the_best(tmp_path):
    separators = [Separator.from_size("tiny", 4, seed, rate=8000, n_fft=256, hop=64) for seed in (0, 1)]
    for i, separator in enumerate(separators):
        save(separator, tmp_path / f"{i}.safetensors")
    mean = average([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    states = [separator.state_dict() for separator in separators]
    for name, value in mean.items():
        torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2)


def test_damaged_checkpoint_names_the_file(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", fail_at=5)
    checkpoint = tmp_path / "run" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.ckpt: damaged checkpoint .* delete it"):
        train(tmp_path / "run")


PREFIXES = ["", "model.", "model.model.", "_orig_mod.", "module.", "module._orig_mod.", "model._orig_mod.module.model."]


@pytest.fixture(scope="module")
def published():
    """Weights in the published names without a prefix."""
    with np.load(GOLDEN / "bslocoformer_tiny.npz") as file:
        return {name[6:]: torch.from_numpy(file[name]) for name in file.files if name.startswith("model.")}


def equal(one, other):
    states = [separator.state_dict() for separator in (one, other)]
    return states[0].keys() == states[1].keys() and all(map(torch.equal, states[0].values(), states[1].values()))


@pytest.fixture(scope="module")
def plain(tmp_path_factory, published):
    """The separator of these weights."""
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save(published, path)
    return load(path)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_wrappers_put_before_names_is_understood(tmp_path, published, plain, prefix, suffix):
    named = {f"{prefix}{name}": value for name, value in published.items()}
    (save_file if suffix == "safetensors" else torch.save)(named, tmp_path / f"a.{suffix}")
    assert equal(load(tmp_path / f"a.{suffix}"), plain)


def test_averaged_compiled_and_lightning_models_are_loaded(tmp_path, published, plain):
    averaged = {f"module.model.{name}": value for name, value in published.items()} | {"n_averaged": torch.tensor(9)}
    inner = {name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in published.items()}
    task = {"state_dict": {f"model.{n}": v for n, v in published.items()}, "epoch": 3, "callbacks": {"x": [1, None]}}
    for number, content in enumerate((averaged, inner, task, {"model_state_dict": averaged, "step": 1})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert equal(load(tmp_path / f"{number}.pth"), plain), number


@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrapped_names_of_this_projects_files(tiny, tmp_path, prefix):
    save(tiny, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        facts = file.metadata()
    weights = load_file(tmp_path / "a.safetensors")
    named = {f"{prefix}{name}": value for name, value in weights.items()}
    save_file(named, tmp_path / "b.safetensors", metadata=facts)
    assert equal(load(tmp_path / "b.safetensors"), tiny)


@pytest.mark.parametrize("old", [False, True])
def test_objects_beside_tensors_are_named_and_never_opened(tmp_path, published, old):
    content = {"state_dict": published, "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError) as error:
        load(tmp_path / "a.pth")
    said = str(error.value)
    assert "argparse.Namespace" in said and "torch.save(" in said and "state_dict" in said and "\n" not in said


def test_two_models_in_one_file_and_weights_without_configuration_are_refused(tmp_path, published, tiny):
    both = {f"{prefix}{name}": value for prefix in ("model.", "ema.module.") for name, value in published.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"2 models in it \(ema\., model\.\): save the weights of one"):
        load(tmp_path / "both.pth")
    torch.save({"weights": tiny.state_dict(), "optimiser": {}, "state": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="give the run's folder"):
        load(tmp_path / "last.ckpt")
