"""A step is taken in parts that fit a GPU's memory, by halves where it runs out; recomputing blocks changes no bit."""

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from lib import UserError, training
from lib.machine import memory
from lib.model.separator import Separator
from lib.profile.fields import Compute, Finetune
from lib.profile.load import load
from lib.store.runs import Run
from tests.toys import COMPUTE, STAGE, Noise, task, train

ROW = {"fixed_gib": "2", "example_gib": "3", "crop_seconds": "6"}


@pytest.mark.parametrize(
    ("gib", "crop_seconds", "fits"),
    [(80, 6.0, 23), (40, 6.0, 11), (24, 6.0, 6), (24, 3.0, 13), (4, 6.0, 0)],
)
def test_as_many_examples_fit_as_memory_has_room_for_beside_what_every_step_takes(gib, crop_seconds, fits):
    assert memory.fitting(ROW, gib * memory.GIB, crop_seconds) == fits
    if fits:
        used = [memory.step_gib(ROW, count, crop_seconds) for count in (fits, fits + 1)]
        assert used[0] <= memory.USABLE * gib < used[1]


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "fits", "expected"),
    [(64, 1, 1, 23, 3), (64, 8, 1, 23, 8), (64, 1, 4, 5, 16), (8, 1, 1, 23, 1), (8, 1, 1, 0, 8)],
)
def test_a_step_is_taken_in_parts_that_fit_and_in_as_many_as_the_profile_says(
    batch, accumulate, processes, fits, expected
):
    stage = Finetune(batch=batch, accumulate=accumulate)
    assert memory.parts(stage, batch // processes, processes, fits) == expected
    assert max(map(len, torch.empty(batch // processes).chunk(-(-expected // processes)))) <= max(fits, 1)


@pytest.mark.parametrize(("gib", "parts"), [(24, 2), (40, 1), (80, 1)])
def test_profile_single_gpu_pretrains_in_parts_that_fit_a_card_and_says_nothing_on_a_cpu(monkeypatch, gib, parts):
    profile = load("single_gpu")
    separator = Separator.from_size(profile.model.size, profile.model.sources)
    card = SimpleNamespace(device=torch.device("cuda", 0), world_size=1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (gib * memory.GIB, gib * memory.GIB))
    found = training._in_parts_that_fit(card, separator, profile.pretrain, profile.compute)
    assert found == replace(profile.pretrain, accumulate=parts)
    cpu = SimpleNamespace(device=torch.device("cpu"), world_size=1)
    assert training._in_parts_that_fit(cpu, separator, profile.pretrain, profile.compute) == profile.pretrain


def test_where_memory_runs_out_all_the_same_parts_are_halved_and_training_goes_on_as_if_told(tmp_path, capsys):
    whole = task()

    def loss(model, stems):
        if len(stems) > 1:
            raise torch.OutOfMemoryError
        return whole.loss(model, stems)

    greedy = training.Task(whole.separator, Noise(), loss, whole.validate)
    stage = Finetune(**{**vars(STAGE), "batch": 4})
    training.fit(greedy, stage, Run(tmp_path / "found"), 0, COMPUTE, 0, "test")
    said = re.findall(r"finetune: \d.*", capsys.readouterr().err)
    assert said == [
        f"finetune: {had} examples at a time do not fit GPU memory: finetune.accumulate={parts}"
        for had, parts in ((4, 2), (2, 4))
    ]
    told = Finetune(**{**vars(stage), "accumulate": 4})
    training.fit(task(), told, Run(tmp_path / "told"), 0, COMPUTE, 0, "test")
    assert Run(tmp_path / "found").weights.read_bytes() == Run(tmp_path / "told").weights.read_bytes()


def test_one_example_too_much_or_several_processes_are_one_line():
    with pytest.raises(UserError, match=r"^finetune: .* with one example: set compute\.recompute=true"):
        memory.halved(Finetune(batch=4, accumulate=4), 4, 1)
    with pytest.raises(UserError, match=r"16 examples at a time: set finetune\.accumulate=8 .* resumes"):
        memory.halved(Finetune(batch=64), 16, 4)


def test_without_dropout_weights_depend_on_the_parts_by_rounding_alone(tmp_path):
    weights = []
    for parts in (1, 2, 4):
        stage = Finetune(**{**vars(STAGE), "batch": 4, "accumulate": parts})
        separator, _ = train(tmp_path / str(parts), stage, dropout=0.0)
        weights.append(torch.cat([value.flatten() for value in separator.state_dict().values()]))
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=2e-4)


def test_a_validation_that_does_not_fit_is_computed_by_halves():
    seen = []

    def loss(separator, batch):
        seen.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return batch.mean((1, 2, 3))

    batch, separator = torch.stack([Noise()[index] for index in range(5)]), task().separator
    found = training.mean_loss(loss, separator, lambda: [batch])
    assert found == pytest.approx(batch.mean().item(), abs=1e-6) and seen == [5, 3, 2, 1, 2]
    with pytest.raises(UserError, match="ran out in validation with one example"):
        training.mean_loss(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError), separator, lambda: [batch])


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
