"""Profile ``real``, and the claim of ``domain_gap``, on generated songs in place of recorded ones.

Sample rate, width, steps and songs alone differ.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from lib import STEMS
from lib.arms import Pretraining
from lib.data.sources.debian import DENSE
from lib.experiments import claim
from lib.profile.fields import PROFILES
from lib.profile.load import load
from lib.store.files import write_json
from lib.store.tables import read_table
from lib.study import Study
from tests import calls

RATE, SECONDS = 8000, 6
SONGS = {"everythingisremixed": ("Caesium", "Lithium", "Hydrogen"), "mdb": ("Rock", "Reggae", "Zeppelin")}
ABSENT = {("everythingisremixed", "Hydrogen"): "bass", ("mdb", "Zeppelin"): "vocals"}
RULES = {"validation_songs": 1, "segment_seconds": 4.0, "segment_hop_seconds": 2.0, "activity_seconds": 4.0}
NAMES = {f"{source}/{song}" for source, songs in SONGS.items() for song in songs}
SHORT = {"steps": 2, "batch": 2, "warmup_steps": 1, "decay_every": 1, "decay_start": 1, "average_best": 1}
SHORT |= {"validate_every": 1, "checkpoint_every": 2}
SHRUNK = {
    "audio": {"rate": RATE, "n_fft": 512, "hop": 160},
    "model": {"size": "nano", "sources": 4},
    "pretrain": SHORT | {"validation_moms": 2, "seeds": [0]},
    "finetune": SHORT | {"labeled_songs": [2], "seeds": [0], "controls": [], "patience": 0},
    "regime": {"seeds": [0], "pretrain_steps": [1], "labeled_songs": [2]},
    "probes": {"seeds": [0]},
    "ablations": {"seeds": [0], "labeled_songs": 2, "pretrain_steps": 1, "finetune_steps": 1},
    "compute": {"jobs": 1},
    "separate": {"window_seconds": 3.0, "hop_seconds": 2.5},
    "listening": {"songs": 1, "seconds": 2.0, "blind": {"songs": 1, "seconds": 2.0, "panel": 6}},
}


def noise(name: str, seconds: float, channels: int) -> np.ndarray:
    """Noise that comes and goes [samples, channels], of its own for every name."""
    draws, at = np.random.default_rng(list(name.encode())), np.arange(round(seconds * RATE)) / RATE
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * at * draws.uniform(0.2, 2))
    return 0.05 * swell[:, None] * draws.normal(size=(len(at), channels))


def write_music(root: Path) -> None:
    """What is fetched by name, as it lies on disk: pieces without labels, songs with stems; some lack a stem."""
    (root / "debian").mkdir(parents=True)
    for number in range(6):
        soundfile.write(root / "debian" / f"{number}.ogg", noise(str(number), SECONDS, 2), RATE)
    tested = noise("mdb Rock drums", SECONDS, 1)
    soundfile.write(root / "debian" / "leak.flac", tested, RATE)
    for source, songs in SONGS.items():
        for song in songs:
            (root / source / song).mkdir(parents=True)
            for stem in {*STEMS} - {ABSENT.get((source, song))}:
                wave = noise(f"{source} {song} {stem}", SECONDS, 1 if source == "mdb" else 2)
                soundfile.write(root / source / song / f"{stem}.flac", wave, RATE)
    for package in DENSE:
        write_json(root / "debian" / ".packages" / f"{package}.json", {"package": package, "rows": []})
    for source in SONGS:
        (root / source / "pieces.csv").write_text("piece,seconds,start,stems,licence,left_out\n")


def miniature(folder: Path, name: str, **corpus: object) -> Path:
    """A small copy of a profile of the project, on the music in ``folder``."""
    corpus = {"sources_root": str(folder / "data")} | RULES | corpus
    content = {"base": str(PROFILES / f"{name}.yaml")} | SHRUNK | {"corpus": corpus}
    path = folder / f"mini_{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The results folder of the study of recorded songs."""
    folder = tmp_path_factory.mktemp("real")
    write_music(folder / "data")
    call = [sys.executable, "-m", "lib.pipeline.cells", str(miniature(folder, "real"))]
    call.append(f"results={folder / 'results'}")
    calls.finished(call, folder / "log", 1500)
    return folder / "results"


def table(results: Path, name: str):
    return read_table(results / "tables" / f"{name}.csv")


def test_every_recorded_song_is_tested_once_by_every_arm_and_seed(finished):
    scores = table(finished, "scores")
    test = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR") & (scores["stem"] == "drums")]
    for _, rows in test[test["seed"].notna()].groupby(["method", "seed", "labeled_songs"]):
        assert Counter(rows["song"]) == dict.fromkeys(NAMES, 1) and set(rows["fold"]) == {0, 1}
    assert np.isfinite(test["value"]).all()


def test_songs_are_scored_for_the_stems_that_they_have(finished):
    scores = table(finished, "scores")
    usdr = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR") & scores["value"].notna()]
    for (source, song), stem in ABSENT.items():
        rows = usdr[usdr["song"] == f"{source}/{song}"]
        assert set(rows["stem"]) & {*STEMS} == {*STEMS} - {stem}


def test_claim_and_objectives_have_finite_differences(finished):
    claim, ablations = table(finished, "claim"), table(finished, "ablations")
    assert np.isfinite(claim[["difference", "low", "high"]]).all(axis=None) and set(claim["n_songs"]) <= {5, 6}
    assert set(ablations["level"]) == {"MixIT", "MixPIT", "denoising", "reconstruction", "none"}


def test_a_tested_song_among_the_unlabelled_music_is_left_out(finished):
    skipped = table(finished, "skipped").set_index("file")["reason"]
    found = [reason for file, reason in skipped.items() if Path(file).name == "leak.flac"]
    assert len(found) == 1 and "tested" in found[0]


def test_the_domain_gap_shares_pretrainings_and_tests_every_recorded_song_on_composed_labels(finished, tmp_path):
    folder, made = finished.parent, {"train_songs": 2, "validation_songs": 1, "song_seconds": 5.0}
    real = Study(load(str(folder / "mini_real.yaml"), [f"results={finished}"]))
    gap = Study(load(str(miniature(folder, "domain_gap", rendered=made)), [f"results={tmp_path}"]))
    (theirs, *_), (ours, *_) = ([Pretraining(study, s) for s in study.profile.pretrain.seeds] for study in (real, gap))
    ours.run.folder.mkdir(parents=True)
    for file in ("identity.json", "done.json", "log.csv", "model.safetensors"):
        shutil.copy(theirs.run.folder / file, ours.run.folder)
    scores = claim.scores(gap)
    assert (ours.run.folder / "done.json").read_bytes() == (theirs.run.folder / "done.json").read_bytes()
    assert {run.name.split("-")[0] for run in tmp_path.glob("runs/*-*")} == {"pretrain", "scratch", "finetune"}
    assert len([*tmp_path.glob("runs/pretrain-*")]) == 1, "none is trained again"
    rows = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR") & (scores["stem"] == "drums")]
    for _, some in rows.groupby("method"):
        assert Counter(some["song"]) == dict.fromkeys(NAMES, 1)
    songs = [song for split in gap.labeled_splits(2) for song in split]
    assert len(songs) == 3 and not {song.name for song in songs} & NAMES
    assert all("corpora" in str(file) for song in songs for file in song.files.values())
