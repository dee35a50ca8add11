"""Large collections: scanned in processes into one manifest, resumed, read as columns; miniatures in FMA's formats."""

import gc
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from filelock import Timeout

from benchmarks.data import synthetic_manifest
from lib import ROOT, STEMS, UserError
from lib.arms import Pretraining
from lib.data import collection, corpora, fma, musdb18, tracks
from lib.data.corpora import of_split
from lib.data.segments import mixture_manifest
from lib.machine import processes
from lib.machine.processes import Crash, in_processes
from lib.mixing import Crops, MixturesOfMixtures, loader
from lib.profile.load import load
from lib.store.files import file_lock
from lib.store.tables import read_table
from lib.study import Study
from tests.data.workers import act, crash_on_1000

RATE = 16000
LEVEL = (-5.0, 5.0)


@pytest.fixture(autouse=True)
def forked(fork_server, monkeypatch):
    """Processes that scan start as forks, but for those of ``scanned``, which are new ones, as in a study."""
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda method: fork_server)


def clip(track, seconds=9.0, channels=2, rate=RATE, spans=((0, 99),)):
    """Bytes of an MP3 with noise of the track's own level in some spans of seconds, silence elsewhere."""
    at = np.arange(round(seconds * rate)) / rate
    sounding = np.any([(at >= a) & (at < b) for a, b in spans], 0) if spans else np.zeros(len(at), bool)
    wave = np.random.default_rng(track).normal(0, 0.02 + 0.002 * (track % 20), (len(at), channels))
    out = io.BytesIO()
    soundfile.write(out, (wave * sounding[:, None]).astype(np.float32), rate, format="MP3")
    return out.getvalue()


def table(rows, head=",set,set,track\n,split,subset,title\ntrack_id,,,\n"):
    return head + "".join(f'{track},{split},{subset},"a, ""b"""\n' for track, split, subset in rows)


def files_of(rows, name="small", clips=None):
    """What the archives ``metadata`` and ``name`` of these (track, split, subset) hold, by path."""
    clips = clips or {track: clip(track) for track, *_ in rows}
    audio = {f"fma_{name}/{track // 1000:03d}/{track:06d}.mp3": data for track, data in clips.items()}
    return {"fma_metadata/tracks.csv": table(rows).encode(), **audio}


def written(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def profile_of(root, *changes):
    fields = [f"corpus.fma_root={root}", "corpus.unlabeled=fma:small", "corpus.workers=1", *changes]
    return load("smoke", [f"results={root / 'results'}", *fields])


ROWS = [(number, "validation" if number % 4 == 0 else "training", "small") for number in range(998, 1006)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """FMA-small of eight tracks: two folders, six to train on."""
    return written(tmp_path_factory.mktemp("fma"), files_of(ROWS))


@pytest.fixture(scope="module")
def scanned(small):
    songs, skipped = corpora.unlabeled(profile_of(small, "corpus.workers=2"), Study(profile_of(small)).cache)
    assert skipped == []
    return songs


def manifest_of(cache):
    (found,) = (cache / "collection").glob("manifest-*.parquet")
    return found


# The manifest


def test_the_manifest_holds_segments_with_level_rate_and_split(small, scanned):
    found = pq.read_table(manifest_of(Study(profile_of(small)).cache)).to_pandas()
    assert {"path", "start", "length", "rate", "level", "split"} <= set(found.columns)
    assert found["path"].tolist() == sorted(found["path"]) and set(found["rate"]) == {RATE}
    # 9 s in segments of 4 s every 2 s
    assert found.groupby("path")["start"].agg(list).map(tuple).unique().tolist() == [(0.0, 2.0, 4.0)]
    for row in found.itertuples():
        wave, _ = soundfile.read(small / row.path)
        wave = wave[round(row.start * RATE) : round((row.start + row.length) * RATE)]
        assert row.level == pytest.approx(10 * np.log10(np.square(wave).mean()), abs=0.01)
    splits = dict(zip(found["path"].map(lambda path: int(Path(path).stem)), found["split"], strict=True))
    assert splits == {track: {"training": "train"}.get(split, split) for track, split, _ in ROWS}


def test_a_collection_is_what_the_reader_of_small_corpora_finds(small, scanned):
    settings = ("small", small / "other", 2, RATE, 4.0)
    listed, _ = fma.read(small, *settings)
    assert list(scanned) == listed and scanned[3] == listed[3] and list(scanned[1:7:2]) == listed[1:7:2]
    assert tracks.corpus_fingerprint(scanned) == tracks.corpus_fingerprint(listed)
    for split in ("train", "validation"):
        ours, theirs = of_split(scanned, split), of_split(listed, split)
        assert list(ours) == theirs and len(ours) == len(theirs)
        manifests = [mixture_manifest(tracks, 4.0, 2.0, small / "other") for tracks in (ours, theirs)]
        for column in ("track", "role", "start", "seconds"):
            assert manifests[0].table[column].tolist() == manifests[1].table[column].tolist()
        pairs = [
            MixturesOfMixtures(Crops(tracks, manifest, 8000, RATE), 5, LEVEL)
            for tracks, manifest in zip((ours, theirs), manifests, strict=True)
        ]
        assert all(torch.equal(pairs[0][i], pairs[1][i]) for i in range(2 * pairs[0].pairs))


@pytest.mark.parametrize("same_song", [False, True])
def test_examples_do_not_depend_on_workers_or_on_where_training_resumed(scanned, small, same_song):
    training = of_split(scanned, "train")
    dataset = MixturesOfMixtures(
        Crops(training, mixture_manifest(training, 4, 2, small), 8000, RATE), 1, LEVEL, same_song
    )
    alone = list(loader(dataset, 3, range(5), 0))
    for workers, start in ((2, 0), (1, 2)):
        batches = list(loader(dataset, 3, range(start, 5), workers))
        assert len(batches) == 5 - start and all(map(torch.equal, alone[start:], batches))
    one, two = dataset.crops.track[dataset.order(7)]
    assert ((one == two) == same_song).all()


def test_a_fraction_of_the_training_songs(small, scanned):
    study = Study(profile_of(small, "corpus.unlabeled_fraction=0.5"))
    assert len(of_split(study.unlabeled, "train")) == 3 and isinstance(study.unlabeled, collection.Collection)
    assert list(of_split(study.unlabeled, "validation")) == list(of_split(scanned, "validation"))


def test_pre_training_is_that_on_the_same_folder(small, scanned, tmp_path):
    runs = []
    for name, source in (("named", "fma:small"), ("folder", small)):
        fields = [f"corpus.unlabeled={source}", "corpus.fma_subset=small", f"results={tmp_path / name}"]
        study = Study(profile_of(small, *fields, "pretrain.steps=2"))
        shutil.copytree(Study(profile_of(small)).cache, study.cache)
        runs.append(Pretraining(study, 0).trained())
    assert runs[0].name == runs[1].name and runs[0].folder != runs[1].folder
    assert runs[0].facts()["weights"] == runs[1].facts()["weights"]


def test_memory_has_no_part_in_the_number_of_songs(tmp_path):
    costs = []
    for songs in (200, 2_000, 40_000):  # the first fills caches
        path = synthetic_manifest(tmp_path / f"{songs}.parquet", songs, 5)
        gc.collect()
        before, arrow = len(gc.get_objects()), pa.total_allocated_bytes()
        tracemalloc.start()
        tracks, _ = collection.load(tmp_path, path)
        dataset = MixturesOfMixtures(Crops(tracks, mixture_manifest(tracks, 10, 5, tmp_path), 8000, RATE), 0, LEVEL)
        dataset.order(0)
        dataset.crops.tracks[7]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        gc.collect()
        costs.append((len(gc.get_objects()) - before, peak + pa.total_allocated_bytes() - arrow))
        assert len(tracks) == songs and dataset.pairs == songs * 5 // 2
        del tracks, dataset
    _, (objects, small), (more, large) = costs
    assert more - objects < 100, "no object a song"
    assert (large - small) / (38_000 * 5) < 150, "bytes a segment"


# The scan


LEFT_OUT = {
    3: (clip(3, channels=1), "mono"),
    4: (clip(4, rate=8000), "sample rate 8000 Hz, below 16000 Hz"),
    5: (clip(5, seconds=3.5), "s long, shorter than 4 s"),
    6: (clip(6, spans=((0, 1.0),)), "half silent throughout"),
    7: (clip(7)[:20_000] + bytes(20_000) + clip(7)[40_000:], "truncated"),
    9: (b"no music" * 1000, ""),
    8: (b"", ""),
}


def test_left_out_files_are_listed_by_corpus_and_from_the_project_s_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.study.ROOT", tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "noise.wav").write_bytes(b"no music")
        (tmp_path / name / "song.flac").write_bytes(clip(1))
        changes = [f"corpus.unlabeled={tmp_path / name}", f"results={tmp_path / 'results'}"]
        assert len(Study(load("smoke", [*changes, "corpus.segment_seconds=2.0"])).unlabeled) == 1
    table = read_table(tmp_path / "results" / "tables" / "skipped.csv")
    assert table["file"].tolist() == ["one/noise.wav", "two/noise.wav"]
    assert table["corpus"].tolist() == [f"unlabeled, {tmp_path / name}" for name in ("one", "two")]


def test_files_that_are_left_out_are_listed_and_counted_by_reason(tmp_path, capfd):
    rows = [(track, "training", "small") for track in range(1, 12)]
    clips = {1: clip(1), 2: clip(2, spans=((0, 5),))} | {track: data for track, (data, _) in LEFT_OUT.items()}
    root = written(tmp_path, files_of(rows, clips=clips | {10: clip(10, seconds=2.5)}))
    study = Study(profile_of(root))
    assert [(song.name, song.split) for song in study.unlabeled] == [("000001", "train"), ("000002", "train")]
    assert study.unlabeled.segments()["start"].tolist() == [0, 2, 4, 0, 2], "4 to 8 s is half silent"
    reasons = {
        int(Path(row.file).stem): row.reason for row in read_table(root / "results/tables/skipped.csv").itertuples()
    }
    assert set(reasons) == {*range(3, 12)}
    for track, (_, expected) in LEFT_OUT.items():
        assert expected in reasons[track] and "\n" not in reasons[track]
    counts = read_table(root / "results" / "tables" / "skipped_reasons.csv").set_index("reason")["files"]
    assert counts["N s long, shorter than N s"] == 2 and counts["mono"] == 1 and counts["no such file"] == 1
    assert counts.sum() == 9
    said = capfd.readouterr().err
    assert "mpg123" not in said and "resync" not in said


def test_a_clip_whose_length_its_header_guesses_is_used_whole(tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.2, (2, 12 * 44100))
    wave[:, : 4 * 44100] *= 1e-3
    soundfile.write(tmp_path / "a.wav", wave.T, 44100, "FLOAT")
    mp3 = ["-c:a", "libmp3lame", "-q:a", "4", "-write_xing", "0", tmp_path / "a.mp3"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", *mp3], check=True)
    clips = {1: clip(1), 2: (tmp_path / "a.mp3").read_bytes(), 3: 2 * clip(3)}
    rows = [(1, "training", "small"), (2, "training", "small"), (3, "validation", "small")]
    profile = profile_of(written(tmp_path, files_of(rows, clips=clips)))
    plain, vbr, joined = songs = corpora.unlabeled(profile, Study(profile).cache)[0]
    assert plain.files["mixture"].suffix == ".mp3" and len(plain.digest) == tracks.DIGEST
    assert vbr.seconds == pytest.approx(12, abs=0.1) and np.abs(vbr.mixture(11, 1)).max() > 0.2
    assert joined.seconds == pytest.approx(18, abs=0.2) and joined.digest.endswith("-1")
    assert songs.segments().query("track == 1")["start"].max() == 8.0
    listed, _ = fma.read(tmp_path, "small", Study(profile).cache, 1, RATE, 4.0)
    assert list(songs) == listed
    vbr.files["mixture"].unlink()
    assert of_split(songs, "train")[1].mixture(11, 1).any(), "decoded again"


def test_a_second_look_opens_no_file_and_a_larger_subset_scans_only_what_is_new(tmp_path, monkeypatch):
    rows = [(1, "training", "small"), (2, "training", "medium"), (3, "validation", "large")]
    root = written(tmp_path, files_of(rows, "large"))
    looked = []

    def counted(function, items, workers):
        looked.append(len(items))
        return in_processes(function, items, workers)

    monkeypatch.setattr(collection, "in_processes", counted)
    found = {}
    for subset in ("small", "small", "large", "medium", "large"):
        songs, _ = corpora.unlabeled(profile_of(root, f"corpus.unlabeled=fma:{subset}"), root / "cache")
        found[subset] = {song.name: song.split for song in songs}
    assert looked == [1, 2, 0]
    assert found["small"] == {"000001": "train"} and found["medium"] == found["small"] | {"000002": "train"}
    assert found["large"] == found["medium"] | {"000003": "validation"}
    (root / "fma_large" / "000" / "000002.mp3").write_bytes(clip(99))
    corpora.unlabeled(profile_of(root, "corpus.unlabeled=fma:large"), root / "cache")
    assert looked == [1, 2, 0, 1], "a file that changed is looked at again"


KILLED = """
import os, sys
from pathlib import Path
from lib.data import collection, fma
collection.PART, write, written = 3, collection._write, []
def counted(*arguments):
    write(*arguments)
    written.append(1)
    if len(written) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
collection._write = counted
fma.collection(Path(sys.argv[1]), "small", Path(sys.argv[1]) / "cache", 2, 16000, 4.0, 2.0)
"""


@pytest.mark.parametrize("parts", [1, 2])
def test_a_scan_that_was_killed_goes_on_to_the_same_manifest(small, tmp_path, parts, monkeypatch):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache", "results", "other"))
    call = [sys.executable, "-c", KILLED, str(tmp_path), str(parts)]
    assert subprocess.run(call, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "collection").glob("part-*")}
    assert len(kept) == parts and not list((tmp_path / "cache" / "collection").glob("manifest-*"))
    monkeypatch.setattr(collection, "PART", 3)
    for cache, workers in ((tmp_path / "cache", 1), (tmp_path / "undisturbed", 2)):
        fma.collection(tmp_path, "small", cache, workers, RATE, 4.0, 2.0)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was done is not done again"
    assert manifest_of(tmp_path / "cache").read_bytes() == manifest_of(tmp_path / "undisturbed").read_bytes()


HELD = """
import os, sys, time
from pathlib import Path
from lib.store.files import file_lock
with file_lock(Path(sys.argv[1])):
    os.fork()
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free_though_a_fork_of_it_lives(tmp_path):
    lock = tmp_path / "deep" / "lock"
    call = [sys.executable, "-c", HELD, str(lock)]
    with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        forks = {int(holder.stdout.readline()) for _ in range(2)} - {holder.pid}
        with pytest.raises(Timeout):
            file_lock(lock).acquire(timeout=0.1)
        holder.kill()
        holder.wait()
        with file_lock(lock).acquire(timeout=10):
            os.kill(*forks, signal.SIGKILL)
    assert lock.exists()


def test_a_crash_in_a_decoder_costs_one_file(small, tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "look", crash_on_1000)
    songs, skipped = corpora.unlabeled(profile_of(small), tmp_path)
    assert [song.name for song in songs] == [f"{track:06d}" for track, *_ in ROWS if track != 1000]
    assert [Path(item.path).name for item in skipped] == ["001000.mp3"] and "SIGSEGV" in skipped[0].reason


def test_a_file_that_cannot_be_read_stops_the_scan_at_its_end_and_loses_nothing(tmp_path, monkeypatch):
    root = written(tmp_path, files_of([(track, "training", "small") for track in range(1, 6)]))
    bad = root / "fma_small" / "000" / "000004.mp3"
    data = bad.read_bytes()
    bad.unlink()
    bad.mkdir()
    monkeypatch.setattr(collection, "PART", 2)
    with pytest.raises(UserError) as error:
        corpora.unlabeled(profile_of(root), root / "cache")
    assert "000004.mp3: Is a directory" in str(error.value) and "\n" not in str(error.value)
    assert len(list((root / "cache" / "collection").glob("part-*"))) == 2
    bad.rmdir()
    bad.write_bytes(data)
    assert len(corpora.unlabeled(profile_of(root), root / "cache")[0]) == 5


@pytest.mark.parametrize("workers", [1, 3])
def test_items_that_end_their_process_cost_themselves(tmp_path, workers):
    items = [("", number) for number in range(10)]
    items[2], items[9] = ("crash", 0), ("exit", 3)
    items[7] = ("crash once", str(tmp_path / "seen"))
    found = dict(in_processes(act, items, workers))
    assert sorted(found) == list(range(10))
    crashed = {index: result.reason for index, result in found.items() if isinstance(result, Crash)}
    assert set(crashed) == {2, 9}
    assert "SIGABRT" in crashed[2] and "status 3" in crashed[9]
    assert found[7][0] == items[7][1], "an accident is not held against a file"
    assert os.getpid() not in {result[1] for result in found.values() if not isinstance(result, Crash)}


def test_an_item_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    ((_, result),) = in_processes(act, [("hang", 0)], 2)
    assert "longer than 0.5 s" in result.reason


def test_errors_of_the_function_are_raised_here_and_end_the_processes():
    with pytest.raises(ValueError, match="my own"):
        list(in_processes(act, [("raise", "my own"), *[("", 1)] * 5], 2))
    assert list(in_processes(act, [], 2)) == []


def test_processes_that_cannot_start_are_one_line(monkeypatch):
    monkeypatch.setattr(processes, "_start_worker", os.abort)
    with pytest.raises(UserError, match="worker process ended before its first item"):
        list(in_processes(act, [("", 0)] * 3, 2))


def test_errors_of_the_function_that_are_runtime_errors_stay_so():
    with pytest.raises(RecursionError):
        list(in_processes(json.loads, ["[" * 100_000], 1))


# FMA and MUSDB18-HQ by name


def served(server, name, files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for path, data in files.items():
            file.writestr(path, data)
    server.files[name] = out.getvalue()
    return out.getvalue()


@pytest.fixture
def published(server, monkeypatch):
    """The server in the place of FMA's: ``fma_metadata.zip`` and ``fma_small.zip`` of two tracks."""
    files = files_of([(2, "training", "small"), (3, "validation", "small"), (5, "training", "medium")])
    del files["fma_small/000/000005.mp3"]
    parts = {"metadata": ("fma_metadata", {}), "small": ("fma_small", {"fma_small/README.txt": b"clips"})}
    for name, (folder, more) in parts.items():
        chosen = {path: data for path, data in files.items() if path.startswith(folder)} | more
        monkeypatch.setitem(fma.SHA1, name, hashlib.sha1(served(server, f"fma_{name}.zip", chosen)).hexdigest())
    monkeypatch.setattr(fma, "BASE", server.url)
    return server


def test_fma_is_fetched_where_that_is_allowed(published, tmp_path):
    root = tmp_path / "fma"
    with pytest.raises(UserError) as error:
        corpora.unlabeled(profile_of(root), tmp_path / "cache")
    assert "fma_metadata.zip" in str(error.value) and "corpus.download" in str(error.value) and published.asked == []
    assert not corpora.available(profile_of(root)) and corpora.available(profile_of(root, "corpus.download=true"))
    published.breaks += [None, 1000]  # the clips break off
    songs, skipped = corpora.unlabeled(profile_of(root, "corpus.download=true"), tmp_path / "cache")
    assert {song.name: song.split for song in songs} == {"000002": "train", "000003": "validation"} and not skipped
    assert published.asked == [None, None, "bytes=1000-"]
    for path in root.glob("*.zip"):
        path.unlink()
    assert list(corpora.unlabeled(profile_of(root), tmp_path / "cache")[0]) == list(songs)
    with pytest.raises(UserError, match=r"fma_medium\.zip"):
        corpora.provide(profile_of(root, "corpus.unlabeled=fma:medium"))


def test_fma_lies_where_its_archives_were_unpacked_or_is_cut_from_a_larger_one(tmp_path):
    rows = [(2, "training", "small"), (5, "training", "large")]
    for name, files in (("fma_large", files_of(rows, "large")), ("", files_of(rows, "x"))):
        root = written(tmp_path / f"in{name}", files)
        if not name:
            (root / "fma_x" / "000").rename(root / "000")
        songs, skipped = corpora.unlabeled(profile_of(root), root / "cache")
        assert [song.name for song in songs] == ["000002"] and skipped == []
        assert songs[0].files["mixture"] == root / name / "000" / "000002.mp3"


@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_the_table_may_begin_with_a_byte_order_mark_and_lack_other_columns(tmp_path, head):
    root = written(tmp_path, files_of([(2, "training", "small")]))
    text = head + ",set,set\n,subset,split\ntrack_id,,\n2,small,training\n3,small,\n4,,training\nx,small,test\n"
    (root / "fma_metadata" / "tracks.csv").write_text(text, "utf-8")
    songs, skipped = corpora.unlabeled(profile_of(root), root / "cache")
    assert [(song.name, song.split) for song in songs] == [("000002", "train")] and skipped == []


@pytest.mark.parametrize("text", ["", ",set\n,split\n2,training\n", "track_id,title\n1,a\n", "\xff\xfe", "a,b\n"])
def test_a_table_without_its_columns_is_one_line(tmp_path, text):
    root = written(tmp_path, files_of([(2, "training", "small")]))
    (root / "fma_metadata" / "tracks.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"tracks\.csv") as error:
        corpora.unlabeled(profile_of(root), root / "cache")
    assert "\n" not in str(error.value)


def test_nothing_usable_is_one_line(tmp_path):
    root = written(tmp_path, files_of([(2, "training", "small")], clips={2: clip(2, channels=1)}))
    for _ in range(2):
        with pytest.raises(UserError, match="mono") as error:
            corpora.unlabeled(profile_of(root), root / "cache")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("unlabeled", name) for name in ("fma:tiny", "fma:", "fma:small + rendered", "fma:small + fma:medium")),
        *(("unlabeled", "musdb18hq"), ("labeled", "fma:small")),
    ],
)
def test_other_names_are_refused_with_the_profile(field, value):
    with pytest.raises(UserError, match=rf"corpus\.{field}"):
        load("smoke", [f"corpus.{field}={value}"])


def song_files(folder):
    files = {}
    for index, role in enumerate(("mixture", *STEMS)):
        out = io.BytesIO()
        wave = np.random.default_rng([len(folder), index]).normal(0, 0.1, (2 * RATE, 2))
        soundfile.write(out, wave, RATE, "PCM_16", format="WAV")
        files[f"{folder}/{role}.wav"] = out.getvalue()
    return files


def test_musdb18hq_is_fetched_where_that_is_allowed_and_has_its_official_validation_songs(
    server, tmp_path, monkeypatch
):
    folders = ("train/A - a", "train/Leaf - Summerghost", "train/Z - z", "test/T - t")
    data = served(server, "musdb18hq.zip", {k: v for folder in folders for k, v in song_files(folder).items()})
    monkeypatch.setattr(musdb18, "URL", f"{server.url}musdb18hq.zip")
    monkeypatch.setattr(musdb18, "SHA256", hashlib.sha256(data).hexdigest())
    root = tmp_path / "musdb"
    changes = [f"corpus.musdb_root={root}", "corpus.labeled=musdb18hq", f"results={tmp_path / 'results'}"]
    with pytest.raises(UserError) as error:
        corpora.labeled(load("smoke", changes), tmp_path / "cache")
    assert "musdb18hq.zip" in str(error.value) and "corpus.musdb_root" in str(error.value)
    for download in (True, False):
        songs, skipped = corpora.labeled(load("smoke", [*changes, f"corpus.download={download}"]), tmp_path / "cache")
        assert [(song.name, song.split) for song in songs] == [
            ("A - a", "train"), ("Leaf - Summerghost", "validation"), ("Z - z", "train"), ("T - t", "test")
        ]  # fmt: skip
        assert skipped == [] and len(server.asked) == 1


def test_the_official_validation_songs_are_fourteen():
    assert len(set(musdb18.settings()["validation_tracks"])) == 14


def test_a_pipe_among_the_songs_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    assert (
        collection.look(tmp_path, tmp_path / "cache", tracks.Rules(0.5), 0.5, "pipe.mp3").reason == "a pipe or device"
    )
