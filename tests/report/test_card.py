"""The card beside a final model says what it is, where it comes from, what it scores and what may be done with it."""

from types import SimpleNamespace

import pytest

from lib.profile.load import load
from lib.report import card
from lib.store.runs import Run
from lib.store.tables import song_rows, table


@pytest.fixture
def written(tmp_path):
    """Write the card of a finished run of profile ``smoke`` that starts from a transfer, or from scratch with ""."""

    def write(transfer: str) -> str:
        profile, run = load("smoke", ["pretrain.steps=2"]), Run.of(tmp_path, "finetune", {}).begin()
        facts = {"weights": "0123456789abcdef", "steps": 2, "seconds": 1.0, "best_validation_loss": 0.0}
        run.finish(**facts, averaged_steps=[1, 2])
        study, schedule = SimpleNamespace(profile=profile), profile.finetune
        arm = {"arm": transfer or "scratch", "transfer": transfer, "seed": 0, "songs": 1}
        training = SimpleNamespace(study=study, run=run, schedule=schedule, **arm)
        songs = {"a": (1.0, -6.0), "b": (1.5, -5.0)}
        rows = [(("bass", "uSDR", bass), ("vocals", "uSDR", vocals)) for bass, vocals in songs.values()]
        named = {"experiment": "test", "method": "m", "seed": 0, "labeled_songs": 1}
        rows = [row for song, values in zip(songs, rows, strict=True) for row in song_rows(song, values, **named)]
        path = card.write(training, table(rows))
        assert path == run.folder / "README.md"
        stamp = path.stat().st_mtime_ns
        assert card.write(training, table(rows)).stat().st_mtime_ns == stamp  # what says so already is left alone
        return path.read_text("utf-8")

    return write


def test_a_card_has_data_recipe_scores_and_licence(written):
    text = written("sliced")
    for part in ("1 training songs of `rendered`", "pre-trained on: `rendered`", "N = 4: 2 steps of 2", "size tiny"):
        assert part in text
    assert "| bass | 1.25 |" in text and "| vocals | -5.50 |" in text
    assert "averaged checkpoints: steps 1, 2" in text
    assert "TimGM6mb (GPL-2.0)" in text and "0123456789ab" in text


def test_a_model_from_scratch_names_no_unlabelled_music(written):
    text = written("")
    assert "pre-trained" not in text and "MixIT (" not in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rendered", "GPL-2.0"),
        ("data/musdb18hq", "not for commercial use"),
        ("fma:large", "tracks.csv"),
        ("data/fma", "tracks.csv"),
        ("/home/me/my music", "unknown to this project"),
    ],
)
def test_licences_are_those_of_the_music(source, expected):
    assert expected in card.licence(source)
