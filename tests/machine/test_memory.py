"""When memory runs out: the batch that fits is named, and recomputing blocks changes no bit."""

from functools import partial
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
    if processes == 1:
        assert faults.parts_for(stage, batch, 1, fits) == expected
    else:
        with pytest.raises(UserError, match=f"about {fits} fit: set finetune\\.accumulate={expected} "):
            faults.parts_for(stage, batch // processes, processes, fits)
    parts = torch.empty(batch // processes).chunk(-(-expected // processes))
    assert max(map(len, parts)) <= fits


def test_where_nothing_fits_other_fields_are_named():
    with pytest.raises(UserError, match=r"not even one example fits: set compute\.recompute=true"):
        faults.parts_for(Finetune(), 8, 1, 0)


def test_a_run_finds_the_parts_that_fit_a_card_and_trains_as_if_told(tmp_path, monkeypatch, capsys):
    card = Card(20, 2, 6)
    monkeypatch.setattr(faults, "Gauge", lambda device: card)
    whole = task()

    def loss(model, stems):
        card.step(len(stems))
        return whole.loss(model, stems)

    greedy = training.Task(whole.separator, Noise(), loss, whole.validate)
    stage = Finetune(**{**vars(STAGE), "batch": 4})
    training.fit(greedy, stage, Run(tmp_path / "found"), 0, COMPUTE, 0, "test")
    said = capsys.readouterr().err
    assert said.count("finetune: 4 examples at a time do not fit GPU memory: finetune.accumulate=2\n") == 1
    told = Finetune(**{**vars(stage), "accumulate": 2})
    training.fit(task(), told, Run(tmp_path / "told"), 0, COMPUTE, 0, "test")
    assert Run(tmp_path / "found").weights.read_bytes() == Run(tmp_path / "told").weights.read_bytes()


def test_without_dropout_weights_depend_on_the_parts_by_rounding_alone(tmp_path):
    weights = []
    for parts in (1, 2, 4):
        stage = Finetune(**{**vars(STAGE), "batch": 4, "accumulate": parts})
        separator, _ = train(tmp_path / str(parts), stage, dropout=0.0)
        weights.append(torch.cat([value.flatten() for value in separator.state_dict().values()]))
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=2e-4)


def test_a_validation_that_does_not_fit_is_one_line(tmp_path):
    def validate(separator):
        raise torch.OutOfMemoryError

    greedy = training.Task(task().separator, Noise(), task().loss, validate)
    with pytest.raises(
        UserError, match=r"^finetune: GPU memory ran out in validation with 2 .* finetune\.accumulate=2"
    ):
        training.fit(greedy, Finetune(**vars(STAGE)), Run(tmp_path), 0, COMPUTE, 0, "test")


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


@pytest.mark.parametrize("recompute", [False, True])
def test_the_masker_compiles_to_one_graph_with_the_same_gradients(recompute, monkeypatch):
    separator = Separator.from_size("nano", 2, 0, rate=8000, n_fft=256, hop=64, band_scale=16.0, dropout=0.0)
    separator.masker.recompute, results = recompute, []
    plain = separator.masker.forward
    for forward in (plain, torch.compile(plain, backend="aot_eager", fullgraph=True)):
        monkeypatch.setattr(separator.masker, "forward", forward)
        separator.zero_grad()
        separator(torch.ones(1, 2, 64 * 16).cumsum(-1) % 7).square().sum().backward()
        results.append(torch.cat([parameter.grad.flatten() for parameter in separator.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4 * results[0].abs().max().item())


def test_what_cannot_be_compiled_trains_all_the_same_and_says_why(monkeypatch, capsys):
    def refuse(graph, inputs):
        raise RuntimeError("no C compiler\nsecond line")

    monkeypatch.setattr(training.torch, "compile", partial(torch.compile, backend=refuse))
    layer = torch.nn.Linear(2, 2)
    expected = layer(torch.ones(2))
    training.compile_if_possible(layer)
    assert all(torch.equal(layer(torch.ones(2)), expected) for _ in range(2))
    said = capsys.readouterr().err
    assert said.count("compute.compile: ") == 1 and "no C compiler" in said.splitlines()[0]
