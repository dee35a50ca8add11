"""Folds: every song is tested once, by models that never saw it, whatever the songs and their order."""

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import STEMS, UserError
from lib.arms import Finetuning, Pretraining
from lib.data import audio, folds
from lib.data.tracks import Track
from lib.experiments import claim, evaluate, outputs, probes, records
from lib.mixing import Crops, StemMixtures
from lib.pipeline import matrix
from tests import toys

SONGS = ("pop/a", "pop/b", "rock/a", "rock/c", "rock/d", "e")


def tracks(sources):
    return [
        Track(f"{source}/{i}" if source else str(i), "test", 8000, 1, {}, f"{source} {i}")
        for source, count in sources.items()
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "validating"), [(2, [1]), (3, [2]), (4, [3]), (5, [3]), (8, [3, 7]), (16, [3, 7, 11, 15])]
)
def test_a_quarter_of_a_budget_validates_and_larger_budgets_contain_smaller_ones(count, validating):
    songs = tracks({"": count})
    training, held_out = folds.of_budget(songs)
    assert [song.name for song in held_out] == [str(i) for i in validating]
    assert [song.name for song in training] == [str(i) for i in range(count) if i not in validating]
    assert {song.split for song in held_out} == {"validation"}


def test_a_single_song_is_cut_and_no_frame_is_in_both_parts(tmp_path):
    frames = np.arange(1, 10_001, dtype=np.float32) / 10_001
    audio.write(tmp_path / "song.wav", np.stack([frames, frames]), 1000)
    song = Track("song", "train", 1000, 10_000, {"mixture": tmp_path / "song.wav"}, "d")
    (training,), (held_out,) = folds.of_budget([song])
    assert (training.seconds, held_out.seconds) == (7.5, 2.5)
    assert len({song.digest, training.digest, held_out.digest}) == 3
    whole, parts = song.mixture(), (training.mixture(), held_out.mixture())
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    beyond = training.read("mixture", 7.0, 1.0)
    assert np.array_equal(beyond[:, :500], whole[:, 7000:7500]) and not beyond[:, 500:].any()
    assert not training.read("mixture", 9.0, 1.0).any()
    resampled = training.read("mixture", 7.0, 1.0, 500)
    assert resampled.shape == (2, 500) and resampled[:, :240].all() and not resampled[:, 260:].any()


counts = st.dictionaries(st.sampled_from(["", "a", "b", "c d"]), st.integers(1, 12), min_size=1)


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(2, 6), st.integers(1, 5), st.integers(0, 3), st.randoms())
def test_every_song_is_tested_once_and_groups_are_balanced(sources, count, validation, seed, random):
    songs = tracks(sources)
    if len(songs) < count or len(songs) - -(-len(songs) // count) < 2:
        with pytest.raises(UserError, match=r"corpus\.folds"):
            folds.groups(songs, count, seed)
        return
    views = [folds.of_fold(songs, fold, count, validation, seed) for fold in range(count)]
    names = [song.name for song in songs]
    assert all([song.name for song in view] == names for view in views)
    by_split = [{split: [s.name for s in view if s.split == split] for split in ("test", "validation", "train")}
                for view in views]  # fmt: skip
    assert Counter(name for split in by_split for name in split["test"]) == Counter(names)
    for split in by_split:
        assert len(split["train"]) and len(split["validation"]) == min(validation, len(names) - len(split["test"]) - 1)
        assert sorted(name for some in split.values() for name in some) == sorted(names)
    for source in sources:
        tested = [sum(name.rpartition("/")[0] == source for name in split["test"]) for split in by_split]
        assert max(tested) - min(tested) <= 1
    sizes = [len(split["test"]) for split in by_split]
    assert max(sizes) - min(sizes) <= 1
    if validation <= min(sizes):
        assert max(Counter(name for split in by_split for name in split["validation"]).values()) == 1
    shuffled = random.sample(songs, len(songs))
    for fold, view in enumerate(views):
        again = folds.of_fold(shuffled, fold, count, validation, seed)
        assert {s.name: s.split for s in again} == {s.name: s.split for s in view}


def test_another_seed_gives_other_folds():
    songs = tracks({"a": 8, "b": 8})
    assert folds.of_fold(songs, 0, 4, 2, 0) == folds.of_fold(songs, 0, 4, 2, 0) != folds.of_fold(songs, 0, 4, 2, 1)


@pytest.fixture
def study(tmp_path):
    """Six labelled songs of noise in three sources, four unlabelled ones, two folds."""
    for song in SONGS:
        for stem in STEMS:
            audio.write(tmp_path / "songs" / song / f"{stem}.wav", toys.noise(f"{song} {stem}"), toys.RATE)
    changes = {"corpus.labeled": str(tmp_path / "songs"), "corpus.folds": 2, "finetune.labeled_songs": [1]}
    changes |= {
        "finetune.controls": [],
        "finetune.transfers": ["sliced"],
        "probes.seeds": [0],
        "probes.same_song": False,
    }
    return toys.study(tmp_path, changes)


def names(study, split):
    return {song.name for song in study.songs(split)}


def test_a_fold_is_a_view_of_the_study(study):
    first, second = study.folds
    assert names(first, "test") | names(second, "test") == set(SONGS) == names(study, "test")
    assert not names(first, "test") & names(second, "test")
    assert first.folds == [first] and first.variant({"finetune.steps": 3}).fold == 0
    again = pickle.loads(pickle.dumps(Finetuning(second, "scratch", 0, 1)))
    assert again.study.fold == 1 and again.run.name == Finetuning(second, "scratch", 0, 1).run.name
    with pytest.raises(UserError, match="no train songs"):
        study.songs("train")


def test_a_study_without_folds_is_its_only_fold(tmp_path):
    study = toys.study(tmp_path)
    assert study.folds == [study] and Finetuning(study, "scratch", 0, 1).arguments[-2:] == ("--songs", "1")


def test_folds_share_pretrainings_and_have_supervised_runs_of_their_own(study):
    first, second = study.folds
    assert Pretraining(first, 0).run == Pretraining(second, 0).run == Pretraining(study, 0).run
    runs = [Finetuning(fold, arm, 0, 1).run for fold in study.folds for arm in ("scratch", "sliced")]
    assert len(set(runs)) == 4
    assert Finetuning(second, "scratch", 0, 1).arguments[-2:] == ("--fold", "1")
    for whole in (study, matrix.Outline(study.profile)):
        planned = claim.claim_trainings(whole)
        assert len({training.run for training in planned}) == len({t.arguments for t in planned}) == 4


def test_a_leak_between_folds_is_caught(study):
    first, second = study.folds
    learned = [song for song in first.songs("train") if song.name in names(second, "test")]
    assert learned, "what one fold learns from, the other tests"
    planted = second.songs("train") + [song for song in second.labeled if song.name == learned[0].name]
    with pytest.raises(ValueError, match="leak"):
        StemMixtures(Crops(planted, second.stem_segments(planted), 8000, 8000), 0, (0, 0), 0.0)
    with pytest.raises(ValueError, match="leak"):
        outputs.choices(second, study.new_separator(4, 0), planted)


def test_songs_that_are_tested_are_no_unlabelled_music(study, tmp_path):
    folder = Path(study.profile.corpus.unlabeled)
    shutil.copy(tmp_path / "songs" / "rock" / "a" / "bass.wav", folder / "renamed.wav")
    before = Pretraining(study, 0).run.name
    again = study.variant({"corpus.workers": 1})
    assert Pretraining(again, 0).run.name == before and len(again.unlabeled) == 4
    skipped = again.read("skipped")
    assert skipped["reason"].tolist() == ["belongs to 'rock/a', which is tested"]
    with pytest.raises(UserError, match="nothing usable"):
        study.variant({"corpus.unlabeled": str(tmp_path / "songs")}).unlabeled  # noqa: B018


def test_a_song_that_is_there_twice_is_used_once(study, tmp_path):
    shutil.copytree(tmp_path / "songs" / "rock" / "a", tmp_path / "songs" / "rock" / "z")
    again = study.variant({"corpus.workers": 1})
    assert {song.name for song in again.labeled} == set(SONGS)
    assert again.read("skipped")["reason"].tolist() == ["the same files as 'rock/a'"]


def test_a_folder_without_splits_needs_folds(study):
    with pytest.raises(UserError, match=r"no folders train and test: make them, or set corpus\.folds"):
        study.variant({"corpus.folds": 0}).labeled  # noqa: B018
    with pytest.raises(UserError, match=r"corpus\.folds must be 0, or 2 or more"):
        study.variant({"corpus.folds": 1})


def test_a_study_in_folds_from_songs_to_scores(study):
    table = claim.scores(study)
    test = table[(table["experiment"] == "test") & (table["metric"] == "uSDR") & table["seed"].notna()]
    for _, rows in test.groupby("method"):
        assert Counter(rows["song"]) == dict.fromkeys(SONGS, len(STEMS))
        for fold, part in rows.groupby("fold"):
            assert set(part["song"]) == names(study.folds[fold], "test")
    assert np.isfinite(test["value"]).all()
    real = table[(table["experiment"] == "real song") & table["seed"].notna()]
    assert set(real["fold"]) == {0} and not real.duplicated(["method", "stem", "metric"]).any()
    records.cost(study, claim.claim_trainings(study))
    assert set(claim.claim(study)["n_songs"]) == {len(SONGS)}
    found = probes.probe(study)
    rows = found[(found["experiment"] == "test") & (found["method"] == outputs.CHOSEN) & (found["stem"] == "bass")]
    assert sorted(rows["song"]) == sorted(SONGS) and set(rows["fold"]) == {0, 1}
    gains = probes.correlation(study)
    rows = gains[(gains["method"] == outputs.CHOSEN) & (gains["stem"] == "bass") & (gains["tested"] == probes.COMPOSED)]
    assert sorted(rows["song"]) == sorted(SONGS)


def test_other_songs_can_be_tested_than_those_that_teach(study, tmp_path):
    """The domain gap: labels of one corpus, tests on another; scores carry no fold, and runs keep their names."""
    apart = toys.study(tmp_path / "apart", {"corpus.tested": str(tmp_path / "songs")})
    assert names(apart, "test") == set(SONGS) and names(apart, "train") == {"a", "b"}
    assert names(apart, "validation") == {"c"}
    own = toys.study(tmp_path / "apart", results="own")
    assert Finetuning(apart, "scratch", 0, 1).run.name == Finetuning(own, "scratch", 0, 1).run.name
    assert set(evaluate.baselines(apart)["song"]) >= set(SONGS)
    shutil.copy(tmp_path / "songs" / "rock" / "a" / "bass.wav", tmp_path / "apart" / "music" / "unlabelled" / "x.wav")
    again = apart.variant({"corpus.workers": 1})
    assert len(again.unlabeled) == 4 and "is tested" in " ".join(again.read("skipped")["reason"])
    with pytest.raises(UserError, match=r"corpus\.folds must be 0 with corpus\.tested"):
        apart.variant({"corpus.folds": 2})
    for value in ("debian", "rendered", "fma:small"):
        with pytest.raises(UserError, match=r"corpus\.tested cannot be"):
            apart.variant({"corpus.tested": value})


def test_a_song_that_is_tested_is_not_learned_from_where_it_is_labelled_too(study, tmp_path):
    apart = toys.study(tmp_path / "apart", {"corpus.tested": str(tmp_path / "songs")})
    twin = apart.songs("train")[0]
    shutil.copytree(twin.files["drums"].parent, tmp_path / "songs" / "rock" / "again")
    apart = apart.variant({"corpus.workers": 1})
    assert "rock/again" in names(apart, "test") and twin.name not in names(apart, "train")
    assert "tested, as 'rock/again'" in " ".join(apart.read("skipped")["reason"])


def test_sources_of_songs_with_stems_are_joined_and_named(study, tmp_path):
    for song in ("x", "y"):
        shutil.copytree(tmp_path / "songs" / "rock" / "a", tmp_path / "more" / song)
        audio.write(tmp_path / "more" / song / "drums.wav", toys.noise(f"{song} drums"), toys.RATE)
    joined = study.variant({"corpus.labeled": f"{tmp_path / 'songs'} + {tmp_path / 'more'}"})
    assert names(joined, "test") == {f"songs/{song}" for song in SONGS} | {"more/x", "more/y"}
    first, second = (names(fold, "test") for fold in joined.folds)
    assert len(first & {"more/x", "more/y"}) == len(second & {"more/x", "more/y"}) == 1
    with pytest.raises(UserError, match=r"corpus\.labeled"):
        study.variant({"corpus.labeled": f"{tmp_path / 'songs'} + debian"})


def test_songs_that_alternate_hold_as_many_of_each_source_from_the_first_on():
    songs = [Track(name, "test", 8000, 8000, {}, name) for name in ("a/1", "a/2", "a/3", "a/4", "b/1", "b/2", "c")]
    found = [song.name for song in folds.alternating(songs)]
    assert found == ["a/1", "b/1", "a/2", "c", "a/3", "b/2", "a/4"] and sorted(found) == sorted(s.name for s in songs)
    plain = songs[:4]
    assert folds.alternating(plain) == plain
