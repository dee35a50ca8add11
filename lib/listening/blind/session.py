"""The pages of the blind test: code, training, trials, thanks. The browser receives sounds and letters only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from lib import UserError
from lib.listening.blind import design
from lib.listening.blind.answers import Answers
from lib.listening.blind.design import Trial
from lib.listening.excerpt import Excerpt
from lib.listening.export import CSS, encoded, module
from lib.profile.fields import Blind

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TITLES = {"mushra": "Rate what you hear", "preference": "Which one is better?", "abx": "Which one is X?"}


class BlindTest(anywidget.AnyWidget):
    """A blind test on ``excerpts``, with answers in CSV files in ``folder`` (`lib.listening.blind.answers`).

    Pages label the conditions A, B, C, ... in random order per participant and trial; their names never leave the
    kernel. Every released slider and every submitted page is on disk before the browser receives a confirmation. A
    participant who returns with the same code continues at the first page not submitted.
    """

    _esm = module("blind/widget.js")
    _css = CSS
    page = traitlets.Dict().tag(sync=True)

    def __init__(self, settings: Blind, excerpts: Sequence[Excerpt], folder: Path):
        super().__init__()
        self._settings, self._folder = settings, folder
        self._items = design.items(settings, excerpts)
        self._answers: Answers | None = None
        self._trials: list[Trial] = []
        self._at: int | None = None  # number of the current trial
        self.page = {
            "view": "welcome",
            "title": TITLES[settings.test],
            "protocol": design.protocol(settings, self._items),
        }
        self.on_msg(self._received)

    def __repr__(self) -> str:
        return "BlindTest()"  # not the state, which includes the sounds

    def _received(self, _, message: Mapping, buffers: object) -> None:
        actions = {"begin": self._begin, "trained": self._next, "rate": self._rate, "submit": self._submit}
        try:
            actions[message["type"]](message)
            self.send({"type": "saved", "id": message["id"]})
        except UserError as error:
            self.send({"type": "refused", "id": _id(message), "why": str(error)})
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):  # not a message of widget.js
            why = "The answer was not understood. Please reload the page."
            self.send({"type": "refused", "id": _id(message), "why": why})

    def _begin(self, message: Mapping) -> None:
        code, test = str(message["code"]), self._settings.test
        new = not code.strip()
        self._answers = (
            Answers.of_new(self._folder, test, np.random.default_rng()) if new else Answers(self._folder, test, code)
        )
        self._trials = design.trials(self._settings, self._items, self._answers.participant)
        if self._answers.finished():
            self._next(message)
        else:
            self._show(self._training(), "training", {})

    def _training(self) -> Trial:
        """A page that does not count: the last item, in another order."""
        item, draw = self._items[-1], design.generator(self._settings, self._answers.participant, "training")
        return Trial(-1, self._settings.questions[0], item, design.slots(self._settings, item, draw))

    def _next(self, message: Mapping) -> None:
        done = self._answers.finished()
        left = [trial for trial in self._trials if trial.number not in done]
        if not left:
            self._at = None
            self.page = {"view": "done", "title": "Thank you", "code": self._answers.participant}
            return
        self._at = left[0].number
        drafts = self._answers.read()
        drafts = drafts[drafts["trial"] == self._at] if len(drafts) else drafts
        self._show(left[0], "trial", dict(zip(drafts["slot"], drafts["value"], strict=True)))

    def _show(self, trial: Trial, view: str, drafts: Mapping[int, float]) -> None:
        test, item = self._settings.test, trial.item
        waves = [item.conditions[slot] for slot in trial.slots]
        letters = [*"ABX"] if test == "abx" else list(LETTERS[: len(waves)])
        if test != "abx":
            waves, letters = [item.reference, *waves], ["Reference", *letters]
        self.page = {
            "view": view,
            "title": TITLES[test],
            "test": test,
            "code": self._answers.participant,
            "trial": trial.number,
            "of": len(self._trials),
            "done": len(self._answers.finished()),
            "question": self._question(trial),
            "letters": letters,
            "rate": item.rate,
            "signals": [encoded(wave, item.rate) for wave in waves],
            "drafts": [drafts.get(slot) for slot in range(len(trial.slots))],
        }

    def _question(self, trial: Trial) -> str:
        if self._settings.test == "abx":
            return "X is either A or B. Which one?"
        stem = trial.item.stem
        question = f"This is about the {stem}. {design.QUESTIONS[trial.question].format(stem=stem)}"
        return question if self._settings.test == "mushra" else f"{question} Choose the better one."

    def _rate(self, message: Mapping) -> None:
        slot = self._current(message).slots[_whole(message["slot"], 0, len(self._current(message).slots) - 1)]
        value = _whole(message["value"], 0, 100)
        self._answers.append([self._row(message, int(message["slot"]), slot, value, 0)])

    def _submit(self, message: Mapping) -> None:
        slots, values = self._current(message).slots, message["values"]
        if self._settings.test == "mushra":
            ratings = [_whole(value, 0, 100) for value in values]
            if len(ratings) != len(slots):
                raise UserError("Please rate every sound.")
            rows = enumerate(zip(slots, ratings, strict=True))
        else:
            chosen = _whole(values[0], 0, 1)
            rows = enumerate((slots[n], int(n == chosen)) for n in (0, 1))
            if self._settings.test == "abx":
                rows = [(0, (" / ".join(sorted(set(slots))), int(slots[chosen] == slots[2])))]
        self._answers.append([self._row(message, n, slot, value, 1) for n, (slot, value) in rows])
        self._next(message)

    def _current(self, message: Mapping) -> Trial:
        if self._at is None or message["trial"] != self._at:
            raise UserError("This page was already answered, perhaps in another tab. Please reload it.")
        return self._trials[self._at]

    def _row(self, message: Mapping, slot: int, condition: str, value: int, submitted: int) -> dict:
        trial = self._current(message)
        facts = {"trial": trial.number, "question": trial.question, "song": trial.item.song, "stem": trial.item.stem}
        return facts | {"slot": slot, "condition": condition, "value": value, "submitted": submitted}


def _id(message: object) -> object:
    """The number of a message, or None."""
    number = message.get("id") if isinstance(message, Mapping) else None
    return number if isinstance(number, int | str) else None


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"Please answer with a whole number from {low} to {high}.")
    return value
