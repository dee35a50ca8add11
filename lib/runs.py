"""Run folders: one folder per result, named by a hash over everything that can change that result."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lib import UserError

LIB = Path(__file__).resolve().parent

SAME_BITS: dict[str, str] = {
    "18ed319cf733": "ff4fcb095b46",  # training: many processes, collections; what is read is checked
    "e2d62205f569": "ff4fcb095b46",  # training: the control "long"
    "36bd4cb7d59f": "ff4fcb095b46",  # training: a smaller size of the model; skipped files by corpus
    "e5522745293e": "ff4fcb095b46",  # training: what is said of a file without audio
    "64146411e0c6": "f84ed8e04d91",  # scoring: damaged tables are named
    "3d3aa57ff20d": "f84ed8e04d91",  # scoring: names that are numbers stay names
    "56a7e76ae161": "ef727cbfbe7e",  # separate: names of songs
}
"""Fingerprints of code that gives the bits of earlier code, and the fingerprint of that: runs keep their names.

Only what ``python -m tests.same_bits REVISION`` has shown belongs here.
"""


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it, on error remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; results are meant to be read by others
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait for the lock file ``path`` and hold it; it stays where it is, and is free again when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path | str, content: object) -> None:
    """Write ``content`` as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")


def read_facts(path: Path, *needed: str) -> dict:
    """A map that `write_json` wrote, with the ``needed`` keys. Raises: UserError if the file was damaged since."""
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it to have it made again") from error
    missing = [key for key in needed if key not in facts] if isinstance(facts, dict) else ["map"]
    if missing:
        raise UserError(f"{path}: cannot be read (holds no {', '.join(missing)}); delete it to have it made again")
    return facts


def fingerprint(content: object) -> str:
    """12 hex digits of SHA-256 over the canonical JSON of nested dataclasses, mappings and sequences."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def code_fingerprint(*modules: str) -> str:
    """Hash of what ``lib`` modules do: syntax trees without docstrings, so that comments and layout do not count.

    Code that is listed in `SAME_BITS` has the hash of the code whose bits it gives.
    """
    trees = [ast.dump(_without_docstrings(ast.parse((LIB / f"{name}.py").read_text("utf-8")))) for name in modules]
    found = hashlib.sha256("\n".join(trees).encode()).hexdigest()[:12]
    return SAME_BITS.get(found, found)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder ``runs/STAGE-HASH``, there once the run has begun; it is finished once ``done.json`` is there.

    A finished run may be a record, without its weights: its log and scores still count, and ``train()`` makes the
    weights anew.
    """

    folder: Path
    identity: Mapping | None = dataclasses.field(default=None, compare=False)
    train: Callable[[], object] | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, results: Path | str, stage: str, identity: Mapping, train: Callable[[], object] | None = None) -> Run:
        """The run that ``identity`` determines; nothing is written."""
        return cls(Path(results) / "runs" / f"{stage}-{fingerprint(identity)}", identity, train)

    def begin(self) -> Run:
        """Make the folder, with ``identity.json`` in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "identity.json").exists():
            write_json(self.folder / "identity.json", self.identity)
        return self

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        return (self.folder / "done.json").exists()

    @property
    def weights(self) -> Path:
        """Where a finished run keeps its weights, if they were kept."""
        return self.folder / "model.safetensors"

    def reopen(self) -> None:
        """Take a finished run for unfinished, so that its weights are made again; for whoever holds its lock.

        Weights that a kill left half written go.
        """
        (self.folder / "done.json").unlink(missing_ok=True)
        for path in self.folder.glob(".*"):
            if path.suffix in (".ckpt", ".safetensors"):
                path.unlink()

    def finish(self, **facts: object) -> None:
        """Mark the run finished, with the facts (seconds, steps, ...) that tables quote."""
        write_json(self.folder / "done.json", facts)

    def facts(self) -> dict:
        """What `finish` recorded. Raises: UserError if it cannot be read."""
        return read_facts(self.folder / "done.json", "weights", "steps", "seconds", "best_validation_loss")
