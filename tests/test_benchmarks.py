"""The plain formulation, the peer of the benchmarks, is the same function as the model."""

import json

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.data import cores_to_feed
from benchmarks.plain import PlainSeparator, mixit_by_pairs
from benchmarks.timing import Side, medians
from lib.losses import mixit_loss
from lib.model.published import translate_published
from lib.model.separator import Separator
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
    rows = [{"what": "a", "ours": 1.0, "peer": 3.0, "unit": "s", "peer is": "b", "ratio": 3.0, "target": ">= 2"}]
    monkeypatch.setattr("benchmarks.cases.CASES", {"demo": lambda repeats: rows})
    monkeypatch.setattr("sys.argv", ["benchmarks", "demo", "--json", str(tmp_path / "table.json")])
    assert main() == 0
    saved = json.loads((tmp_path / "table.json").read_text())
    assert saved["rows"] == [{"case": "demo", "repeats": 5, **rows[0]}]
    assert "torch" in saved["machine"]
    assert ">= 2" in capsys.readouterr().out


def test_saved_table_keeps_its_other_cases(tmp_path, monkeypatch):
    def measure(case: str, ours: float) -> list[tuple[str, float]]:
        rows = [{"what": "a", "ours": ours, "peer": None, "unit": "s", "peer is": "", "ratio": None, "target": ""}]
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
    order = []
    sides = {name: Side(lambda name=name: order.append(name), keeps) for name, keeps in (("a", True), ("b", False))}
    times = medians(sides, 3)
    assert "".join(order) == "ab" + "aab" * 3
    assert set(times) == {"a", "b"}
    assert all(seconds >= 0 for seconds in times.values())


def test_cores_that_feed_a_gpu_decode_two_crops_a_mixture():
    assert [cores_to_feed(rate, 50.0) for rate in (1, 25, 26, 100)] == [1, 1, 2, 4]
