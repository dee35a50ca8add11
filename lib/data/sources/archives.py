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
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib import UserError, one_line

ARCHIVE = re.compile(r"\.(pk[34]|zip)$", re.IGNORECASE)
LARGEST, MOST, MEMBERS = 2 << 30, 16 << 30, 200_000
"""Bytes of one file and of all of a package, and members of an archive: twice what the largest of games has."""
DEPTH, RATIO = 2, 200
"""Archives within each other that are opened, and how far sound can be compressed without being silence."""
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


def unpack(package: Path, folder: Path, wanted: re.Pattern) -> list[tuple[str, str]]:
    """Write the files of a .deb whose paths match ``wanted`` below ``folder``, by their paths in it.

    An archive in it is opened too, and its name is a folder in the paths of its members. Returns (path, reason) of
    what is refused. Raises: UserError if the package is damaged or dpkg-deb is not on PATH; OSError of the disk.
    """
    inside, command = _Unpacking(folder, wanted), ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:  # a tar archive that is never on disk
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise UserError("dpkg-deb is not on PATH: it opens Debian's packages, and is part of every Debian") from error
    with process:
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


class _Unpacking:
    def __init__(self, folder: Path, wanted: re.Pattern):
        self.folder, self.wanted, self.refused, self.written = folder, wanted, [], 0

    def refuse(self, name: object, reason: object) -> None:
        self.refused.append((one_line(str(name).removeprefix("./")), one_line(str(reason))))

    def take(self, name: str, size: int, opened: Callable[[], BinaryIO], inside: str = "", depth: int = 0) -> None:
        """Write a file, or open an archive, of a ``name`` within the archive that lies at ``inside``."""
        is_music, is_archive = self.wanted.search(name), ARCHIVE.search(name)
        path = PurePosixPath(inside, *PurePosixPath(name.replace("\\", "/")).parts)
        if not (is_music or is_archive):
            return
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            self.refuse(f"{inside}/{name}" if inside else name, "its name leads out of the folder")
        elif not str(path).isprintable():
            self.refuse(path, "its name holds control characters or invalid UTF-8")
        elif any(part.startswith(".") for part in path.parts):
            self.refuse(path, "hidden")
        elif size > LARGEST or self.written + size > MOST:
            before = self.written / 1e9
            self.refuse(path, f"too large, {size / 1e9:.1f} GB after {before:.1f} GB of the package")
        elif is_music:
            self._write(path, size, opened)
        elif depth == DEPTH:
            self.refuse(path, f"an archive within {DEPTH} others")
        else:
            self._open(path, opened, depth + 1)

    def _write(self, path: PurePosixPath, size: int, opened: Callable[[], BinaryIO]) -> None:
        target = self.folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            self.written += size
        except FileExistsError:
            self.refuse(path, "a second file of this name")
        except DAMAGED as error:
            target.unlink(missing_ok=True)
            self.refuse(path, f"damaged ({error})")
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                raise
            self.refuse(path, f"a name that cannot be written ({error.strerror})")

    def _open(self, path: PurePosixPath, opened: Callable[[], BinaryIO], depth: int) -> None:
        with tempfile.TemporaryFile(dir=self.folder) as spooled:
            try:
                with opened() as source:
                    shutil.copyfileobj(source, spooled, 1 << 20)
                with zipfile.ZipFile(spooled) as file:
                    members = [info for info in file.infolist() if not info.is_dir()]
                    if len(members) > MEMBERS:
                        return self.refuse(path, f"holds {len(members)} files")
                    for info in members:
                        if not (odd := _odd(info)):
                            self.take(
                                info.filename, info.file_size, lambda info=info: file.open(info), str(path), depth
                            )
                        elif self.wanted.search(info.filename) or ARCHIVE.search(info.filename):
                            self.refuse(f"{path}/{info.filename}", odd)
            except DAMAGED as error:
                self.refuse(path, f"damaged, or no ZIP file ({error})")


def _odd(info: zipfile.ZipInfo) -> str:
    """Why a member of an archive is not opened; reading never gives more than the size that it declares."""
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile has no bounds for others
        return "compressed by a method other than deflate"
    if info.file_size > RATIO * max(info.compress_size, 1000):
        return f"declares {info.file_size / 1e6:.0f} MB in {info.compress_size / 1e6:.2f} MB"
    return "a link, or no file" if info.external_attr >> 28 not in (0, 8) else ""
