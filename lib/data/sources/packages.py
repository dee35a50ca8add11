"""Files out of Debian's packages, fetched and unpacked without root, package by package.

``ROOT/PACKAGE/FILE`` with the package's ``copyright``, and ``ROOT/pieces.csv`` with a row for every file looked at.
``ROOT/.packages/PACKAGE.json`` says that a package is done: a call after a kill fetches the others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from lib import UserError, one_line
from lib.data.download import filling
from lib.data.sources.archives import unpack
from lib.store.files import atomic, read_facts, write_json

COLUMNS = ("piece", "seconds", "package", "version", "licence", "note", "left_out")
UNKNOWN = ("Unable to locate package", "has no installation candidate", "no packages found", "Can't find a source")
LICENCES = re.compile(
    r"CC0|CC[- ]BY(?:-NC)?(?:-SA)?(?:[- ]\d\.\d)?|GPL-[23](?:\.0)?\+?|Artistic|BSD|Expat|public domain", re.IGNORECASE
)


class Packages(NamedTuple):
    """A named source: packages in the order in which duplicates are resolved, the files ``wanted``, and a choice.

    ``choose(folder, files, earlier rows, workers)`` gives a row for each of ``files`` (paths below ``folder``), with
    ``piece``, ``left_out`` and what else it knows; it may write other files, which the rows name.
    """

    name: str
    packages: tuple[str, ...]
    wanted: re.Pattern
    choose: Callable[[Path, list[str], list[dict], int], list[dict]]

    def there(self, root: Path) -> bool:
        """Whether every package is done."""
        return not self._missing(root)

    def _missing(self, root: Path) -> list[str]:
        return [package for package in self.packages if not _record(root, package).is_file()]

    def provide(self, root: Path, download: bool, workers: int = 2) -> None:
        """Have all packages done in ``root``. A .deb that lies there is used; others are fetched if ``download``.

        A package that apt does not know is listed and left out. Raises: UserError, one line that says what to do.
        """
        if self.there(root):
            return
        with filling(root, "corpus.sources_root"):
            for package in self._missing(root):
                self._provide(root, package, download, workers)
            self._table(root)

    def _provide(self, root: Path, package: str, download: bool, workers: int) -> None:
        own, fetched = sorted(root.glob(f"{package}_*.deb")), root / ".fetched"
        if not own and not download:
            lacks = f"{root} lacks {len(self._missing(root))} of {len(self.packages)} packages, first {package}"
            put = f"set corpus.download=true, or put {package}_VERSION.deb there yourself"
            raise UserError(f"{self.name}: {lacks}: {put}")
        file = own[-1] if own else fetch(package, fetched, self.name)
        rows = self._rows(root, package, file, workers) if file else [_row(package, left_out="apt does not know it")]
        write_json(_record(root, package), {"package": package, "rows": rows})
        self._table(root)
        shutil.rmtree(fetched, ignore_errors=True)

    def _rows(self, root: Path, package: str, file: Path, workers: int) -> list[dict]:
        """Unpack, choose, and put what is kept into its place, all at once."""
        folder, kept = root / ".unpacked", root / ".kept"
        for old in (folder, kept, root / package):
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True)
        copyright_file = f"usr/share/doc/{package}/copyright"
        wanted = re.compile(f"{self.wanted.pattern}|{re.escape(copyright_file)}$", self.wanted.flags)
        refused = unpack(file, folder, wanted)
        own = folder / copyright_file
        text = own.read_text("utf-8", "replace") if own.is_file() else ""
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        files = [path for path in files if path != copyright_file]
        rows = self.choose(folder, files, self.rows(root), workers)
        rows += [{"piece": path, "left_out": reason} for path, reason in refused]
        version = file.name.split("_")[1].replace("%3a", ":") if "_" in file.name else ""
        rows = [_row(package, version, licence_of(text, row.get("file", row["piece"])), **row) for row in rows]
        self._place(folder, kept, package, rows)
        if kept.is_dir():
            if own.is_file():
                os.replace(own, kept / "copyright")
            os.replace(kept, root / package)
        shutil.rmtree(folder)
        return rows

    def _place(self, folder: Path, kept: Path, package: str, rows: list[dict]) -> None:
        """Move the kept pieces, without the folders that all of them are in."""
        pieces = [row for row in rows if not row["left_out"]]
        top = os.path.commonpath([os.path.dirname(row["piece"]) for row in pieces]) if pieces else ""
        for row in pieces:
            short = os.path.relpath(row["piece"], top) if top else row["piece"]
            (kept / short).parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / row["piece"], kept / short)
            row["piece"] = f"{package}/{short}"

    def rows(self, root: Path) -> list[dict]:
        """Every file looked at so far, in the order of the packages."""
        done = [_record(root, package) for package in self.packages]
        return [row for record in done if record.is_file() for row in read_facts(record, "rows")["rows"]]

    def _table(self, root: Path) -> None:
        with atomic(root / "pieces.csv") as temporary:
            pd.DataFrame(self.rows(root), columns=list(COLUMNS)).to_csv(temporary, index=False)


def fetch(package: str, folder: Path, source: str) -> Path | None:
    """Download a package's .deb into ``folder``, or None if apt does not know it. Raises: UserError."""
    folder.mkdir(parents=True, exist_ok=True)
    command, settings = ["apt-get", "download", package], {"cwd": folder, "capture_output": True}
    try:
        done = subprocess.run(command, env=os.environ | {"LC_ALL": "C"}, **settings)
    except FileNotFoundError as error:
        call = f"call python -m lib.data.sources {source} --to FOLDER, and put FOLDER/{source} here as {folder.parent}"
        needs = f"{source} needs apt-get and dpkg-deb: on any Debian or Ubuntu, root or not, {call}"
        raise UserError(needs) from error
    said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.startswith("E:")]
    if done.returncode == 0:
        return sorted(folder.glob(f"{package}_*.deb"))[-1]
    if any(words in line for line in said for words in UNKNOWN):
        if subprocess.run(["apt-get", "download", "--print-uris", "dpkg"], **settings).returncode:
            raise UserError("apt-get knows no packages at all: have its lists fetched once, apt-get update as root")
        return None
    shutil.rmtree(folder)
    why = one_line(" ".join(said) or "unknown error")
    raise UserError(f"{source}: {package} cannot be fetched ({why}); those before it are there: call again to resume")


def _record(root: Path, package: str) -> Path:
    return root / ".packages" / f"{package}.json"


def _row(package: str, version: str = "", licence: str = "", **row: object) -> dict:
    names = {"package": package, "version": version, "licence": licence}
    return {"piece": "", "seconds": None, "note": "", "left_out": ""} | row | names


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
    return found or ", ".join(sorted({name.upper() for name in LICENCES.findall(text)}))


def _fits(path: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    parts, pieces = PurePosixPath(path).parts, PurePosixPath(pattern).parts
    ends = ["/".join(pieces[at:]) for at in range(len(pieces)) if pieces[at].strip("*?")]
    return any(fnmatchcase("/".join(parts[at:]), end) for at in range(len(parts)) for end in ends)
