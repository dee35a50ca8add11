"""The band-split TF-Locoformer against published numbers, its own properties, and files that are not checkpoints."""

import pickle

import pytest
import torch
from conftest import GOLDEN

from lib import UserError
from lib.model import (
    Attention,
    BandSplitTFLocoformer,
    Dropout,
    RMSGroupNorm,
    Separator,
    Size,
    band_widths,
    load_published,
)


def test_published_band_table():
    assert band_widths() == [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("n_fft", [256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
def test_bands_cover_every_bin_and_widen_upwards(rate, n_fft, scale):
    widths = band_widths(rate, n_fft, scale)
    assert sum(widths) == n_fft // 2 + 1
    assert min(widths) >= 1
    assert sorted(widths[:-1]) == widths[:-1]


def test_bands_keep_their_widths_in_hertz():
    hertz = [width * 16000 / 1024 for width in band_widths(16000, 1024)]
    published = [width * 44100 / 2048 for width in band_widths()]
    assert hertz[0] == pytest.approx(published[0], abs=16000 / 1024 / 2)
    assert hertz[30] == pytest.approx(published[30], abs=16000 / 1024 / 2)


@pytest.mark.parametrize(
    ("size", "sources", "parameters"),
    [
        ("small", 12, 54_800_552),
        ("small", 4, 29_544_552),
        ("medium", 12, 86_374_760),
        ("medium", 4, 52_721_960),
        ("large", 12, 167_464_552),
        ("large", 4, 117_018_152),
    ],
)
def test_published_parameter_counts(size, sources, parameters):
    with torch.device("meta"):
        separator = Separator.from_size(size, sources)
    assert sum(p.numel() for p in separator.parameters()) == parameters


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
    loaded = Separator.from_pretrained(tmp_path / "model.pth").state_dict()
    original = load_published(GOLDEN / "bslocoformer_tiny.npz").state_dict()
    assert all(torch.equal(loaded[name], original[name]) for name in original)


def test_unknown_size_names_the_known_ones():
    with pytest.raises(UserError, match=r"'huge' is unknown: use one of nano, tiny"):
        Separator.from_size("huge")


def test_same_seed_same_weights_and_the_global_generator_untouched():
    before = torch.get_rng_state()
    one, two, other = (Separator.from_size("tiny", 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_estimates_scale_with_each_channel(tiny):
    wave = torch.randn(1, 2, 64 * 40, generator=torch.Generator().manual_seed(0))
    gains = torch.tensor([100.0, 0.01]).view(1, 2, 1)
    with torch.inference_mode():
        torch.testing.assert_close(tiny(wave * gains), tiny(wave) * gains.unsqueeze(1), rtol=1e-3, atol=1e-5)


def test_examples_of_a_batch_do_not_see_each_other(tiny):
    wave = torch.randn(3, 2, 64 * 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(tiny(wave)[1:2], tiny(wave[1:2]), rtol=1e-4, atol=1e-6)


def test_silence_in_silence_out(tiny):
    with torch.inference_mode():
        estimates = tiny(torch.zeros(1, 2, 64 * 20))
    assert torch.equal(estimates, torch.zeros(1, 5, 2, 64 * 20))


def test_stem_matrix_sums_outputs(tiny):
    wave = torch.randn(1, 2, 64 * 30, generator=torch.Generator().manual_seed(0))
    matrix = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = torch.einsum("sn,bnct->bsct", matrix, tiny(wave))
        tiny.set_stem_matrix(matrix)
        torch.testing.assert_close(tiny(wave), expected, rtol=1e-4, atol=1e-5)
    assert tiny.sources == 4


def test_group_norm_normalises_each_group():
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0] * 4 + [50.0] * 4)
    rms = RMSGroupNorm(8, 2)(x).unflatten(-1, (2, 4)).square().mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-4, atol=1e-4)


def test_both_attentions_are_the_same():
    attention = Attention(16, 4, dropout=0.0)
    q, k, v = torch.randn(3, 5, 4, 11, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention.attend(q, k, v), attention.attend_fused(q, k, v))


def test_attention_in_slices_is_attention(monkeypatch):
    attention = Attention(16, 4, dropout=0.0)
    x = torch.randn(2, 7, 11, 16, generator=torch.Generator().manual_seed(0))
    expected = attention(x).detach()
    monkeypatch.setattr("lib.model.MAX_WEIGHTS", 3 * 4 * 11**2)  # three rows of fourteen at a time
    with torch.no_grad():
        torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_drops_as_often_as_told(dtype, p):
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(3, 333_333, dtype=dtype))
    kept = y != 0
    assert kept.float().mean() == pytest.approx(1 - p, abs=0.002)
    tolerance = 0.004 if dtype == torch.bfloat16 else 1e-6
    assert (y[kept].float() * (1 - p) - 1).abs().max() <= tolerance
    one, two = Dropout(p)(torch.ones(1000)), Dropout(p)(torch.ones(1000))
    assert not torch.equal(one, two)
    assert torch.equal(Dropout(p).eval()(y), y)


def test_sums_of_chosen_estimates_have_their_values_and_gradients(tiny):
    mixture = torch.randn(2, 2, 64 * 40, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 3, tiny.sources, generator=torch.Generator().manual_seed(1))
    seen = []

    def choose(estimates):
        seen.append(estimates)
        return weights

    expected = torch.einsum("bsn,bnct->bsct", weights, tiny(mixture))
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in tiny.parameters()]
    tiny.zero_grad()
    sums = tiny(mixture, choose)
    sums.square().sum().backward()
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(seen[0], tiny(mixture))
    assert not seen[0].requires_grad
    for gradient, parameter in zip(gradients, tiny.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())


def test_masker_takes_other_channel_counts():
    masker = BandSplitTFLocoformer([4, 4, 8, 1], Size(1, 8, 8, 2, 2, 1e-3), sources=3, channels=1)
    spectrum = torch.randn(2, 1, 10, 17, dtype=torch.complex64)
    assert masker.filter(masker(spectrum), spectrum).shape == (2, 3, 1, 10, 17)


def test_save_and_load_is_exact(tiny, tmp_path):
    tiny.set_stem_matrix(torch.ones(4, 5))
    tiny.save(tmp_path / "model.safetensors")
    loaded = Separator.from_pretrained(tmp_path)
    assert loaded.config() == tiny.config()
    wave = torch.randn(1, 2, 64 * 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(wave), tiny(wave))


def test_not_a_checkpoint(tiny, tmp_path):
    tiny.save(tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"model.x": torch.ones(1)}, tmp_path / "other.pth")
    for name in ("cut.safetensors", "empty.safetensors", "text.pth", "other.pth", "missing.pth", "missing"):
        with pytest.raises(UserError) as caught:
            Separator.from_pretrained(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_pickle_payload_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with open(tmp_path / "model.pth", "wb") as file:
        pickle.dump({"model.blocks.0": Payload()}, file)
    with pytest.raises(UserError):
        Separator.from_pretrained(tmp_path / "model.pth")
    assert not (tmp_path / "ran").exists()
