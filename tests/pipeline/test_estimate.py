"""A plan counts what the study would run, costs no training of it, and leaves no trace."""

import pytest

from lib import UserError, arms
from lib.pipeline import estimate, matrix
from lib.profile.load import load
from lib.study import Study

MANY = ["pretrain.steps=10", "pretrain.seeds=[0,1]", "finetune.labeled_songs=[1]", "finetune.transfers=[sliced]"]
FEW = ["probes.redealt=false", "probes.same_song=false", "regime.learning_rates=[]", "regime.pretrain_steps=[]"]
NO_MORE = ["finetune.controls=[]", "ablations.seeds=[0]"]


@pytest.fixture
def profile(tmp_path):
    axes = "ablations.axes=[{name: x, base: a, levels: [{label: a}, {label: b, set: {model.size: compact}}]}]"
    return load("smoke", [f"results={tmp_path / 'none'}", *MANY, *FEW, *NO_MORE, "ablations.transfer=sliced", axes])


def test_it_counts_every_run_once(profile):
    table = estimate.table(profile, 1.0).set_index(["stage", "arm", "size"])
    assert table["runs"].to_dict() == {
        ("pretrain", "MixIT", "tiny"): 2,
        ("pretrain", "MixIT", "compact"): 1,
        ("finetune", "scratch", "tiny"): 2,
        ("finetune", "scratch", "compact"): 1,
        ("finetune", "sliced", "tiny"): 2,
        ("finetune", "sliced", "compact"): 1,
    }
    mixit = table.loc[("pretrain", "MixIT", "tiny")]
    assert (mixit["steps"], mixit["examples"]) == (20, 40)
    assert mixit["audio_hours"] == pytest.approx(40 * profile.pretrain.crop_seconds / 3600)
    assert mixit["petaflop"] == pytest.approx(40 * arms.example_flops(Study(profile), "pretrain") / 1e15)
    assert mixit["hours"] == pytest.approx(mixit["petaflop"] * 1000 / 3600)


def test_equal_compute_counts_its_longer_schedule(profile):
    controls = ["equal compute", "pre-trained until stalled"]
    study = matrix.Outline(profile).variant({"finetune.controls": controls, "finetune.patience": 1})
    table = estimate.table(study.profile, 1.0).set_index("arm")
    for arm in controls:
        runs, steps = table.loc[arm, ["runs", "steps"]]
        assert steps / runs == profile.finetune.steps + arms.equivalent_steps(study)


def test_it_measures_here_and_writes_nothing(profile, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "STEPS", 2)
    monkeypatch.chdir(tmp_path)
    assert estimate.main(["smoke", f"results={tmp_path / 'none'}", *FEW, "corpus.unlabeled=nowhere"]) == 0
    shown = capsys.readouterr().out
    assert "2 steps measured here" in shown and "CPU hours of training" in shown and "GB in" in shown
    assert list(tmp_path.iterdir()) == []


def test_it_plans_for_a_device_that_was_measured(capsys):
    device = estimate.read_table(estimate.THROUGHPUT)["device"].iloc[0]
    assert estimate.main(["smoke", "--device", device]) == 0
    assert f"on {device} at" in capsys.readouterr().out
    assert estimate.main(["smoke", "--device", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("--device 'nothing': not measured yet; use one of ")


def test_the_nearest_size_that_was_measured_counts(tmp_path, monkeypatch):
    file = tmp_path / "throughput.csv"
    file.write_text("device,kind,size,teraflops\na,GPU,small,1\na,GPU,large,3\nb,CPU,small,9\n")
    monkeypatch.setattr(estimate, "THROUGHPUT", file)
    assert estimate.recorded("a", "tiny") == ("GPU", 1) and estimate.recorded("a", "large") == ("GPU", 3)
    with pytest.raises(UserError, match="'a', 'b'"):
        estimate.recorded("c", "small")
