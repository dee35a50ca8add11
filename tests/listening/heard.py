"""Excerpts of noise that are listened to in tests, and blind tests of them."""

import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from lib.listening.blind import design, setup
from lib.listening.blind.session import Session
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.profile.fields import Blind
from tests import browser

RATE = 16000
METHODS = ("quokka net", "wombat net")


def excerpts(songs: int = 2, seconds: float = 3.0) -> list[Excerpt]:
    """Songs of noise whose "methods" add noise of their own."""
    draw, found = np.random.default_rng(0), []
    for number in range(songs):
        stems = 0.05 * draw.standard_normal((4, 2, round(seconds * RATE))).astype(np.float32)
        versions = {REFERENCE: stems}
        for share, name in zip((0.3, 0.8), METHODS, strict=True):
            versions[name] = stems + share * 0.05 * draw.standard_normal(stems.shape).astype(np.float32)
        found.append(Excerpt(f"Song of platypus {number}", 1.0, RATE, stems.sum(0), versions))
    return found


def designed(folder: Path, blind: Blind, heard: list[Excerpt] | None = None, **changes: object) -> Path:
    """The folder of a blind test with ``changes`` of its setup."""
    made = replace(setup.of_profile(blind), **changes)
    return design.write(folder, made, design.items(blind, made, heard or excerpts()))


def served(folder: Path, port: int, *options: str, **more: object) -> AbstractContextManager:
    """The server of a prepared test, for a ``with`` block."""
    home = folder.parent / ".home"
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "lib.listening.serve", str(folder), "--port", str(port), *options]
    return browser.served(command, home, port, **more)


class Participant:
    """Talks to a test as the browser does, over messages: ``say(type, **facts)`` -> reply; ``page``: what it shows."""

    def __init__(self, session: Session, code: str):
        self.session, self.code, self.page = session, code, {}

    def say(self, kind: str, **facts: object) -> dict:
        reply = self.session.reply({"type": kind, "code": self.code, **facts})
        self.page = reply.get("page", self.page)
        self.code = self.page.get("code", self.code)
        return reply

    def heard(self) -> dict:
        count = len(self.page["letters"])
        return {"plays": [1] * count, "seconds": [2.5] * count, "elapsed": 20.0}

    def begin(self) -> "Participant":
        """Up to the first page that counts."""
        self.say("begin", new=True)
        self.say("level", level=-6)
        while self.page["view"] == "training":
            self.say("trained", page=self.page["page"], **self.heard())
        return self

    def answer(self, values: list, **facts: object) -> dict:
        shown = {key: self.page[key] for key in ("page", "revision")}
        return self.say("answer", **{**shown, **self.heard(), "values": values, **facts})

    def values(self) -> list[int]:
        """Ratings that differ from page to page."""
        count = len(self.page["letters"]) - 1
        return [(17 * n + self.page["page"]) % 101 for n in range(count)] if self.page["test"] == "mushra" else [1]

    def finish(self) -> "Participant":
        while self.page["view"] == "trial":
            self.answer(self.values())
        return self
