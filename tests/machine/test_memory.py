"""When memory runs out: the batch that fits is named, and recomputing blocks changes no bit."""

from types import SimpleNamespace

import pytest
import torch

from lib import UserError, training
from lib.machine import faults
from lib.model.separator import Separator
from lib.profile.fields import Compute, Finetune
from lib.store.runs import Run
from tests.toys import COMPUTE, STAGE, Noise, task, train

GB = 1 << 30


class Card:
    """A GPU of so many GB on which a step takes ``fixed`` + ``each`` x examples GB."""

    def __init__(self, total, fixed, each):
        self.total, self.fixed, self.each, self.examples = total, fixed, each, 0

    def step(self, count):
        self.examples = count
        if self.fixed + count * self.each > self.total:
            raise torch.OutOfMemoryError

    def capacity(self):
        return self.total * GB

    def peak(self, call):
        call()
        return (self.fixed + self.examples * self.each) * GB


@pytest.mark.parametrize(
    ("card", "later", "expected"),
    [
        (Card(80, 4, 9), 0, 8),
        (Card(80, 4, 9), 10 * GB, 6),
        (Card(20, 4, 9), 0, 1),  # two examples do not fit
        (Card(10, 4, 9), 0, 0),
    ],
)
def test_examples_that_fit_follow_from_one_and_two(card, later, expected):
    assert faults.fitting(card, card.step, later) == expected


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "fits", "expected"),
    [
        (64, 1, 1, 8, 8),
        (64, 2, 1, 5, 13),
        (64, 4, 4, 3, 24),
        (32, 8, 8, 1, 32),
    ],
)
def test_the_advice_is_the_profile_field_that_makes_it_fit(batch, accumulate, processes, fits, expected):
    stage = Finetune(batch=batch, accumulate=accumulate)
    message = str(faults.explained(stage, batch // processes, processes, fits))
    assert f"about {fits} fit" in message and f"finetune.accumulate={expected} " in message
    parts = torch.empty(batch // processes).chunk(-(-expected // processes))
    assert max(map(len, parts)) <= fits


def test_where_nothing_fits_other_fields_are_named():
    assert "not even one example fits: set compute.recompute=true" in str(faults.explained(Finetune(), 8, 1, 0))


def test_a_step_that_runs_out_of_memory_is_one_line_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    card = Card(20, 2, 6)
    monkeypatch.setattr(faults, "Gauge", lambda device: card)
    whole = task()

    def loss(model, stems):
        card.step(len(stems))
        return whole.loss(model, stems)

    greedy = training.Task(whole.separator, Noise(), loss, whole.validate)
    stage = Finetune(**{**vars(STAGE), "batch": 4})
    with pytest.raises(
        UserError, match=r"^finetune: .* with 4 examples at a time; about 2 fit: set finetune\.accumulate=2 "
    ):
        training.fit(greedy, stage, Run(tmp_path), 0, COMPUTE, 0, "test")
    fitting = Finetune(**{**vars(stage), "accumulate": 2})
    training.fit(greedy, fitting, Run(tmp_path), 0, COMPUTE, 0, "test")
    assert Run(tmp_path).finished


def test_recomputing_blocks_changes_no_bit(tmp_path):
    _, plain = train(tmp_path / "plain")
    _, again = train(tmp_path / "again", compute=Compute(accelerator="cpu", recompute=True))
    assert plain.weights.read_bytes() == again.weights.read_bytes()


def test_recomputing_keeps_less_for_the_backward_pass():
    kept = {}
    for recompute in (False, True):
        separator = Separator.from_size("tiny", 4, 0, rate=8000, n_fft=256, hop=64, band_scale=4.0)
        separator.masker.recompute = recompute
        total = SimpleNamespace(numbers=0)

        def pack(tensor, total=total):
            total.numbers += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            separator(torch.randn(1, 2, 64 * 32))
        kept[recompute] = total.numbers
    assert kept[True] < 0.7 * kept[False]
