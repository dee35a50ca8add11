"""No leaks: what is learned, validated, chosen and scored is kept apart, song by song."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import STEMS, finetune, mixing, pretrain
from lib.arms import ARMS, Finetuning, Pretraining
from lib.data import audio, corpora
from lib.data.tracks import Track
from lib.experiments import evaluate, outputs, probes, search
from lib.store.runs import Run
from lib.study import Study
from tests import toys

REGIME = {
    **{"regime.seeds": [0], "regime.learning_rates": [1e-3], "regime.steps": [2], "regime.searched_songs": [1]},
    **{"regime.pretrain_steps": [2], "regime.labeled_songs": [1], "finetune.average_best": 1},
}


@pytest.fixture
def study(tmp_path):
    """A study of noise whose real song is a test song."""
    study = toys.study(tmp_path, REGIME)
    return type("Given", (Study,), {"real_song": study.songs("test")[0]})(study.profile)


@pytest.fixture
def heard(monkeypatch):
    """Within ``heard()``, a set of the splits of all songs whose sound is read."""
    logs, read = [], Track.read

    def logged(track, *arguments, **options):
        for splits in logs:
            splits.add(track.split)
        return read(track, *arguments, **options)

    @contextlib.contextmanager
    def log():
        splits = set()
        logs.append(splits)
        yield splits
        logs.pop()

    monkeypatch.setattr(Track, "read", logged)
    return log


def test_pretraining_learns_from_training_songs_and_validates_on_others(study, heard):
    Pretraining(study, 0).task()  # by then it is stored where songs are silent
    with heard() as validated:  # what it validates on is drawn before it begins
        given = Pretraining(study, 0).task()
    with heard() as learned:
        [given.dataset[index] for index in range(8)]
    with heard() as later:
        given.validate(given.separator)
    assert (learned, validated, later) == ({"train"}, {"validation"}, set())


@pytest.mark.parametrize("validate_on", ["segments", "songs"])
def test_finetuning_learns_from_training_songs_and_validates_on_others(study, heard, validate_on):
    given = Finetuning(study.variant({"finetune.validate_on": validate_on}), "scratch", 0, 2).task()
    with heard() as learned:
        [given.dataset[index] for index in range(8)]
    with heard() as validated:
        given.validate(given.separator)
    assert (learned, validated) == ({"train"}, {"validation"})


@pytest.fixture
def frames(monkeypatch):
    """Within ``frames()``, by file the frames that are read of it."""
    logs, read = [], audio.read

    def logged(path, start=0, count=None, rate=None):
        for log in logs:
            log.setdefault(Path(path), set()).update(range(start, start + count))
        return read(path, start, count, rate)

    monkeypatch.setattr(audio, "read", logged)

    @contextlib.contextmanager
    def log():
        logs.append(read := {})
        yield read
        logs.pop()

    return log


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("validate_on", ["segments", "songs"])
def test_what_validates_of_a_budget_is_neither_learned_nor_anything_else(
    study, frames, monkeypatch, validate_on, count
):
    """Nothing outside of the budget is read, and no frame both trains and chooses."""
    study = study.variant({"finetune.validation_from_budget": True, "finetune.validate_on": validate_on})
    monkeypatch.setattr(Pretraining, "load", lambda training: training.start().eval())
    arm = Finetuning(study, "sliced", 0, count)
    with frames() as learned:
        given = arm.task()
        learned.clear()  # the outputs were chosen, and stem segments looked for
        [given.dataset[index] for index in range(30)]
    with frames() as validated:
        given.validate(given.separator)
    with frames() as chosen:
        arm.start()
    assert learned.keys() == {path for song in study.budget(count) for path in song.files.values()} - (
        set() if count == 1 else validated.keys()
    )
    assert validated.keys() == chosen.keys() and len(validated) == len(STEMS)
    budget = {path for song in study.budget(count) for path in song.files.values()}
    assert learned.keys() | validated.keys() == budget
    assert all(not learned.get(path, set()) & (heard | chosen[path]) for path, heard in validated.items())


def test_labelled_songs_that_are_really_used_are_counted(study):
    assert study.labeled_songs_used(2) == {"training_songs": 2, "validation_songs": 1}
    inside = study.variant({"finetune.validation_from_budget": True})
    assert inside.labeled_songs_used(2) == {"training_songs": 1, "validation_songs": 1}
    assert inside.labeled_songs_used(1) == {"training_songs": 0.75, "validation_songs": 0.25}


@pytest.mark.parametrize("arm", sorted(ARMS))
def test_what_an_arm_starts_from_is_chosen_on_validation_songs_alone(study, monkeypatch, heard, arm):
    monkeypatch.setattr(Pretraining, "load", lambda training: training.start().eval())
    with heard() as splits:
        Finetuning(study, arm, 0, 1).start()
    assert splits <= {"validation"}
    chooses = Finetuning(study, arm, 0, 1).transfer in ("group", "sliced", "frequent")
    assert bool(splits) == chooses


@pytest.fixture
def pretrained(study):
    """An untrained model in place of the pre-trained one."""
    run, model = Run(study.results / "runs" / "pretrain-0").begin(), study.new_separator(len(STEMS), 0).eval()
    return SimpleNamespace(study=study, seed=0, run=run, trained=lambda: run, load=lambda: model)


@pytest.mark.parametrize("measure", ["outputs", "gains", "gains of re-dealt songs"])
def test_outputs_are_chosen_on_validation_songs_before_test_songs_are_heard(
    study, pretrained, monkeypatch, heard, measure
):
    chosen, choose = [], outputs.choices

    def logged(*arguments):
        with heard() as splits:
            found = choose(*arguments)
        chosen.append(splits)
        return found

    monkeypatch.setattr(outputs, "choices", logged)
    with heard() as splits:
        if measure == "outputs":
            outputs.outputs(pretrained)
        else:
            kind = probes.REDEALT if "re-dealt" in measure else probes.COMPOSED
            outputs.gains(pretrained, *probes._tested(study)[kind])
    assert chosen == [{"validation"}] and splits == {"validation", "test"}


def test_schedules_are_chosen_and_the_regime_is_mapped_without_test_songs(study, heard):
    with heard() as splits:
        search.search(study)
        search.regime_map(study)
        outputs.before_and_after(study)
    assert splits == {"train", "validation"}


def test_scores_are_those_of_the_split_that_is_named(study, heard):
    untrained = SimpleNamespace(study=study, method="m", seed=0, songs=1, load=lambda: study.new_separator(4, 0))
    untrained.trained = Run(study.results / "runs" / "scratch-0").begin
    for split in ("validation", "test"):
        with heard() as splits:
            evaluate.scores(untrained, split)
        assert splits == {split}


@pytest.mark.parametrize(
    "use",
    [
        lambda songs, study, model: outputs.choices(study, model, songs),
        lambda songs, *_: finetune.segment_loss(songs, 8000, 8000, 1),
        lambda songs, *_: finetune.song_loss(songs, 8000, None),
    ],
    ids=["outputs", "segments", "songs"],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_songs_of_another_split_are_refused_where_something_is_chosen(study, use, split):
    with pytest.raises(ValueError, match=f"leak: .* is of the split '{split}', only validation may be used here"):
        use(study.songs("validation") + study.songs(split), study, study.new_separator(4, 0))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_songs_of_another_split_are_refused_where_something_is_learned(study, split):
    songs = study.songs("train") + study.songs(split)
    with pytest.raises(ValueError, match=f"leak: .* is of the split '{split}', only train may be used here"):
        mixing.StemMixtures(mixing.Crops(songs, study.stem_segments(songs), 8000, 8000), 0, (0, 0), 0.0)


@pytest.mark.parametrize(("learned", "held_out"), [("validation", "validation"), ("train", "train")])
def test_unlabelled_songs_of_another_split_are_refused(study, learned, held_out):
    def examples(split):
        songs = corpora.of_split(study.unlabeled, split)
        return mixing.MixturesOfMixtures(mixing.Crops(songs, study.mixture_segments(songs), 8000, 8000), 0, (0, 0))

    with pytest.raises(ValueError, match=f"leak: .* is of the split '{learned}'"):
        pretrain.task(study.new_separator(8, 0), examples(learned), examples(held_out), study.profile.pretrain)


def test_splits_share_no_song(study):
    for songs in (study.labeled, study.unlabeled):
        by_name = {}
        for song in songs:
            by_name.setdefault(song.digest, set()).add(song.split)
        assert all(len(splits) == 1 for splits in by_name.values()) and len(by_name) == len(songs)
    learned, held_out = study.unlabeled_splits()
    assert not {song.digest for song in learned} & {song.digest for song in held_out} and len(held_out)
