"""Archives of the published data sets: downloaded where that is allowed, checked, and unpacked into their folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import UserError
from lib.data.audio import stamp
from lib.machine.progress import bar
from lib.store.files import file_lock

BLOCK = 1 << 20
TIMEOUT, RETRIES, PAUSE = 60.0, 4, 2.0
"""Seconds without a byte, attempts in a row that bring none, and seconds to wait before the next (growing)."""


@dataclass(frozen=True)
class Archive:
    """A published ZIP file: address, checksum, and roughly how many times its own size it takes when unpacked."""

    url: str
    algorithm: str
    digest: str
    growth: float = 1.05

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


def provide_archive(archive: Archive, root: Path, there: Callable[[], bool], download: bool, field: str) -> None:
    """Have ``archive`` unpacked in ``root``; nothing is done if its content is ``there`` and not half unpacked.

    An archive in ``root`` is checked and unpacked; without one it is downloaded, if ``download`` allows. It is never
    deleted. ``field`` is the profile's, for messages.

    Raises: UserError, one line that says what to do.
    """
    marker, file = root / f".{archive.name}.unpacking", root / archive.name
    if there() and not marker.exists():
        return
    if not (download or file.exists()):
        raise UserError(
            f"{field}: {root} holds no {archive.name.removesuffix('.zip')}: set corpus.download=true, "
            f"or put {archive.name} there yourself ({archive.url}), or name the folder that has it unpacked"
        )
    with filling(root, field):
        if there() and not marker.exists():
            return  # another process was faster
        if not file.exists():
            fetch(archive, file)
        elif not marker.exists() or marker.read_bytes() != repr(stamp(file)).encode():
            check(archive, file, f"delete it and download it again from {archive.url}")
        marker.write_bytes(repr(stamp(file)).encode())
        unpack(file, root)
        marker.unlink()


@contextlib.contextmanager
def filling(root: Path, field: str) -> Iterator[None]:
    """One process at a time fills a folder that ``field`` names. Raises: UserError where it cannot be written."""
    try:
        with file_lock(root / ".download.lock"):
            yield
    except OSError as error:
        raise UserError(f"{root}: {_said(error)}: {field} must name a folder that can be written") from error


def fetch(archive: Archive, target: Path) -> None:
    """Download to ``target.part``, from where an earlier call stopped, and rename it once its checksum is right.

    A connection that breaks off is resumed as long as data come. Raises: UserError.
    """
    part, failures = target.with_name(f"{target.name}.part"), 0
    while True:
        before = _size(part)
        try:
            if _append(archive, part):
                break
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code == 416 and before:
                break  # nothing beyond what is there: the checksum decides
            failures = RETRIES if error.code < 500 else failures
        except urllib.error.URLError as error:
            reason = f"no connection ({_said(error.reason)})"
        except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = f"the connection broke off ({_said(error)})"
        failures = failures + 1 if _size(part) <= before else 0
        if failures > RETRIES:
            there = f"{_size(part) / 1e9:.2f} GB are there: call again to resume, or put {target.name} into it yourself"
            raise UserError(f"{archive.url}: {reason}; in {target.parent}, {there}")
        time.sleep(PAUSE * failures)
    try:
        check(archive, part, f"it was deleted: call again to download {archive.url} again")
    except UserError:
        part.unlink()
        raise
    os.replace(part, target)


def _append(archive: Archive, part: Path) -> bool:
    """Request what ``part`` lacks and append it; whether it is complete."""
    have = _size(part)
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:
            have = 0  # a server that knows no ranges sends all of it
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise http.client.HTTPException("another range than was asked for")
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total:
            _room(part.parent, total - have + archive.growth * total, archive.name, "downloaded and unpacked")
        progress = bar(f"downloading {archive.name}", total, have, "B")
        with open(part, "ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                progress(have)
    return total is None or have == total


def check(archive: Archive, file: Path, remedy: str) -> None:
    """Raises: UserError if the file's checksum is not the published one."""
    progress, done, digest = bar(f"checking {archive.name}", _size(file), 0, "B"), 0, hashlib.new(archive.algorithm)
    with open(file, "rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(done)
    if (found := digest.hexdigest()) != archive.digest:
        expected = f"not the published {archive.digest}: damaged or another file; {remedy}"
        raise UserError(f"{file}: its {archive.algorithm} checksum is {found}, {expected}")


def unpack(archive: Path, root: Path) -> None:
    """Unpack a ZIP file of known checksum into ``root``; members that are there with their size are kept.

    Raises: UserError if there is no room, or zipfile cannot read the file.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            missing = [info for info in members if not info.file_size or _size(root / info.filename) != info.file_size]
            total, done = sum(info.file_size for info in missing), 0
            _room(root, total, archive.name, "unpacked")
            progress = bar(f"unpacking {archive.name}", total, 0, "B")
            for info in missing:
                try:
                    file.extract(info, root)  # what a kill cuts short is found by its size
                except zipfile.BadZipFile:  # found at its end: it has its size, and must not be kept
                    (root / info.filename).unlink(missing_ok=True)
                    raise
                done += info.file_size
                progress(done)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's; bzip2 raises one without a number
            raise
        raise UserError(
            f"{archive}: damaged, or no ZIP file ({_said(error)}): delete it and download it again"
        ) from error


def _room(folder: Path, needed: float, name: str, what: str) -> None:
    if needed > (free := shutil.disk_usage(folder).free):
        room = f"{needed / 1e9:.1f} GB when {what}, {free / 1e9:.1f} GB are free: make room"
        raise UserError(f"{folder}: {name} takes {room}")


def _size(file: Path) -> int:
    """In bytes; 0 if there is none."""
    return file.stat().st_size if file.exists() else 0


def _said(error: object) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the disk"
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
