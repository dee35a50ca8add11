"""The card beside a final model says what it is, where it comes from, what it scores and what may be done with it."""

import pytest

from lib.experiments import evaluate
from lib.profile.load import load
from lib.report import card
from lib.study import SCRATCH, Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    changes = ["pretrain.steps=2", "finetune.steps=2", "corpus.rendered.unlabeled_songs=4", "pretrain.seeds=[0]"]
    return Study(load("smoke", [f"results={folder}", *changes]))


def written(study, how):
    run = study.supervised(how, 0, 1)
    scores = evaluate.scores(study, run, how, 0, 1)
    return card.write(study, run, how, 0, 1, scores), scores, run


def test_a_card_has_data_recipe_scores_and_licence(study):
    path, scores, run = written(study, "sliced")
    text = path.read_text("utf-8")
    assert path == run.folder / "README.md"
    for part in ("1 training songs of `rendered`", "pre-trained on: `rendered`", "N = 4: 2 steps of 2", "size tiny"):
        assert part in text
    test = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR")]
    for stem in ("bass", "vocals"):
        value = test[test["stem"] == stem]["value"].mean()
        assert any(line.startswith(f"| {stem} |") and f" {value:.2f} " in line for line in text.splitlines())
    assert "TimGM6mb (GPL-2.0)" in text and run.facts()["weights"][:12] in text
    before = path.stat().st_mtime_ns
    assert written(study, "sliced")[0].stat().st_mtime_ns == before


def test_a_model_from_scratch_names_no_unlabelled_music(study):
    text = written(study, SCRATCH)[0].read_text("utf-8")
    assert "pre-trained" not in text and "MixIT (" not in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rendered", "GPL-2.0"),
        ("data/musdb18hq", "not for commercial use"),
        ("fma:large", "tracks.csv"),
        ("data/fma", "tracks.csv"),
        ("/home/me/my music", "not known here"),
    ],
)
def test_licences_are_those_of_the_music(source, expected):
    assert expected in card.licence(source)
