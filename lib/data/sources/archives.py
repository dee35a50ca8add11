"""Debian packages, and ZIP files within them, unpacked without trust in their names, sizes or nesting."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib import UserError, one_line

ARCHIVE = re.compile(r"\.(pk[34]|zip)$", re.IGNORECASE)
LARGEST, MOST, MEMBERS = 2 << 30, 16 << 30, 200_000
"""Bytes of one file and of all of a package, and members of an archive: twice what the largest of games has."""
DEPTH, RATIO = 2, 200
"""Archives within each other that are opened, and how far sound can be compressed without being silence."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""zipfile decompresses the others in pieces of any size."""


def unpack(package: Path, folder: Path, wanted: re.Pattern) -> list[tuple[str, str]]:
    """Write the files of a .deb whose paths match ``wanted`` below ``folder``, by their paths in it.

    An archive in it is opened too, and its name is a folder in the paths of its members. Returns (path, reason) of
    what is refused. Raises: UserError if the package is damaged or dpkg-deb is not on PATH; OSError of the disk.
    """
    inside = _Unpacking(folder, wanted)
    with _files_of(package) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for info in tar:
                    if info.isfile():
                        inside.take(info.name, info.size, lambda info=info: tar.extractfile(info))
                    elif wanted.search(info.name):
                        inside.refuse(info.name, "a link")
            process.stdout.read()
            damage = process.stderr.read().decode("utf-8", "replace") if process.wait() else ""
        except (tarfile.TarError, EOFError) as error:
            damage = str(error)
    if damage:
        raise UserError(f"{package}: damaged, or no Debian package ({damage.strip()}): delete it and call again")
    return inside.refused


def _files_of(package: Path) -> subprocess.Popen:
    """dpkg-deb writing the package's files as a tar archive, which is never on disk."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise UserError("dpkg-deb is not on PATH: it opens Debian's packages, and is part of every Debian") from error


@dataclass
class _Unpacking:
    folder: Path
    wanted: re.Pattern
    refused: list[tuple[str, str]] = field(default_factory=list)
    written: int = 0

    def refuse(self, name: str, reason: object) -> None:
        self.refused.append((one_line(name.removeprefix("./")), one_line(str(reason))))

    def take(self, name: str, size: int, opened: Callable[[], BinaryIO], inside: str = "", depth: int = 0) -> None:
        """Write a file, or open an archive, of a ``name`` within the archive that lies at ``inside``."""
        is_music, is_archive = self.wanted.search(name), ARCHIVE.search(name)
        if not (is_music or is_archive):
            return
        path = PurePosixPath(inside, *PurePosixPath(name.replace("\\", "/")).parts)
        if problem := self._problem(name, path, size):
            self.refuse(f"{inside}/{name}" if inside else name, problem)
        elif is_music:
            self._write(path, size, opened)
        elif depth == DEPTH:
            self.refuse(str(path), f"an archive within {DEPTH} others")
        else:
            self._open(path, opened, depth + 1)

    def _problem(self, name: str, path: PurePosixPath, size: int) -> str:
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            return "its name leads out of the folder"
        if not str(path).isprintable():
            return "its name holds control characters or invalid UTF-8"
        if any(part.startswith(".") for part in path.parts):
            return "hidden"
        if size > LARGEST or self.written + size > MOST:
            return f"too large, {size / 1e9:.1f} GB after {self.written / 1e9:.1f} GB of the package"
        return ""

    def _write(self, path: PurePosixPath, size: int, opened: Callable[[], BinaryIO]) -> None:
        target = self.folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except FileExistsError:
            return self.refuse(str(path), "a second file of this name")
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            target.unlink(missing_ok=True)
            return self.refuse(str(path), f"damaged ({error})")
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                raise
            return self.refuse(str(path), f"a name that cannot be written ({error.strerror})")
        self.written += size

    def _open(self, path: PurePosixPath, opened: Callable[[], BinaryIO], depth: int) -> None:
        with tempfile.TemporaryFile(dir=self.folder) as spooled:
            try:
                with opened() as source:
                    shutil.copyfileobj(source, spooled, 1 << 20)
                with zipfile.ZipFile(spooled) as file:
                    self._members(path, file, depth)
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
                self.refuse(str(path), f"damaged, or no ZIP file ({error})")

    def _members(self, path: PurePosixPath, file: zipfile.ZipFile, depth: int) -> None:
        members = file.infolist()
        if len(members) > MEMBERS:
            return self.refuse(str(path), f"holds {len(members)} files")
        for info in members:
            if problem := _odd(info):
                if self.wanted.search(info.filename) or ARCHIVE.search(info.filename):
                    self.refuse(f"{path}/{info.filename}", problem)
            elif not info.is_dir():
                self.take(info.filename, info.file_size, lambda info=info: file.open(info), str(path), depth)


def _odd(info: zipfile.ZipInfo) -> str:
    """Why a member of an archive is not opened; reading never gives more than the size that it declares."""
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in METHODS:
        return "compressed by a method other than deflate"
    if info.file_size > RATIO * max(info.compress_size, 1000):
        return f"declares {info.file_size / 1e6:.0f} MB in {info.compress_size / 1e6:.2f} MB"
    if info.external_attr >> 28 not in (0, 8):
        return "a link, or no file"
    return ""
