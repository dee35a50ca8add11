"""A plan counts what the study would run, costs no training of it, and leaves no trace."""

import re

import pytest

from lib import UserError, arms
from lib.arms import Finetuning, Pretraining
from lib.pipeline import estimate, matrix
from lib.profile.load import load
from lib.study import Study
from tests import toys

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
    assert "2 steps measured here" in shown and "of training on one CPU" in shown and "GB in" in shown
    assert not re.search(r"\b0(\.0+)? (s|min|h|[GTP]FLOP)\b", shown) and "finished: none" in shown
    assert list(tmp_path.iterdir()) == []


def test_it_plans_for_a_device_that_was_measured(capsys):
    device = estimate.read_table(estimate.THROUGHPUT)["device"].iloc[0]
    assert estimate.main(["smoke", "--device", device]) == 0
    assert f", {device}, at" in capsys.readouterr().out
    assert estimate.main(["smoke", "--device", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("--device 'nothing': not measured yet; use one of ")


def test_the_nearest_size_that_was_measured_counts(tmp_path, monkeypatch):
    file = tmp_path / "throughput.csv"
    file.write_text("device,kind,size,teraflops\na,GPU,small,1\na,GPU,large,3\nb,CPU,small,9\n")
    monkeypatch.setattr(estimate, "THROUGHPUT", file)
    assert estimate.recorded("a", "tiny") == ("GPU", 1) and estimate.recorded("a", "large") == ("GPU", 3)
    with pytest.raises(UserError, match="'a', 'b'"):
        estimate.recorded("c", "small")


def test_runs_that_are_finished_are_named_and_cost_nothing_more(tmp_path):
    study = toys.study(tmp_path, {"pretrain.seeds": [0, 1], "finetune.labeled_songs": [1, 2]})
    jobs = matrix.runs(study.profile)
    assert estimate.finished(jobs) == {}
    done = [Pretraining(study, 0).run, Finetuning(study, "group", 0, 2).run]
    for run in done:
        run.begin()
        run.finish()
    there = estimate.finished(jobs)
    assert sorted(there.values()) == sorted(run.name for run in done)
    kinds = [jobs[run].training for run in there]
    assert {(kind.stage, kind.seed) for kind in kinds} == {("pretrain", 0), ("finetune", 0)}
    table = estimate.table(study.profile, 1.0)
    left = sum(job.training.schedule.steps for run, job in jobs.items() if run not in there)
    assert (table["finished"].sum(), table["steps"].sum()) == (2, left)
    assert f"finished: {done[0].name}" in estimate.text(study.profile, table, "x", "CPU", 1.0, "said")


def test_a_plan_for_gpus_says_what_a_step_holds_and_what_fits_and_what_one_pretraining_leaves_open():
    profile = load("paper", ["ablations.axes=[]"])
    table = estimate.table(profile, 100.0)
    held = estimate.steps_in_memory(profile, table)
    assert held["size"].tolist() == ["medium"] * 4 and held["recompute"].tolist() == [False, True] * 2
    plain, recomputed = held.iloc[0], held.iloc[1]
    assert recomputed["GiB with 8"] < plain["GiB with 8"] < plain["GiB with 16"]
    assert 0 < plain["fit 24 GB"] < plain["fit 40 GB"] < plain["fit 80 GB"] < recomputed["fit 80 GB"]
    text = estimate.text(profile, table, "a card", "GPU", 100.0, "assumed")
    assert "fit 80 GB" in text and "on 8 at once" in text
    alone = table["petaflop"].sum()  # one pre-training, one model from scratch, one that starts from the pre-training
    assert "pretrain.seeds: 1: with fewer than 3" in text and f"take {2 * alone:,.0f} PFLOP more" in text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.5, "0.5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (4e5, "4.63 days")]
)
def test_durations_have_the_unit_that_suits_them(seconds, shown):
    assert estimate._duration(seconds) == shown
