"""Which licence a file of a Debian package is under, by the package's copyright file."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

NAMES = re.compile(
    r"CC0|CC[- ]BY(?:-NC)?(?:-SA)?(?:[- ]\d\.\d)?|GPL-[23](?:\.0)?\+?|Artistic|BSD|Expat|public domain", re.IGNORECASE
)


def licence_of(text: str, path: str) -> str:
    """The short name of the last stanza of a machine-readable ``text`` that names ``path``; else all names in it.

    The text names files of the source, the package installs them elsewhere: a pattern fits if its end does, with at
    least one folder or file by name. Empty if there is no name.
    """
    found = ""
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(Files|License):((?:.*)(?:\n[ \t]+.*)*)", stanza, re.MULTILINE))
        if {"Files", "License"} <= fields.keys() and any(_fits(path, p) for p in fields["Files"].split()):
            found = fields["License"].strip().splitlines()[0] if fields["License"].strip() else found
    return found or ", ".join(sorted({name.upper() for name in NAMES.findall(text)}))


def _fits(path: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    parts, pieces = PurePosixPath(path).parts, PurePosixPath(pattern).parts
    ends = ["/".join(pieces[at:]) for at in range(len(pieces)) if pieces[at].strip("*?")]
    return any(fnmatchcase("/".join(parts[at:]), end) for at in range(len(parts)) for end in ends)
