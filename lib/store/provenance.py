"""Provenance of results: ``provenance.json``, with code, profile, packages, machine, corpora, seeds and times.

It contains no host or user name, and its paths are relative to the project. `lib.pipeline.audit` checks tables and
figures against it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from lib import ROOT, UserError
from lib.machine.devices import machine, resolve_precision
from lib.profile import Profile, is_named, project_path, to_dict
from lib.profile.fields import ARRANGED, EMBEDDED
from lib.store.files import read_facts, write_json
from lib.store.fingerprints import code_fingerprint, fingerprint

ARCHIVES = (".zip", ".part", ".lock")
"""Files beside unpacked music that are not part of the corpus."""


def read(results: Path | str) -> dict:
    """The record so far; empty if it is missing or unreadable."""
    try:
        return read_facts(Path(results) / "provenance.json")
    except UserError:
        return {}


def update(results: Path | str, **fields: object) -> None:
    """Replace top-level fields of ``provenance.json``; an unchanged file is not rewritten."""
    old = read(results)
    new = {**old, **fields}
    if new != old:
        write_json(Path(results) / "provenance.json", new)


@contextlib.contextmanager
def stage(results: Path | str, name: str) -> Iterator[None]:
    """Record start and end (UTC) of a stage. An interrupted stage keeps its first start and has no end."""
    stages = read(results).get("stages", {})
    earlier = stages.get(name, {})
    start = earlier["start"] if earlier.get("start") and not earlier.get("end") else _now()
    update(results, stages={**stages, name: {"start": start, "end": None}})
    yield
    update(results, stages={**read(results)["stages"], name: {"start": start, "end": _now()}})


def files(results: Path | str, notebook: str, digests: dict[str, str]) -> None:
    """Record the SHA-256 of the tables and figures of a notebook; the last notebook to write a file owns it."""
    known = read(results).get("files", {})
    others = {name: record for name, record in known.items() if record["notebook"] != notebook}
    own = {name: {"notebook": notebook, "sha256": digest} for name, digest in digests.items()}
    update(results, files=dict(sorted({**others, **own}.items())))


def describe(profile: Profile) -> dict:
    """The fields of ``provenance.json`` that are known before a study runs."""
    content, made = to_dict(profile), profile.corpus.arranged
    content["compute"]["precision"] = resolve_precision(profile.compute)  # of the runs, wherever the record is read
    content["results"] = _portable(profile.results)
    corpus = content["corpus"]
    for key in ("fma_root", "musdb_root", "sources_root"):
        corpus[key] = _portable(corpus[key])
    for key, parts in profile.corpus.music.items():
        corpus[key] = " + ".join(part if is_named(part) else _portable(part) for part in parts)
    corpus["arranged"]["midi"] = [_portable(name) for name in made.midi]
    corpus["arranged"]["fonts"] = [name if name == EMBEDDED else _portable(name) for name in made.fonts]
    seeds = {"rendered": profile.corpus.rendered.seed, "pretrain": list(profile.pretrain.seeds)}
    return {
        "code": code(),
        "profile": content,
        "packages": packages(),
        "machine": machine(),
        "corpora": {key: corpus_fingerprint(profile, key) for key in profile.corpus.music},
        "seeds": seeds | {"finetune": list(profile.finetune.seeds), "ablations": list(profile.ablations.seeds)},
    }


def _portable(folder: str) -> str:
    """A path of a profile, relative to the project."""
    return os.path.relpath(project_path(folder), ROOT)


def corpus_fingerprint(profile: Profile, key: str, times: bool = False) -> str:
    """Hash of a corpus that a field names: its recipe if rendered, else every file's name and size.

    ``times`` adds modification times, to detect changes on one disk; hashes with times do not compare across disks.
    """
    return fingerprint([_part(profile, part, times) for part in profile.corpus.music[key]])


def _part(profile: Profile, part: str, times: bool) -> object:
    made = profile.corpus.recipe_of(part)
    if part == ARRANGED:
        folders = [_files(project_path(name), times) for name in made.midi]
        fonts = [path.stat() for path in map(project_path, made.fonts) if path.is_file()]
        fonts = [(font.st_size, times and font.st_mtime_ns) for font in fonts]
        return [replace(made, midi=(), fonts=()), profile.audio.rate, folders, fonts]  # wherever the files are
    return [made, profile.audio.rate] if made else _files(profile.corpus.folder_of(part), times)


def _files(root: Path, times: bool) -> list[tuple]:
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(root) for name in names)
    music = (path for path in paths if not path.endswith(ARCHIVES))
    stats = [(os.path.relpath(path, root), os.lstat(path)) for path in music]
    return sorted((path, stat.st_size, times and stat.st_mtime_ns) for path, stat in stats)


def code() -> dict:
    """`commit`, and a hash of ``lib``."""
    return {**commit(), "lib": lib_fingerprint()}


def commit() -> dict:
    """Commit, and whether files outside ``results`` differ from it; both None without git."""
    commit = dirty = None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if Path(_output("git", "rev-parse", "--show-toplevel")) == ROOT:
            commit = _output("git", "rev-parse", "HEAD")
            dirty = bool(_output("git", "--no-optional-locks", "status", "--porcelain", "--", ".", ":!results"))
    return {"commit": commit, "dirty": dirty}


def lib_fingerprint() -> str:
    """`code_fingerprint` of all of ``lib``."""
    return code_fingerprint(".")


def packages() -> dict:
    """Installed versions of the packages in ``requirements.in``."""
    names = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.in").read_text("utf-8"), re.M)
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
