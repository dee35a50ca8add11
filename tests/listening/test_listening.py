"""What is played and drawn is what the models made, at one gain; panels survive what users give them."""

import base64
import datetime
import inspect
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch
from jupyter_client.manager import start_new_kernel

from lib import STEMS, UserError, listening, scoring
from lib.arms import Finetuning
from lib.data import audio
from lib.data.tracks import Track
from lib.experiments import evaluate
from lib.listening import examples, explorer, sources, static
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.player import Player
from lib.model import checkpoints
from lib.model.separator import Separator
from lib.profile.load import load, override
from lib.store.runs import Run
from lib.study import Study

RATE = 8000
PICTURE = static.picture
FRONT = (
    "audio.rate=8000",
    "audio.n_fft=256",
    "audio.hop=64",
    "listening.seconds=1",
    "finetune.seeds=[0,1]",
    "model.size=nano",
    "corpus.sources_root=nowhere",
)


def _track(folder, name, seconds=2.0):
    samples, rng = round(seconds * RATE), np.random.default_rng(0)
    stems = 0.1 * rng.standard_normal((4, 2, samples)).astype(np.float32)
    files = {stem: folder / name / f"{stem}.wav" for stem in STEMS}
    for path, wave in zip(files.values(), stems, strict=True):
        audio.write(path, wave, RATE)
    audio.write(folder / name / "mixture.wav", stems.sum(0), RATE)
    return Track(name, "test", RATE, samples, {"mixture": folder / name / "mixture.wav", **files}, name)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with two songs and four untrained models; of them, seed 1 of the sliced one validates best."""
    songs = {"labeled": [_track(tmp_path, "Quiet & <b>loud</b>")], "real_song": _track(tmp_path, "real", 1.0)}
    study = type("Given", (Study,), songs)(load("smoke", [f"results={tmp_path}", *FRONT]))
    trainings = [Finetuning(study, arm, seed, 2) for seed, arm in ((0, "scratch"), (0, "group"), (1, "scratch"))]
    trainings.append(Finetuning(study, "sliced", 1, 2))
    for number, training in enumerate(trainings):
        run = Run.of(tmp_path, "scratch", {"number": number}).begin()
        checkpoints.save(study.new_separator(4, number), run.weights)
        run.finish(weights="", steps=1, seconds=1.0, best_validation_loss=-float(number))
        vars(training)["run"] = run
    monkeypatch.setattr(sources, "claim_trainings", lambda _: trainings)
    monkeypatch.setattr(static, "picture", lambda *_: b"")  # drawing takes most of the time
    return study


def _tones(**levels):
    """An excerpt of 1 s whose versions are 440 Hz tones of the given amplitudes in every stem."""
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    versions = {name: np.full((4, 2, 1), level, np.float32) * tone for name, level in levels.items()}
    return Excerpt("tones", 3.0, RATE, versions[REFERENCE].sum(0), versions)


def _players(page):
    encoded = re.findall(r'src="data:audio/ogg;base64,([^"]+)"', page)
    return [soundfile.read(io.BytesIO(base64.b64decode(text))) for text in encoded]


def test_an_excerpt_holds_the_first_seed_of_each_method_and_scores_what_plays(study):
    song = study.labeled[0]
    heard = listening.separated_excerpt(study, song)
    assert list(heard.versions) == [REFERENCE, "scratch", "pre-trained (group)", "ideal ratio mask"]
    assert heard.start == 0.5
    np.testing.assert_array_equal(heard.versions[REFERENCE], song.stems(0.5, 1.0, RATE))
    for name, scores in heard.scores.items():
        np.testing.assert_allclose(scores, scoring.usdr(heard.versions[REFERENCE], heard.versions[name]))
    assert (heard.scores["ideal ratio mask"] > heard.scores["scratch"]).all()


def test_a_song_of_every_recorded_source_on_the_disk_is_heard_too(study, tmp_path):
    for stem in STEMS:
        audio.write(tmp_path / "data" / "mdb" / "Rock" / f"{stem}.wav", _tones(**{REFERENCE: 0.1}).mixture, RATE)
        audio.write(tmp_path / "data" / "mdb" / "Zeppelin" / f"{stem}.wav", _tones(**{REFERENCE: 0.2}).mixture, RATE)
    bare = type(study)(override(study.profile, {"corpus.sources_root": str(tmp_path / "data")}))
    assert [item.song for item in listening.excerpts(bare)] == ["Quiet & <b>loud</b>", "real"], "not known to be whole"
    (tmp_path / "data" / "mdb" / "pieces.csv").touch()
    heard = listening.excerpts(type(study)(bare.profile))
    assert [item.song for item in heard] == ["Quiet & <b>loud</b>", "mdb/Rock", "real"]
    assert all(np.isfinite(scores).any() for scores in heard[1].scores.values()) and len(heard[1].scores) > 2
    assert len(listening.excerpts(bare, 1)) == 2, "a blind test has its own songs alone"


def test_of_a_short_song_all_but_its_ends_is_heard(study):
    """stempeg's example starts and ends with a click of full scale."""
    song, training = study.real_song, listening.methods(study)[0]
    heard = listening.separated_excerpt(study, song)
    assert (heard.start, heard.mixture.shape[1]) == (0.1, round(0.7 * RATE))
    alone = evaluate.estimate(study, training.load(), song.stems(0.1, 0.7, RATE).sum(0))
    np.testing.assert_array_equal(heard.versions["scratch"], alone)


def test_estimates_are_kept_until_the_run_changes(study, monkeypatch):
    first = listening.separated_excerpt(study, study.real_song)
    scratch, other = listening.methods(study)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "estimate", lambda *_: pytest.fail("separated again"))
        again = listening.separated_excerpt(study, study.real_song)
    np.testing.assert_array_equal(first.versions["scratch"], again.versions["scratch"])
    vars(scratch)["run"] = other.run
    changed = listening.separated_excerpt(study, study.real_song)
    np.testing.assert_array_equal(changed.versions["scratch"], first.versions["pre-trained (group)"])


def test_an_estimate_missing_one_file_is_made_again(study):
    first = listening.separated_excerpt(study, study.real_song)
    next((study.results / "estimates").rglob("drums.wav")).unlink()
    np.testing.assert_array_equal(
        listening.separated_excerpt(study, study.real_song).versions["scratch"], first.versions["scratch"]
    )


def test_players_keep_the_level_between_versions_and_do_not_clip():
    excerpt = _tones(reference=0.8, quiet=0.08)
    page = static.page(excerpt)
    waves = [wave for wave, rate in _players(page) if rate == RATE]
    assert len(waves) == 1 + 2 * 4
    mixture, reference, quiet = (np.sqrt(np.mean(np.square(wave))) for wave in waves[:3])
    assert 20 * np.log10(quiet / reference) == pytest.approx(-20, abs=0.5)
    assert 20 * np.log10(mixture / reference) == pytest.approx(20 * np.log10(4), abs=0.5)
    assert all(len(wave) == RATE and np.abs(wave).max() < 1 for wave in waves)


def test_a_page_folds_stems_behind_their_scores_and_escapes_names(study):
    page = static.page(listening.separated_excerpt(study, study.labeled[0]), unfolded=("drums",))
    assert "<h3>Quiet &amp; &lt;b&gt;loud&lt;/b&gt;</h3>" in page
    assert re.findall(r"<details( open|)><summary><b>(\w+)", page)[:2] == [(" open", "drums"), ("", "bass")]
    assert page.count("uSDR") == 3 * 4


def test_silence_is_drawn_and_named():
    page = static.page(_tones(reference=0.0, other=0.1))
    assert "other silent" in page and len(_players(page)) == 9
    silence = _tones(reference=0.0)
    assert silence.gain == 1.0 and PICTURE(silence, silence.mixture)[8:12] == b"WEBP"


def test_spectrograms_share_a_scale_in_seconds_and_hertz():
    excerpt, axes = _tones(reference=0.8, quiet=0.08), static.Figure().subplots()
    levels = {}
    for name in excerpt.versions:
        image = static.draw(axes, excerpt, excerpt.versions[name][0])
        left, right, low, high = image.get_extent()
        assert (left, right, *image.get_clim()) == (3.0, 4.0, -80, 0)
        level = np.asarray(image.get_array())[:, 10]
        assert 10 ** (low + (high - low) * (level.argmax() + 0.5) / len(level)) == pytest.approx(440, rel=0.03)
        levels[name] = level.max()
    assert levels["reference"] == pytest.approx(-20 * np.log10(4), abs=0.1)  # the mixture is four equal stems
    assert levels["quiet"] == pytest.approx(levels["reference"] - 20, abs=0.1)


def test_pictures_are_small_and_side_by_side_in_one_figure():
    excerpt = _tones(reference=0.8, quiet=0.08)
    picture = static.picture(excerpt, excerpt.mixture)
    assert picture[8:12] == b"WEBP" and len(picture) < 40_000
    assert static.compare(excerpt).data[:2] == b"\xff\xd8"


def test_own_file_of_another_rate_goes_through_the_model_that_validates_best(study, tmp_path):
    wave = 0.1 * np.random.default_rng(1).standard_normal((2, 2 * 11025)).astype(np.float32)
    audio.write(tmp_path / "mine.wav", wave, 11025)
    done = []
    heard = listening.own_file(study, tmp_path / "mine.wav", 0.5, 1.0, lambda *counts: done.append(counts))
    assert list(heard.versions) == ["pre-trained (sliced)"] and heard.scores == {}
    assert heard.versions["pre-trained (sliced)"].shape == (4, *heard.mixture.shape) == (4, 2, RATE)
    expected = audio.resample(wave, 11025, RATE)[:, RATE // 2 : RATE // 2 + RATE]
    np.testing.assert_allclose(heard.mixture, expected, atol=1e-5)
    assert done[-1][0] == done[-1][1]
    with pytest.raises(UserError, match=r"mine.wav: ends after 2.0 s"):
        listening.own_file(study, tmp_path / "mine.wav", 2.5, 1.0)


@pytest.mark.parametrize("seconds", [0.01, 0.7])
def test_short_files_of_ones_own_are_played(study, tmp_path, seconds):
    audio.write(tmp_path / "short.wav", np.full((2, round(seconds * RATE)), 0.1), RATE)
    heard = listening.own_file(study, tmp_path / "short.wav", 0.0, 10.0)
    assert heard.mixture.shape[1] == round(seconds * RATE)
    assert len(_players(static.page(heard))) == 5
    assert PICTURE(heard, heard.mixture)[8:12] == b"WEBP"


def heard_in(player: Player) -> dict[str, np.ndarray]:
    """What a player holds, as the browser decodes it."""
    return {n: soundfile.read(io.BytesIO(sound))[0].T for n, sound in zip(player.names, player.signals, strict=True)}


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_an_uploaded_file_of_any_format_is_separated(study, tmp_path):
    audio.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(1).standard_normal((2, RATE)), RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"], check=True)
    content = (tmp_path / "a.m4a").read_bytes()
    panel = listening.OwnFile(study)
    facts = {"type": "audio/mp4", "size": len(content), "last_modified": datetime.datetime.now(datetime.UTC)}
    panel.upload.value = ({"name": "../My song.m4a", "content": memoryview(content), **facts},)
    panel.button.click()
    (player,) = panel.result.children
    assert player.title == "My song.m4a" and player.names == [*STEMS, "mixture"] and "sliced" in panel.message.value
    assert panel.bar.value == panel.bar.max and not panel.button.disabled
    panel.path.value = "/no/such.mp3"
    panel.button.click()
    assert not panel.result.children


UNUSABLE = [("", "no file chosen"), ("/no/such.mp3", "no such file"), (__file__, "test_listening.py")]


@pytest.mark.parametrize(("typed", "said"), UNUSABLE)
def test_a_file_that_cannot_be_used_is_a_message(study, typed, said):
    panel = listening.OwnFile(study)
    panel.path.value = typed
    panel.button.click()
    assert said in panel.message.value and not panel.result.children and not panel.button.disabled


def test_the_explorer_plays_the_song_stem_and_method_that_are_chosen(study):
    heard = listening.excerpts(study)
    panel = listening.Explorer(heard)
    methods = ["scratch", "pre-trained (group)", "ideal ratio mask"]
    player = panel.children[1]
    assert player.names == ["mixture", REFERENCE, *methods] and "vocals" in player.title
    assert player.notes[2] == f"uSDR {heard[0].scores['scratch'][2]:.1f} dB"
    panel.stem.value, panel.method.value, panel.errors.value = "drums", "scratch", True
    player = panel.children[1]
    assert player.names == ["mixture", REFERENCE, "scratch", "error of scratch"]
    waves = heard_in(player)
    np.testing.assert_allclose(waves["error of scratch"], waves["scratch"] - waves[REFERENCE], atol=1e-4)
    panel.errors.value, panel.stem.value, panel.song.value = False, explorer.ALL_STEMS, "real"
    player = panel.children[1]
    assert player.names == list(STEMS) and player.mixed and "real" in player.title
    with_reference = heard[1].versions["scratch"]
    gain = np.abs(heard_in(player)["bass"]).max() / np.abs(with_reference[0]).max()
    for stem, wave in zip(STEMS, with_reference, strict=True):
        np.testing.assert_allclose(heard_in(player)[stem], gain * wave, atol=1e-3)
    panel.method.value = explorer.ALL_METHODS  # all stems are of one method
    assert panel.method.value == REFERENCE and panel.children[1].names == list(STEMS)


def test_a_player_keeps_levels_between_signals_and_refuses_what_is_not_aligned():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    player = Player({"loud": 4 * tone, "quiet": 0.4 * tone, "mono in stereo": np.stack([tone, 0 * tone])}, RATE)
    loud, quiet, _ = heard_in(player).values()
    assert np.abs(loud).max() == pytest.approx(0.98, abs=1e-3)
    assert np.abs(loud).max() / np.abs(quiet).max() == pytest.approx(10, rel=0.01)
    assert player.levels[1] - player.levels[0] == pytest.approx(20, abs=0.1)
    assert "signals" not in repr(player) and len(repr(player)) < 100
    for wrong in ({}, {"a": tone, "b": tone[1:]}, {"a": tone[:0]}):
        with pytest.raises(UserError, match="one length"):
            Player(wrong, RATE)


def test_a_view_of_half_a_minute_fits_into_a_notebook():
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, 10 * 44100))
    player = Player({f"noise {n}": noise for n in range(18)}, 44100)  # as much as 6 of 30 s
    saved = len(player.fallback()) + 100_000
    assert saved < 20_000_000 and player.fallback().count("<audio") == 18


def test_a_listening_set_brings_back_what_was_heard_with_its_scores(study, tmp_path):
    heard, facts = listening.excerpts(study), {"profile": "smoke", "commit": None}
    size = examples.write(tmp_path / "set", heard, facts, limit=400_000)
    assert size <= 400_000 and size == sum(path.stat().st_size for path in (tmp_path / "set").rglob("*.*"))
    for old, new in zip(heard, examples.read(tmp_path / "set"), strict=True):
        assert (new.song, new.start, new.rate, list(new.versions)) == (old.song, old.start, RATE, list(old.versions))
        for name, scores in old.scores.items():
            np.testing.assert_allclose(new.scores[name], scores)
        for name, wave in old.versions.items():
            correlation = np.corrcoef(wave.ravel(), new.versions[name].ravel())[0, 1]
            assert new.versions[name].shape == wave.shape and correlation > 0.8  # what a small size leaves of noise
    examples.write(tmp_path / "set", heard[1:], facts)
    assert [item.song for item in examples.read(tmp_path / "set")] == ["real"]
    with pytest.raises(UserError, match=r"at most 0.0 MB may be committed: lower listening.songs"):
        examples.write(tmp_path / "set", heard, facts, limit=1000)
    assert [item.song for item in examples.read(tmp_path / "set")] == ["real"]
    (tmp_path / "set" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json: cannot be read"):
        examples.read(tmp_path / "set")


def test_without_models_the_listening_set_plays_and_nothing_is_trained(study, tmp_path, monkeypatch):
    examples.write(tmp_path / "set", listening.excerpts(study), {"profile": "smoke", "commit": "abc"})
    monkeypatch.setattr(sources, "claim_trainings", lambda _: pytest.fail("trained"))
    bare = Study(load("smoke", [f"results={tmp_path / 'none'}", *FRONT, f"listening.examples={tmp_path / 'set'}"]))
    assert [item.song for item in listening.excerpts(bare, 1)] == ["Quiet & <b>loud</b>", "real"]
    assert [item.song for item in listening.excerpts(bare, 0)] == ["real"]
    assert "profile `smoke` (commit `abc`)" in listening.origin_note(bare).data
    own = Separator.from_size("nano", 4, rate=RATE, n_fft=256, hop=64)
    checkpoints.save(own, tmp_path / "own.safetensors", torch.float16)
    monkeypatch.setattr(checkpoints, "FINETUNED", tmp_path / "own.safetensors")
    audio.write(tmp_path / "song.wav", np.full((2, RATE), 0.1, np.float32), RATE)
    heard = listening.own_file(bare, tmp_path / "song.wav", 0.0, 1.0)
    assert list(heard.versions) == ["the model that comes with this project"] and heard.mixture.shape == (2, RATE)


def test_panels_are_for_front_ends_that_allow_input():
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(
            f"from IPython import get_ipython\nimport os\n{inspect.getsource(listening.is_live)}"
        )
        for allowed in (True, False):
            said = []
            client.execute_interactive("print(is_live())", allow_stdin=allowed, output_hook=said.append)
            assert [m["content"]["text"].strip() for m in said if m["msg_type"] == "stream"] == [str(allowed)]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert not listening.is_live()


def test_panels_are_for_voila_too(monkeypatch):
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.13")
    assert listening.is_live()
