"""What a browser may send to a blind test, files that are uploaded, and answers that were damaged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile

from lib import UserError
from lib.listening import OwnFile
from lib.listening.blind import analysis, design, prepare
from lib.listening.blind.session import Session
from lib.listening.blind.setup import Setup
from lib.profile.load import load
from tests.hostile import Case, written

RATE = 8000
BEGUN = {"type": "begin", "code": "AB12", "new": True}
HEARD = {"plays": [1] * 4, "seconds": [1.0] * 4, "elapsed": 3.0}
TRAINED = [BEGUN, *({"type": "trained", "code": "AB12", "page": page, **HEARD} for page in (0, 1))]
ANSWER = {"type": "answer", "code": "AB12", "page": 0, "revision": 0, "values": [1, 2, 3], **HEARD}
HEAD = '{"kind": "begin", "design": "%s", "part": 0}\n'

MESSAGES = {
    "nothing": {},
    "list": [1],
    "number": 7,
    "unknown type": {"type": "shell"},
    "type of a list": {"type": ["begin"]},
    "attribute for a type": {"type": "__class__"},
    "begin without a code": {"type": "begin"},
    "begin with a list": {"type": "begin", "code": ["AB"]},
    "level before begin": {"type": "level", "code": "AB12", "level": 0},
    "trained before begin": {"type": "trained", "code": "AB12", "page": 0, **HEARD},
    "answer before begin": ANSWER,
    "page of another": {"type": "open", "code": "ZZ99", "page": 0},
}
CODES = {
    "path": "../../harm",
    "null": "AB\0",
    "line": "AB\nCD",
    "long": "A" * 100_000,
    "markup": "<script>",
    "dots": "..",
}
LEVELS = {"words": "0", "yes": True, "NaN": float("nan"), "huge": 10**400, "loud": 1, "infinite": float("-inf")}
ANSWERS = {
    "no values": {"values": []},
    "values of words": {"values": ["50"] * 3},
    "values of yes": {"values": [True] * 3},
    "value too high": {"values": [1, 2, 101]},
    "NaN": {"values": [1, 2, float("nan")]},
    "huge": {"values": [1, 2, 10**400]},
    "a map": {"values": {}},
    "a number": {"values": 7},
    "nothing": {"values": None},
    "many": {"values": [1] * 10_000},
    "a formula": {"values": [1, 2, "=cmd()"]},
    "another page": {"page": 99},
    "page below": {"page": -1},
    "page of a list": {"page": [0]},
    "no revision": {"revision": None},
    "later revision": {"revision": 1},
    "too few plays": {"plays": [1]},
    "plays of words": {"plays": ["1"] * 4},
    "endless time": {"elapsed": float("inf")},
    "time of words": {"seconds": ["1"] * 4},
}
REFUSED = "misunderstood|not rated|answered|no code"


def cases() -> Iterator[Case]:
    for name, message in MESSAGES.items():
        yield Case(f"message: {name}", partial(_said, [message]), REFUSED)
    for name, code in CODES.items():
        yield Case(f"code: {name}", partial(_said, [{**BEGUN, "code": code}]), "no code")
    for name, level in LEVELS.items():
        yield Case(
            f"level: {name}", partial(_said, [BEGUN, {"type": "level", "code": "AB12", "level": level}]), REFUSED
        )
    for name, facts in ANSWERS.items():
        yield Case(f"answer: {name}", partial(_said, [*TRAINED, {**ANSWER, **facts}]), REFUSED)
    for name, content in {
        "words": "words\nand words\n",
        "another table": "a,b\n1,2\n",
        "a list": "[1]\n",
        "no kind": "{}\n",
        "zeros": "\0" * 99 + "\n",
        "brackets": "[" * 100_000 + "\n",
        "another design": HEAD % "abc",
    }.items():
        yield Case(f"answers: {name}", partial(_answers, content), r"AB12\.jsonl")
    yield Case("answers: cut", partial(_answers, None), gives=1)
    yield Case("answers: nothing", partial(_answers, ""), r"AB12\.jsonl")
    for name, text in {
        "words": "words",
        "endless": "labels: {a: &a [*a]}",
        "a list": "[1]",
        "markup of Python": "title: !!python/object/apply:os.system [touch harm]",
        "too long": "title: " + "x" * 300_000,
        "field of words": "minutes: long",
        "bound": "loudness: 3",
    }.items():
        yield Case(f"test.yaml: {name}", partial(_stimuli, text, b""), r"test\.yaml")
    for name, content in {"words": b"words" * 99, "nothing": b"", "header": b"RIFF\xff\xff\xff\x7fWAVEfmt "}.items():
        yield Case(f"reference: {name}", partial(_stimuli, "", content), r"reference\.wav")
    for name in ("..", ".", "", "a" * 300 + ".wav", "a\0b.wav", "../../harm.wav", "/harm.wav"):
        said = "cannot decode|no such file|no file|directory|Is a"
        yield Case(f"upload: {name[:12]!r}", partial(_uploaded, name), said)
    for path in ("~nobody-of-that-name/x.wav", "x" * 5000, "a\0b", "/", "/dev/zero", "/proc/self/mem"):
        yield Case(f"own file: {path[:12]!r}", partial(_typed, path), ".")


def _session(folder: Path) -> Session:
    waves = np.random.default_rng(0).normal(0, 0.05, (2, 2, RATE)).astype(np.float32)
    setup = Setup(loudness=None)
    passages = [
        design.item(setup, song, "", RATE, wave, None, {"m": wave, "n": wave})
        for song, wave in zip("ab", waves, strict=True)
    ]
    return Session(design.write(folder, setup, passages))


def _said(messages: list, folder: Path) -> None:
    """The last reply to messages as a browser would send them; a refusal is raised."""
    session = _session(folder / "tests")
    *before, last = [session.reply(message) for message in messages]
    assert not any("refused" in reply for reply in before)
    if "refused" in last:
        raise UserError(last["refused"])


def _answers(content: str | None, folder: Path) -> int:
    session = _session(folder / "tests")
    begun = HEAD % session.design["fingerprint"]
    written(session.folder / "answers" / "AB12.jsonl", begun + begun[:20] if content is None else content)
    return len(analysis.of_folder(session.folder).tables["participants"])


def _stimuli(text: str, content: bytes, folder: Path) -> None:
    (folder / "mine" / "item").mkdir(parents=True)
    written(folder / "mine" / "test.yaml", text or "seed: 0")
    written(folder / "mine" / "item" / "reference.wav", content)
    soundfile.write(folder / "mine" / "item" / "m.wav", np.zeros(RATE), RATE)
    prepare.of_folder(folder / "mine")


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
