"""What is scored beside the plain scores of a model: BSSEval by museval, and published models from disk."""

import json
from dataclasses import replace
from types import SimpleNamespace

import museval
import numpy as np
import pytest
import torch
import torchaudio.pipelines
from torchaudio.models import HDemucs

from lib import STEMS, UserError, scoring
from lib.data import audio
from lib.experiments import claim, evaluate, hdemucs
from lib.profile.fields import Separate
from lib.store.runs import Run
from tests import toys

PUBLISHED, PLUS = hdemucs.FILES


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of noise with its one test song; the real song is left out."""
    study = toys.study(tmp_path)
    monkeypatch.setattr(evaluate, "songs", lambda study, split: [(split, song) for song in study.songs(split)])
    return study


# BSSEval


@pytest.fixture
def final(study):
    """An untrained model in place of the study's final one."""
    run = Run(study.results / "runs" / "scratch-0").begin()
    model = study.new_separator(len(STEMS), 0)
    facts = {"study": study, "method": "scratch", "seed": 0, "songs": 1}
    return SimpleNamespace(trained=lambda: run, load=lambda: model, run=run, **facts)


@pytest.fixture
def counted(monkeypatch):
    """museval in place of which stands 1, 2, 3, 4 dB for SDR, ISR, SIR, SAR; what it was called with."""
    calls = []

    def evaluate(stems, estimates, **options):
        calls.append((stems, estimates, options))
        return tuple(np.full((len(stems), 6), float(n)) for n in (1, 2, 3, 4))

    monkeypatch.setattr(museval, "evaluate", evaluate)
    return calls


def test_bss_eval_of_a_final_model_is_musevals_made_once(study, final, counted):
    evaluate.scores(final)
    table = evaluate.bss_eval(final)
    assert table.groupby("metric")["value"].unique().map(list).to_dict() == {"ISR": [2.0], "SIR": [3.0], "SAR": [4.0]}
    assert set(table["stem"]) == set(STEMS) and set(table["method"]) == {"scratch"}
    (stems, estimates, options), song = counted[0], study.songs("test")[0]
    assert options == {"win": toys.RATE, "hop": toys.RATE}
    np.testing.assert_array_equal(stems, song.stems(rate=toys.RATE).swapaxes(1, 2))
    assert estimates.shape == stems.shape
    found = json.loads((final.run.folder / "museval" / "test" / f"{song.name}.json").read_text())
    assert found["targets"][2]["name"] == "vocals" and "only" not in found["museval_version"]
    assert found["targets"][2]["frames"][0]["metrics"] == {"SDR": 1, "ISR": 2, "SIR": 3, "SAR": 4}
    final.load = lambda: pytest.fail("loaded again")
    assert evaluate.bss_eval(final).equals(table) and len(counted) == 1


def test_bss_eval_of_a_song_without_drums_is_left_empty(study, final, counted):
    song = study.songs("test")[0]
    audio.write(song.files["drums"], 0 * song.read("drums"), toys.RATE)
    table = evaluate.bss_eval(final)
    assert not counted and table["value"].isna().all() and len(table) == 3 * len(STEMS)
    found = json.loads((final.run.folder / "museval" / "test" / f"{song.name}.json").read_text())
    assert "silent" in found["reason"]


def test_eval_store_reads_the_test_songs_alone(study, final, monkeypatch):
    (song,) = study.songs("test")
    monkeypatch.setattr(evaluate, "songs", lambda *_: [("test", song), ("real song", replace(song, name="real"))])
    table = evaluate.scores(final)
    store = museval.EvalStore()
    store.add_eval_dir(final.run.folder / "museval")
    assert set(store.df["track"]) == {song.name}
    assert (final.run.folder / "museval" / "real song" / "real.json").is_file()
    ours = table[(table["experiment"] == "test") & (table["metric"] == "cSDR")].set_index("stem")["value"]
    theirs = store.agg_frames_tracks_scores()
    np.testing.assert_allclose([theirs[stem, "SDR"] for stem in STEMS], ours[list(STEMS)], rtol=0, atol=1e-5)


def test_final_models_alone_get_bss_eval_where_the_profile_asks(tmp_path, monkeypatch):
    asked = []
    rows = evaluate.tables.table([])
    for name, found in {"baselines": lambda _: rows, "scores": lambda _: rows}.items():
        monkeypatch.setattr(evaluate, name, found)
    monkeypatch.setattr(evaluate, "bss_eval", lambda training: asked.append(training) or rows)
    monkeypatch.setattr(claim, "claim_runs", lambda study: None)
    fields = {"finetune.seeds": [3, 1], "finetune.labeled_songs": [2, 1], "finetune.transfers": ["sliced"]}
    claim.scores(toys.study(tmp_path, fields))
    assert not asked
    claim.scores(toys.study(tmp_path, {**fields, "scoring.bss_eval": True}))
    assert {(one.arm, one.seed, one.songs) for one in asked} >= {("scratch", 3, 2), ("sliced", 3, 2)}
    assert {(one.seed, one.songs) for one in asked} == {(3, 2)}


# Hybrid Demucs


def small(sources):
    """HDemucs with few channels and the front end of the published one."""
    return HDemucs(sources, channels=4, nfft=4096, depth=6)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of torch.hub's without weights; whatever would be downloaded fails."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.setattr("torchaudio.models.hdemucs_high", small)
    return tmp_path / "hub"


def put(hub, name, folder="torchaudio/models"):
    """Random weights where torchaudio puts its own; the model that has them."""
    torch.manual_seed(0)
    model = small(list(hdemucs.SOURCES)).eval()
    path = hub / folder / hdemucs.FILES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model, path


def test_files_sources_and_rate_are_torchaudios():
    bundles = torchaudio.pipelines.HDEMUCS_HIGH_MUSDB, torchaudio.pipelines.HDEMUCS_HIGH_MUSDB_PLUS
    for file, bundle in zip(hdemucs.FILES.values(), bundles, strict=True):
        assert bundle._model_path == f"models/{file}" and bundle.sample_rate == hdemucs.RATE
        assert tuple(bundle._model_factory_func.keywords["sources"]) == hdemucs.SOURCES


def test_weights_that_are_not_here_are_named_and_nothing_is_made(hub):
    assert hdemucs.on_disk() == {} and not hub.exists()
    sentences = hdemucs.absent()
    assert len(sentences) == 2 and "hdemucs_high_trained.pt is not in torch.hub's folder" in sentences[1]


@pytest.mark.parametrize("folder", ["torchaudio/models", "checkpoints"])
def test_weights_are_found_where_torchaudio_or_torch_hub_keeps_them(hub, folder):
    _, path = put(hub, PLUS, folder)
    assert hdemucs.on_disk() == {PLUS: path}
    assert [PUBLISHED in sentence for sentence in hdemucs.absent()] == [True]


def test_a_song_is_separated_as_by_torchaudios_tutorial_in_the_order_of_stems(hub):
    model, path = put(hub, PUBLISHED)
    mixture = torch.from_numpy(np.tile(toys.noise("song"), 2)) + 0.05  # an offset, which the level takes away
    mono, whole = mixture.mean(0), Separate(window_seconds=10.0, hop_seconds=10.0)
    random = torch.random.get_rng_state()
    got = hdemucs.separate_song(hdemucs.load(path), mixture.numpy(), hdemucs.RATE, whole)
    assert torch.equal(random, torch.random.get_rng_state())
    with torch.inference_mode():
        levelled = (mixture - mono.mean()) / mono.std()
        padded = torch.nn.functional.pad(levelled, (2048, 2048 - mixture.shape[1] % 1024 + 1024))
        expected = model(padded[None])[0][..., 2048 : 2048 + mixture.shape[1]] * mono.std() + mono.mean()
    order = [hdemucs.SOURCES.index(stem) for stem in STEMS]
    assert got.shape == (4, *mixture.shape) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected[order], atol=1e-5)
    assert np.abs(got - got[::-1]).max() > 1e-3  # sources that differ, or order would say nothing


def test_other_rates_and_windows_give_the_same_length_and_nearly_the_same_song(hub):
    _, path = put(hub, PUBLISHED)
    model, song = hdemucs.load(path), toys.noise("song")[:, : 2 * toys.RATE + 77]
    got = hdemucs.separate_song(model, song, toys.RATE, Separate(window_seconds=1.0, hop_seconds=0.5))
    assert got.shape == (4, *song.shape) and np.isfinite(got).all()
    louder = hdemucs.separate_song(model, 4 * song, toys.RATE, Separate(window_seconds=1.0, hop_seconds=0.5))
    np.testing.assert_allclose(louder, 4 * got, atol=1e-4 * np.abs(louder).max())
    silent = hdemucs.separate_song(model, 0 * song, toys.RATE, Separate(window_seconds=1.0, hop_seconds=0.5))
    assert np.isfinite(silent).all()


def test_damaged_or_pickled_weights_are_refused(hub):
    _, path = put(hub, PUBLISHED)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="not the weights of HDemucs"):
        hdemucs.load(path)

    class Code:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    torch.save({"weight": Code()}, path)
    with pytest.raises(UserError, match="UnpicklingError"):
        hdemucs.load(path)


def test_published_models_stand_among_the_baselines_and_are_scored_once(study, hub, monkeypatch):
    assert set(evaluate.baselines(study)["method"]) == {"mixture", "ideal ratio mask"}
    put(hub, PUBLISHED)
    table = evaluate.baselines(study)
    assert set(table["method"]) == {"mixture", "ideal ratio mask", PUBLISHED}
    rows = table[table["method"] == PUBLISHED]
    assert rows["value"].notna().all() and set(rows["metric"]) == set(scoring.METRICS) and rows["seed"].isna().all()
    monkeypatch.setattr(hdemucs, "load", lambda _: pytest.fail("loaded again"))
    monkeypatch.setattr(scoring, "ideal_ratio_mask", lambda *_: pytest.fail("scored again"))
    assert evaluate.baselines(study).equals(table)
    (hub / "torchaudio" / "models" / hdemucs.FILES[PUBLISHED]).write_bytes(b"other weights")
    with pytest.raises(pytest.fail.Exception, match="loaded again"):
        evaluate.baselines(study)


def test_folders_of_references_keep_their_names(study):
    evaluate.baselines(study)
    names = {path.name.rsplit("-", 1)[0] for path in (study.results / "runs" / "references").iterdir()}
    assert names == {"mixture", "ideal-ratio-mask"}
