"""Compositions out of Debian's packages: which songs are kept, also out of WAD files, and what is no song."""

import io
import struct

import mido
import pandas as pd
import pytest

from lib.data.sources import midi
from lib.data.sources.packages import Packages
from tests.data.packages import Archive

WHERE = "usr/share/games/game"
SOURCE = Packages("midi", ("alpha",), midi.WANTED, midi.choose)
BAND = ((9, 0), (0, 33), (1, 25), (2, 81))


def song(parts=BAND, beats=60, pitch=60, kind=1):
    """A note a beat, half a second, on each (channel, program)."""
    file = mido.MidiFile(type=kind, ticks_per_beat=96)
    for channel, program in parts:
        track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
        for _ in range(beats):
            track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=64, time=0))
            track.append(mido.Message("note_off", channel=channel, note=pitch, time=96))
        file.tracks.append(track)
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def wad(lumps, kind=b"IWAD"):
    heap, table = b"", b""
    for name, data in lumps:
        table += struct.pack("<II8s", 12 + len(heap), len(data), name)
        heap += data
    return struct.pack("<4sII", kind, len(lumps), 12 + len(heap)) + heap + table


@pytest.fixture
def provided(tmp_path, monkeypatch):
    """What of the files of a package is kept, and the reasons for the others, by name."""
    archive, root = Archive(tmp_path, monkeypatch), tmp_path / "midi"

    def provide(files):
        archive.add("alpha", {f"{WHERE}/{name}": data for name, data in files.items()})
        SOURCE.provide(root, True)
        rows = pd.read_csv(root / "pieces.csv", keep_default_na=False)
        kept = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.mid")}
        assert kept.keys() == set(rows["piece"][rows["left_out"] == ""])
        out = rows[rows["left_out"] != ""]
        return kept, {piece.rsplit("/", 1)[-1]: why for piece, why in zip(out["piece"], out["left_out"], strict=True)}

    return provide


def test_songs_with_drums_bass_and_two_other_parts_are_kept(provided):
    whole, notes = song(), b"\0\x90\x3c\x40\x60\x80\x3c\0" * 1_000_000
    endless = whole[:14] + b"MTrk" + struct.pack(">I", len(notes)) + notes
    kept, left_out = provided({
        "music/whole.mid": whole, "music/no drums.mid": song(BAND[1:]), "music/no bass.mid": song(BAND[:1] + BAND[2:]),
        "music/duo.mid": song(BAND[:3], pitch=61), "music/short.mid": song(beats=20),
        "music/type 2.mid": song(kind=2, pitch=62), "music/cut.mid": whole[:-40], "music/words.mid": b"no music",
        "music/many.mid": endless, "music/empty.mid": song(beats=0), "readme.txt": b"x",
    })  # fmt: skip
    assert kept == {"alpha/whole.mid": whole}
    assert left_out["no drums.mid"] == "no drums" and left_out["no bass.mid"] == "no bass"
    assert left_out["duo.mid"] == "1 part(s) beside drums and bass" and left_out["short.mid"] == "under 20 s"
    assert "type 2" in left_out["type 2.mid"] and "truncated" in left_out["cut.mid"]
    assert {"words.mid", "many.mid", "empty.mid"} < left_out.keys() and all(map(str.isprintable, left_out.values()))


def test_songs_lie_in_wad_files_too(provided):
    lumps = [(b"D_ONE", song()), (b"MAP01", b""), (b"D_TWO\0\xff", song(pitch=61)), (b"D_ONE", song(pitch=62))]
    broken = wad([(b"D_ONE", song())])[:-8]
    kept, left_out = provided({"a.wad": wad(lumps), "b.WAD": broken, "c.wad": b"words, no WAD", "d.wad": b""})
    assert kept.keys() == {"alpha/a-D_ONE.mid", "alpha/a-D_TWO.mid", "alpha/a-D_ONE-3.mid"}
    assert left_out.keys() == {"b.WAD", "c.wad", "d.wad"} and all("no WAD" in why for why in left_out.values())
