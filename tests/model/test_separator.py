"""From waveform to waveforms: levels, seeds, sums of outputs."""

import pytest
import torch

from lib import UserError
from lib.model.separator import OverlapAdd, Separator


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


def test_sums_of_chosen_estimates_have_their_values_and_gradients(tiny):
    mixture = torch.randn(2, 2, 64 * 40, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 3, tiny.sources, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("bsn,bnct->bsct", weights, tiny(mixture))
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in tiny.parameters()]
    tiny.zero_grad()
    estimates, remix = tiny(mixture, remixable=True)
    sums = remix(weights)
    sums.square().sum().backward()
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(estimates, tiny(mixture))
    assert not estimates.requires_grad
    for gradient, parameter in zip(gradients, tiny.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())


@pytest.mark.parametrize("hop", [512, 320, 341])
def test_the_inverse_stft_is_the_librarys(hop):
    separator = Separator.from_size("nano", 4, n_fft=1024, hop=hop)
    spectrum = torch.randn(3, 2, 20, 513, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    expected = torch.istft(spectrum.flatten(0, 1).mT, 1024, hop, window=separator.window, length=19 * hop)
    ours = separator.istft(spectrum, 19 * hop)
    torch.testing.assert_close(ours, expected.unflatten(0, (3, 2)), rtol=1e-4, atol=1e-5)


def test_overlap_add_has_the_gradient_of_its_formula():
    frames = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    window = torch.rand(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda frames: OverlapAdd.apply(frames, window, 3), frames)
