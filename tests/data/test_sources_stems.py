"""Songs with stems from git repositories made here: grouping, sums, excerpts, and clones that fail."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import soundfile

from lib import STEMS, UserError
from lib.data import corpora
from lib.data.sources import stems
from lib.data.sources.stems import ELEMENTS_SOURCE, MUSIC_DELTA, excerpt_start, stem_by_name
from lib.profile.fields import Corpus, Profile

RATE = 8000
META = """album: Test
raw_dir: MusicDelta_{song}_RAW
stems:
  S01: {{instrument: drum set, raw: {{R01: {{filename: kick.wav, instrument: drum set}},
                                     R02: {{filename: snare.wav, instrument: drum set}}}}}}
  S02: {{instrument: electric bass, raw: {{R01: {{filename: bass.wav, instrument: electric bass}}}}}}
  S03: {{instrument: male singer, raw: {{R01: {{filename: voice.wav, instrument: male singer}}}}}}
  S04: {{instrument: clean electric guitar, raw: {{R01: {{filename: ../../../guitar.wav, instrument: clean electric guitar}}}}}}
"""  # noqa: E501


def noise(seconds, seed, channels=1, level=0.1):
    return np.random.default_rng(seed).normal(0, level, (round(seconds * RATE), channels))


def git(folder, *arguments):
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Repository:
    """A repository of a test's own, as a source that a commit of it is fetched from."""

    def __init__(self, folder, source):
        self.folder, self.source = folder / "repository", source
        self.folder.mkdir()
        git(self.folder, "init", "--quiet")
        git(self.folder, "config", "uploadpack.allowFilter", "true")
        git(self.folder, "config", "uploadpack.allowAnySHA1InWant", "true")

    def write(self, path, wave, **options):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(self.folder / path, wave, RATE, **options)

    def committed(self):
        git(self.folder, "add", ".")
        git(self.folder, "commit", "--quiet", "-m", "music")
        return self.source._replace(url=f"file://{self.folder}", commit=git(self.folder, "rev-parse", "HEAD"))


@pytest.fixture
def delta(tmp_path):
    """Two songs, one that misses a track, one with a broken table, and one that nobody asks for."""
    made = Repository(tmp_path, MUSIC_DELTA)
    for song in ("Rock", "Zeppelin", "Reggae", "Britpop", "FreeJazz"):
        folder = f"MDB Drums/audio/multi-tracks/MusicDelta_{song}"
        for seed, track in enumerate(("kick", "snare", "bass", "voice", "guitar")):
            wave = noise(2 + 0.01 * seed, [seed, len(song)])
            if (song, track) != ("Reggae", "bass"):
                made.write(f"{folder}/MusicDelta_{song}_RAW/{track}.wav", wave, subtype="FLOAT")
        text = META.format(song=song) if song != "Britpop" else "stems: [no, map]"
        (made.folder / folder / "MusicDelta_METADATA.yaml").write_text(text)
    made.write("MDB Drums/audio/full_mix/large.wav", noise(1, 0))
    return made.committed()


@pytest.fixture
def elements(tmp_path):
    """A song of 130 s whose singer comes in late, and one that was never checked."""
    made = Repository(tmp_path, ELEMENTS_SOURCE)
    voice = noise(130, 3, 2)
    voice[: 25 * RATE] = 0
    tracks = {"MAIN DRUMS": noise(130, 0, 2), "HH": noise(129, 1), "MINILOGUE_SYNTH": noise(130, 2), "VOX LEAD": voice}
    for name, wave in {**tracks, "KEYS": noise(130, 4), "BGVOX HARMONY": 0 * voice}.items():
        made.write(f"src/4.Potassium/4.Potassium_Stem_{name}_mobile.m4a", wave, format="FLAC")
    made.write("src/4.Potassium/4.Potassium_Master_mobile.m4a", noise(130, 9), format="FLAC")
    made.write("src/4.Potassium/4.Potassium_Stem_KEYS.m4a", noise(130, 9), format="FLAC")
    made.write("src/5.Rubidium/5.Rubidium_Stem_KEYS_mobile.m4a", noise(1, 9), format="FLAC")
    return made.committed()


def waves(folder):
    return {stem: soundfile.read(folder / f"{stem}.flac", always_2d=True)[0] for stem in STEMS}


def table(root):
    return pd.read_csv(root / "pieces.csv", keep_default_na=False).set_index("piece")


def one_line(error):
    text = str(error.value)
    assert text and "\n" not in text
    return text


def test_raw_tracks_are_summed_by_instrument(delta, tmp_path):
    root = tmp_path / "mdb"
    delta.provide(root, True)
    rows = table(root)
    assert rows["left_out"]["Rock"] == "" and rows["stems"]["Rock"] == "bass drums vocals other"
    assert rows["seconds"]["Rock"] == "2.04" and rows["licence"]["Rock"] == "CC BY-NC-SA 4.0"
    assert "bass.wav: no such file" in rows["left_out"]["Reggae"] and "without bleed" in rows["left_out"]["FreeJazz"]
    assert "MusicDelta_METADATA.yaml cannot be read" in rows["left_out"]["Britpop"]
    assert sorted(p.name for p in root.iterdir() if p.name[0] != ".") == ["Rock", "Zeppelin", "pieces.csv"]
    found = waves(root / "Rock")
    assert {wave.shape[1] for wave in found.values()} == {1}, "mono, as the tracks are"
    assert np.abs(sum(found.values())).max() == pytest.approx(0.7, abs=1e-3)
    energy = {stem: np.square(wave).sum() for stem, wave in found.items()}
    assert energy["drums"] == pytest.approx(2 * energy["bass"], rel=0.05), "two tracks of four"
    corpus = Corpus(labeled="mdb", sources_root=str(tmp_path), folds=2)
    songs, skipped = corpora.labeled(Profile("test", str(tmp_path / "results"), corpus=corpus), tmp_path / "cache")
    assert {song.name for song in songs} == {"Rock", "Zeppelin"}, skipped


def test_an_excerpt_has_all_stems_and_the_names_decide(elements, tmp_path, monkeypatch):
    monkeypatch.setattr(stems, "RATE", RATE)
    root = tmp_path / "everythingisremixed"
    elements.provide(root, True)
    rows = table(root)
    assert float(rows["start"]["Potassium"]) == 0 and rows["seconds"]["Potassium"] == "100.0"
    assert "not among" in rows["left_out"]["Rubidium"] and not (root / "Rubidium").exists()
    found = waves(root / "Potassium")
    assert {wave.shape for wave in found.values()} == {(100 * RATE, 2)}
    assert np.abs(found["vocals"][: 24 * RATE]).max() == 0 < np.abs(found["vocals"][26 * RATE :]).max()
    assert np.abs(sum(found.values())).max() == pytest.approx(0.7, abs=1e-3)
    assert {stem: round(float(np.square(wave[-RATE:]).mean() / np.square(found["other"][-RATE:]).mean()), 1)
            for stem, wave in found.items()} == {"bass": 1.0, "drums": 2.0, "vocals": 1.0, "other": 1.0}  # fmt: skip


@pytest.mark.parametrize(("file", "stem"), [
    ("1.Hydrogen_Stem_BGVOX AAHH_mobile.m4a", "vocals"), ("1.Hydrogen_Stem_MINILOGUE SYNTH_mobile.m4a", "other"),
    ("2.Lithium_Stem_BGVOX HARMONY GLITCH_mobile.m4a", "vocals"), ("2.Lithium_Stem_SY BASS_mobile.m4a", "bass"),
    ("2.Lithium_Stem_CRASH FADE_mobile.m4a", "drums"), ("2.Lithium_Stem_FILL PIANO_mobile.m4a", "other"),
    ("3.Sodium_Stem_BASS STAB_mobile.m4a", "bass"), ("3.Sodium_Stem_TOPS_mobile.m4a", "drums"),
    ("4.Potassium_Stem_PAD + BASS_mobile.m4a", "bass"), ("4.Potassium_Stem_MINILOGUE_SYNTH_mobile.m4a", "bass"),
    ("6.Caesium_Stem_MICROCOSM_EFFECT_mobile.m4a", "other"), ("7.Francium_Stem_SINE_mobile.m4a", "other"),
])  # fmt: skip
def test_tracks_are_grouped_by_their_names(file, stem):
    assert stem_by_name(file) == stem


def test_the_excerpt_is_the_first_window_in_which_most_is_heard():
    active = np.zeros((4, 160))
    active[0] = 1
    active[1, 30:100] = 1
    active[2, 60:130] = 1
    active[3, 159] = 10 ** (-60 / 20)  # too soft to count
    wave = np.repeat(active, stems.RATE, 1)[:, None].astype(np.float32)
    assert excerpt_start(wave) == 20, "60 s of two stems, which is as much as counts"
    assert excerpt_start(wave[..., : 90 * stems.RATE]) == 0


def test_a_call_after_a_kill_makes_the_rest(delta, tmp_path, monkeypatch):
    root, real = tmp_path / "mdb", stems.soundfile.write

    def end(file, *arguments):
        if "vocals" in str(file):
            raise KeyboardInterrupt
        real(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stems.soundfile, "write", end)
        with pytest.raises(KeyboardInterrupt):
            delta.provide(root, True)
    assert not (root / "Rock").exists() and not delta.there(root)
    (root / ".clone" / ".git" / "index.lock").touch()  # as a killed git leaves it
    delta.provide(root, True)
    assert table(root)["left_out"]["Rock"] == "" and len(waves(root / "Rock")) == 4 and not (root / ".clone").exists()
    shutil.rmtree(tmp_path / "repository")
    delta.provide(root, False)


def test_a_clone_that_is_cut_off_says_so_and_the_next_call_resumes(delta, tmp_path):
    root, away = tmp_path / "mdb", tmp_path / "away"
    objects = sorted(
        (tmp_path / "repository" / ".git" / "objects").glob("[0-9a-f][0-9a-f]/*"), key=lambda p: p.stat().st_size
    )
    objects[-1].rename(away)  # a track, which the server cannot send
    with pytest.raises(UserError) as error:
        delta.provide(root, True)
    assert "cannot be fetched" in one_line(error) and "call again" in one_line(error) and not delta.there(root)
    away.rename(objects[-1])
    delta.provide(root, True)
    assert delta.there(root)


def test_what_cannot_be_fetched_is_one_line(delta, tmp_path, monkeypatch):
    root = tmp_path / "mdb"
    with pytest.raises(UserError, match=r"corpus\.download=true"):
        delta.provide(root, False)
    with pytest.raises(UserError, match="cannot be fetched") as error:
        delta._replace(url=f"file://{tmp_path}/nowhere").provide(root, True)
    one_line(error)
    with pytest.raises(UserError, match="cannot be fetched"):
        delta._replace(commit="0" * 40).provide(tmp_path / "other", True)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="git is not on PATH"):
        delta.provide(tmp_path / "third", True)


def test_only_what_is_asked_for_is_checked_out(delta, tmp_path):
    stems.check_out(delta, tmp_path / "clone")
    found = {p.suffix for p in (tmp_path / "clone").rglob("*") if p.is_file() and ".git" not in p.parts}
    assert found == {".wav", ".yaml"} and not list((tmp_path / "clone").rglob("large.wav"))
