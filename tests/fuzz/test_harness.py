"""The harnesses by themselves: what they start from is read or refused as it must be, and a slip is noticed."""

import pytest

from tests.fuzz import harness


@pytest.mark.parametrize("name", harness.HARNESSES)
def test_what_mutation_starts_from_is_read_or_refused(name):
    _, seeds, longest = harness.HARNESSES[name]
    found = list(seeds())
    assert len(found) > 2 and all(len(data) <= longest for data in found)
    for data in [*found, b"", *(data[: len(data) // 2] for data in found)]:
        assert harness.outcome(name, data) == ""


def test_a_slip_is_noticed(monkeypatch):
    monkeypatch.setattr(harness.profile, "override", lambda *changes: {}["no such key"])
    assert harness.outcome("profile", b"name: x").startswith("KeyError in <lambda>")
