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


TRAINING_CODE = ("losses", "mixing", "training", "transfer", "separate", "pretrain", "finetune", "arms")
"""Modules that determine a training, beside the packages ``model`` and ``data``; other code does not retrain a run."""


@functools.cache
def training_code() -> str:
    """`code_fingerprint` of what determines a training, which is recorded with every run."""
    return code_fingerprint("model", "data", *TRAINING_CODE)


def code_fingerprint(*names: str) -> str:
    """Hash of the syntax trees of modules and packages of ``lib``, without docstrings, comments and layout."""
    files = [path for name in names for path in (*LIB.glob(f"{name}.py"), *sorted((LIB / name).rglob("*.py")))]
    trees = [ast.dump(_without_docstrings(ast.parse(path.read_text("utf-8")))) for path in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    return tree
