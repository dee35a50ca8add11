"""What a browser may send to a blind test, files that are uploaded, and answers that were damaged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lib import UserError
from lib.listening import BlindTest, OwnFile
from lib.listening.blind.answers import COLUMNS, collected
from lib.listening.excerpt import REFERENCE, Excerpt
from lib.profile.fields import Blind
from lib.profile.load import load
from tests.hostile import Case, written

RATE = 8000
HEAD = ",".join(COLUMNS) + "\n"
LINE = "2026-01-01,mushra,AB12,0,target,s,bass,0,reference,50,1\n"

MESSAGES = {
    "nothing": {},
    "list": [1],
    "number": 7,
    "unknown type": {"type": "shell"},
    "type of a list": {"type": ["begin"]},
    "attribute for a type": {"type": "__class__"},
    "begin without a code": {"type": "begin"},
    "trained before begin": {"type": "trained"},
    "rate before begin": {"type": "rate", "trial": 0, "slot": 0, "value": 50},
    "submit before begin": {"type": "submit", "trial": 0, "values": [1]},
}
CODES = {
    "path": "../../harm",
    "null": "AB\0",
    "line": "AB\nCD",
    "long": "A" * 100_000,
    "markup": "<script>",
    "dots": "..",
}
RATINGS = {
    "no value": {"slot": 0},
    "value of words": {"slot": 0, "value": "50"},
    "value of yes": {"slot": 0, "value": True},
    "value too high": {"slot": 0, "value": 101},
    "NaN": {"slot": 0, "value": float("nan")},
    "huge": {"slot": 0, "value": 10**400},
    "slot beyond": {"slot": 99, "value": 50},
    "slot below": {"slot": -1, "value": 50},
    "slot of a list": {"slot": [0], "value": 50},
    "another trial": {"slot": 0, "value": 50, "trial": 99},
    "a formula": {"slot": 0, "value": "=cmd()"},
}
VALUES = {
    "none": [],
    "too few": [1],
    "a map": {},
    "a number": 7,
    "texts": ["a"] * 4,
    "nothing": None,
    "many": [1] * 10_000,
}


def cases() -> Iterator[Case]:
    for name, message in MESSAGES.items():
        yield Case(f"message: {name}", partial(_said, [message]), "not understood|already answered")
    for name, code in CODES.items():
        yield Case(f"code: {name}", partial(_said, [{"type": "begin", "code": code}]), "2 to 12 letters and digits")
    yield Case("code: a list", partial(_said, [{"type": "begin", "code": ["AB"]}]), "2 to 12 letters and digits")
    start = [{"type": "begin", "code": "AB12"}, {"type": "trained"}]
    for name, rating in RATINGS.items():
        message = {"type": "rate", "trial": 0, **rating}
        yield Case(f"rating: {name}", partial(_said, [*start, message]), "whole number|understood|already answered")
    for name, values in VALUES.items():
        message = {"type": "submit", "trial": 0, "values": values}
        yield Case(f"values: {name}", partial(_said, [*start, message]), "whole number|understood|rate every")
    for name, content in {
        "words": "words\nand words\n",
        "another table": "a,b\n1,2\n",
        "a value of words": HEAD + LINE.replace(",50,", ",loud,"),
        "no trial": HEAD + LINE.replace("AB12,0,", "AB12,,"),
        "zeros": "\0" * 99 + "\n",
        "rows too long": HEAD + LINE.replace("\n", ",1,2,3\n") + LINE,
    }.items():
        yield Case(f"answers: {name}", partial(_answers, content), r"mushra-AB12\.csv: not answers")
    yield Case("answers: cut", partial(_answers, HEAD + LINE + LINE[:20]), gives=1)
    yield Case("answers: nothing", partial(_answers, ""), gives=0)
    for name in ("..", ".", "", "a" * 300 + ".wav", "a\0b.wav", "../../harm.wav", "/harm.wav"):
        said = "cannot decode|no such file|no file|directory|Is a"
        yield Case(f"upload: {name[:12]!r}", partial(_uploaded, name), said)
    for path in ("~nobody-of-that-name/x.wav", "x" * 5000, "a\0b", "/", "/dev/zero", "/proc/self/mem"):
        yield Case(f"own file: {path[:12]!r}", partial(_typed, path), ".")


def _test(folder: Path) -> BlindTest:
    stems = np.random.default_rng(0).normal(0, 0.05, (4, 2, 2 * RATE)).astype(np.float32)
    heard = Excerpt("s", 0.0, RATE, stems.sum(0), {REFERENCE: stems, "m": stems * 0.5})
    return BlindTest(Blind(seconds=1.0, stems=("bass",), songs=1), [heard], folder)


def _said(messages: list, folder: Path) -> None:
    """The last reply to messages as a browser would send them; a refusal is raised."""
    test, replies = _test(folder / "answers"), []
    test.send = lambda content, buffers=None: replies.append(content)
    for number, message in enumerate(messages):
        test._received(test, {"id": number, **message} if isinstance(message, dict) else message, [])
    assert len(replies) == len(messages) and all(reply["type"] == "saved" for reply in replies[:-1])
    if replies[-1]["type"] == "refused":
        raise UserError(replies[-1]["why"])


def _answers(content: str, folder: Path) -> int:
    written(folder / "mushra-AB12.csv", content)
    return len(collected(folder, "mushra"))


def _panel(folder: Path) -> OwnFile:
    study = SimpleNamespace(profile=load("smoke", [f"results={folder / 'results'}"]), results=folder / "results")
    return OwnFile(study)


def _clicked(panel: OwnFile) -> None:
    from lib.listening import sources

    sources.plays_examples = lambda study: False
    run = SimpleNamespace(weights=Path(), facts=lambda: {"best_validation_loss": 0.0})
    sources.claim_trainings = lambda study: [SimpleNamespace(run=run, trained=lambda: run)]
    panel.button.click()
    assert not panel.button.disabled and not panel.result.children
    raise UserError(panel.message.value)


def _uploaded(name: str, folder: Path) -> None:
    panel = _panel(folder)
    panel.upload = SimpleNamespace(value=({"name": name, "content": b"words" * 99},))
    _clicked(panel)


def _typed(path: str, folder: Path) -> None:
    panel = _panel(folder)
    panel.path.value = path
    _clicked(panel)
