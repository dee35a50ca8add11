"""Prepare the folder of a blind test, from a study or one's own stimuli; `lib.listening.serve` calls it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib import UserError
from lib.listening.blind import design
from lib.listening.blind import setup as setups
from lib.store.files import read_facts

if TYPE_CHECKING:
    from lib.study import Study


def of_folder(folder: Path) -> Path:
    """The design of one's own stimuli, in ``FOLDER/tests``. Raises: UserError."""
    setup = setups.of_folder(folder)
    return design.write(folder / "tests", setup, design.own_items(setup, folder))


def of_study(study: Study) -> tuple[setups.Setup, list[design.Item]]:
    """The setup and the passages of a study's test. Raises: UserError."""
    from lib.listening import sources  # imports torch, which one's own stimuli do not need

    blind = study.profile.listening.blind
    setup = setups.of_profile(blind)
    excerpts = sources.excerpts(study, blind.songs)
    return setup, design.items(blind, setup, excerpts, sources.claimed_pair(study, excerpts[0]))


def write_study(study: Study) -> Path:
    """The design of a study's test, in ``results/PROFILE/listening``. Raises: UserError."""
    return design.write(study.results / "listening", *of_study(study))


def main(arguments: Sequence[str]) -> int:
    """Print the protocol and, last, the folder. Exit status: 0 done, 2 wrong call or stimuli."""
    parser = argparse.ArgumentParser(prog="python -m lib.listening.blind.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--stimuli", type=Path, metavar="FOLDER")
    call = parser.parse_args(arguments)
    try:
        folder = of_folder(call.stimuli) if call.stimuli else _of_profile(call.profile, call.overrides)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for line in design.protocol(read_facts(folder / "design.json")):
        print(line)
    for other in sorted(folder.parent.glob("*/answers")):
        count = len(list(other.glob("*.jsonl")))
        print(
            f"{'answers so far' if other.parent == folder else f'another design, {other.parent}'}: {count} participants"
        )
    print(folder)
    return 0


def _of_profile(profile: str, overrides: Sequence[str]) -> Path:
    from lib.profile.load import load

    loaded = load(profile, overrides)  # takes less time to fail than a study to import
    from lib.study import Study

    return write_study(Study(loaded))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
