"""Listening: excerpts, players and blind tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib import profile as profiles
from lib.listening.blind.session import BlindTest
from lib.listening.explorer import Explorer, OwnFile, analysis_tables, is_live
from lib.listening.player import Player
from lib.listening.sources import clearest, excerpts, methods, origin_note, own_file, plays_examples, separated_excerpt
from lib.study import Study

__all__ = [
    "BlindTest",
    "Explorer",
    "OwnFile",
    "Player",
    "analysis_tables",
    "blind_test",
    "clearest",
    "excerpts",
    "folder",
    "is_live",
    "methods",
    "origin_note",
    "own_file",
    "plays_examples",
    "separated_excerpt",
]


def folder(study: Study) -> Path:
    """The folder of the answers to a study's blind tests."""
    return study.results / "listening"


def blind_test(profile: str, overrides: Sequence[str] = ()) -> BlindTest:
    """The blind test of a profile. Raises: UserError."""
    study = Study(profiles.load(profile, overrides))
    settings = study.profile.listening.blind
    return BlindTest(settings, excerpts(study, settings.songs), folder(study))
