"""The list of lines to break on purpose fits the code: each stands there once, and its tests exist."""

import pytest

from tests.mutations.__main__ import LIST, ROOT


@pytest.mark.parametrize("mutation", LIST, ids=range(1, len(LIST) + 1))
def test_what_is_to_be_broken_stands_there_once(mutation):
    text = (ROOT / "lib" / mutation["file"]).read_text("utf-8")
    assert text.count(mutation["old"]) == 1 and mutation["new"] != mutation["old"]
    assert all((ROOT / "tests" / f"{name}.py").exists() for name in mutation["tests"].split())
