"""The plain formulation, the peer of the benchmarks, is the same function as the model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import music
from benchmarks.__main__ import main
from benchmarks.cases import compared, row, step, step_sides
from benchmarks.data import cores_to_feed
from benchmarks.intervals import bootstrap, gains
from benchmarks.plain import PlainSeparator, mixit_by_pairs
from benchmarks.timing import medians, rounds
from lib import STEMS
from lib.data import audio
from lib.losses import mixit_loss
from lib.model.published import translate_published
from lib.model.separator import Separator
from lib.store.tables import read_table
from lib.training import mixit


@pytest.mark.parametrize(
    ("size", "front_end"),
    [("compact", {"rate": 8000, "n_fft": 256, "hop": 64, "band_scale": 2.0}), ("tiny", {})],
    ids=["compact at 8 kHz", "tiny at 44.1 kHz"],
)
def test_plain_formulation_is_the_model(size, front_end):
    separator = Separator.from_size(size, 3, seed=1, dropout=0.0, **front_end)
    plain = PlainSeparator(separator)
    generator = torch.Generator().manual_seed(0)
    mixtures = torch.randn(2, 2, 2, 20 * separator.hop, generator=generator)
    estimates, expected = separator(mixtures.sum(1)), plain(mixtures.sum(1))
    torch.testing.assert_close(estimates, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())

    mixit(separator, mixtures).mean().backward()
    mixit_loss(expected, mixtures)[0].mean().backward()
    theirs = translate_published({name: p.grad for name, p in plain.named_parameters()}, separator.masker)
    for name, parameter in separator.masker.named_parameters():
        tolerance = 1e-4 * theirs[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-2, atol=tolerance)


def test_pairs_find_what_gram_matrices_find():
    generator = torch.Generator().manual_seed(0)
    estimates = torch.randn(3, 6, 2, 500, generator=generator, requires_grad=True)
    mixtures = torch.randn(3, 2, 2, 500, generator=generator)
    found = []
    for function in (mixit_loss, mixit_by_pairs):
        loss, assignment = function(estimates, mixtures)
        gradient = torch.autograd.grad(loss.sum(), estimates)[0]
        found.append((loss.detach(), assignment, gradient))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_table_measures_and_saves(tmp_path, capsys, monkeypatch):
    rows = [compared("a", np.array([1.0, 2.0, 1.0]), np.array([3.0, 3.0, 2.0]), "b", ">= 2")]
    monkeypatch.setattr("benchmarks.cases.CASES", {"demo": lambda repeats: rows})
    monkeypatch.setattr("sys.argv", ["benchmarks", "demo", "--json", str(tmp_path / "table.json")])
    assert main() == 0
    saved = json.loads((tmp_path / "table.json").read_text())
    (kept,) = saved["rows"]
    assert kept["load"] >= 0 and kept == {**kept, "case": "demo", "repeats": 5, **rows[0]} and "commit" in kept
    assert (kept["ours"], kept["peer"], kept["ratio"], kept["low"], kept["high"]) == (1.0, 3.0, 2.0, 1.5, 3.0)
    assert "torch" in saved["machine"]
    assert ">= 2" in capsys.readouterr().out


def test_saved_table_keeps_its_other_cases(tmp_path, monkeypatch):
    def measure(case: str, ours: float) -> list[tuple[str, float]]:
        rows = [row("a", ours)]
        monkeypatch.setattr("benchmarks.cases.CASES", {case: lambda repeats: rows})
        monkeypatch.setattr("sys.argv", ["benchmarks", case, "--json", str(tmp_path / "table.json")])
        assert main() == 0
        return [(row["case"], row["ours"]) for row in json.loads((tmp_path / "table.json").read_text())["rows"]]

    measure("scores", 1.0)
    assert measure("demo", 2.0) == [("demo", 2.0), ("scores", 1.0)]
    assert measure("scores", 3.0) == [("demo", 2.0), ("scores", 3.0)]


@pytest.mark.parametrize("content", ["{", "[]", '{"machine": "an abacus", "rows": []}'])
def test_another_file_is_refused_and_stays(tmp_path, capsys, monkeypatch, content):
    file = tmp_path / "table.json"
    file.write_text(content)
    monkeypatch.setattr("sys.argv", ["benchmarks", "demo", "--json", str(file)])
    with pytest.raises(SystemExit):
        main()
    assert "table.json" in capsys.readouterr().err
    assert file.read_text() == content


def test_unknown_case_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks", "speed"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "unknown case speed" in capsys.readouterr().err


def test_sides_are_called_in_turn_and_medians_taken():
    order, ticks = [], iter([0, 9, 0, 9, 0, 1, 0, 2, 0, 5, 0, 2, 0, 3, 0, 8])
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    times = rounds(sides, 3, lambda: next(ticks))
    assert "".join(order) == "ab" * 4
    assert {name: seconds.tolist() for name, seconds in times.items()} == {"a": [1, 5, 3], "b": [2, 2, 8]}
    assert medians(sides, 1).keys() == {"a", "b"}


@pytest.mark.parametrize("precision", ["float32", "bf16 autocast"])
def test_both_sides_of_a_step_have_one_precision_one_optimiser_and_one_objective(monkeypatch, precision):
    bf16, optimisers, seen = precision != "float32", [], []
    monkeypatch.setattr(torch.optim, "AdamW", lambda *_, **options: optimisers.append(options) or idle_optimiser())

    def objective(module, mixtures):
        seen.append((type(module).__name__, torch.is_autocast_enabled("cpu")))
        return sum(parameter.sum() for parameter in module.parameters()) + mixtures.sum((1, 2, 3))

    monkeypatch.setattr("benchmarks.cases.mixit_objective", objective)
    monkeypatch.setattr("benchmarks.cases.plain_mixit", objective)
    for call in step_sides(nano(), torch.zeros(1, 2, 2, 640), bf16).values():
        call()
    assert optimisers[0] == optimisers[1]
    assert seen == [("Separator", bf16), ("PlainSeparator", bf16)]


def nano() -> Separator:
    return Separator.from_size("nano", 4, rate=8000, n_fft=256, hop=64, band_scale=4.0)


def idle_optimiser() -> SimpleNamespace:
    return SimpleNamespace(step=lambda: None, zero_grad=lambda: None)


def test_a_step_is_measured_beside_its_peer_and_beside_the_machine():
    peer, rate = step("a step", lambda: (nano(), torch.randn(1, 2, 2, 640)))(1)[:2]
    assert peer["peer is"] == "plain, float32" and peer["low"] <= peer["ratio"] <= peer["high"]
    assert 0 < rate["ratio"] < 1 and rate["unit"] == "GFLOP/s" and rate["ratio"] == rate["ours"] / rate["peer"]


def test_the_bootstrap_is_that_of_pretrainings_and_songs():
    generator = np.random.default_rng(0)
    values = gains((0.2, 0.2, 0.3), 12, generator)
    assert values.shape == (12, 24)
    low, high = bootstrap(values, generator)
    rows, columns = (np.random.default_rng(1).integers(n, size=(4000, n)) for n in values.shape)
    means = [values[np.ix_(row, column)].mean() for row, column in zip(rows, columns, strict=True)]
    assert [low, high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.03)
    assert bootstrap(np.full((3, 24), 0.5), generator) == pytest.approx((0.5, 0.5))


def test_cores_that_feed_a_gpu_decode_two_crops_a_mixture():
    assert [cores_to_feed(rate, 50.0) for rate in (1, 25, 26, 100)] == [1, 1, 2, 4]


def test_music_that_is_there_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(music, "FOLDER", tmp_path)
    monkeypatch.setattr(music, "SONGS", 1)
    (tmp_path / "figures").mkdir()
    for stem in STEMS:
        path = tmp_path / "data" / "mdb" / "Rock" / f"{stem}.wav"
        audio.write(path, np.random.default_rng(0).normal(0, 0.1, (2, 12 * 16000)).astype(np.float32), 16000)
    (tmp_path / "data" / "mdb" / "pieces.csv").write_text("piece,seconds,left_out\nRock,12.0,\nJazz,,bleed\n")
    songs = [f"corpus.rendered.{kind}_songs=1" for kind in ("train", "validation", "test")]
    places = [f"corpus.sources_root={tmp_path / 'data'}", "corpus.arranged.midi=[nowhere]"]
    assert music.main([*songs, *places, "corpus.rendered.song_seconds=4.0"]) == 0
    real, sources, times = (
        read_table(tmp_path / "tables" / f"{name}.csv") for name in ("how_real", "sources", "music")
    )
    assert set(zip(real["corpus"], real["songs"], strict=True)) == {("composed", 3), ("recorded, mdb", 1)}
    assert sources.iloc[0].to_dict() == {"source": "mdb", "pieces": 1, "hours": 0.003333, "left_out": 1}
    assert (times["value"] > 0).all() and len(times) == 3
    assert (tmp_path / "figures" / "how_real.png").is_file()
