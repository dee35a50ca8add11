"""What runs on a GPU, run without one: on fake tensors, which have a device, a shape and a type but no values.

Every published size is there in its width, with one of its blocks, which are alike; the smallest with all 62 bands.
"""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import counted
from benchmarks.counted import CROP, GPU, PUBLISHED, STAGES
from lib import separate, training
from lib.machine import devices, memory
from lib.model.locoformer import SIZES
from lib.model.separator import Separator
from lib.profile.fields import Finetune
from tests import toys


@pytest.fixture(params=PUBLISHED)
def size(request):
    return replace(SIZES[request.param], blocks=1)


@pytest.fixture
def no_values(monkeypatch):
    """Numbers of fake tensors are zero, and a GPU's random state is left alone."""
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: 0.0)
    monkeypatch.setattr(torch.random, "fork_rng", lambda *_, **__: contextlib.nullcontext())


def on_gpu(size, sources: int, recompute: bool = False) -> Separator:
    whole = size.features == SIZES[PUBLISHED[0]].features
    with GPU:
        separator = Separator(size, sources, band_scale=1.0 if whole else 8.0)
    separator.masker.recompute = recompute
    return separator


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_step_and_validation_of_every_size_stay_on_the_device_and_in_their_types(size, stage, no_values):
    sources, signals, objective = STAGES[stage]
    with counted.imagined():
        separator = on_gpu(size, sources, recompute=stage == "finetune")
        task = training.Task(separator, [], objective, lambda separator: 0.0)
        optimiser = torch.optim.AdamW(task.parameters(), fused=True)
        fabric = SimpleNamespace(device=GPU, world_size=1, to_device=lambda batch: batch.to(GPU))
        fabric.no_backward_sync = lambda model, enabled: contextlib.nullcontext()
        fabric.backward = counted.backward
        given = torch.empty(2, signals, 2, CROP)  # as a data loader gives it, in the host's memory
        settings = Finetune(batch=2, accumulate=2)
        assert training.train_step(fabric, separator, optimiser, task, settings, given, 1e-3, 0) == (0.0, 0.0, "")
        assert len(optimiser.state) == len(list(separator.parameters()))
        with torch.inference_mode():
            assert training.mean_loss(objective, separator.eval(), lambda: [given]) == 0.0


def test_songs_are_separated_on_the_device(size):
    with counted.imagined(bf16=False):
        blocks = separate.separate(on_gpu(size, 4), torch.empty(2, 20 * 44100), 12 * 44100, 6 * 44100, 2, bf16=True)
    assert blocks.shape == (4, 2, 20 * 44100) and (blocks.device.type, blocks.dtype) == ("cpu", torch.float32)


def test_the_masker_compiles_to_one_graph_on_a_gpu(size):
    graphs = []
    with counted.imagined():
        masker = on_gpu(size, 12).masker
        kept = torch.compile(masker.forward, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
        with GPU:
            spectrum = torch.empty(1, 2, CROP // 512, 1025, dtype=torch.complex64)
        masks = kept(spectrum)
    assert len(graphs) == 1 and [mask.dtype for mask in masks] == [torch.float32] * len(masker.groups)


def test_the_table_of_memory_is_that_of_the_code():
    row = memory.counted("small", "finetune", 4, recompute=False)
    held = counted.step("small", "finetune", 1).peak / 2**30
    assert memory.step_gib(row, 1, CROP / 44100) == pytest.approx(held, rel=1e-3), "run python -m benchmarks.counted"


def test_what_examples_hold_adds_up():
    with open(memory.STEPS, encoding="utf-8") as file:
        rows = list(memory.csv.DictReader(file))
    assert {(row["size"], row["stage"]) for row in rows} == {(size, stage) for size in PUBLISHED for stage in STAGES}
    for row in rows:
        whole = memory.step_gib(row, int(row["examples"]), float(row["crop_seconds"]))
        assert whole == pytest.approx(float(row["peak_gib"]), rel=0.02)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_backward_pass_of_the_count_is_torchs_own(recompute):
    gradients = []
    for backward in (torch.Tensor.backward, counted.backward):
        separator = Separator.from_size("nano", 3, 0, rate=8000, n_fft=256, hop=64, band_scale=4.0, dropout=0.0)
        separator.masker.recompute = recompute
        mixtures = torch.randn(2, 2, 2, 64 * 20, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16):
            loss = training.mixit(separator, mixtures).mean()
        backward(loss)
        gradients.append([weight.grad for weight in separator.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-3 * one.abs().max().item())


def test_a_run_says_its_card_the_memory_it_held_there_itself_and_the_parts_of_a_step(tmp_path, monkeypatch):
    held = {"peak": 70 * 2**30}  # by the run before, in the same process

    def take(model, stems):
        held["peak"] = max(held["peak"], len(stems) * 2**30)
        return task.loss(model, stems)

    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: held.update(peak=0))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: held["peak"])
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a card")
    monkeypatch.setattr(training, "forget_peak", lambda device: devices.forget_peak(GPU))
    monkeypatch.setattr(training, "gpu", lambda device, parts: devices.gpu(GPU, parts))
    task, stage = toys.task(), replace(toys.STAGE, batch=4, accumulate=2)
    run = training.Run(tmp_path / "run")
    training.fit(replace(task, loss=take), stage, run, 0, toys.COMPUTE, 0, "test")
    said = {"gpu": "a card", "peak_gpu_memory_mib": 2 * 1024, "accumulate": 2}
    assert {key: run.facts().get(key) for key in said} == said
    assert devices.gpu(torch.device("cpu"), 2) == {}
