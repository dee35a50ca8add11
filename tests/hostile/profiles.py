"""Profiles: YAML that says too much, too little, or something else than it seems."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lib import profile
from tests.hostile import Case, written

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))

TEXTS = {
    "alias bomb": (BOMB, r"aliases are not read"),
    "merge bomb": (MERGES, r"aliases are not read"),
    "alias to itself": ("pretrain: &a {steps: *a}", r"\*a out: aliases"),
    "anchor without alias": ("pretrain: &a {steps: 7}", ""),
    "python object": ("x: !!python/object/apply:os.system [touch harm]", "line 1"),
    "python name": ("name: !!python/name:os.system", "line 1"),
    "python module in a list": ("finetune: {seeds: [!!python/module:os ]}", "line 1"),
    "own tag": ("pretrain: !steps 3", "line 1"),
    "bool tag on a word": ("pretrain: {same_song: !!bool perhaps}", "line|YAML"),
    "int tag on nothing": ("pretrain: {steps: !!int ''}", "line|YAML"),
    "float tag on a word": ("pretrain: {clip_norm: !!float x}", "line|YAML"),
    "timestamp tag on a word": ("name: !!timestamp x", "line|YAML"),
    "binary": ("name: !!binary aGFsbG8=", "name must be a text"),
    "set": ("finetune: {seeds: !!set {1, 2}}", "finetune.seeds must be a list"),
    "date": ("name: 2020-01-01", "name must be a text"),
    "impossible date": ("name: 2020-13-45", "YAML"),
    "octal": ("pretrain: {steps: 0100}", "0100.*plain decimal"),
    "base sixty": ("pretrain: {steps: 1:30}", "1:30.*plain decimal"),
    "base sixty fraction": ("pretrain: {clip_norm: 1:30.5}", "1:30.5.*plain decimal"),
    "hexadecimal": ("pretrain: {steps: 0x10}", ""),
    "endless hexadecimal": (f"pretrain: {{steps: 0x{'f' * 9000}}}", "0xfff.*plain decimal"),
    "leading zeros of a fraction": ("pretrain: {clip_norm: 00.5}", "00.5.*plain decimal"),
    "key twice": ("pretrain: {steps: 1}\npretrain: {batch: 2}", "'pretrain' is given twice"),
    "key twice, nested": ("corpus: {rendered: {seed: 1, seed: 2}}", "'seed' is given twice"),
    "list as key": ("? [pretrain]\n: 3", "key must be a text"),
    "map as key": ("{a: 1}: 2", "key must be a text"),
    "number as key": ("1: 2", "unknown key '1'"),
    "number as nested key": ("audio: {1: 2}", r"unknown key 'audio\.1'"),
    "half a character as key": ('"\\ud800": 1', "a key holds .*invalid UTF-8"),
    "nothing as key": ("~: 2", "unknown key 'None'"),
    "unknown key": ("pretrian: {}", "did you mean pretrain"),
    "unknown nested key": ("listening: {blind: {tset: abx}}", r"listening\.blind\.tset"),
    "key of lines": ('"a\\nb\\x1b[31m": 1', "unknown key"),
    "key of a megabyte": (f"{'k' * 200_000}: 1", "unknown key|YAML"),
    "two documents": ("name: a\n---\nname: b", "YAML"),
    "tab": ("pretrain:\n\tsteps: 3", "line 2"),
    "control character": ("name: a\x07b", "YAML|control"),
    "escaped control character": ('name: "a\\x1b[31mb"', "control characters"),
    "escaped newline": ('results: "a\\nb"', "results.*control characters"),
    "escaped null": ('corpus: {labeled: "a\\0b"}', "corpus.labeled.*control characters"),
    "direction mark": ('name: "a\\u202eb"', "control characters"),
    "empty file": ("", "must be a map"),
    "only a comment": ("# nothing", "must be a map"),
    "list": ("- 1", "must be a map"),
    "number": ("3", "must be a map"),
    "deep lists": ("a: " + "[" * 5000, "nested too deeply|YAML"),
    "deep maps": ("".join(f"{' ' * i}a:\n" for i in range(400)), "nested too deeply|unknown key|YAML"),
    "deep flow maps": ("{a: " * 3000, "nested too deeply|YAML"),
    "too long": ("# " + "x" * 300_000, "characters are no profile"),
    "list for a number": ("pretrain: {steps: [3]}", "pretrain.steps must be a whole number"),
    "map for a number": ("pretrain: {steps: {a: 3}}", "pretrain.steps must be a whole number"),
    "text for a number": ("pretrain: {steps: '3'}", "pretrain.steps must be a whole number"),
    "nothing for a number": ("pretrain: {steps: }", "pretrain.steps must be a whole number"),
    "yes for a number": ("pretrain: {steps: yes}", "pretrain.steps must be a whole number"),
    "number for yes": ("probes: {redealt: 1}", "probes.redealt must be true or false"),
    "nothing for a section": ("pretrain:", "pretrain must be a map"),
    "text for a list": ("finetune: {seeds: '012'}", "finetune.seeds must be a list"),
    "list in a list": ("finetune: {seeds: [[1]]}", r"finetune.seeds\[0\] must be a whole number"),
    "mixed list": ("finetune: {seeds: [1, a]}", r"finetune.seeds\[1\] must be a whole number"),
    "three bounds": ("finetune: {gain_db: [1, 2, 3]}", "finetune.gain_db must hold 2 values"),
    "bounds too far": ("finetune: {gain_db: [-1e9, 1e9]}", r"finetune.gain_db\[0\] must be at least -200"),
    "negative steps": ("pretrain: {steps: -1}", "pretrain.steps must be more than 0"),
    "negative seed": ("finetune: {seeds: [0, -1]}", r"finetune.seeds\[1\] must be at least 0"),
    "huge seed": (f"finetune: {{seeds: [{10**30}]}}", r"finetune.seeds\[0\] must be at most"),
    "huge steps": (f"pretrain: {{steps: {10**30}}}", "pretrain.steps must be at most"),
    "endless number": (f"pretrain: {{steps: {'9' * 5000}}}", "YAML|pretrain.steps"),
    "whole number beyond floats": (f"pretrain: {{clip_norm: {10**400}}}", "pretrain.clip_norm must be a finite"),
    "huge rate": ("audio: {rate: 1000000000000}", "audio.rate must be at most"),
    "low rate": ("audio: {rate: 1}", "audio.rate must be at least"),
    "huge FFT": ("audio: {n_fft: 1000000000}", "audio.n_fft must be at most"),
    "hop of zero": ("audio: {hop: 0}", "audio.hop must be more than 0"),
    "huge batch": ("finetune: {batch: 1000000000}", "finetune.batch must be at most"),
    "huge crop": ("corpus: {segment_seconds: 1e9}\npretrain: {crop_seconds: 1e9}", "segment_seconds must be at most"),
    "crop below an FFT": ("pretrain: {crop_seconds: 0.001}", "pretrain.crop_seconds must not be below"),
    "hop of windows near zero": ("separate: {hop_seconds: 1e-9}", "separate.hop_seconds must be at least"),
    "hop of segments near zero": ("corpus: {segment_hop_seconds: 1e-9}", "segment_hop_seconds must be at least"),
    "huge windows": ("separate: {window_seconds: 1e12}", "separate.window_seconds must be at most"),
    "narrow bands": ("model: {band_scale: 1e-9}", "model.band_scale must be at least"),
    "many workers": ("corpus: {workers: 1000000}", "corpus.workers must be at most"),
    "many threads": ("compute: {threads: 1000000}", "compute.threads must be at most"),
    "many jobs": ("compute: {jobs: 1000000}", "compute.jobs must be at most"),
    "many listeners": ("listening: {blind: {panel: 100000000}}", "listening.blind.panel must be at most"),
    "NaN in a list": ("regime: {learning_rates: [.nan]}", r"regime.learning_rates\[0\] must be a finite"),
    "infinite fraction": ("corpus: {unlabeled_fraction: .inf}", "unlabeled_fraction must be a finite"),
    "fraction above one": ("corpus: {unlabeled_fraction: 1.5}", "unlabeled_fraction must be at most 1"),
    "name as a path": ("name: ../../harm", "name must be a word"),
    "name of a folder up": ("name: ..", "name must be a word"),
    "home of nobody": ("corpus: {labeled: ~nobody-of-that-name/music}", ""),
    "base of nothing": ("base: ", "base must be the name"),
    "base as a list": ("base: [demo]", "base must be the name"),
    "base unknown": ("base: nowhere", "'nowhere' is unknown"),
    "base is itself": ("base: mine.yaml", "leads back"),
    "base is itself by another way": ("base: ../inner/mine.yaml", "leads back"),
    "base is itself from the root": ("base: {folder}/mine.yaml", "leads back"),
    "base too long a name": (f"base: {'b' * 5000}", "base|folder"),
    "base is a folder": ("base: .", "unknown"),
    "level that sets nothing known": (
        "ablations: {axes: [{name: a, base: b, levels: [{label: b, set: {no.such: 1}}]}]}",
        "level 'b': unknown key 'no'",
    ),
    "level that sets a number beyond": (
        "ablations: {axes: [{name: a, base: b, levels: [{label: b, set: {pretrain.steps: 1000000000000}}]}]}",
        "pretrain.steps must be at most",
    ),
    "level that sets bytes": (
        "ablations: {axes: [{name: a, base: b, levels: [{label: b, set: {results: !!binary //8=}}]}]}",
        r"levels\[0\]\.set\.results",
    ),
    "level that sets a number": (
        "ablations: {axes: [{name: a, base: b, levels: [{label: b, set: {1: 2}}]}]}",
        r"levels\[0\]\.set.*must be a text, not 1",
    ),
    "axis without levels": ("ablations: {axes: [{name: a, base: b}]}", r"axes\[0\].levels is missing"),
}

OVERRIDES = {
    "nothing": ("", "key=value"),
    "no key": ("=3", "unknown key"),
    "two dots": ("pretrain..steps=3", "unknown key"),
    "attribute of Python": ("__class__=3", "unknown key"),
    "inner attribute of Python": ("pretrain.__class__.x=3", "unknown key"),
    "item of a list": ("finetune.seeds.0=3", "finetune.seeds must be a list"),
    "alias": ("finetune.seeds=[&a 1, *a]", "aliases"),
    "object": ("finetune.seeds=!!python/object/apply:os.getcwd []", "YAML"),
    "deep list": ("finetune.seeds=" + "[" * 3000, "nested too deeply"),
    "octal": ("pretrain.steps=010", "plain decimal"),
    "two lines": ("pretrain.steps=3\nname: x", "YAML|whole number"),
    "invalid UTF-8": ("corpus.labeled=/music/\udcff", "corpus.labeled.*UTF-8"),
    "null": ("results=a\0b", "results.*control"),
    "section from a text": ("pretrain=fast", "pretrain must be a map"),
}


PARAMETERS = {
    "profile of nothing": ((None,), "'None' is unknown"),
    "profile of a number": ((7,), "'7' is unknown"),
    "profile of a list": ((["smoke"],), "is unknown"),
    "profile of spaces": (("  ",), "is unknown"),
    "overrides of one text": (("smoke", "pretrain.steps=3"), "overrides must be a list"),
    "overrides of numbers": (("smoke", [3]), "overrides must be a list"),
    "overrides of a map": (("smoke", {"pretrain.steps": 3}), "not of the form key=value"),
    "overrides of lists": (("smoke", [["pretrain.steps=3"]]), "overrides must be a list"),
}
"""What a notebook's parameters may be set to."""


def cases() -> Iterator[Case]:
    for name, (arguments, says) in PARAMETERS.items():
        yield Case(f"parameters: {name}", partial(_parameters, arguments), says)
    for name, (text, says) in TEXTS.items():
        yield Case(f"profile: {name}", partial(_file, text), says, gives="mine")
    for name, (change, says) in OVERRIDES.items():
        yield Case(f"override: {name}", partial(_override, change), says)
    yield Case("override: a section keeps its other fields", _section, gives=[7, 2])
    yield Case("profile: byte order mark", partial(_bytes, b"\xef\xbb\xbfpretrain: {steps: 7}"), gives="mine")
    for encoding in ("utf-16", "utf-32", "latin-1"):
        text = "name: caf\u00e9".encode(encoding)
        yield Case(f"profile: {encoding}", partial(_bytes, text), r"mine\.yaml: (cannot be read|not readable)")
    yield Case("profile: random bytes", partial(_bytes, bytes(range(256)) * 4), r"mine\.yaml: cannot be read")
    yield Case("profile: zeros", partial(_bytes, bytes(1000)), r"mine\.yaml: not readable")
    yield Case("profile: base upon base", _chain, "base upon base")
    yield Case("profile: two that lead to each other", _circle, "leads back")
    yield Case("profile: a folder", _folder, "unknown")
    yield Case("profile: too long a name", lambda folder: _name("x" * 5000), "unknown")
    yield Case("profile: in the home of nobody", lambda folder: _name("~nobody-of-that-name/x.yaml"), "unknown")
    yield Case("profile: null in its name", lambda folder: _name("a\0b.yaml"), "unknown")
    yield Case("profile: path out of the folder of profiles", lambda folder: _name("../../README.md"), "unknown")
    for value in ("~nobody-of-that-name/music", "x" * 5000, "/proc/1/root/" + "y" * 300):
        yield Case(f"folder: {value[:12]}", partial(_resolve, value), "folder '")


def _bytes(content: bytes, folder: Path) -> str:
    return profile.load(str(written(folder / "mine.yaml", content))).name


def _file(text: str, folder: Path) -> str:
    return _bytes(text.replace("{folder}", str(folder)).encode("utf-8", "surrogatepass"), folder)


def _override(change: str, folder: Path) -> str:
    return profile.load("smoke", [change]).name


def _section(folder: Path) -> list[int]:
    found = profile.load("smoke", ["pretrain={steps: 7}"])
    return [found.pretrain.steps, found.pretrain.batch]


def _chain(folder: Path) -> None:
    for i in range(60):
        written(folder / f"{i}.yaml", f"base: {i + 1}.yaml")
    profile.load(str(folder / "0.yaml"))


def _circle(folder: Path) -> None:
    written(folder / "one.yaml", "base: two.yaml")
    profile.load(str(written(folder / "two.yaml", "base: one.yaml")))


def _folder(folder: Path) -> None:
    (folder / "mine.yaml").mkdir()
    profile.load(str(folder / "mine.yaml"))


def _parameters(arguments: tuple, folder: Path) -> None:
    profile.load(*arguments)


def _name(name: str) -> None:
    profile.load(name)


def _resolve(value: str, folder: Path) -> None:
    profile.project_path(value)
