"""Listening: what the scores sound like, players for it, and blind tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib import profile as profiles
from lib.listening.blind import BlindTest
from lib.listening.explore import Explorer, OwnFile, is_live, shown
from lib.listening.material import clearest, excerpt, excerpts, methods, own, plays_examples, source
from lib.listening.player import Player
from lib.stages import Study

__all__ = [
    "BlindTest",
    "Explorer",
    "OwnFile",
    "Player",
    "blind_test",
    "clearest",
    "excerpt",
    "excerpts",
    "folder",
    "is_live",
    "methods",
    "own",
    "plays_examples",
    "shown",
    "source",
]


def folder(study: Study) -> Path:
    """Where a study's blind tests keep their answers."""
    return study.results / "listening"


def blind_test(profile: str, overrides: Sequence[str] = ()) -> BlindTest:
    """The blind test of a profile, as `lib.listening.serve` serves it. Raises: UserError."""
    study = Study(profiles.load(profile, overrides))
    settings = study.profile.listening.blind
    return BlindTest(settings, excerpts(study, settings.songs), folder(study))
