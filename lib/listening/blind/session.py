"""What participants see next, and what becomes of what they send. Needs a design's folder and the standard library.

Browsers receive sounds and letters alone: which condition a letter stands for never leaves this side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lib import UserError
from lib.listening.blind.answers import Answers, Refused, part_of, rarest_part
from lib.store.files import read_facts

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LONGEST = 5000
"""Characters of an answer to the questionnaire."""


class Page(NamedTuple):
    """A page of a participant: a question about an item, and its conditions in the order of the letters."""

    question: str
    item: Mapping
    slots: tuple[str, ...]


class Session:
    """All participants of the test in ``folder``, with answers in ``folder/answers``; ``codes``: those given out.

    Nothing is remembered between two messages but what is on disk, so that several processes and tabs may serve one
    test. Raises: UserError if the folder holds no design.
    """

    def __init__(self, folder: Path, codes: Iterable[str] = ()):
        needed = ("fingerprint", "setup", "words", "items", "parts", "training", "page_seconds", "rest")
        self.folder, self.design = folder, read_facts(folder / "design.json", *needed)
        self.setup, self.codes = self.design["setup"], {code.strip().upper() for code in codes}

    def reply(self, message: object) -> dict:
        """What a browser shows next: {"page"}, or {"refused"}, a key of the texts, perhaps with "detail" and "page"."""
        try:
            actions = {
                "welcome": self._welcome, "begin": self._begin, "level": self._level, "trained": self._trained,
                "open": self._open, "answer": self._answer, "questionnaire": self._questionnaire,
            }  # fmt: skip
            return {"page": actions[message["type"]](message)}
        except Refused as error:
            page = self._next(self._answers(message)) if str(error) == "answered" else None
            return {"refused": str(error)} | ({"page": page} if page else {})
        except OSError as error:
            return {"refused": "disk", "detail": error.strerror or type(error).__name__}
        except UserError:
            return {"refused": "damaged"}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):  # not of test.js
            return {"refused": "misunderstood"}

    def sound(self, code: str, page: str, slot: int) -> Path:
        """The file behind a letter; ``page``: a number, "training" and a number, or "volume".

        Raises: Refused, LookupError or ValueError if there is none.
        """
        if page == "volume":
            return self._file(self.design["items"][self.design["training"][0]]["reference"])
        answers = Answers(self.folder / "answers", code)
        if page.startswith("training"):
            shown = self._training(answers.code, int(page.removeprefix("training")))
        else:
            shown = self._pages(answers.code, part_of(answers.events()))[int(page)]
        sounds = [shown.item["conditions"][name]["sound"] for name in shown.slots]
        if self.setup["test"] != "abx":
            sounds.insert(0, shown.item["reference"])
        return self._file(sounds[slot if slot >= 0 else len(sounds)])

    def _file(self, digest: str) -> Path:
        return self.folder / "sound" / f"{digest}.flac"

    def _shuffled(self, values: Iterable, *key: object) -> list:
        """Values in an order that the design's seed, the test and the ``key`` determine, on every machine."""
        seed = (self.setup["seed"], self.setup["test"], *key)
        return sorted(values, key=lambda value: hashlib.sha256(repr((seed, value)).encode()).digest())

    def _pages(self, code: str, part: int) -> list[Page]:
        """The pages of a participant in order."""
        pages = [(number, *page) for number, page in enumerate(self.design["parts"][part])]
        return [self._page(code, *page) for page in self._shuffled(pages, code, "pages")]

    def _training(self, code: str, number: int) -> Page:
        """A page that does not count."""
        item = self.design["training"][number]
        return self._page(code, f"training {number}", next(iter(self.setup["questions"])), item)

    def _page(self, code: str, number: object, question: str, item: int) -> Page:
        facts = self.design["items"][item]
        slots = self._shuffled(facts["conditions"], code, "slots", number)
        if self.setup["test"] == "abx":
            slots.append(slots[self._shuffled((0, 1), code, "x", number)[0]])
        return Page(question, facts, tuple(slots))

    def _answers(self, message: Mapping) -> Answers:
        """The answers of a participant who has begun."""
        answers = Answers(self.folder / "answers", message["code"])
        if not (events := answers.events()):
            raise Refused("misunderstood")
        if events[0].get("design") != self.design["fingerprint"]:
            raise Refused("other design")
        return answers

    def _welcome(self, message: Mapping) -> dict:
        setup = self.setup
        shown = {key: setup[key] for key in ("title", "language", "contact", "consent", "test")}
        facts = {"design": self.design["fingerprint"], "minutes": longest(self.design), "words": self.design["words"]}
        facts["issued"] = bool(self.codes)
        return {"view": "welcome", **shown, **facts}

    def _begin(self, message: Mapping) -> dict:
        folder, code = self.folder / "answers", message["code"]
        if self.setup["consent"] and message.get("consent") is not True:
            raise Refused("no consent")
        if not code.strip() and self.codes:
            raise Refused("not issued")
        answers = Answers(folder, code) if code.strip() else Answers.of_new(folder)
        if self.codes and answers.code not in self.codes:
            raise Refused("not issued")
        if answers.events():
            self._answers(message).append("return")
        elif code.strip() and not self.codes and message.get("new") is not True:
            return {"view": "new", "code": answers.code}
        else:
            answers.append("begin", lambda events: self._first(folder, events), design=self.design["fingerprint"])
        first = self.design["items"][self.design["training"][0]]
        return {"view": "volume", "code": answers.code, "rate": first["rate"]}

    def _first(self, folder: Path, events: Sequence[dict]) -> dict:
        if events:
            raise Refused("answered")  # in another tab, at the same time
        return {"consent": bool(self.setup["consent"]), "part": rarest_part(folder, len(self.design["parts"]))}

    def _level(self, message: Mapping) -> dict:
        answers = self._answers(message)
        answers.append("level", decibels=_number(message["level"], -60, 0))
        return self._next(answers)

    def _trained(self, message: Mapping) -> dict:
        answers = self._answers(message)
        number = _whole(message["page"], 0, len(self.design["training"]) - 1)
        answers.append("trained", page=number, **_heard(message, self._training(answers.code, number)))
        return self._next(answers)

    def _open(self, message: Mapping) -> dict:
        """An earlier page again."""
        answers = self._answers(message)
        if self.setup["test"] != "mushra":
            return self._next(answers)
        return self._shown(answers, _whole(message["page"], 0, len(self._own_pages(answers)) - 1))

    def _own_pages(self, answers: Answers) -> list[Page]:
        return self._pages(answers.code, part_of(answers.events()))

    def _answer(self, message: Mapping) -> dict:
        answers = self._answers(message)
        pages = self._own_pages(answers)
        number = _whole(message["page"], 0, len(pages) - 1)
        question, item, slots = page = pages[number]
        values = self._values(message["values"], slots)
        facts = {"page": number, "question": question, "song": item["song"], "stem": item["stem"]}
        facts |= {"slots": slots, "values": values, **_heard(message, page)}

        def check(events: Sequence[dict]) -> None:
            """Only who saw the last answer to a page replaces it: another tab did not, nor did a lost reply."""
            if message["revision"] != len(_to_page(events, number)) or (
                self.setup["test"] != "mushra" and message["revision"]
            ):
                raise Refused("answered")

        answers.append("answer", check, **facts)
        return self._next(answers)

    def _values(self, values: Sequence, slots: Sequence[str]) -> list[int]:
        """Ratings by slot, or 1 for the slot that was chosen and 0 for the other."""
        if self.setup["test"] != "mushra":
            chosen = _whole(values[0], 0, 1)
            return [int(n == chosen) for n in (0, 1)]
        if not isinstance(values, list) or len(values) != len(slots):
            raise Refused("not rated")
        try:
            return [_whole(value, 0, 100) for value in values]
        except ValueError:
            raise Refused("not rated") from None

    def _questionnaire(self, message: Mapping) -> dict:
        answers, asked = self._answers(message), self.setup["questionnaire"]
        given = [str(text)[:LONGEST] for text in message["answers"]][: len(asked)]
        named = dict(zip((line["ask"] for line in asked), given, strict=False))
        answers.append("questionnaire", answers=named, comment=str(message["comment"])[:LONGEST])
        return self._next(answers)

    def _next(self, answers: Answers) -> dict:
        """The first page that is not answered, after the training; then the questionnaire, then thanks."""
        events = answers.events()
        trained = {event["page"] for event in events if event["kind"] == "trained"}
        for number in range(len(self.design["training"])):
            if number not in trained:
                return self._training_page(answers.code, number)
        pages = self._own_pages(answers)
        for number in range(len(pages)):
            if not _to_page(events, number):
                return self._shown(answers, number)
        if not any(event["kind"] == "questionnaire" for event in events):
            shown = {"questionnaire": self.setup["questionnaire"], "comment": self.setup["comment"]}
            if any(shown.values()):
                return {"view": "questionnaire", "code": answers.code, **shown}
        return {"view": "done", "code": answers.code}

    def _training_page(self, code: str, number: int) -> dict:
        facts = {"view": "training", "page": number, "of": len(self.design["training"]), "sounds": f"training{number}"}
        return facts | self._asked(code, self._training(code, number)) | {"revision": 0, "values": None}

    def _shown(self, answers: Answers, number: int) -> dict:
        """A page, with the values that were given to it before."""
        events, pages = answers.events(), self._own_pages(answers)
        before, left = _to_page(events, number), sum(not _to_page(events, n) for n in range(len(pages)))
        rest = not before and number > 0 and number % self.design["rest"] == 0
        facts = {
            "view": "trial", "page": number, "of": len(pages), "sounds": str(number),
            "minutes": minutes(left, 0, self.design["page_seconds"]), "rest": rest,
            "back": number > 0 and self.setup["test"] == "mushra", "revision": len(before),
            "values": before[-1]["values"] if before else None,
        }  # fmt: skip
        return facts | self._asked(answers.code, pages[number])

    def _asked(self, code: str, page: Page) -> dict:
        test, words = self.setup["test"], self.design["words"]
        about = page.item["about"]
        asked = self.setup["questions"][page.question]
        if about and "{about}" not in asked:
            asked = f"{words['about']} {asked}"
        asked = asked.replace("{about}", about)
        asked = {"abx": words["which"], "preference": f"{asked} {words['choose']}"}.get(test, asked)
        letters = [*"ABX"] if test == "abx" else [words["reference"], *LETTERS[: len(page.slots)]]
        events = Answers(self.folder / "answers", code).events()
        level = next((event["decibels"] for event in reversed(events) if event["kind"] == "level"), 0.0)
        shown = {"code": code, "test": test, "asked": asked, "letters": letters}
        return {**shown, "rate": page.item["rate"], "level": level}


def minutes(pages: int, training: int, page_seconds: float) -> int:
    """An estimate of what pages take; those of the training are heard by halves."""
    return max(1, round((pages + training / 2) * page_seconds / 60))


def longest(design: Mapping) -> int:
    """Minutes that the longest part of a test takes, with its training."""
    return minutes(max(map(len, design["parts"])), len(design["training"]), design["page_seconds"])


def _to_page(events: Sequence[dict], number: int) -> list[dict]:
    return [event for event in events if event["kind"] == "answer" and event["page"] == number]


def _heard(message: Mapping, page: Page) -> dict:
    """What a browser counted: plays and seconds of every sound, seconds on the page."""
    plays, seconds = (message[key][: 1 + len(page.slots)] for key in ("plays", "seconds"))
    if not len(plays) == len(seconds) >= len(page.slots):
        raise ValueError("not counts of every sound")
    counts = {"plays": [_whole(count, 0, 10**6) for count in plays]}
    times = {"seconds": [round(_number(time, 0, 10**6), 2) for time in seconds]}
    return counts | times | {"elapsed": round(_number(message["elapsed"], 0, 10**7), 1)}


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"not a whole number from {low} to {high}")
    return value


def _number(value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isnan(value):
        raise ValueError(f"not a number from {low} to {high}")
    return float(value)
