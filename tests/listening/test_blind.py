"""Blind tests: what is asked, in which order, how often; and answers that nothing can take away."""

import errno
import functools
import json
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lib import STEMS, UserError, scoring
from lib.listening import BlindTest
from lib.listening.blind import answers, design, prepare, setup
from lib.listening.blind.answers import Answers, Refused
from lib.listening.blind.session import Session
from lib.listening.excerpt import REFERENCE
from lib.listening.loudness import equal_loudness, loudness
from lib.profile.fields import Blind, Design
from lib.profile.load import load
from lib.store.files import read_facts
from tests.listening.heard import METHODS, RATE, Participant, designed, excerpts

MUSHRA = Blind(seconds=1.0, stems=("drums", "vocals"))
SETUP = setup.of_profile(MUSHRA)
ANCHORS = [name for name in design.FIXED if name != design.HIDDEN]


@functools.cache
def items() -> list[design.Item]:
    """What `MUSHRA` asks about."""
    return design.items(MUSHRA, SETUP, excerpts())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of `MUSHRA`, without answers."""
    return designed(tmp_path_factory.mktemp("prepared"), MUSHRA)


@pytest.fixture
def session(prepared, tmp_path):
    """`MUSHRA` with answers of its own."""
    (tmp_path / "sound").symlink_to(prepared / "sound")
    (tmp_path / "design.json").write_bytes((prepared / "design.json").read_bytes())
    return Session(tmp_path)


# --- conditions ---


def test_conditions_are_the_methods_between_reference_and_anchors_at_one_loudness():
    heard = items()
    assert [(item.song[-1], item.stem) for item in heard] == [(n, s) for n in "01" for s in ("drums", "vocals")]
    for item in heard:
        assert list(item.conditions) == [*design.FIXED, *METHODS]
        levels = [loudness(wave, RATE) for wave in item.conditions.values()]
        assert levels == pytest.approx([MUSHRA.loudness] * len(levels), abs=0.1)
        assert all(wave.shape == (2, RATE) and np.abs(wave).max() < 1 for wave in item.conditions.values())
        np.testing.assert_array_equal(item.reference, item.conditions[design.HIDDEN])


@pytest.mark.parametrize("leak_db", [-6.0, 0.0, 5.0])
def test_the_leakage_anchor_has_the_sdr_that_the_profile_says(leak_db):
    stems = np.random.default_rng(1).standard_normal((4, 2, RATE)).astype(np.float32)
    anchor = design.leakage_anchor(stems[0], stems.sum(0), leak_db)
    assert scoring.usdr(stems[:1], anchor[None])[0] == pytest.approx(-leak_db, abs=0.01)
    alone = design.leakage_anchor(stems[0], stems[0], leak_db)
    np.testing.assert_array_equal(alone, stems[0])


@pytest.mark.parametrize(("rate", "hertz"), [(16000, 3500), (44100, 3500), (44100, 7000)])
def test_an_anchor_keeps_what_is_below_its_edge_in_time_and_nothing_above(rate, hertz):
    time = np.arange(rate) / rate
    heard = (1000, hertz - 200, hertz + 500, hertz + 1000)
    tones = (np.tile(np.sin(2 * np.pi * at * time), (2, 1)).astype(np.float32) for at in heard)
    inner = slice(rate // 10, -rate // 10)
    low, edge, high, higher = ((design.low_pass(tone, rate, hertz)[:, inner], tone[:, inner]) for tone in tones)
    np.testing.assert_allclose(*low, atol=2e-3)
    np.testing.assert_allclose(*edge, atol=0.02)
    assert np.abs(high[0]).max() < 10 ** (-25 / 20) and np.abs(higher[0]).max() < 10 ** (-50 / 20)


def test_an_anchor_that_a_rate_makes_transparent_is_named_or_left_out():
    said = " ".join(design.protocol(design.described(SETUP, items())))
    assert "at 16000 Hz the 7 kHz anchor lacks only 7 to 8 kHz: nearly transparent" in said and "passages" not in said
    silence = np.zeros((2, 13 * RATE), np.float32)
    long = replace(items()[0], reference=silence, conditions={design.HIDDEN: silence})
    assert "passages of up to 13 s" in " ".join(design.protocol(design.described(SETUP, [long])))
    noise = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)
    low = design.item(SETUP, "s", "drums", 8000, noise, 2 * noise, {"m": noise})
    assert list(low.conditions) == [design.HIDDEN, design.LEAKAGE, "m"]
    said = " ".join(design.protocol(design.described(SETUP, [low])))
    assert all(f"at 8000 Hz the {name} would equal the reference" in said for name in design.ANCHORS)


def test_silent_stems_are_not_asked_about_and_unknown_methods_are_refused():
    heard = excerpts()
    heard[0].versions[REFERENCE][STEMS.index("drums")] = 0
    left = [("0", "vocals"), ("1", "drums"), ("1", "vocals")]
    assert [(item.song[-1], item.stem) for item in design.items(MUSHRA, SETUP, heard)] == left
    with pytest.raises(UserError, match="'nobody' is unknown"):
        design.items(MUSHRA, replace(SETUP, methods=("nobody",)), heard)
    silent = [
        replace(item, versions={REFERENCE: np.zeros((4, 2, RATE))}, mixture=np.zeros((2, RATE))) for item in heard
    ]
    with pytest.raises(UserError, match="none is audible"):
        design.items(MUSHRA, SETUP, silent)


def test_pairs_compare_the_studys_claim_unless_methods_are_named():
    chosen = replace(SETUP, test="preference")
    assert set(design.items(MUSHRA, chosen, excerpts(), METHODS[::-1])[0].conditions) == set(METHODS)
    (only,) = {tuple(i.conditions) for i in design.items(MUSHRA, chosen, excerpts(), ("wombat net", "quokka net"))}
    assert only == ("wombat net", "quokka net")


def test_equal_loudness_gives_way_to_full_scale():
    waves = [0.9 * np.sign(np.sin(np.arange(RATE)))[None], 0.01 * np.random.default_rng(0).standard_normal((1, RATE))]
    gains = equal_loudness(waves, RATE, target=0.0)
    louder = [wave * 10 ** (gain / 20) for wave, gain in zip(waves, gains, strict=True)]
    assert np.ptp([loudness(wave, RATE) for wave in louder]) < 0.1
    assert max(np.abs(wave).max() for wave in louder) == pytest.approx(0.98)
    assert list(equal_loudness([np.zeros((2, RATE))], RATE)) == [0.0]


# --- pages ---


def pages_of(session: Session, code: str, part: int = 0) -> list[tuple]:
    return [(p.question, p.item["song"], p.item["stem"], p.slots) for p in session._pages(code, part)]


@given(st.text("ABC123", min_size=2, max_size=8))
@settings(max_examples=25, deadline=None)
def test_every_participant_has_an_order_of_their_own_and_keeps_it(prepared, code):
    mine = pages_of(Session(prepared), code)
    assert mine == pages_of(Session(prepared), code)
    asked = {(question, song, stem) for question, song, stem, _ in mine}
    assert len(asked) == len(mine) == 3 * 4
    assert all(sorted(slots) == sorted([*design.FIXED, *METHODS]) for *_, slots in mine)
    assert mine != pages_of(Session(prepared), code + "X")
    other = Session(prepared)
    other.setup = {**other.setup, "seed": 1}
    assert mine != pages_of(other, code)


def test_conditions_take_every_place_equally_often(prepared):
    session = Session(prepared)
    found = [page[-1].index(design.HIDDEN) for n in range(100) for page in pages_of(session, f"P{n}")]
    counts = np.bincount(found, minlength=6)
    assert counts.sum() == 1200 and np.abs(counts - 200).max() < 56  # 4.3 standard deviations


def test_a_long_test_is_split_between_questions_and_then_songs_evenly_over_participants(tmp_path):
    whole = {tuple(page) for page in design.parts(SETUP, items(), 60.0, 0)[0]}
    for minutes, parts in ((12.0, 1), (6.0, 3), (4.0, 3), (2.0, 6), (1.0, 6)):
        split = design.parts(replace(SETUP, minutes=minutes), items(), 60.0, 0)
        assert len(split) == parts and {len(part) for part in split} == {12 // parts}
        assert {tuple(page) for part in split for page in part} == whole
        if parts == 3:
            assert all(len({question for question, _ in part}) == 1 for part in split)
    folder = designed(tmp_path, MUSHRA, minutes=1.0)
    session = Session(folder)
    for n in range(8):
        Participant(session, f"P{n}").begin()
    taken = [answers.part_of(Answers(folder / "answers", f"P{n}").events()) for n in range(8)]
    counts = np.bincount(taken, minlength=len(session.design["parts"]))
    assert counts.max() - counts.min() <= 1
    assert "split into" in " ".join(design.protocol(session.design))


@pytest.mark.parametrize(("test", "sides"), [("preference", 2), ("abx", 1)])
@pytest.mark.parametrize("detectable", [0.65, 0.75, 0.9])
def test_the_number_of_trials_is_the_fewest_with_the_power_that_was_asked_for(test, sides, detectable):
    chosen = Design(test=test, detectable=detectable)

    def power(count: int) -> float:
        tails = [binom.sf(k - 1, count, 0.5) for k in range(count + 1)]
        needed = next((k for k, tail in enumerate(tails) if tail <= chosen.alpha / sides), count + 1)
        return binom.sf(needed - 1, count, detectable)

    count = design.trials_needed(chosen)
    assert power(count) >= chosen.power
    assert all(power(fewer) < chosen.power for fewer in range(1, count))
    asked = replace(SETUP, test=test, detectable=detectable)
    found = design.described(asked, design.items(MUSHRA, asked, excerpts(), METHODS))
    assert next(design.protocol(found)).startswith(f"{count} trials of 'quokka net' and 'wombat net'")
    passages = np.bincount([item for part in found["parts"] for _, item in part])
    assert {len(part) for part in found["parts"]} == {count} and np.ptp(passages) == 0  # no passage is left out


def test_abx_draws_x_from_both_and_too_fine_a_difference_is_refused(tmp_path):
    session = Session(designed(tmp_path, replace(MUSHRA, test="abx")))
    drawn = [slots for n in range(20) for *_, slots in pages_of(session, f"P{n}")]
    assert all(set(slots) == set(METHODS) and len(slots) == 3 for slots in drawn)
    assert 0.35 < np.mean([slots[0] == slots[2] for slots in drawn]) < 0.65
    with pytest.raises(UserError, match="more than 2000 trials"):
        design.trials_needed(Design(test="abx", detectable=0.51))


# --- a participant ---


def test_a_participant_rates_stops_and_goes_on_where_they_were(session):
    p = Participant(session, " ab7 ")
    welcome = p.say("welcome")["page"]
    assert "power" not in json.dumps(welcome) and welcome["minutes"] >= 1
    assert p.say("begin")["page"] == {"view": "new", "code": "AB7"}  # a typing error is no new participant
    assert not Answers(session.folder / "answers", "AB7").events()
    p.begin()
    assert (p.page["view"], p.page["page"], p.page["of"], p.page["level"]) == ("trial", 0, 12, -6)
    first = p.values()
    p.answer(first)
    assert p.page["page"] == 1 and p.page["back"]

    again = Participant(Session(session.folder), "ab7")
    again.say("begin")
    assert again.page["view"] == "volume"
    again.say("level", level=-3.0)
    assert (again.page["view"], again.page["page"], again.page["level"]) == ("trial", 1, -3)
    again.finish()
    assert again.page["view"] == "questionnaire"
    again.say("questionnaire", answers=[], comment="fine, 'thanks'\n")
    assert again.page == {"view": "done", "code": "AB7"}
    events = Answers(session.folder / "answers", "AB7").events()
    rated = [event for event in events if event["kind"] == "answer"]
    assert [event["page"] for event in rated] == [*range(12)] and rated[0]["values"] == first
    assert rated[0]["plays"] == [1] * 7 and rated[0]["seconds"] == [2.5] * 7 and rated[0]["elapsed"] == 20
    assert tuple(rated[0]["slots"]) == session._pages("AB7", 0)[0].slots
    assert events[0]["design"] == session.design["fingerprint"] and events[-1]["comment"] == "fine, 'thanks'\n"
    assert sum(event["kind"] == "return" for event in events) == 1


def test_a_page_that_was_answered_in_another_tab_is_not_answered_again(session):
    """But for a participant who goes back to it and sees what they gave."""
    tabs = [Participant(session, "AB7").begin(), Participant(session, "AB7")]
    tabs[1].say("open", page=0)
    tabs[0].answer([10] * 6)
    refused = tabs[1].answer([99] * 6)
    assert refused["refused"] == "answered" and refused["page"]["page"] == 1
    tabs[0].say("open", page=0)
    assert tabs[0].page["values"] == [10] * 6 and tabs[0].page["revision"] == 1
    tabs[0].answer([20] * 6)
    assert tabs[0].page["page"] == 1
    values = [e["values"][0] for e in Answers(session.folder / "answers", "AB7").events() if e["kind"] == "answer"]
    assert values == [10, 20]


def test_no_way_back_in_pairs(tmp_path):
    session = Session(designed(tmp_path, replace(MUSHRA, test="abx", detectable=0.95)))
    p = Participant(session, "AB7").begin()
    p.answer([0])
    assert not p.page["back"]
    p.say("open", page=0)
    assert p.page["page"] == 1
    assert p.say("answer", page=0, revision=1, values=[1], **p.heard())["refused"] == "answered"


def test_nothing_that_leaves_names_a_method_a_song_or_a_file(session):
    sent, p = [], Participant(session, "AB7")
    said = p.say
    p.say = lambda kind, **facts: sent.append(said(kind, **facts)) or sent[-1]
    p.begin().finish()
    everything = json.dumps([{**reply["page"], "words": ""} for reply in sent]).lower()
    for secret in ("quokka", "wombat", "platypus", "hidden", "anchor", "leak", ".jsonl", ".flac", "sdr"):
        assert secret not in everything, secret
    assert "letters" in everything


def test_every_letter_is_the_sound_of_its_condition(session):
    p = Participant(session, "AB7").begin()
    page = session._pages("AB7", 0)[0]
    for slot, name in enumerate([design.HIDDEN, *page.slots]):
        wave, rate = soundfile.read(session.sound("AB7", p.page["sounds"], slot))
        (item,) = (i for i in items() if (i.song, i.stem) == (page.item["song"], page.item["stem"]))
        np.testing.assert_allclose(wave.T, item.conditions[name], atol=2**-23)
        assert rate == RATE
    for wrong in (("AB7", "0", 7), ("AB7", "0", -1), ("AB7", "99", 0), ("NOBODY", "0", 0), ("AB7", "x", 0)):
        with pytest.raises((LookupError, ValueError)):
            session.sound(*wrong)


@pytest.mark.parametrize("wrong", [[50] * 5, [50] * 5 + [101], [50] * 5 + [-1], [50] * 5 + [None], [50] * 5 + [1.5]])
def test_answers_that_cannot_be_are_refused_and_nothing_is_stored(session, wrong):
    p = Participant(session, "AB7").begin()
    assert p.answer(wrong)["refused"] == "not rated" and p.page["page"] == 0
    assert p.answer([50] * 6, seconds=[1.0])["refused"] == "misunderstood"
    assert not any(event["kind"] == "answer" for event in Answers(session.folder / "answers", "AB7").events())


@pytest.mark.parametrize("code", ["a", "Jane Doe", "../../etc", "x" * 65, "é12"])
def test_codes_are_words_and_no_paths(session, code):
    assert Participant(session, code).say("begin", new=True)["refused"] == "no code"
    assert not (session.folder / "answers").exists()


def test_who_has_no_code_gets_one_and_a_list_of_codes_keeps_others_out(session):
    codes = set()
    for _ in range(5):
        p = Participant(session, "")
        p.say("begin")
        codes.add(p.code)
    assert len(codes) == 5 and all((session.folder / "answers" / f"{code}.jsonl").exists() for code in codes)
    closed = Session(session.folder, ["X" * 64, "p01"])
    assert [one.reply({"type": "welcome"})["page"]["issued"] for one in (session, closed)] == [False, True]
    for stranger in ("", "P02", *codes):
        assert Participant(closed, stranger).say("begin", new=True)["refused"] == "not issued"
    for known in ("p01", "x" * 64):
        assert Participant(closed, known).say("begin")["page"]["view"] == "volume"


def test_consent_is_asked_for_and_kept(tmp_path):
    session = Session(designed(tmp_path, MUSHRA, consent="You may stop at any time.", contact="Dr. Example"))
    p = Participant(session, "AB7")
    assert p.say("welcome")["page"]["contact"] == "Dr. Example"
    assert p.say("begin", new=True)["refused"] == "no consent"
    assert p.say("begin", new=True, consent=True)["page"]["view"] == "volume"
    assert Answers(session.folder / "answers", "AB7").events()[0]["consent"] is True


def test_the_accompaniment_is_called_so_and_breaks_come_in_time(tmp_path):
    blind = replace(MUSHRA, stems=("other",), minutes=30.0)
    session = Session(designed(tmp_path, blind, excerpts(2, 8.0)))
    p = Participant(session, "AB7").begin()
    session.design["rest"], rests, asked = 2, [], set()
    while p.page["view"] == "trial":
        rests.append(p.page["rest"])
        asked.add(p.page["asked"])
        p.answer(p.values())
    assert len(asked) == 3 and all(text.count("the accompaniment") == 1 for text in asked)
    assert rests == [False, False, True, False, True, False]


@pytest.mark.parametrize("kind", ["preference", "abx"])
def test_two_alternatives_are_stored_with_all_letters_and_the_choice(tmp_path, kind):
    session = Session(designed(tmp_path, replace(MUSHRA, test=kind, detectable=0.95)))
    p = Participant(session, "AB7").begin()
    assert p.page["letters"] == (["A", "B", "X"] if kind == "abx" else ["Reference", "A", "B"])
    pages = session._pages("AB7", 0)
    p.finish()
    stored = [event for event in Answers(session.folder / "answers", "AB7").events() if event["kind"] == "answer"]
    assert [tuple(event["slots"]) for event in stored] == [page.slots for page in pages]
    assert all(event["values"] == [0, 1] for event in stored)


# --- answers on disk ---


def test_answers_come_back_as_they_were(tmp_path):
    mine = Answers(tmp_path, "007")
    mine.append("answer", song='A, "b"\nNA\u2028', values=[1])
    mine.append("answer", values=[2])
    found = mine.events()
    assert [event["values"] for event in found] == [[1], [2]] and found[0]["song"] == 'A, "b"\nNA\u2028'
    (tmp_path / "008.jsonl").write_text("words\n")
    with pytest.raises(UserError, match=r"008\.jsonl: line 1 is no event"):
        Answers(tmp_path, "008").events()
    with pytest.raises(Refused, match="no code"):
        Answers(tmp_path, "../x")


@given(st.integers(1, 80))
@settings(max_examples=30, deadline=None)
def test_a_line_that_a_power_cut_broke_off_costs_only_itself(tmp_path_factory, lost):
    mine = Answers(tmp_path_factory.mktemp("cut"), "AB")
    mine.append("answer", page=0)
    kept = mine.path.stat().st_size
    mine.append("answer", page=1)
    with open(mine.path, "r+b") as file:
        file.truncate(max(kept, mine.path.stat().st_size - lost))
    assert [event["page"] for event in mine.events()] == [0]
    mine.append("answer", page=2)
    assert [event["page"] for event in mine.events()] == [0, 2]


def test_a_full_disk_is_said_and_costs_nothing_that_was_there(session, monkeypatch):
    p = Participant(session, "AB7").begin()
    p.answer([10] * 6)
    before = Answers(session.folder / "answers", "AB7").path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert p.answer([20] * 6) == {"refused": "disk", "detail": "No space left on device"}
    assert Answers(session.folder / "answers", "AB7").path.read_bytes() == before and p.page["page"] == 1
    p.answer([20] * 6)
    assert p.page["page"] == 2


def test_answers_to_another_design_are_refused(session, tmp_path):
    Participant(session, "AB7").begin()
    other = designed(tmp_path / "other", MUSHRA, seed=5)
    assert other.name != f"mushra-{session.design['fingerprint']}"
    (other / "answers").mkdir()
    (session.folder / "answers" / "AB7.jsonl").rename(other / "answers" / "AB7.jsonl")
    assert Participant(Session(other), "AB7").say("begin")["refused"] == "other design"
    assert Participant(session, "AB7").say("open", page=0)["refused"] == "misunderstood"  # who has not begun here


def _write(folder, code: str, first: int) -> None:
    for number in range(first, first + 40):
        Answers(folder, code).append("answer", page=number)


def test_participants_at_once_lose_nothing_even_under_one_code(tmp_path):
    context = multiprocessing.get_context("fork")  # others would spend their time on imports, one after the other
    plans = [("AA", 0), ("AA", 40), ("BB", 0)]
    writers = [context.Process(target=_write, args=(tmp_path, code, first)) for code, first in plans]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for code, count in (("AA", 80), ("BB", 40)):
        assert sorted(event["page"] for event in Answers(tmp_path, code).events()) == [*range(count)]


def test_the_widget_answers_as_the_page_does(session):
    test, replies = BlindTest(session.folder), []
    test.send = lambda content, buffers=None: replies.append((content, buffers))
    for message in ({"type": "begin", "code": "AB7", "new": True}, {"type": "level", "code": "AB7", "level": -6}):
        test._received(test, {"id": 1, **message}, [])
    assert replies[-1][0]["page"]["view"] == "training" and replies[-1][0]["id"] == 1
    test._received(test, {"type": "sound", "id": 2, "code": "AB7", "page": "training0", "slot": 0}, [])
    assert replies[-1][0] == {"id": 2} and replies[-1][1][0][:4] == b"fLaC"
    test._received(test, {"type": "sound", "id": 3, "code": "AB7", "page": "0", "slot": 99}, [])
    assert replies[-1][0]["refused"] == "misunderstood"


# --- one's own stimuli, and what can be set ---


def stimuli(folder, rate: int = 22050, subtype: str = "PCM_24", songs: int = 2):
    """ITEM/{reference,mixture,good,bad}.wav of noise."""
    draw = np.random.default_rng(0)
    for song in range(songs):
        waves = 0.1 * draw.standard_normal((4, rate + song * 100, 1 + song))
        for name, wave in zip(("reference", "mixture", "good", "bad"), waves, strict=True):
            path = folder / f"item {song}" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave, rate, subtype=subtype)
    return folder


def test_ones_own_stimuli_need_no_study_and_keep_every_bit(tmp_path):
    folder = stimuli(tmp_path / "mine")
    (folder / "test.yaml").write_text("loudness: null\nlabels: {item 1: the second}\nwords: {play: Abspielen}\n")
    place = prepare.of_folder(folder)
    found = read_facts(place / "design.json")
    assert [list(item["conditions"]) for item in found["items"]] == [[*design.FIXED, "bad", "good"]] * 2
    assert [item["about"] for item in found["items"]] == ["", "the second"]
    for item in found["items"]:
        for name in ("reference", "good", "bad"):
            digest = item["reference"] if name == "reference" else item["conditions"][name]["sound"]
            mine, _ = soundfile.read(folder / item["song"] / f"{name}.wav", dtype="int32", always_2d=True)
            sent, rate = soundfile.read(place / "sound" / f"{digest}.flac", dtype="int32", always_2d=True)
            np.testing.assert_array_equal(sent, np.broadcast_to(mine, sent.shape))
            assert rate == 22050
    p = Participant(Session(place), "AB7")
    assert p.say("welcome")["page"]["words"]["play"] == "Abspielen"
    p.begin()
    assert p.page["view"] == "trial" and p.page["of"] == 2
    assert prepare.of_folder(folder) == place  # another call serves the same test
    (folder / "test.yaml").write_text("loudness: null\nseed: 1\n")
    assert prepare.of_folder(folder) != place


def test_what_cannot_be_a_test_is_one_line(tmp_path):
    folder = stimuli(tmp_path / "mine")
    for text, said in (
        ("tset: abx", "did you mean test"),
        ("words: {plya: x}", "unknown word 'plya'"),
        ("words: {bands: 'a, b'}", "five bands"),
        ("questions: {}", "questions must not be empty"),
        ("questionnaire: [{ask: Age, chioces: [a]}]", "did you mean choices"),
        ("methods: [good, nobody]", "item 0: has no nobody.wav"),
        ("test: abx\nmethods: [good]", "abx of 1 methods"),
    ):
        (folder / "test.yaml").write_text(text)
        with pytest.raises(UserError, match=said):
            prepare.of_folder(folder)
    (folder / "test.yaml").unlink()
    soundfile.write(folder / "item 1" / "good.wav", np.zeros(44100), 44100)
    with pytest.raises(UserError, match=r"good\.wav: 44100 Hz, but its reference has 22050 Hz"):
        prepare.of_folder(folder)
    soundfile.write(folder / "item 1" / "good.wav", np.zeros(44100), 22050)
    with pytest.raises(UserError, match=r"good\.wav: 2\.00 s, but its reference has 1\.00 s"):
        prepare.of_folder(folder)
    (folder / "item 1" / "good.wav").unlink()
    with pytest.raises(UserError, match=r"item 1: has no good\.wav"):
        prepare.of_folder(folder)
    for wrong in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=r"no such folder|no ITEM/reference"):
            prepare.of_folder(wrong)


def test_a_profile_sets_the_test_and_wrong_values_are_refused():
    profile = load("smoke", ["listening.blind.test=abx", "listening.blind.loudness=-30", "listening.blind.methods=[a]"])
    assert (profile.listening.blind.test, profile.listening.blind.loudness) == ("abx", -30.0)
    for wrong in (
        "test=triangle",
        "stems=[guitar]",
        "questions=[]",
        "detectable=0.5",
        "loudness=0",
        "power=1",
        "panel=-1",
        "minutes=0",
    ):
        with pytest.raises(UserError, match=rf"listening\.blind\.{wrong.split('=')[0]}"):
            load("smoke", [f"listening.blind.{wrong}"])
