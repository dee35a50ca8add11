"""The power of the crossed test: from validation songs alone, right where it is known, and what is missing is named."""

import numpy as np
import pytest

from lib import UserError
from lib.arms import Finetuning
from lib.experiments import evaluate, power
from lib.experiments.power import Spread, components, simulated
from lib.store.tables import song_rows, table, write_table
from tests import toys


def test_components_are_those_that_were_put_in():
    draws = np.random.default_rng(0)
    values = draws.normal(0, 0.3, (400, 1)) + draws.normal(0, 0.5, 300) + draws.normal(0, 0.2, (400, 300))
    assert np.sqrt(components(values)) == pytest.approx([0.3, 0.5, 0.2], rel=0.1)


def test_power_is_the_level_without_an_effect_and_grows_with_it():
    spread = Spread(0.01, 0.04, 0.01, "")
    none, some, more = (simulated(spread, effect, 6, 24, 0.05) for effect in (0.0, 0.15, 0.3))
    assert none < 0.05 and none < some < more and more > 0.95
    assert simulated(spread, 0.15, 3, 24, 0.05) < some < simulated(spread, 0.15, 24, 48, 0.05)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Runs that count as finished, with planted scores: pre-trained 1 dB above scratch, nothing of test songs read."""
    study = toys.study(
        tmp_path, {"finetune.seeds": [0, 1, 2], "pretrain.seeds": [0, 1, 2], "finetune.labeled_songs": [1]}
    )
    draws = np.random.default_rng(0)
    for training in power.compared(study):
        run = training.run.begin()
        run.finish(weights="none", steps=1, seconds=1.0, best_validation_loss=0.0)
        above = training.arm != "scratch"
        rows = [
            row
            for song in ("a", "b", "c", "d")
            for row in song_rows(
                song,
                [("drums", metric, above + draws.normal()) for metric in ("uSDR", "cSDR")],
                experiment="validation",
            )
        ]
        songs = [song for _, song in evaluate.songs(study, "validation")]
        write_table(evaluate._path(run, "scores", evaluate._identity(study, songs)), table(rows))
        tests = [song for _, song in evaluate.songs(study, "test")]
        evaluate._path(run, "scores", evaluate._identity(study, tests)).write_text("a test score that nobody may read")
    (study.results / "tables").mkdir(exist_ok=True)
    (study.results / "tables" / "scores.csv").write_text("nor this")
    return study


def test_power_reads_validation_scores_alone(study, monkeypatch):
    monkeypatch.setattr(power, "DRAWS", 20)
    monkeypatch.setattr(power, "PRETRAININGS", (2, 3))
    found = power.power(study)
    assert found["measured_on"].iloc[0] == "uSDR of 4 validation songs, 3 seeds"
    assert set(found["pretrainings"]) == {2, 3} and found["power"].between(0, 1).all()
    said = power.sentence(study, found)
    assert "its 3 reach" in said and said.endswith(("suffice", "do not suffice"))


def test_runs_that_are_missing_are_named(tmp_path):
    with pytest.raises(UserError, match=r"--make trains .*: 8 runs, the first by python -m lib\.pipeline\.train"):
        power.power(toys.study(tmp_path, {"finetune.seeds": [0, 1]}))


def test_nothing_is_trained_to_look_whether_scores_are_known(tmp_path):
    study = toys.study(tmp_path)
    assert evaluate.known_scores(Finetuning(study, "scratch", 0, 1), "validation") is None
    assert not list(study.results.glob("runs/scratch-*"))
