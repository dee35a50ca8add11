"""The whole of profile ``paper`` on miniatures of FMA and MUSDB18-HQ: fewer features, bands, songs and steps."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from lib import ROOT, STEMS
from lib.store.tables import read_table
from tests import calls

RATE = 44100
SHORT = {"steps": 2, "batch": 2, "crop_seconds": 1.0, "accumulate": 1, "warmup_steps": 1, "learning_rate": 1e-3}
SHORT |= {"decay_every": 1, "decay_start": 1, "checkpoint_every": 1, "average_best": 2}
SHRUNK = {
    "base": "paper.yaml",
    "model": {"size": "nano", "band_scale": 8.0},
    "pretrain": SHORT | {"validation_moms": 2, "validate_every": 1},
    "finetune": SHORT | {"labeled_songs": [2], "validate_every": 2},
    "ablations": {
        "axes": [
            {"name": "model size", "base": "nano", "levels": [
                {"label": "nano"}, {"label": "tiny", "set": {"model.size": "tiny"}}]},
            {"name": "unlabelled music", "base": "large", "levels": [
                {"label": "small", "set": {"corpus.unlabeled": "fma:small"}},
                {"label": "medium", "set": {"corpus.unlabeled": "fma:medium"}}, {"label": "large"},
                {"label": "full", "set": {"corpus.unlabeled": "fma:full"}}]}],
    },
    "separate": {"window_seconds": 2.0, "hop_seconds": 1.0},
    "listening": {"songs": 1, "seconds": 2.0, "blind": {"songs": 1, "seconds": 2.0, "panel": 6}},
    "compute": {"accelerator": "cpu", "precision": "32-true", "threads": 1, "jobs": 1},
}  # fmt: skip
RULES = {"segment_seconds": 2.0, "segment_hop_seconds": 1.0, "activity_seconds": 2.0}
AMOUNTS = ["small", "medium", "large", "full"]
SUBSETS = ["small"] * 10 + ["medium"] * 8 + ["large"] * 14 + ["full"] * 8
"""The smallest archive that each of the 40 tracks is in."""
BAD = {"mono": 20, "22 kHz": 21, "1 s": 23, "silent": 24, "truncated": 25, "zero bytes": 26, "text": 27}
OTHER_RATE = 22


def music(number: int, seconds: float, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """Tones that come and go, and noise: [samples, channels]."""
    generator, at = np.random.default_rng(number), np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * generator.uniform(80, 800) * at) * (0.6 + 0.4 * np.sin(2 * np.pi * at))
    wave = 0.1 * tone[:, None] + generator.normal(0, 0.03, (len(at), channels))
    return wave.astype(np.float32)


def mp3(wave: np.ndarray, rate: int = RATE) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format="MP3")
    return out.getvalue()


def clip(number: int) -> bytes:
    """A track of the miniature as its archive would hold it."""
    kind = {place: name for name, place in BAD.items()}.get(number, "")
    made = {
        "mono": lambda: mp3(music(number, 3, channels=1)),
        "22 kHz": lambda: mp3(music(number, 3, 22050), 22050),
        "1 s": lambda: mp3(music(number, 1)),
        "silent": lambda: mp3(0 * music(number, 3)),
        "truncated": lambda: mp3(music(number, 3))[:300],
        "zero bytes": lambda: b"",
        "text": lambda: b"no music, just words\n" * 99,
    }
    rate = 48000 if number == OTHER_RATE else RATE
    return made.get(kind, lambda: mp3(music(number, 3, rate), rate))()


def write_fma(root: Path) -> None:
    """40 tracks of all subsets and splits; "full" holds them all, "large" those of the smaller ones too."""
    splits = ["training", "training", "training", "validation", "test"]
    rows = "".join(f"{n},{splits[n % 5]},{subset},a\n" for n, subset in enumerate(SUBSETS))
    (root / "fma_metadata").mkdir(parents=True)
    (root / "fma_metadata" / "tracks.csv").write_text(f",set,set,track\n,split,subset,title\ntrack_id,,,\n{rows}")
    for archive in ("fma_large", "fma_full"):
        folder = root / archive / "000"
        folder.mkdir(parents=True)
        for number, subset in enumerate(SUBSETS):
            if archive == "fma_full" or subset != "full":
                (folder / f"{number:06d}.mp3").write_bytes(clip(number))


def write_musdb(root: Path) -> None:
    """Four songs to train on, two of them MUSDB18's official ones for validation, and two to test on."""
    names = {
        "train": ("A - a", "B - b", "Leaf - Summerghost", "Actions - One Minute Smile"),
        "test": ("T - t", "U - u"),
    }
    for split, songs in names.items():
        for song in songs:
            folder = root / split / song
            folder.mkdir(parents=True)
            stems = [music(1000 + len(song) * 10 + number + len(split), 3) for number in range(4)]
            for stem, wave in (*zip(STEMS, stems, strict=True), ("mixture", sum(stems))):
                soundfile.write(folder / f"{stem}.wav", wave, RATE, subtype="PCM_16")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The results folder of the study."""
    folder = tmp_path_factory.mktemp("paper")
    write_fma(folder / "fma")
    write_musdb(folder / "musdb18hq")
    corpus = RULES | {"fma_root": str(folder / "fma"), "musdb_root": str(folder / "musdb18hq"), "workers": 1}
    profile = SHRUNK | {"base": str(ROOT / "notebooks" / "profiles" / "paper.yaml"), "corpus": corpus}
    (folder / "mini_paper.yaml").write_text(yaml.safe_dump(profile))
    call = [sys.executable, "-m", "lib.pipeline.cells", str(folder / "mini_paper.yaml")]
    call.append(f"results={folder / 'results'}")
    calls.finished(call, folder / "log", 1500)
    return folder / "results"


def table(results: Path, name: str) -> pd.DataFrame:
    return read_table(results / "tables" / f"{name}.csv")


def test_every_run_of_the_paper_is_scored(finished):
    scores = table(finished, "scores")
    assert set(scores["method"]) == {"scratch", "pre-trained (sliced)", "mixture", "ideal ratio mask"}
    assert set(scores.loc[scores["experiment"] == "test", "song"]) == {"T - t", "U - u"}
    ablations = table(finished, "ablations")
    levels = ablations.groupby("experiment")["level"].unique().map(list).to_dict()
    assert levels == {"model size": ["nano", "tiny"], "unlabelled music": ["small", "medium", "large", "full"]}
    assert (finished / "figures" / "claim.png").is_file()


def test_each_amount_of_fma_is_pretrained_on_its_own_tracks(finished):
    found = table(finished, "unlabelled_music").set_index("level")["songs"]
    good = [(AMOUNTS.index(its), n % 5 < 3) for n, its in enumerate(SUBSETS) if n not in BAD.values()]
    expected = [sum(training and its <= amount for its, training in good) for amount in range(len(AMOUNTS))]
    assert [int(found[level]) for level in AMOUNTS] == expected


def test_what_cannot_be_used_is_counted_by_its_reason(finished):
    skipped = table(finished, "skipped")
    names = set(skipped["file"].map(lambda path: Path(path).stem))
    assert {f"{number:06d}" for number in BAD.values()} <= names and f"{OTHER_RATE:06d}" not in names
    reasons = " ".join(table(finished, "skipped_reasons")["reason"])
    assert all(re.search(word, reasons) for word in ("mono|channel", "Hz", "short", "silent"))
