"""Corpora: every reader gives the same `Track`, and lists what it left out as `Skipped` with a reason."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import soundfile

from lib import STEMS, UserError
from lib.data import fma, folder, musdb18
from lib.data.collection import Collection
from lib.data.sources import SOURCES
from lib.data.tracks import Candidate, Skipped, Track, content_digest, scan, skip
from lib.profile.fields import ARRANGED, FMA, MUSDB, STEMMED, Corpus, Profile, parts_of
from lib.store.files import atomic
from lib.store.fingerprints import fingerprint

Found = tuple[Sequence[Track], list[Skipped]]
"""Songs, and what was left out."""
CUT = 0.1
"""Seconds at each end of `real_song` that are left out."""


def left_out(root: Path) -> list[Skipped]:
    """The MIDI files that the songs composed under ``root`` were not made from, and why."""
    listed = root / "left_out.json"
    return [Skipped(*item) for item in json.loads(listed.read_text("utf-8"))] if listed.is_file() else []


def provide(profile: Profile) -> None:
    """Fetch and unpack the profile's music that goes by its name, where ``corpus.download`` allows, or check them.

    Raises: UserError, one line that says what to put where or which field to set.
    """
    for source in chain(*profile.corpus.music.values()):
        _provide(profile.corpus, source)


def _provide(corpus: Corpus, source: str) -> None:
    if source == MUSDB:
        musdb18.provide(corpus.folder_of(source), corpus.download)
    elif source.startswith(FMA):
        fma.provide(corpus.folder_of(source), source.removeprefix(FMA), corpus.download)
    elif source in SOURCES:
        SOURCES[source].provide(corpus.folder_of(source), corpus.download, corpus.workers)


def available(profile: Profile) -> bool:
    """Whether the unlabelled music is there, or can be rendered or downloaded."""

    def found(part: str) -> bool:
        root = profile.corpus.folder_of(part)
        if part.startswith(FMA):
            return profile.corpus.download or fma.there(root, part.removeprefix(FMA))
        if part in SOURCES:
            return profile.corpus.download or SOURCES[part].there(root)
        return root is None or root.is_dir()

    return all(map(found, profile.corpus.unlabeled_parts))


def labeled(profile: Profile, cache: Path) -> Found:
    """Songs with stems from ``corpus.labeled``: made here, ``musdb18hq``, or folders (see `lib.data.musdb18`).

    With ``corpus.tested``, its songs are tested in place of the labelled ones' own test songs; those that are among the
    labelled ones, too, are neither learned from nor validated on.
    Raises `UserError` if a folder does not exist or holds no usable song.
    """
    corpus = profile.corpus
    songs, skipped = _with_stems(profile, "labeled", corpus.labeled, cache, corpus.folds)
    if not corpus.tested:
        return songs, skipped
    tested, others = _with_stems(profile, "tested", corpus.tested, cache, 1)
    names = {song.digest: song.name for song in tested}
    songs = [song for song in songs if song.split != "test"]
    again = [song for song in songs if song.digest in names]
    others += [skip(next(iter(song.files.values())).parent, f"tested, as '{names[song.digest]}'") for song in again]
    return [song for song in songs if song not in again] + tested, skipped + others


def _with_stems(profile: Profile, kind: str, value: str, cache: Path, folds: int) -> Found:
    settings, parts, read = profile.corpus, parts_of(value), []
    for part in parts:
        root = _root(profile, kind, part, cache)
        found = musdb18.read(root, cache, settings.workers, settings.validation_songs, folds)
        songs, skipped = _usable(f"corpus.{kind}", root, *found)
        read.append((songs, skipped + (left_out(root.parent) if part == ARRANGED else [])))
    return read[0] if len(parts) == 1 else _joined(parts, read)


def _joined(parts: Sequence[str], read: list[Found]) -> Found:
    """Songs of several sources, named by their source first: the folder's name, or its path where two have one."""
    names = [Path(part).name for part in parts]
    names = [name if names.count(name) == 1 else part.strip("/") for name, part in zip(names, parts, strict=True)]
    songs = [
        replace(song, name=f"{name}/{song.name}") for name, (some, _) in zip(names, read, strict=True) for song in some
    ]
    return songs, [item for _, skipped in read for item in skipped]


def unlabeled(profile: Profile, cache: Path) -> Found:
    """Mixtures from ``corpus.unlabeled``: made here, a folder in FMA's layout, or any folder of music; or several.

    ``fma:SUBSET`` gives a `Collection`, all else a list. Raises `UserError` if a folder does not exist or holds no
    usable song.
    """
    parts = profile.corpus.unlabeled_parts
    found = [_unlabeled(profile, part, cache) for part in parts]
    return found[0] if len(parts) == 1 else _joined(parts, found)


def _unlabeled(profile: Profile, part: str, cache: Path) -> Found:
    corpus, rate = profile.corpus, profile.audio.rate
    root = _root(profile, "unlabeled", part, cache)
    if part.startswith(FMA):
        cut = (corpus.segment_seconds, corpus.segment_hop_seconds)
        found = fma.collection(root, part.removeprefix(FMA), cache, corpus.workers, rate, *cut)
    elif (root / fma.METADATA).is_file():
        found = fma.read(root, corpus.fma_subset, cache, corpus.workers, rate, corpus.segment_seconds)
    else:
        found = folder.read(root, cache, corpus.workers, corpus.segment_seconds, _tested(corpus))
    return _usable("corpus.unlabeled", root, *found)


def _tested(corpus: Corpus) -> dict[str, str]:
    """Content digests of all files of the labelled songs that are tested, in any fold, with the names of the songs."""
    folds = 1 if corpus.tested else corpus.folds
    roots = map(corpus.folder_of, parts_of(corpus.tested or corpus.labeled))
    songs = [song for root in roots if root and root.is_dir() for song in musdb18.listed(root, folds)[0]]
    files = [(path, song.name) for song in songs if song.split == "test" for path in song.files.values()]
    return {content_digest({"mixture": path}): name for path, name in files if os.access(path, os.R_OK)}


def real_song(cache: Path) -> Track:
    """stempeg's example, 6 s of one MUSDB18 song with its stems: the out-of-domain check of every profile.

    Without its first and last `CUT` seconds: where it was cut out of its song, AAC decodes into a full-scale click in
    every stem.
    """
    path = Path(musdb18.musdb().stempeg.example_stem_path())
    song = Candidate(path.name.removesuffix(musdb18.STEMS_OF), "test", {musdb18.STEMS_OF: path})
    tracks, skipped = scan([song], cache / "real_song", 1, unpack=_without_clicks)
    track = _usable("stempeg's example", path, tracks, skipped)[0][0]
    return replace(track, digest=fingerprint([track.digest, CUT]))


def recorded_songs(profile: Profile, cache: Path) -> list[Track]:
    """One song, the first with all stems, of every source of recorded songs that is on the disk but not the profile's.

    They are heard, and taken for nothing else.
    """
    corpus, found = profile.corpus, []
    for name in sorted({*STEMMED} - {*chain(*corpus.music.values())}):
        root = corpus.folder_of(name)
        songs = musdb18.read(root, cache, corpus.workers, 0, 1)[0] if SOURCES[name].there(root) else []
        found += [replace(song, name=f"{name}/{song.name}") for song in songs if {*STEMS} <= song.files.keys()][:1]
    return found


def _without_clicks(files: dict[str, Path], cache: Path) -> dict[str, Path]:
    decoded = musdb18.unpack(files, cache, clipped=True)
    inner = {role: file.with_stem(f"{role}-inner") for role, file in decoded.items()}
    for role, file in inner.items():
        if not file.exists():
            wave, rate = soundfile.read(decoded[role], dtype="int16")
            edge = round(CUT * rate)
            with atomic(file) as temporary:
                soundfile.write(temporary, wave[edge:-edge], rate, "PCM_16", format="FLAC")
    return inner


def _root(profile: Profile, kind: str, value: str, cache: Path) -> Path:
    if settings := profile.corpus.recipe_of(value):
        from lib.data.composed import corpus  # a synthesiser is needed to render music, not to read it

        rate = profile.audio.rate
        return corpus.build(settings, rate, cache / f"{value}-{fingerprint([corpus.identity(settings), rate])}") / kind
    _provide(profile.corpus, value)
    root = profile.corpus.folder_of(value).resolve()
    if not root.is_dir():
        raise UserError(f"corpus.{kind}: no such folder: {value}; give a folder of music, or 'rendered'")
    return root


def of_split(tracks: Sequence[Track], split: str) -> Sequence[Track]:
    """The songs of ``train``, ``validation`` or ``test``, in a sequence of the same type."""
    return tracks.of_split(split) if isinstance(tracks, Collection) else [t for t in tracks if t.split == split]


def take(tracks: Sequence[Track], indices: Sequence[int]) -> Sequence[Track]:
    """The songs of some (ascending) indices, in a sequence of the same type."""
    return tracks.take(indices) if isinstance(tracks, Collection) else [tracks[index] for index in indices]


def _usable(field: str, root: Path, tracks: Sequence[Track], skipped: list[Skipped]) -> Found:
    if not tracks:
        why = f"{len(skipped)} skipped, first {skipped[0].path}: {skipped[0].reason}" if skipped else "no music in it"
        raise UserError(f"{field}: nothing usable in {root} ({why})")
    return tracks, skipped


def dealt(songs: list[Track]) -> list[Track]:
    """As many songs, with stems re-dealt: stem k of song i is that of song (i + k n / 4) mod n.

    Stems of a song were then neither composed nor mixed together. Songs last as long as their shortest stem.
    """
    found = []
    for i, song in enumerate(songs):
        sources = [songs[(i + k * max(1, len(songs) // len(STEMS))) % len(songs)] for k in range(len(STEMS))]
        pairs = zip(STEMS, sources, strict=True)
        files = {stem: source.files[stem] for stem, source in pairs if stem in source.files}
        frames, digest = min(source.frames for source in sources), fingerprint([source.digest for source in sources])
        found.append(replace(song, name=f"{song.name}, re-dealt", frames=frames, files=files, digest=digest))
    return found
