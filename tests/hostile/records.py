"""What a study has written, damaged since: runs, provenance, stamps, tables, listening sets, scans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lib.data import collection
from lib.data import folder as reader
from lib.data.tracks import Rules
from lib.listening import examples
from lib.pipeline import notebooks
from lib.store import provenance
from lib.store.runs import Run
from lib.store.tables import read_table
from tests.hostile import Case, called, written
from tests.hostile.sounds import encoded, noise

TEXTS = {
    "nothing": b"",
    "half": b'{"weights": "x", "steps": 3, "sec',
    "words": b"words",
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "deep": b"[" * 100_000,
    "zeros": bytes(100),
    "UTF-16": json.dumps({"weights": 1}).encode("utf-16"),
}
DONE = {"weights": "x", "steps": 1, "seconds": 1.0, "best_validation_loss": 1.0}
SET = {"profile": "p", "commit": "c", "songs": [{"song": "s", "gain": 1.0, "samples": 9, "versions": ["reference"]}]}
FILES = {"tables/a.csv": {"notebook": "00", "sha256": "0"}}


def cases() -> Iterator[Case]:
    for name, content in TEXTS.items():
        yield Case(f"done.json: {name}", partial(_done, content), r"done\.json: cannot be read .* delete it")
        yield Case(f"manifest.json: {name}", partial(_set, content), r"manifest\.json: cannot be read")
        yield Case(f"provenance.json: {name}", partial(_audited, content), "no provenance.json")
        yield Case(f"provenance.json, added to: {name}", partial(_added, content), gives={"x": 1})
        yield Case(f"stamp: {name}", partial(_stamped, content), gives=0)
    for key in DONE:
        content = json.dumps({k: v for k, v in DONE.items() if k != key}).encode()
        yield Case(f"done.json: no {key}", partial(_done, content), rf"done\.json: .*{key}")
    for name, change in {
        "no sound files": {},
        "songs of a number": {"songs": 7},
        "songs of words": {"songs": ["a"]},
        "gain of words": {"songs": [{**SET["songs"][0], "gain": "x"}]},
        "no versions": {"songs": [{**SET["songs"][0], "versions": 7}]},
        "versions elsewhere": {"songs": [{**SET["songs"][0], "versions": ["../../harm"]}]},
    }.items():
        yield Case(f"listening set: {name}", partial(_set, json.dumps({**SET, **change}).encode()), "manifest|ogg")
    for name, facts in {
        "files of a list": {"files": [1]},
        "records of words": {"files": {"a": "b"}},
        "files elsewhere": {"files": {"../../etc/passwd": FILES["tables/a.csv"]}, "profile": {"name": "p"}},
        "files from the root": {"files": {"/etc/passwd": FILES["tables/a.csv"]}, "profile": {"name": "p"}},
        "no profile": {"files": FILES},
        "profile elsewhere": {"files": FILES, "profile": {"name": "../../../harm"}},
        "profile of a number": {"files": FILES, "profile": {"name": 7}},
    }.items():
        yield Case(f"provenance.json: {name}", partial(_audited, json.dumps(facts).encode()), "provenance.json")
    for name, content in {
        "nothing": b"",
        "UTF-16": "a,b\n1,2\n".encode("utf-16"),
        "rows too long": b"a,b\n1,2\n1,2,3,4\n",
        "zeros": bytes(1000),
    }.items():
        says = "" if name == "zeros" else r"table\.csv: no table"
        yield Case(f"table of a study: {name}", partial(_table, content), says, gives=0)
    yield Case("table of a study: a folder", _table_folder, r"table\.csv: no table")
    yield Case("table of a study: gone", lambda folder: len(read_table(folder / "t.csv")), "no such table")
    for name, content in {"nothing": b"", "words": b"words" * 99, "zeros": bytes(2000), "half": None}.items():
        yield Case(f"manifest of a collection: {name}", partial(_scanned, content), r"manifest-.*damaged .* delete it")
        yield Case(f"scan of a folder: {name}", partial(_listed, content), gives=["a.wav"])


def _done(content: bytes, folder: Path) -> dict:
    written(folder / "done.json", content)
    return Run(folder).facts()


def _set(content: bytes, folder: Path) -> int:
    written(folder / "manifest.json", content)
    return len(examples.read(folder))


def _audited(content: bytes, folder: Path) -> str:
    from lib.pipeline import audit

    written(folder / "provenance.json", content)
    return called(audit.main, folder)


def _added(content: bytes, folder: Path) -> dict:
    written(folder / "provenance.json", content)
    provenance.update(folder, x=1)
    return {"x": provenance.read(folder)["x"]}


def _stamped(content: bytes, folder: Path) -> int:
    """Which notebook is the first that must run: that of the damaged stamp."""
    notebook = folder / "00_x.ipynb"
    stamp = written(folder / "stamps" / "00_x.json", content)
    return notebooks._first_outdated(folder, {notebook: stamp}, {notebook: "key"})


def _table(content: bytes, folder: Path) -> int:
    return len(read_table(written(folder / "table.csv", content)))


def _table_folder(folder: Path) -> int:
    (folder / "table.csv").mkdir()
    return len(read_table(folder / "table.csv"))


def _damaged(file: Path, content: bytes | None) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)


def _scanned(content: bytes | None, folder: Path) -> None:
    written(folder / "a.wav", encoded(noise()))
    look: Callable = lambda: collection.scan(folder, [[("a.wav", "train")]], Rules(0.5), 0.5, folder / "cache", 1)  # noqa: E731
    _no_processes()
    look()
    (manifest,) = (folder / "cache" / "collection").glob("manifest-*")
    _damaged(manifest, content)
    look()


def _no_processes() -> None:
    collection.in_processes = lambda function, items, workers: enumerate(map(function, items))


def _listed(content: bytes | None, folder: Path) -> list[str]:
    written(folder / "in" / "a.wav", encoded(noise()))
    reader.read(folder / "in", folder / "cache", 1, 0.0)
    (table,) = (folder / "cache").glob("scan-*.json")
    _damaged(table, content)
    return [track.name for track in reader.read(folder / "in", folder / "cache", 1, 0.0)[0]]
