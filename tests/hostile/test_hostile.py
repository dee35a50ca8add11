"""Bad input of every kind is answered by one clear line, a listed skip or the right result, in bounded memory and time.

The cases are run by one process of `tests.hostile.driver`; those that were chosen with ``-k`` alone.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.cases import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(request, tmp_path_factory):
    """What came of every chosen case, by name."""
    target = tmp_path_factory.mktemp("hostile") / "found.jsonl"
    mine = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    names = [item.callspec.params["case"].name for item in mine]
    call = [sys.executable, "-m", "tests.hostile.driver", str(target), *names]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_answered_as_it_must_be(found, case):
    answer = found[case.name]
    assert answer["kind"] == case.expected, f"{answer['kind']}: {answer['value']}"
    assert not answer["said"] and not answer["strays"], answer
    if case.says:
        text = answer["value"]
        assert text.isprintable() and len(text) < 1500, text
        assert re.search(case.says, text), text
    else:
        assert answer["value"] == case.gives


def test_the_cases_are_many_and_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 200
