"""Runs are named after what identifies them, and files are whole or not there."""

import pytest

from lib.store.files import atomic
from lib.store.fingerprints import code_fingerprint, fingerprint
from lib.store.runs import Run
from tests.toys import STAGE, Interrupted


def test_run_folder_depends_on_identity_alone(tmp_path):
    first = Run.of(tmp_path, "stage", {"a": 1, "b": STAGE}).begin()
    assert Run.of(tmp_path, "stage", {"b": STAGE, "a": 1}) == first
    assert Run.of(tmp_path, "stage", {"a": 2, "b": STAGE}) != first
    assert first.name == f"stage-{fingerprint({'a': 1, 'b': STAGE})}"


def test_code_fingerprint_ignores_comments(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.store.fingerprints.LIB", tmp_path)
    digests = []
    for text in ("def f(x):\n    return x + 1\n", 'def f(x):\n    """Doc."""\n    # why\n    return x+1', "f = 2\n"):
        (tmp_path / "m.py").write_text(text)
        digests.append(code_fingerprint("m"))
    assert digests[0] == digests[1] != digests[2]


def test_atomic_write_leaves_the_old_file_on_error(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(Interrupted), atomic(path) as temporary:
        temporary.write_text("new")
        raise Interrupted
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
