"""A protocol is registered before test scores alone; what changes afterwards makes a study exploratory."""

import json

import pytest

from lib.experiments import claim, protocol
from lib.experiments.protocol import CONFIRMATORY, EXPLORATORY, register, status
from lib.store.tables import song_rows, table, write_table
from tests import toys


@pytest.fixture
def study(tmp_path):
    return toys.study(tmp_path, {"pretrain.seeds": [0, 1, 2]})


def score(study, experiment="test"):
    """Write a file of scores as a run leaves it."""
    rows = song_rows("d", [("drums", "uSDR", 1.0)], experiment=experiment)
    write_table(study.results / "runs" / "scratch-0" / f"scores-{experiment}.csv", table(rows))


def test_what_was_registered_before_the_scores_is_confirmatory_and_the_same_bytes_every_time(study):
    assert status(study) == f"{EXPLORATORY}no protocol was registered yet"
    register(study)
    first = (study.results / protocol.FILE).read_bytes()
    score(study)
    register(study)
    assert status(study) == CONFIRMATORY
    (study.results / protocol.FILE).unlink()
    (study.results / "runs" / "scratch-0" / "scores-test.csv").unlink()
    register(study)
    assert (study.results / protocol.FILE).read_bytes() == first
    assert json.loads(first)["profile"]["pretrain.seeds"] == [0, 1, 2]


def test_scores_without_a_protocol_are_exploratory_for_good(study):
    score(study)
    register(study)
    assert not (study.results / protocol.FILE).exists()
    assert status(study) == f"{EXPLORATORY}no protocol was registered before the scores"


@pytest.mark.parametrize("name", protocol.LOOKED_AT)
def test_outputs_that_were_tried_on_test_songs_close_the_protocol(study, name):
    register(study)
    write_table(study.results / "runs" / "pretrain-0" / f"{name}-0.csv", table([]))
    more = study.variant({"probes.seeds": [0, 1, 2]})
    register(more)
    assert status(more).startswith(EXPLORATORY) and status(study) == CONFIRMATORY


def test_validation_scores_do_not_close_the_protocol(study):
    register(study)
    score(study, "validation")
    more = study.variant({"pretrain.seeds": [0, 1, 2, 3]})
    register(more)
    assert status(more) == CONFIRMATORY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pretrain.seeds": [0, 1, 2, 3, 4]}, "2 pre-trainings were added"),
        ({"pretrain.seeds": [0, 2]}, "1 pre-training was removed"),
        ({"finetune.seeds": [0, 1]}, "1 seed was added"),
        ({"finetune.labeled_songs": [1, 2, 3]}, "1 label budget was added"),
        ({"finetune.controls": ["shuffled"]}, "3 arms were removed"),
        ({"probes.seeds": [0, 1, 2]}, "1 seed of the probes was added"),
        ({"ablations.seeds": [0, 1]}, "1 seed of the ablations was added"),
        ({"finetune.learning_rate": 0.5}, "finetune.learning_rate was changed"),
        ({"protocol.smallest_effect": 0.1}, "protocol.smallest_effect was changed"),
    ],
    ids=str,
)
def test_a_design_that_changes_after_the_scores_is_exploratory_and_says_why(study, changes, reason):
    register(study)
    score(study)
    changed = study.variant(changes)
    register(changed)
    assert status(changed) == f"{EXPLORATORY}{reason} after the protocol was registered"
    assert status(study) == CONFIRMATORY


def test_what_changes_no_result_changes_no_protocol(study):
    register(study)
    score(study)
    fields = {"compute.threads": 2, "corpus.workers": 1, "finetune.accumulate": 2, "pretrain.checkpoint_every": 1}
    assert status(study.variant(fields)) == CONFIRMATORY


def test_the_claim_registers_before_it_scores(study, monkeypatch):
    seen = []
    monkeypatch.setattr(claim, "train_in_parallel", lambda jobs: seen.append((study.results / protocol.FILE).exists()))
    monkeypatch.setattr(claim, "named", lambda training: training)
    claim.claim_runs(study)
    assert seen == [True]


def test_where_the_music_lies_is_no_part_of_the_design(study):
    register(study)
    file = study.results / protocol.FILE
    written = json.loads(file.read_text())
    assert not set(protocol.PLACES) & set(written["profile"])
    written["profile"] |= dict.fromkeys(protocol.PLACES, "elsewhere")  # as earlier versions did
    file.write_text(json.dumps(written))
    score(study)
    assert status(study.variant({"corpus.sources_root": "another/folder"})) == CONFIRMATORY
