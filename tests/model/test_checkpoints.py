"""Weights on disk come back as they were, and files that are not checkpoints are refused."""

import pytest
import torch

from lib import UserError
from lib.model.checkpoints import average, load, save
from lib.model.separator import Separator
from tests.toys import Interrupted, train


def test_save_and_load_is_exact(tiny, tmp_path):
    tiny.set_stem_matrix(torch.ones(4, 5))
    save(tiny, tmp_path / "model.safetensors")
    loaded = load(tmp_path)
    assert loaded.config() == tiny.config()
    wave = torch.randn(1, 2, 64 * 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(wave), tiny(wave))


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
