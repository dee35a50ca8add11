"""The objectives of pre-training: MixIT's rivals see the same pairs of mixtures through the same network."""

import pytest
import torch

from lib import UserError, pretrain
from lib.arms import Finetuning, Pretraining, example_flops
from lib.losses import mixit_loss, mixpit_loss, mixture_loss
from lib.model.separator import Separator
from lib.profile.fields import Pretrain
from tests import toys

SHORT = {"pretrain.steps": 2, "pretrain.validate_every": 2}


@pytest.fixture
def mixtures():
    return torch.randn(3, 2, 2, 8192, generator=torch.Generator().manual_seed(0))


def tiny(sources):
    front = {"rate": 8000, "n_fft": 256, "hop": 64, "band_scale": 4.0, "dropout": 0.0}
    return Separator.from_size("nano", sources, seed=3, **front).eval()


def test_mixpit_takes_the_better_order_and_is_mixit_of_outputs_that_may_not_share(mixtures):
    estimates = mixtures.flip(1) + 0.1 * torch.randn(mixtures.shape, generator=torch.Generator().manual_seed(1))
    loss = mixpit_loss(estimates, mixtures)
    torch.testing.assert_close(loss, mixture_loss(estimates.flip(1), mixtures))
    torch.testing.assert_close(loss, mixpit_loss(estimates.flip(1), mixtures))
    torch.testing.assert_close(loss, mixit_loss(estimates, mixtures)[0])  # whose best assignment is that order here
    both = torch.stack([mixtures.sum(1), torch.zeros_like(mixtures[:, 0])], dim=1)
    assert (mixit_loss(both, mixtures)[0] <= mixpit_loss(both, mixtures)).all()


def test_denoising_is_the_first_mixture_out_of_the_sum(mixtures):
    keep = lambda wave: wave[:, None]  # noqa: E731  # separates nothing: the error is the second mixture
    loss = pretrain.denoising(keep, mixtures * torch.tensor([1.0, 0.1])[:, None, None])
    torch.testing.assert_close(loss, torch.full((3,), -20.0), atol=0.5, rtol=0)


def test_reconstruction_hides_bands_and_stretches_and_asks_for_the_first_mixture(mixtures):
    model = tiny(1)
    torch.manual_seed(0)
    hidden = pretrain.hidden_bins(model, 200, 129, 40)
    widths = [group.width for group in model.masker.groups for _ in group.bands]
    bands = hidden.all(2, keepdim=True)[:, 0, 0].split(widths, dim=-1)
    assert all((band == band[:, :1]).all() for band in bands)
    assert hidden.float().mean() == pytest.approx(1 - 0.75**2, abs=0.03)
    seen = []

    def listen(wave):
        seen.append(wave)
        return mixtures[:, :1]

    listen.stft, listen.istft, listen.masker = model.stft, model.istft, model.masker
    assert (pretrain.reconstruction(listen, mixtures) < -29).all()  # the first mixture is the perfect answer
    error = (seen[0] - mixtures[:, 0]).square().mean()
    assert 0.3 < error / mixtures[:, 0].square().mean() < 1.5  # noise of the same level where a part is hidden
    torch.testing.assert_close(seen[0].square().mean(), mixtures[:, 0].square().mean(), rtol=0.2, atol=0)


@pytest.mark.parametrize("name", sorted(pretrain.OBJECTIVES))
def test_every_objective_learns(mixtures, name):
    model = tiny(pretrain.OUTPUTS.get(name, 4)).train()
    optimiser, loss = torch.optim.AdamW(model.parameters(), 3e-3), pretrain.objective(Pretrain(objective=name))
    torch.manual_seed(0)
    tones = torch.sin(torch.arange(8192) * torch.tensor([[0.05], [0.9]]))[:, None].expand(2, 2, -1)
    pairs = (tones + 0.01 * mixtures[0]).expand(3, -1, -1, -1)
    losses = []
    for _ in range(25):
        value = loss(model, pairs).mean()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(value.item())
    assert losses[-1] < losses[0] - 1


def test_a_rival_is_trained_carried_over_and_named_apart(tmp_path):
    study = toys.study(tmp_path, SHORT)
    rival = study.variant({"pretrain.objective": "reconstruction"})
    assert Pretraining(rival, 0).run.name != Pretraining(study, 0).run.name
    assert "objective" not in Pretraining(study, 0).identity["pretrain"]
    first, again = Pretraining(rival, 0).trained(), toys.study(tmp_path / "again", SHORT)
    again = Pretraining(again.variant({"pretrain.objective": "reconstruction"}), 0).trained()
    assert first.facts()["weights"] == again.facts()["weights"]
    assert first.facts()["best_validation_loss"] == again.facts()["best_validation_loss"]
    assert Finetuning(rival, "body", 0, 1).start().sources == 4
    with pytest.raises(UserError, match="transfer 'sliced' chooses among the outputs of MixIT"):
        Finetuning(rival, "sliced", 0, 1).start()
    assert example_flops(rival, "pretrain") < example_flops(study, "pretrain")
