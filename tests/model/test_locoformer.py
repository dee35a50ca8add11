"""The band-split TF-Locoformer against published numbers and its own properties."""

import pytest
import torch

from lib.model.locoformer import (
    SIZES,
    Attention,
    BandGroup,
    BandSplitTFLocoformer,
    Dropout,
    RMSGroupNorm,
    Size,
    SwiGLU,
    band_widths,
)
from lib.model.separator import Separator


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


def test_group_norm_normalises_each_group():
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0] * 4 + [50.0] * 4)
    rms = RMSGroupNorm(8, 2)(x)[0].unflatten(-1, (2, 4)).square().mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 0.0])
def test_the_norm_and_the_residual_around_it_have_the_gradients_of_their_formula(scale):
    x = scale * torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    weights, residual = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1))

    def formula(x):
        grouped = x.unflatten(-1, (2, 4))
        return (grouped / (torch.linalg.vector_norm(grouped, dim=-1, keepdim=True) / 2 + 1e-5)).flatten(-2), x

    results = []
    for norm in (RMSGroupNorm(8, 2), formula):
        given = x.clone().requires_grad_()
        y, same = norm(given)
        assert torch.equal(same, given)
        (y * weights + same * residual).sum().backward()
        results.append((y.detach(), given.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_gives_what_products_take_and_its_gradient_has_the_inputs_type(dtype):
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = RMSGroupNorm(8, 2)(x)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype) == (torch.bfloat16, dtype)


def test_swiglu_has_the_gradient_of_its_formula():
    x = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    value, gate = x.chunk(2, dim=1)
    assert torch.equal(SwiGLU.apply(x), value * torch.nn.functional.silu(gate))
    assert torch.autograd.gradcheck(SwiGLU.apply, x)


@pytest.mark.parametrize("width", [1, 3])
def test_masks_of_all_sources_come_from_one_product_as_from_one_each(width):
    group = BandGroup(range(2), 0, width, SIZES["nano"], 2, 3)
    hidden = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    for decode in (group.masks_of_each, group.masks_of_all):
        masks = decode(hidden, (2, 5))
        gradients = torch.autograd.grad(masks.cumsum(-1).square().sum(), [hidden, *group.masks.parameters()])
        results.append((masks, *gradients))
    assert results[0][0].shape == (2, 3, 2, 5, 4 * width)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * one.abs().max().item())


def test_both_attentions_are_the_same():
    attention = Attention(16, 4, dropout=0.0)
    q, k, v = torch.randn(3, 5, 4, 11, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention.attend(q, k, v), attention.attend_fused(q, k, v))


@pytest.mark.parametrize("kind", ["attend", "attend_fused"])
def test_both_attentions_drop_weights_in_training_alone(kind):
    attention, length = Attention(16, 1, dropout=0.25), 64
    q = k = torch.zeros(8, 1, length, length)  # every weight is 1 / length, and the product with v shows each of them
    v = torch.eye(length).expand_as(q)
    torch.manual_seed(0)
    weights = getattr(attention, kind)(q, k, v) * length
    assert (weights == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(weights[weights != 0], torch.tensor(1 / 0.75).expand((weights != 0).sum()))
    torch.testing.assert_close(getattr(attention.eval(), kind)(q, k, v) * length, torch.ones_like(q))


def test_more_rows_than_a_kernels_grid_has_are_attended_to(monkeypatch):
    q, k, v = torch.randn(3, 5, 4, 11, 4, generator=torch.Generator().manual_seed(0))
    attention = Attention(16, 4, dropout=0.0)
    whole, kernel, rows = attention.attend_fused(q, k, v), torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr("lib.model.locoformer.ROWS", 2)
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, *others, **options: rows.append(len(q)) or kernel(q, *others, **options),
    )
    torch.testing.assert_close(attention.attend_fused(q, k, v), whole)
    assert rows == [2, 2, 1]


def test_attention_in_slices_is_attention(monkeypatch):
    attention = Attention(16, 4, dropout=0.0)
    x = torch.randn(2, 7, 11, 16, generator=torch.Generator().manual_seed(0))
    gamma = torch.rand(16, generator=torch.Generator().manual_seed(1))
    expected = attention(x, gamma).detach()
    torch.testing.assert_close(expected, attention(x * gamma, torch.ones(16)))
    monkeypatch.setattr("lib.model.locoformer.MAX_WEIGHTS", 3 * 4 * 11**2)  # three rows of fourteen at a time
    with torch.no_grad():
        torch.testing.assert_close(attention(x, gamma), expected)


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


def test_masker_takes_other_channel_counts():
    masker = BandSplitTFLocoformer([4, 4, 8, 1], Size(1, 8, 8, 2, 2, 1e-3), sources=3, channels=1)
    spectrum = torch.randn(2, 1, 10, 17, dtype=torch.complex64)
    assert masker.filter(masker(spectrum), spectrum).shape == (2, 3, 1, 10, 17)
