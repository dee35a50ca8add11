"""People's compositions: MIDI files, sound fonts, how songs and fonts are dealt, and what is rendered."""

import io
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import STEMS, UserError
from lib.data import corpora
from lib.data.audio import UndecodableError
from lib.data.composed import arrange, corpus, fonts, midi, render
from lib.data.composed.compose import Control, Note, Part
from lib.profile import load, override
from lib.profile.fields import Arranged

RATE = 8000
GENERAL = tuple((0, program) for program in range(128))
PERIOD = 80  # samples of a sine's period: at 32 kHz it is 400 Hz


def sound_font(path, presets=(*GENERAL, (128, 0)), names=("sine",), vorbis=False):
    """A font whose presets all play a looped sine, 400 Hz at the 440 Hz that key 69 stands for."""
    wave = np.round(12000 * np.sin(2 * np.pi * np.arange(40 * PERIOD) / PERIOD)).astype("<i2")
    data, end, kind = wave.tobytes() + bytes(92), len(wave), 1
    if vorbis:
        buffer = io.BytesIO()
        soundfile.write(buffer, wave, 32000, format="OGG", subtype="VORBIS")
        data, end, kind = buffer.getvalue(), buffer.tell(), 0x11

    def chunk(name, content):
        return name + struct.pack("<I", len(content)) + content

    def label(text):
        return text.encode()[:20].ljust(20, b"\0")

    header = [label(f"{b} {p}") + struct.pack("<HHHIII", p, b, i, 0, 0, 0) for i, (b, p) in enumerate(presets)]
    header.append(label("EOP") + struct.pack("<HHHIII", 0, 0, len(presets), 0, 0, 0))
    bags = b"".join(struct.pack("<HH", i, 0) for i in range(len(presets) + 1))
    loop = (0, end) if not vorbis else (0, len(wave))
    samples = [label(n) + struct.pack("<IIIIIBbHH", 0, end, *loop, 32000, 69, 0, 0, kind) for n in names]
    tables = {
        b"phdr": b"".join(header),
        b"pbag": bags,
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HH", 41, 0) * len(presets) + bytes(4),
        b"inst": label("sine") + struct.pack("<H", 0) + label("EOI") + struct.pack("<H", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 2, 0),
        b"imod": bytes(10),
        b"igen": struct.pack("<HHHH", 54, 1, 53, 0) + bytes(4),
        b"shdr": b"".join(samples) + label("EOS") + bytes(26),
    }
    content = chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 1)))
    content += chunk(b"LIST", b"sdta" + chunk(b"smpl", data))
    content += chunk(b"LIST", b"pdta" + b"".join(chunk(name, table) for name, table in tables.items()))
    path.write_bytes(chunk(b"RIFF", b"sfbk" + content))
    return path


def track(channel, program, notes, name="", more=()):
    """A track of notes (start, length, pitch) in beats; ``more`` messages as (beat, message)."""
    events = [(0.0, 0, mido.Message("program_change", channel=channel, program=program))]
    for start, length, pitch in notes:
        events.append((start, 1, mido.Message("note_on", channel=channel, note=pitch, velocity=100)))
        events.append((start + length, 0, mido.Message("note_off", channel=channel, note=pitch)))
    events += [(beat, 0, message) for beat, message in more]
    found, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
    for beat, _, message in sorted(events, key=lambda event: event[:2]):
        tick = round(beat * 480)
        found.append(message.copy(time=tick - now))
        now = tick
    return found


def band(key=0, beats=24, seed=0):
    """The tracks of a song: drums, bass, a melody and chords; 120 beats a minute. Each seed is another melody."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([-2, -1, 1, 2, 3], beats).cumsum() % 12
    return {
        "drums": track(9, 0, [(b / 2, 0.1, (36, 42, 38, 42)[b % 4]) for b in range(2 * beats)]),
        "bass": track(0, 33, [(b, 0.9, 36 + key + int(p) % 7) for b, p in enumerate(steps[::-1])]),
        "lead": track(1, 80, [(b, 0.8, 60 + key + int(p)) for b, p in enumerate(steps)], "Melody"),
        "pad": track(2, 48, [(4 * b, 3.9, 48 + key + p) for b in range(beats // 4) for p in (0, 4, 7)]),
    }


def save(path, tracks, kind=1):
    file = mido.MidiFile(type=kind, ticks_per_beat=480)
    file.tracks.extend(tracks)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)
    return path


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A folder of twelve songs, and two fonts with unlike samples."""
    root = tmp_path_factory.mktemp("material")
    for i in range(12):
        save(root / "midi" / f"song {i}.mid", band(i % 5, seed=i).values())
    sound_font(root / "one.sf2")
    sound_font(root / "two.sf2", (*GENERAL, (128, 0), (128, 8)), ("square",))
    return root


def settings_of(root, **changes):
    """Few short songs from a folder of `material`."""
    counts = {"train_songs": 2, "validation_songs": 1, "test_songs": 2, "unlabeled_songs": 9}
    files = {"midi": (str(root / "midi"),), "fonts": (str(root / "one.sf2"), str(root / "two.sf2"))}
    return Arranged(**{"seed": 3, "song_seconds": 4.0, **counts, **files, **changes})


@pytest.fixture(scope="module")
def music(material, tmp_path_factory):
    return corpus.build(settings_of(material), RATE, tmp_path_factory.mktemp("corpus"), workers=1)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# MIDI


def test_notes_are_read_at_their_times(tmp_path):
    slower = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=250_000), mido.MetaMessage("set_tempo", tempo=10**6)])
    slower[1].time = 960
    lead = track(3, 80, [(1, 1, 60), (2, 2, 62)], "Lead")
    score = midi.read(save(tmp_path / "a.mid", [slower, lead]))
    (line,) = score.lines
    assert (line.channel, line.program, line.name.strip(), score.bpm) == (3, 80, "Lead", 240)
    assert [(n.start, n.end, n.pitch, n.velocity) for n in line.notes] == [(0.25, 0.5, 60, 100), (0.5, 2.5, 62, 100)]
    assert score.seconds == 2.5


def test_a_note_ends_by_release_pedal_or_the_next_of_its_pitch(tmp_path):
    pedal = [(beat, mido.Message("control_change", control=64, value=value)) for beat, value in ((0.5, 127), (4, 0))]
    (line,) = midi.read(save(tmp_path / "a.mid", [track(0, 0, [(0, 1, 60), (2, 1, 60), (2, 4, 64)], more=pedal)])).lines
    assert [(n.start, n.end, n.pitch) for n in line.notes] == [(0, 1, 60), (1, 2, 60), (1, 3, 64)]
    hanging = track(0, 0, [(0, 9, 60)], more=[(30, mido.Message("note_on", note=72))])[:-1]
    hanging = [message for message in hanging if message.type != "note_off"]
    (line,) = midi.read(save(tmp_path / "b.mid", [mido.MidiTrack(hanging)])).lines
    assert next((n.start, n.end) for n in line.notes) == (0, midi.UNRELEASED)


def test_a_channel_that_changes_program_is_several_lines_and_drums_are_one(tmp_path):
    change = [(1.5, mido.Message("program_change", program=40))]
    drums = track(9, 8, [(0, 1, 36), (2, 1, 38)], more=[(1.5, mido.Message("program_change", channel=9, program=16))])
    score = midi.read(save(tmp_path / "a.mid", [track(0, 0, [(0, 1, 60), (2, 1, 62)], more=change), drums]))
    assert [(line.channel, line.program, len(line.notes)) for line in score.lines] == [(0, 0, 1), (0, 40, 1), (9, 0, 2)]


def test_bends_and_volume_are_read(tmp_path):
    more = [(0, mido.Message("control_change", control=c, value=v)) for c, v in ((101, 0), (100, 0), (6, 12), (7, 50))]
    more += [(1, mido.Message("pitchwheel", pitch=8191)), (2, mido.Message("control_change", control=11, value=9))]
    (line,) = midi.read(save(tmp_path / "a.mid", [track(0, 0, [(0, 4, 60)], more=more)])).lines
    expected = [(0, "range", 12), (0, "volume", 50), (0.5, "bend", 16383), (1.0, "expression", 9)]
    assert list(line.controls) == [Control(*control) for control in expected]


def test_a_strange_key_signature_is_no_reason(tmp_path):
    path = save(tmp_path / "a.mid", [*band().values(), mido.MidiTrack([mido.MetaMessage("key_signature", key="F")])])
    data = path.read_bytes().replace(b"\xff\x59\x02\xff\x00", b"\xff\x59\x02\xff\xff")
    assert data != path.read_bytes()
    path.write_bytes(data)
    assert len(midi.read(path).lines) == 4


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 400))
def test_damaged_bytes_are_refused_in_one_line(tmp_path_factory, junk, start, length):
    folder = tmp_path_factory.mktemp("damaged")
    data = save(folder / "a.mid", band(beats=4).values()).read_bytes()
    (folder / "a.mid").write_bytes(data[:start] + junk + data[start + length :])
    try:
        assert midi.read(folder / "a.mid").lines
    except UndecodableError as error:
        assert error.reason and "\n" not in str(error)


# Stems


def test_stems_are_found_by_channel_program_and_melody(tmp_path):
    tracks = band() | {"helicopter": track(4, 125, [(0, 20, 60)])}
    stems = arrange.stem_lines(midi.read(save(tmp_path / "a.mid", tracks.values())))
    programs = {stem: [(line.channel, line.program) for line in lines] for stem, lines in stems.items()}
    assert programs == {"bass": [(0, 33)], "drums": [(9, 0)], "vocals": [(1, 80)], "other": [(2, 48)]}


def test_a_lead_has_a_second_voice_that_is_played(material, tmp_path):
    tracks = band(seed=77) | {
        "lead": track(1, 80, [(b, 0.8, 60 + b % 7) for b in range(24)] + [(4, 0.8, 55), (9, 0.8, 55)])
    }
    save(tmp_path / "midi" / "a.mid", tracks.values())
    for i in range(5):
        shutil.copy(material / "midi" / f"song {i}.mid", tmp_path / "midi")
    arranger, _ = arrange.plan(settings_of(material, midi=(str(tmp_path / "midi"),)))
    score = midi.read(tmp_path / "midi" / "a.mid")
    side = arranger.sides[False]
    parts = arrange._parts(score, 1.0, 8.0, side.fonts[0], side, np.random.default_rng(0))
    sung = next(part for part in parts if part.stem == "vocals")
    assert len(sung.notes) == 16 and sung.voice
    second = next(part for part in parts if part.stem == "other" and part.program == 80)
    assert [(note.start, note.pitch) for note in second.notes] == [(1.0, 55), (3.5, 55)]


def test_a_passage_has_the_notes_that_sound_in_it():
    notes = tuple(Note(start, start + 3, 60, 100) for start in (0, 2, 4, 9))
    controls = (Control(0, "volume", 10), Control(1, "volume", 20), Control(4, "bend", 0), Control(20, "bend", 1))
    line = midi.Line(0, 0, "", notes, controls)
    cut = arrange._cut(line, 2.5, 4.0)
    assert [(note.start, note.end) for note in cut.notes] == [(0, 0.5), (0, 2.5), (1.5, 4)]
    assert cut.controls == (Control(0, "volume", 20), Control(1.5, "bend", 0))
    assert [note.start for note in arrange._cut(replace(line, channel=midi.DRUM_CHANNEL), 2.5, 4.0).notes] == [1.5]


def test_passages_do_not_overlap_and_the_best_has_all_stems(tmp_path):
    tracks = band(beats=60)
    tracks["bass"] = track(0, 33, [(b, 0.9, 40) for b in range(34, 50)])
    starts = arrange._starts(midi.read(save(tmp_path / "a.mid", tracks.values())), 6.0, tmp_path / "a.mid")
    assert starts[0] in (17, 18, 19)  # 60 beats are 30 s; the bass plays from second 17 to 25
    assert len(starts) >= 3 and all(abs(a - b) >= 6 for i, a in enumerate(starts) for b in starts[:i])


def without(*names):
    return lambda path: save(path, [t for name, t in band().items() if name not in names])


def truncated(path):
    path.write_bytes(save(path, band().values()).read_bytes()[:-100])


def million(path):
    save(path, [*band().values()])
    events = bytes(
        b for n in range(10**6) for b in (1, 0x90 if n == 0 else 60, 60 if n == 0 else 99, 99)[: 4 if n == 0 else 3]
    )
    path.write_bytes(path.read_bytes() + b"MTrk" + struct.pack(">I", len(events)) + events)


BAD = {
    "truncated": (truncated, "truncated: its tracks break off"),
    "patterns": (lambda path: save(path, band().values(), kind=2), "type 2"),
    "a million notes": (million, "3.0 MB: more than the 2 MB"),
    "no drums": (without("drums"), "no drums"),
    "no bass": (without("bass"), "no bass"),
    "no melody": (without("lead"), "no part that could be sung"),
    "nothing else": (without("pad"), "nothing beside drums, bass and one part"),
    "no notes": (lambda path: save(path, [track(0, 0, [])]), "no notes"),
    "short": (lambda path: save(path, band(beats=4).values()), "1.9 s long, shorter than corpus.arranged"),
    "no MIDI": (lambda path: path.write_bytes(b"RIFFnone"), "no MIDI file"),
    "empty": (lambda path: path.write_bytes(b""), "no MIDI file"),
    "a copy": (lambda path: save(path, band(7, seed=3).values()), "the same music as "),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_is_left_out_with_its_reason(material, tmp_path, name):
    shutil.copytree(material / "midi", tmp_path / "midi")
    make, reason = BAD[name]
    make(tmp_path / "midi" / "zz.mid")
    arranger, skipped = arrange.plan(settings_of(material, midi=(str(tmp_path / "midi"),)))
    left_out, copies = (Path(item.path).name for item in skipped), ("zz.mid", "song 3.mid")
    assert [file in (copies if name == "a copy" else copies[:1]) for file in left_out] == [True]
    assert reason in skipped[0].reason and "\n" not in skipped[0].reason
    used = {passage.path.name for passages in arranger.passages.values() for passage in passages}
    assert len(used) == 12 and Path(skipped[0].path).name not in used


def test_too_few_songs_are_an_error_that_counts_them(material, tmp_path):
    (tmp_path / "b.mid").write_bytes(b"x")
    with pytest.raises(UserError, match=r"101 songs needed .* 12 usable .*1 left out, first .*b\.mid: no MIDI file"):
        arrange.plan(settings_of(material, midi=(str(material / "midi"), str(tmp_path)), test_songs=97))
    with pytest.raises(UserError, match=r"corpus\.arranged\.midi: no such folder"):
        arrange.plan(settings_of(material, midi=("/nowhere",)))
    (tmp_path / "b.mid").unlink()
    with pytest.raises(UserError, match=r"corpus\.arranged\.midi: no MIDI files"):
        arrange.plan(settings_of(material, midi=(str(tmp_path),)))


# Fonts


def test_a_font_says_what_it_holds(tmp_path):
    font = fonts.inspect(sound_font(tmp_path / "a.sf2", ((0, 8), *GENERAL[20:100], (128, 0), (128, 56), (8, 3))))
    assert font.programs == (8, *range(20, 100)) and font.kits == ((font.path, 128, 0),)
    assert [font.nearest(p) for p in (8, 12, 30, 127)] == [8, 8, 30, 99]
    drums = fonts.inspect(sound_font(tmp_path / "b.sf2", ((0, 0), (0, 1))))
    assert not drums.programs and drums.kits == ((drums.path, 0, 0), (drums.path, 0, 1))


def test_the_embedded_font_is_known_by_name():
    font = fonts.inspect(fonts.font_path("TimGM6mb"))
    assert len(font.programs) == 128 and [kit.preset for kit in font.kits] == [0, 8, 16, 24, 25, 32, 40]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(sound_font(path).read_bytes()[:-10]), r"truncated: \d+ of \d+ bytes"),
        (lambda path: path.write_bytes(b"RIFF"), "no SF2 or SF3 sound font"),
        (lambda path: path.write_bytes(b"RIFF\x04\0\0\0sfbk"), "damaged"),
        (lambda path: None, "No such file"),
        (lambda path: sound_font(path, GENERAL[:40]), "40 of General MIDI's 128 programs and no drum kit"),
    ],
)
def test_an_unusable_font_is_an_error_that_names_it(material, tmp_path, make, reason):
    make(tmp_path / "odd.sf2")
    with pytest.raises(UserError, match=rf"corpus\.arranged\.fonts: .*odd\.sf2: .*{reason}"):
        arrange.plan(settings_of(material, fonts=(str(material / "one.sf2"), str(tmp_path / "odd.sf2"))))


def test_a_side_without_drums_is_an_error_until_there_is_a_kit(material, tmp_path):
    plain = sound_font(tmp_path / "plain.sf2", GENERAL, ("plain",))
    pair = [fonts.inspect(path) for path in (plain, material / "one.sf2")]
    with pytest.raises(UserError, match=r"plain\.sf2: no drum kit"):
        fonts.sides(pair, 0)
    kit = fonts.inspect(sound_font(tmp_path / "kit.sf2", ((0, 0),), ("kit",)))
    for seed in range(4):
        found = fonts.sides([*pair, kit], seed)
        assert all(side.kits for side in found.values()) and not set(found[True].kits) & set(found[False].kits)


def test_two_fonts_of_the_same_samples_are_one(tmp_path):
    whole = fonts.inspect(sound_font(tmp_path / "a.sf2", names=tuple("abcdefghij")))
    mono = fonts.inspect(sound_font(tmp_path / "b.sf3", names=tuple("abcxyz")))
    other = fonts.inspect(sound_font(tmp_path / "c.sf2", names=("q",)))
    assert sorted(map(len, fonts.families([whole, other, mono]))) == [1, 2]
    with pytest.raises(UserError, match=r"beside (a\.sf2 and b\.sf3|b\.sf3 and a\.sf2) one more is needed"):
        fonts.sides([whole, mono], 0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=2, max_size=7), st.integers(0, 99))
def test_sides_share_neither_samples_nor_kits(tmp_path_factory, kinds, seed):
    root = tmp_path_factory.mktemp("fonts")
    found = []
    for i, (plays, drums, name) in enumerate(kinds):
        path = root / f"{i}.sf2"
        path.write_bytes(bytes([i]))
        kits = (fonts.Kit(str(path), 128, 0),) if drums or not plays else ()
        found.append(fonts.Font(str(path), tuple(range(128)) if plays else (), kits, frozenset({f"s{name}"})))
    try:
        sides = fonts.sides(found, seed)
    except UserError:
        return
    used = {key: {*side.fonts, *(f for f in found if set(f.kits) & set(side.kits))} for key, side in sides.items()}
    samples = {key: {name for font in some for name in font.samples} for key, some in used.items()}
    assert not samples[True] & samples[False]
    assert all(side.fonts and side.kits for side in sides.values())
    assert sides == fonts.sides(found[::-1], seed)


def test_a_single_font_divides_its_kits(tmp_path):
    font = fonts.inspect(sound_font(tmp_path / "a.sf2", (*GENERAL, (128, 0), (128, 8), (128, 16))))
    sides = fonts.sides([font], 0)
    assert [[kit.preset for kit in sides[key].kits] for key in (False, True)] == [[0, 8], [16]]


# Rendering


def tone(part, seconds=2.0):
    return render._play(replace(part, notes=(Note(0.0, 1.0, 69, 100),)), RATE, round(seconds * RATE))[0]


def pitch_of(wave):
    spectrum = np.abs(np.fft.rfft(wave[1000:7000] * np.hanning(6000), 1 << 16))
    return spectrum.argmax() * RATE / (1 << 16)


@pytest.mark.parametrize("vorbis", [False, True])
def test_fonts_are_played_in_tune_and_stop(tmp_path, vorbis):
    """SF3, whose samples are Ogg Vorbis, is played as SF2 is."""
    path = str(sound_font(tmp_path / "a.sf3", vorbis=vorbis))
    assert fonts.inspect(Path(path)).programs == tuple(range(128))
    part = Part("other", "", 5, (), font=path)
    wave = tone(part)
    assert abs(pitch_of(wave) - 400) < 2
    assert np.abs(wave[: RATE // 2]).max() > 0.05 and np.abs(wave[RATE + RATE // 2 :]).max() < 1e-4
    bent = replace(part, controls=(Control(0, "range", 12), Control(0, "bend", 16383)))
    assert abs(pitch_of(tone(bent)) - 800) < 4


def test_what_the_rate_cannot_hold_is_not_folded_down(tmp_path):
    part = Part("other", "", 5, (), font=str(sound_font(tmp_path / "a.sf2")))
    high = replace(part, notes=(Note(0.0, 1.0, 69 + 47, 100),))  # 6 kHz
    low = replace(part, notes=(Note(0.0, 1.0, 69, 100),))
    folded, heard = (np.abs(render._play(some, RATE, RATE)[0, 1000:7000]).max() for some in (high, low))
    assert folded < 0.03 * heard


def test_volume_is_that_of_general_midi(tmp_path):
    part = Part("other", "", 5, (), font=str(sound_font(tmp_path / "a.sf2")))
    full, half = (np.abs(tone(replace(part, controls=(Control(0, "volume", v),)))).max() for v in (127, 64))
    assert abs(20 * np.log10(half / full) - 40 * np.log10(64 / 127)) < 0.5


def test_a_font_that_the_synthesiser_refuses_is_named(tmp_path):
    path = sound_font(tmp_path / "a.sf2")
    path.write_bytes(path.read_bytes().replace(b"smpl", b"smpx"))
    with pytest.raises(UserError, match=r"a\.sf2: the synthesiser cannot read"):
        tone(Part("other", "", 5, (), font=str(path)))


def test_songs_and_instruments_of_the_test_are_its_own(material, music):
    described = json.loads((music / "songs.json").read_text())
    split = {kind: [s for s in described if (s["split"] == "test") == (kind == "test")] for kind in ("test", "rest")}
    files = {kind: {s["sections"][0][0] for s in songs} for kind, songs in split.items()}
    played = {
        kind: {p["role"] for s in songs for p in s["parts"] if p["stem"] != "drums"} for kind, songs in split.items()
    }
    assert not files["test"] & files["rest"] and not played["test"] & played["rest"]
    assert played["test"] | played["rest"] == {"one", "two"}
    labelled = [s["sections"][0][0] for s in described if s["split"] != "unlabeled"]
    unlabelled = {s["sections"][0][0] for s in described if s["split"] == "unlabeled"}
    assert len(set(labelled)) == 5 and not set(labelled) & unlabelled and len(unlabelled) == 7


def test_stems_sum_to_the_mixture_and_none_is_silent(music):
    folders = sorted((music / "labeled").glob("*/*"))
    assert [f.parent.name for f in folders] == ["test"] * 2 + ["train"] * 3
    for folder in folders:
        waves = {p.stem: soundfile.read(p, dtype="float32")[0] for p in folder.iterdir()}
        assert (sum(waves[stem].astype(float) for stem in STEMS) == waves["mixture"]).all()
        assert all(wave.shape == (4 * RATE, 2) and np.abs(wave).max() <= 0.9 for wave in waves.values())
        assert all(20 * np.log10(np.sqrt(np.square(waves[stem]).mean())) > -40 for stem in STEMS)


def test_the_profile_reads_it_as_any_corpus(material, tmp_path):
    changes = {f"corpus.arranged.{k}": v for k, v in vars(settings_of(material)).items() if k != "redealt"}
    changes = {k: list(v) if isinstance(v, tuple) else v for k, v in changes.items()}
    (material / "midi" / "bad.mid").write_bytes(b"x")
    try:
        names = {"corpus.labeled": "arranged", "corpus.unlabeled": "arranged", "audio.rate": RATE}
        profile = override(load("smoke"), {**names, "corpus.validation_songs": 1, **changes})
        tracks, skipped = corpora.labeled(profile, tmp_path)
        assert [track.split for track in tracks] == ["train", "train", "validation", "test", "test"]
        assert [(Path(item.path).name, item.reason) for item in skipped] == [("bad.mid", "no MIDI file")]
        found = override(
            profile, {"corpus.segment_seconds": 2.0, "pretrain.crop_seconds": 1.0, "finetune.crop_seconds": 1.0}
        )
        mixtures, _ = corpora.unlabeled(found, tmp_path)
        assert len(mixtures) == 9 and len(list(tmp_path.glob("arranged-*"))) == 1
    finally:
        (material / "midi" / "bad.mid").unlink()


def test_folds_would_mix_the_instruments_of_training_and_test():
    with pytest.raises(UserError, match=r"corpus\.folds must be 0 with corpus\.labeled=arranged"):
        override(load("smoke"), {"corpus.labeled": "arranged", "corpus.folds": 3})


def test_same_files_from_any_number_of_workers_and_wherever_the_sources_are(material, music, tmp_path):
    shutil.copytree(material, tmp_path / "elsewhere")
    moved = settings_of(tmp_path / "elsewhere")
    assert arrange.identity(moved) == arrange.identity(settings_of(material))
    assert contents(corpus.build(moved, RATE, tmp_path / "corpus", workers=2)) == contents(music)


def test_a_build_that_was_cut_off_is_completed_and_a_complete_one_left_alone(material, music, tmp_path, monkeypatch):
    root = tmp_path / "corpus"
    shutil.copytree(music, root)
    (root / "complete.json").unlink()
    shutil.rmtree(next((root / "labeled" / "test").iterdir()))
    (root / "unlabeled" / "000" / "000004.mp3").unlink()
    assert contents(corpus.build(settings_of(material), RATE, root, workers=1)) == contents(music)
    monkeypatch.setattr(arrange, "plan", None)
    corpus.build(settings_of(material), RATE, root)


def test_another_font_or_song_is_another_corpus(material, tmp_path):
    before = arrange.identity(settings_of(material))
    more = save(tmp_path / "more" / "a.mid", band(seed=99).values())
    assert arrange.identity(settings_of(material, midi=(str(material / "midi"), str(more.parent)))) != before
    other = str(sound_font(tmp_path / "b.sf2", names=("other",)))
    assert arrange.identity(settings_of(material, fonts=(str(material / "one.sf2"), other))) != before
