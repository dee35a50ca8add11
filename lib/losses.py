"""Losses: MixIT (Wisdom et al., arXiv 2006.12701) and the stem loss of supervised training.

Waveforms are [..., channel, sample]; energies |.|^2 are sums over samples; all losses are in dB.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib.machine.devices import without_autocast

VERSION = 1
"""Raise it when the same estimates give another loss or assignment: runs are renamed."""
EPS = 1e-8


def _decibel(energy: Tensor) -> Tensor:
    return 10 * torch.log10(energy + EPS)


def negative_snr(error: Tensor, reference: Tensor, tau: float) -> Tensor:
    """Negative thresholded SNR in dB from the energies of error and reference (arXiv 2006.12701, equation 2).

    ``tau`` = 10^(-max SNR / 10) bounds the reward. Where the reference is silent the value is kept and no gradient
    passes, since there is nothing to approach.
    """
    error = torch.where(reference > 0, error, error.detach())
    return _decibel(error + tau * reference) - _decibel(reference)


def mixit_loss(
    estimates: Tensor,
    mixtures: Tensor,
    assignment: str = "exact",
    tau: float = 1e-3,
    remix: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mixture-invariant loss: every output is given to one of two mixtures so that their sums explain the mixtures.

    estimates: [B, N, C, T]; mixtures: [B, 2, C, T]. Returns the loss [B], the mean of `negative_snr` over mixtures and
    channels, and the assignment [B, 2, N], whose row i marks the outputs of mixture i with 1.

    ``exact`` takes the best of all 2^N assignments; ``least_squares`` the published approximation of it. ``remix``
    forms the sums [B, 2, C, T] of an assignment in place of sums of ``estimates``, where that is cheaper for gradients
    (`lib.model.separator.Separator.forward`).

    Raises: ValueError for another ``assignment``.
    """
    chosen = assign(estimates, mixtures, assignment, tau)
    sums = remix(chosen) if remix else torch.einsum("bin,bnct->bict", chosen, estimates)
    return mixture_loss(sums, mixtures, tau), chosen


def mixpit_loss(estimates: Tensor, mixtures: Tensor, tau: float = 1e-3) -> Tensor:
    """Loss [B] of two estimates for two mixtures, both [B, 2, C, T], in the better order (Karamatlı and Kırbız 2022).

    It is `mixit_loss` of two outputs, each of which must stand for one of the mixtures.
    """
    return torch.minimum(mixture_loss(estimates, mixtures, tau), mixture_loss(estimates.flip(1), mixtures, tau))


def assign(estimates: Tensor, mixtures: Tensor, assignment: str = "exact", tau: float = 1e-3) -> Tensor:
    """The assignment [B, 2, N] of `mixit_loss`, without gradients. Raises: ValueError for another ``assignment``."""
    if assignment not in ("exact", "least_squares"):
        raise ValueError(f"assignment must be 'exact' or 'least_squares', not '{assignment}'")
    choose = exact_assignment if assignment == "exact" else least_squares_assignment
    with torch.no_grad(), without_autocast(estimates.device):
        return choose(estimates, mixtures, tau).to(estimates.dtype)


def mixture_loss(sums: Tensor, mixtures: Tensor, tau: float = 1e-3) -> Tensor:
    """Loss [B] of sums of outputs against the mixtures they stand for, both [B, 2, C, T]: see `mixit_loss`."""
    error = (mixtures - sums).square().sum(-1)
    return negative_snr(error, mixtures.square().sum(-1), tau).mean((1, 2))


def exact_assignment(estimates: Tensor, mixtures: Tensor, tau: float) -> Tensor:
    """The assignment [B, 2, N] of least `mixit_loss` among all 2^N, one for all channels.

    |x - sum_n a_n s_n|^2 = |x|^2 - 2 a.(S x) + a.(S S^T) a for a binary vector a, so that all 2^N losses come from one
    N x N Gram matrix per channel and no sum of waveforms is formed. In float64, for the terms cancel.
    """
    sources = estimates.shape[1]
    channels = list(zip(estimates.unbind(2), mixtures.unbind(2), strict=True))
    outputs = [torch.cat(pair, dim=1).double() for pair in channels]
    products = torch.stack([wave @ wave.mT for wave in outputs], dim=1)  # [B, C, N + 2, N + 2]
    gram, cross = products[..., :sources, :sources], products[..., sources:, :sources].transpose(1, 2)
    energy = products.diagonal(dim1=-2, dim2=-1)[..., sources:].transpose(1, 2)  # [B, 2, C]
    rows = all_assignments(sources).to(products)
    loss = torch.zeros(len(estimates), len(rows), device=products.device, dtype=products.dtype)
    for i, a in enumerate((rows, 1 - rows)):
        quadratic = torch.einsum("an,bcnm,am->bca", a, gram, a)
        error = energy[:, i, :, None] - 2 * torch.einsum("bcn,an->bca", cross[:, i], a) + quadratic
        loss += negative_snr(error.clamp(min=0), energy[:, i, :, None], tau).mean(1)
    first = rows[loss.argmin(-1)]
    return torch.stack([first, 1 - first], dim=1)


def all_assignments(sources: int) -> Tensor:
    """All binary vectors of length N: [2^N, N]."""
    return (torch.arange(2**sources).unsqueeze(1) >> torch.arange(sources)) & 1


def least_squares_assignment(estimates: Tensor, mixtures: Tensor, tau: float) -> Tensor:
    """The published assignment [B, 2, N]: regress both mixtures on the N outputs (left channel).

    The larger coefficient takes an output (efficient MixIT, Wisdom et al., WASPAA 2021). The pseudo-inverse gives
    silent outputs the coefficient 0.
    """
    outputs = estimates[:, :, 0].double()
    gram = outputs @ outputs.mT
    cross = outputs @ mixtures[:, :, 0].double().mT
    coefficients = torch.linalg.pinv(gram, hermitian=True) @ cross  # [B, N, 2]
    first = (coefficients[..., 0] >= coefficients[..., 1]).to(estimates)
    return torch.stack([first, 1 - first], dim=1)


def stem_snr_loss(
    estimates: Tensor, stems: Tensor, tau: float = 1e-3, inactive_db: float = -60.0, inactive_weight: float = 0.1
) -> Tensor:
    """Supervised loss [B] in dB: mean over stems and channels of the negative thresholded SNR.

    estimates and stems: [B, S, C, T]. A channel of a stem that lies more than ``-inactive_db`` under the same channel
    of the mixture is inactive: its error is measured against the mixture and counts ``inactive_weight``.
    """
    error = (stems - estimates).square().sum(-1)
    energy = stems.square().sum(-1)
    mixture = stems.sum(1, keepdim=True).square().sum(-1)
    inactive = energy < mixture * 10 ** (inactive_db / 10)
    active_loss = negative_snr(error, energy, tau)
    inactive_loss = inactive_weight * _decibel(error + tau * mixture)
    return torch.where(inactive, inactive_loss, active_loss).mean((1, 2))
