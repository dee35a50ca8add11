"""Blind tests: what is asked, in which order, how often; and answers that nothing can take away."""

import functools
import multiprocessing
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lib import STEMS, UserError, scoring
from lib.listening import BlindTest
from lib.listening.blind import answers, design
from lib.listening.blind.answers import Answers
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.listening.loudness import equal_loudness, loudness
from lib.profile.fields import Blind
from lib.profile.load import load
from tests.listening.heard import METHODS, RATE, excerpts

MUSHRA = Blind(seconds=2.0, stems=("drums", "vocals"))


@functools.cache
def items() -> list[design.Item]:
    """What `MUSHRA` asks about."""
    return design.items(MUSHRA, excerpts())


@pytest.fixture
def panel(tmp_path):
    """Start a test and talk to it as the browser does: ``say(type, **more)`` -> its replies."""

    def started(chosen: Blind = MUSHRA, heard: list[Excerpt] | None = None):
        test, replies = BlindTest(chosen, heard or excerpts(), tmp_path), []
        test.send = lambda content, buffers=None: replies.append(content)

        def say(kind: str, **more) -> dict:
            test._received(test, {"type": kind, "id": random.random(), "trial": test.page.get("trial"), **more}, [])
            return replies[-1]

        return test, say

    return started


def values_of(test: BlindTest) -> list[int]:
    return [(17 * n + test.page["trial"]) % 101 for n in range(len(test.page["drafts"]))]


def test_conditions_are_the_methods_between_reference_and_anchors_at_one_loudness():
    heard = design.items(MUSHRA, excerpts())
    assert [(item.song[-1], item.stem) for item in heard] == [(n, s) for n in "01" for s in ("drums", "vocals")]
    for item in heard:
        assert list(item.conditions) == [*design.FIXED, *METHODS]
        levels = [loudness(wave, RATE) for wave in item.conditions.values()]
        assert levels == pytest.approx([MUSHRA.loudness] * 5, abs=0.1)
        assert all(wave.shape == (2, 2 * RATE) and np.abs(wave).max() < 1 for wave in item.conditions.values())
        np.testing.assert_array_equal(item.reference, item.conditions[design.HIDDEN])


@pytest.mark.parametrize("leak_db", [-6.0, 0.0, 5.0])
def test_the_leakage_anchor_has_the_sdr_that_the_profile_says(leak_db):
    stems = np.random.default_rng(1).standard_normal((4, 2, RATE)).astype(np.float32)
    anchor = design.leakage_anchor(stems[0], stems.sum(0), leak_db)
    assert scoring.usdr(stems[:1], anchor[None])[0] == pytest.approx(-leak_db, abs=0.01)
    alone = design.leakage_anchor(stems[0], stems[0], leak_db)
    np.testing.assert_array_equal(alone, stems[0])


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_low_anchor_keeps_what_is_below_its_edge_in_time_and_nothing_above(rate):
    time = np.arange(rate) / rate
    tones = (np.tile(np.sin(2 * np.pi * hertz * time), (2, 1)).astype(np.float32) for hertz in (1000, 3300, 4000, 4500))
    inner = slice(rate // 10, -rate // 10)
    low, edge, high, higher = ((design.low_anchor(tone, rate)[:, inner], tone[:, inner]) for tone in tones)
    np.testing.assert_allclose(*low, atol=2e-3)
    np.testing.assert_allclose(*edge, atol=0.02)
    if rate > 8000:  # else there is nothing above
        assert np.abs(high[0]).max() < 10 ** (-25 / 20) and np.abs(higher[0]).max() < 10 ** (-50 / 20)


def test_silent_stems_are_not_asked_about_and_unknown_methods_are_refused():
    heard = excerpts()
    heard[0].versions[REFERENCE][STEMS.index("drums")] = 0
    left = [("0", "vocals"), ("1", "drums"), ("1", "vocals")]
    assert [(item.song[-1], item.stem) for item in design.items(MUSHRA, heard)] == left
    with pytest.raises(UserError, match="'nobody' is unknown"):
        design.items(replace(MUSHRA, methods=("nobody",)), heard)
    silent = [
        replace(item, versions={REFERENCE: np.zeros((4, 2, RATE))}, mixture=np.zeros((2, RATE))) for item in heard
    ]
    with pytest.raises(UserError, match="none is audible"):
        design.items(MUSHRA, silent)


def test_equal_loudness_gives_way_to_full_scale():
    waves = [0.9 * np.sign(np.sin(np.arange(RATE)))[None], 0.01 * np.random.default_rng(0).standard_normal((1, RATE))]
    gains = equal_loudness(waves, RATE, target=0.0)
    louder = [wave * 10 ** (gain / 20) for wave, gain in zip(waves, gains, strict=True)]
    assert np.ptp([loudness(wave, RATE) for wave in louder]) < 0.1
    assert max(np.abs(wave).max() for wave in louder) == pytest.approx(0.98)
    assert list(equal_loudness([np.zeros((2, RATE))], RATE)) == [0.0]


@given(st.text("ABC123", min_size=2, max_size=8), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_every_participant_has_an_order_of_their_own_and_keeps_it(code, seed):
    heard, chosen = items(), replace(MUSHRA, seed=seed)
    mine, again = (design.trials(chosen, heard, code) for _ in range(2))
    facts = [[(t.question, t.item.song, t.item.stem, t.slots) for t in one] for one in (mine, again)]
    assert facts[0] == facts[1]
    asked = {(question, song, stem) for question, song, stem, _ in facts[0]}
    assert len(asked) == len(mine) == 3 * 4
    assert all(sorted(slots) == sorted([*design.FIXED, *METHODS]) for *_, slots in facts[0])
    other = design.trials(chosen, heard, code + "X")
    assert facts[0] != [(t.question, t.item.song, t.item.stem, t.slots) for t in other]


def test_conditions_take_every_place_equally_often():
    heard = items()
    found = [trial.slots.index(design.HIDDEN) for n in range(100) for trial in design.trials(MUSHRA, heard, f"P{n}")]
    counts = np.bincount(found, minlength=5)
    assert counts.sum() == 1200 and np.abs(counts - 240).max() < 60  # 4.3 standard deviations


@pytest.mark.parametrize(("test", "sides"), [("preference", 2), ("abx", 1)])
@pytest.mark.parametrize("detectable", [0.65, 0.75, 0.9])
def test_the_number_of_trials_is_the_fewest_with_the_power_that_was_asked_for(test, sides, detectable):
    chosen = replace(MUSHRA, test=test, detectable=detectable)

    def power(count: int) -> float:
        tails = [binom.sf(k - 1, count, 0.5) for k in range(count + 1)]
        needed = next((k for k, tail in enumerate(tails) if tail <= chosen.alpha / sides), count + 1)
        return binom.sf(needed - 1, count, detectable)

    count = design.trials_needed(chosen)
    assert power(count) >= chosen.power
    assert all(power(fewer) < chosen.power for fewer in range(1, count))
    told = design.protocol(chosen, design.items(chosen, excerpts()))[0]
    assert told.startswith(f"{count} trials")


def test_abx_draws_x_from_both_and_too_fine_a_difference_is_refused():
    chosen = replace(MUSHRA, test="abx")
    heard = design.items(chosen, excerpts())
    drawn = [trial.slots for n in range(20) for trial in design.trials(chosen, heard, f"P{n}")]
    assert all(set(slots) == set(METHODS) and len(slots) == 3 for slots in drawn)
    assert 0.35 < np.mean([slots[0] == slots[2] for slots in drawn]) < 0.65
    with pytest.raises(UserError, match="more than 2000 trials"):
        design.trials_needed(replace(chosen, detectable=0.51))


def test_a_participant_rates_stops_and_goes_on_where_they_were(panel, tmp_path):
    test, say = panel()
    assert test.page["view"] == "welcome" and "12 pages" in test.page["protocol"][0]
    assert say("begin", code=" ab7 ")["type"] == "saved" and test.page["view"] == "training"
    say("trained")
    assert (test.page["view"], test.page["done"], test.page["of"]) == ("trial", 0, 12)
    first = test.page["trial"]
    rated = values_of(test)
    say("submit", values=rated)
    second = test.page["trial"]
    assert second != first
    say("rate", slot=2, value=63)
    slots = test._trials[second].slots

    again, say = panel()
    say("begin", code="AB7")
    assert (again.page["view"], again.page["trial"], again.page["done"]) == ("trial", second, 1)
    assert again.page["drafts"] == [None, None, 63, None, None]
    while again.page["view"] == "trial":
        say("submit", values=values_of(again))
    assert again.page["view"] == "done" and again.page["code"] == "AB7"
    table = answers.collected(tmp_path, "mushra")
    assert len(table) == 12 * 5 and (table["participant"] == "AB7").all()
    mine = table[table["trial"] == second].set_index("slot")
    assert tuple(mine["condition"]) == slots
    assert list(table[table["trial"] == first].sort_values("slot")["value"]) == rated
    say("begin", code="AB7")
    assert again.page["view"] == "done"


def test_nothing_that_leaves_the_kernel_names_a_method_a_song_or_a_file(panel):
    test, say = panel()
    sent = [repr(test), repr(test._repr_mimebundle_())]
    say("begin", code="AB7")
    while True:
        for name, value in test.get_state().items():
            plain = (
                repr(value).encode() if name != "page" else repr(value).encode() + b"".join(value.get("signals", []))
            )
            sent.append(plain.decode("latin-1"))
        if test.page["view"] == "done":
            break
        say("trained") if test.page["view"] == "training" else say("submit", values=values_of(test))
    everything = "".join(sent).lower()
    for secret in ("quokka", "wombat", "platypus", "hidden", "anchor", "leak", ".csv", ".wav"):
        # the page's own program and text may use a word that the conditions use, what is sent with a trial may not
        assert secret not in everything.replace(BlindTest._esm.lower(), "") or secret in BlindTest._esm.lower(), secret
    assert "letters" in everything


@pytest.mark.parametrize("wrong", [[50] * 4, [50] * 4 + [101], [50] * 4 + [-1], [50] * 4 + [None], [50] * 4 + [1.5]])
def test_answers_that_cannot_be_are_refused_and_nothing_is_stored(panel, tmp_path, wrong):
    test, say = panel()
    say("begin", code="AB7")
    say("trained")
    before = test.page["trial"]
    assert say("submit", values=wrong)["type"] == "refused"
    assert test.page["trial"] == before and not len(answers.collected(tmp_path, "mushra"))


def test_a_page_that_was_answered_in_another_tab_is_not_answered_again(panel, tmp_path):
    test, say = panel()
    say("begin", code="AB7")
    say("trained")
    old = test.page["trial"]
    say("submit", values=values_of(test))
    assert say("submit", trial=old, values=[1] * 5)["type"] == "refused"
    assert len(answers.collected(tmp_path, "mushra")) == 5


@pytest.mark.parametrize("code", ["a", "Jane Doe", "../../etc", "x" * 13, "é12"])
def test_codes_are_short_and_no_paths(panel, tmp_path, code):
    _, say = panel()
    reply = say("begin", code=code)
    assert reply["type"] == "refused" and "2 to 12 letters and digits" in reply["why"]
    assert not list(tmp_path.iterdir())


def test_who_has_no_code_gets_one_of_their_own(panel, tmp_path):
    codes = set()
    for _ in range(5):
        test, say = panel()
        say("begin", code="")
        codes.add(test.page["code"])
    assert len(codes) == 5 and all((tmp_path / f"mushra-{code}.csv").exists() for code in codes)


@pytest.mark.parametrize("kind", ["preference", "abx"])
def test_two_alternatives_are_stored_as_what_was_chosen(panel, tmp_path, kind):
    chosen = replace(MUSHRA, test=kind, detectable=0.95)
    test, say = panel(chosen)
    say("begin", code="AB7")
    say("trained")
    count, right = test.page["of"], 0
    assert test.page["letters"] == (["A", "B", "X"] if kind == "abx" else ["Reference", "A", "B"])
    while test.page["view"] == "trial":
        slots = test._trials[test.page["trial"]].slots
        right += kind == "abx" and slots[1] == slots[2]
        say("submit", values=[1])
    table = answers.collected(tmp_path, kind)
    if kind == "abx":
        assert len(table) == count and table["value"].sum() == right
        assert set(table["condition"]) == {" / ".join(METHODS)}
    else:
        assert len(table) == 2 * count and set(table["condition"]) == set(METHODS)
        assert (table[table["slot"] == 1]["value"] == 1).all() and table["value"].sum() == count


def row(trial: int, slot: int = 0, value: int = 50, submitted: int = 1) -> dict:
    facts = {"question": "target", "song": 'A, "b"\nNA', "stem": "drums", "condition": "NA"}
    return {"trial": trial, "slot": slot, "value": value, "submitted": submitted, **facts}


def test_answers_come_back_as_they_were_and_submitted_ones_win(tmp_path):
    mine = Answers(tmp_path, "mushra", "007")
    mine.append([row(0, value=10, submitted=0)])
    mine.append([row(0, value=20)])
    mine.append([row(0, value=30, submitted=0), row(1, value=40, submitted=0)])
    found = mine.read()
    assert list(found["value"]) == [20, 40] and mine.finished() == {0}
    assert set(found["participant"]) == {"007"} and set(found["song"]) == {'A, "b"\nNA'}
    assert list(answers.collected(tmp_path, "mushra")["value"]) == [20]
    assert not len(answers.collected(tmp_path, "abx"))


@given(st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_a_line_that_a_power_cut_broke_off_costs_only_itself(tmp_path_factory, lost):
    folder = tmp_path_factory.mktemp("cut")
    mine = Answers(folder, "mushra", "AB")
    mine.append([row(0)])
    kept = mine.path.stat().st_size
    mine.append([{**row(1), "song": "plain"}])
    with open(mine.path, "r+b") as file:
        file.truncate(max(kept, mine.path.stat().st_size - lost))
    assert mine.finished() == {0}
    mine.append([row(2)])
    assert mine.finished() == {0, 2}


def _write(folder, code: str, first: int) -> None:
    mine = Answers(folder, "mushra", code)
    for number in range(first, first + 40):
        mine.append([row(number, slot) for slot in range(5)])


def test_participants_at_once_lose_nothing_even_under_one_code(tmp_path):
    context = multiprocessing.get_context("fork")  # others would spend their time on imports, one after the other
    plans = [("AA", 0), ("AA", 40), ("BB", 0)]
    writers = [context.Process(target=_write, args=(tmp_path, code, first)) for code, first in plans]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = answers.collected(tmp_path, "mushra")
    assert table.groupby("participant").size().to_dict() == {"AA": 80 * 5, "BB": 40 * 5}


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
        "panel=0",
    ):
        with pytest.raises(UserError, match=rf"listening\.blind\.{wrong.split('=')[0]}"):
            load("smoke", [f"listening.blind.{wrong}"])
