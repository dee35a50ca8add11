"""Short hashes of values, files and code."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from pathlib import Path

from lib import ROOT
from lib.store.files import plain

LIB = ROOT / "lib"


def fingerprint(content: object) -> str:
    """12 hex digits of SHA-256 over the canonical JSON of nested dataclasses, mappings and sequences."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


TRAINING_CODE = (
    "model",
    "data",
    "losses",
    "mixing",
    "training",
    "transfer",
    "separate",
    "pretrain",
    "finetune",
    "arms",
)
"""Modules of `lib` that determine a training. Their hash is recorded with every run; other code does not retrain it."""


@functools.cache
def training_code() -> str:
    """`code_fingerprint` of `TRAINING_CODE`."""
    files = (path for name in TRAINING_CODE for path in (*LIB.glob(f"{name}.py"), *sorted((LIB / name).rglob("*.py"))))
    return code_fingerprint(*(str(path.relative_to(LIB).with_suffix("")) for path in files))


def code_fingerprint(*modules: str) -> str:
    """Hash of the syntax trees of ``lib`` modules, without docstrings, comments and layout."""
    trees = [ast.dump(_without_docstrings(ast.parse((LIB / f"{name}.py").read_text("utf-8")))) for name in modules]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree
