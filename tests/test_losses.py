"""The losses against golden vectors, brute force, and their own invariances."""

import itertools

import pytest
import torch

from lib.losses import mixit_loss, stem_snr_loss


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixtures_like(estimates, seed=1):
    """Two mixtures that some assignment of the estimates nearly explains."""
    sources = estimates.shape[1]
    first = (noise(sources, seed=seed) > 0).to(estimates).view(1, sources, 1, 1)
    pair = torch.stack([(estimates * first).sum(1), (estimates * (1 - first)).sum(1)], dim=1)
    return pair + 0.3 * noise(*pair.shape, seed=seed + 1, dtype=estimates.dtype)


@pytest.mark.parametrize(("rule", "name"), [("exact", "exact"), ("least_squares", "ls")])
def test_golden_mixit(golden, rule, name):
    vectors = golden("mixit")
    loss, assignment = mixit_loss(vectors["est"], vectors["mixtures"], rule)
    torch.testing.assert_close(loss, vectors[f"{name}_loss"], rtol=1e-12, atol=1e-12)
    assert torch.equal(assignment[:, 0], vectors[f"{name}_assignment"].double())
    assert torch.equal(assignment.sum(1), torch.ones(4, 6, dtype=torch.float64))


def test_golden_mixit_in_single_precision(golden):
    vectors = golden("mixit")
    loss, assignment = mixit_loss(vectors["est"].float(), vectors["mixtures"].float())
    torch.testing.assert_close(loss.double(), vectors["exact_loss"], rtol=1e-5, atol=1e-5)
    assert torch.equal(assignment[:, 0], vectors["exact_assignment"])


def test_golden_stem_loss(golden):
    vectors = golden("supervised_snr")
    loss = stem_snr_loss(vectors["est"], vectors["ref"])
    torch.testing.assert_close(loss.mean(), vectors["loss"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss, vectors["per_source"].mean((1, 2)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sources", [2, 3, 5, 8])
def test_exact_is_the_best_of_all_assignments(sources):
    estimates = noise(3, sources, 2, 200)
    mixtures = mixtures_like(estimates)
    loss, _ = mixit_loss(estimates, mixtures)
    every = []
    for bits in itertools.product((0.0, 1.0), repeat=sources):
        first = torch.tensor(bits, dtype=torch.float64).view(1, sources, 1, 1)
        sums = torch.stack([(estimates * first).sum(1), (estimates * (1 - first)).sum(1)], dim=1)
        error, energy = (mixtures - sums).square().sum(-1), mixtures.square().sum(-1)
        every.append((10 * torch.log10((error + 1e-3 * energy + 1e-8) / (energy + 1e-8))).mean((1, 2)))
    torch.testing.assert_close(loss, torch.stack(every).min(0).values, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", ["exact", "least_squares"])
def test_order_of_outputs_does_not_matter(rule):
    estimates = noise(2, 7, 2, 300)
    mixtures = mixtures_like(estimates)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(5))
    loss, assignment = mixit_loss(estimates, mixtures, rule)
    other_loss, other_assignment = mixit_loss(estimates[:, order], mixtures, rule)
    torch.testing.assert_close(other_loss, loss)
    assert torch.equal(other_assignment, assignment[:, :, order])


@pytest.mark.parametrize("gain", [1e-2, 1e2])
def test_scale_changes_nothing(gain):
    estimates = noise(2, 6, 2, 400)
    mixtures = mixtures_like(estimates)
    loss, assignment = mixit_loss(estimates, mixtures)
    scaled_loss, scaled_assignment = mixit_loss(gain * estimates, gain * mixtures)
    torch.testing.assert_close(scaled_loss, loss, rtol=1e-5, atol=1e-5)
    assert torch.equal(scaled_assignment, assignment)
    stems = noise(2, 6, 2, 400, seed=9)
    torch.testing.assert_close(
        stem_snr_loss(gain * estimates, gain * stems), stem_snr_loss(estimates, stems), rtol=1e-5, atol=1e-5
    )


def test_exchanging_the_mixtures_exchanges_the_rows():
    estimates = noise(2, 6, 2, 300)
    mixtures = mixtures_like(estimates)
    loss, assignment = mixit_loss(estimates, mixtures)
    other_loss, other = mixit_loss(estimates, mixtures.flip(1))
    torch.testing.assert_close(other_loss, loss)
    assert torch.equal(other, assignment.flip(1))


def test_both_channels_choose():
    """The left channel alone cannot tell the outputs apart; the right one can."""
    estimates = noise(1, 4, 2, 300)
    estimates[:, :, 0] = 0
    mixtures = mixtures_like(estimates)
    mixtures[:, :, 0] = 0
    truth = (noise(4, seed=1) > 0).double()
    assert torch.equal(mixit_loss(estimates, mixtures)[1][0, 0], truth)


@pytest.mark.parametrize("loss", [lambda e, x: mixit_loss(e, x)[0], lambda e, x: stem_snr_loss(e, noise(2, 4, 2, 20))])
def test_gradients_in_double_precision(loss):
    estimates = noise(2, 4, 2, 20).requires_grad_()
    mixtures = mixtures_like(estimates.detach())
    assert torch.autograd.gradcheck(lambda e: loss(e, mixtures), estimates)


def test_single_precision_gradient_is_the_double_one():
    estimates = noise(2, 8, 2, 2000)
    mixtures = mixtures_like(estimates)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = estimates.to(dtype).requires_grad_()
        mixit_loss(leaf, mixtures.to(dtype))[0].sum().backward()
        gradients.append(leaf.grad.double())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("rule", ["exact", "least_squares"])
@pytest.mark.parametrize("sources", [2, 4, 11, 16])
def test_silence_stays_finite(rule, sources):
    estimates = noise(3, sources, 2, 64, dtype=torch.float32)
    mixtures = noise(3, 2, 2, 64, seed=4, dtype=torch.float32)
    estimates[0] = 0
    mixtures[1, 0] = 0
    estimates[2, 1:] = 0
    mixtures[2] = 0
    estimates.requires_grad_()
    loss, _ = mixit_loss(estimates, mixtures, rule)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(estimates.grad).all()
    assert torch.equal(estimates.grad[2], torch.zeros_like(estimates.grad[2]))


def test_outputs_given_to_a_silent_mixture_get_no_gradient():
    estimates = noise(1, 4, 2, 100).requires_grad_()
    mixtures = torch.stack([torch.zeros(1, 2, 100, dtype=torch.float64), noise(1, 2, 100, seed=7)], dim=1)
    loss, assignment = mixit_loss(estimates, mixtures)
    loss.sum().backward()
    silent = assignment[0, 0].bool()
    assert torch.equal(estimates.grad[0, silent], torch.zeros_like(estimates.grad[0, silent]))


def test_silent_stem_is_measured_against_the_mixture():
    stems = noise(1, 4, 2, 500)
    stems[0, 2] = 0
    quiet, loud = stems.clone(), stems.clone()
    quiet[0, 2] = 0.01 * noise(2, 500, seed=3)
    loud[0, 2] = 1.0 * noise(2, 500, seed=3)
    losses = [stem_snr_loss(estimate, stems).item() for estimate in (stems, quiet, loud)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_wrong_rule_is_refused():
    with pytest.raises(ValueError, match="exact"):
        mixit_loss(noise(1, 2, 2, 10), noise(1, 2, 2, 10), "best")
