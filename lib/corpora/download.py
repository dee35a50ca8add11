"""Archives of the published data sets: fetched where that is allowed, checked, and unpacked into their own folder."""

from __future__ import annotations

import bz2
import copy
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import stat
import struct
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib import UserError
from lib.progress import bar
from lib.runs import held, write_json

BLOCK = 1 << 20
TIMEOUT, RETRIES, PAUSE = 60.0, 4, 2.0
"""Seconds without a byte, attempts in a row that bring none, and seconds to wait before the next (growing)."""
BOMB = 20
"""No archive of music or tables unpacks to so many times its size."""
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, OverflowError)
"""What reading a damaged ZIP file raises."""


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
    """See to it that ``archive`` lies unpacked in ``root``: nothing is done if it is ``there`` and not half unpacked.

    An archive that lies in ``root`` is checked and unpacked; else it is fetched, if ``download`` allows. It is never
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
    try:
        with held(root / ".download.lock"):
            if there() and not marker.exists():
                return  # another process was faster
            if not file.exists():
                fetch(archive, file)
            elif not marker.exists() or _read(marker) != _stamp(file):
                check(archive, file, f"delete it and fetch it anew from {archive.url}")
            write_json(marker, _stamp(file))
            unpack(file, root)
            marker.unlink()
    except OSError as error:
        raise UserError(f"{root}: {_said(error)}: {field} must name a folder that can be written") from error


def fetch(archive: Archive, target: Path) -> None:
    """Download to ``target`` by way of ``target.part``, from where an earlier call stopped; checked before it is named.

    A connection that breaks off is taken up again as long as data come. Raises: UserError.
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
            raise UserError(
                f"{archive.url}: {reason}, {_size(part) / 1e9:.2f} GB are there: call again, it goes on from there, "
                f"or put {target.name} into {target.parent} yourself"
            )
        time.sleep(PAUSE * failures)
    try:
        check(archive, part, f"it was deleted: call again to fetch {archive.url} anew")
    except UserError:
        part.unlink()
        raise
    os.replace(part, target)


def _append(archive: Archive, part: Path) -> bool:
    """Ask for what ``part`` lacks and add it; whether all is there now."""
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
            _room(part.parent, total - have + archive.growth * total, archive.name, "fetched and unpacked")
        progress = bar(f"fetching {archive.name}", total, have, "B")
        with open(part, "ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                progress(have)
    return total is None or have == total


def check(archive: Archive, file: Path, remedy: str) -> None:
    """Raises: UserError if the file's checksum is another than the published one."""
    digest, done = hashlib.new(archive.algorithm), 0
    progress = bar(f"checking {archive.name}", file.stat().st_size, 0, "B")
    with open(file, "rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(done)
    if digest.hexdigest() != archive.digest:
        raise UserError(
            f"{file}: its {archive.algorithm} checksum is {digest.hexdigest()}, not the published {archive.digest}: "
            f"damaged or another file; {remedy}"
        )


def unpack(archive: Path, root: Path) -> None:
    """Unpack a ZIP file into ``root``; members that are there with their size are kept, so that it can be taken up.

    A member is there whole or not at all. Refused, before anything is written: names that leave the folder, links and
    other special files, encryption, and sizes that no music has. Refused on the way: members larger or smaller than
    declared. Raises: UserError.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [_harmless(archive, info) for info in file.infolist()]
            declared, size = sum(info.file_size for info in members), archive.stat().st_size
            if declared > BOMB * size + BLOCK:
                raise UserError(
                    f"{archive}: {size} bytes that declare {declared} unpacked: not this data set, delete it"
                )
            missing = [info for info in members if not info.is_dir() and not _whole(root / info.filename, info)]
            left = sum(info.file_size for info in missing)
            _room(root, left, archive.name, "unpacked")
            progress = bar(f"unpacking {archive.name}", declared, declared - left, "B")
            for info in missing:
                _extract(file, info, root)
                left -= info.file_size
                progress(declared - left)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place outside of the file
            raise
        raise UserError(f"{archive}: damaged, or no ZIP file ({_said(error)}): delete it and fetch it anew") from error


def _harmless(archive: Path, info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Raises: UserError if a member is not a plain file or folder inside, whatever system unpacks it."""
    name, mode = info.orig_filename, info.external_attr >> 16
    outside = name.startswith("/") or ".." in PurePosixPath(name).parts or re.match("[A-Za-z]:", name)
    if outside or not name or "\\" in name or not name.isprintable():
        raise UserError(f"{archive}: member {name!r:.200} would leave the folder: not this data set, delete it")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"{archive}: member {name!r:.200} is a link or special file: not this data set, delete it")
    if info.flag_bits & 1:
        raise UserError(f"{archive}: member {name!r:.200} is encrypted: not this data set, delete it")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        raise UserError(f"{archive}: unknown compression method {info.compress_type}: unpack it there yourself (7-Zip)")
    return info


def _whole(target: Path, info: zipfile.ZipInfo) -> bool:
    try:
        found = target.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == info.file_size


def _extract(file: zipfile.ZipFile, info: zipfile.ZipInfo, root: Path) -> None:
    target = root / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{target.parent} is a link out of {root}: make a folder of it, or {root} itself the link")
    # no fsync, unlike `lib.runs.atomic`: a member cut short by a power failure is found by its size
    temporary = target.with_name(f".{target.name}.part")
    size = checksum = 0
    with open(temporary, "wb") as output:
        for block in _expanded(file, info):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
            if size > info.file_size:
                break
            output.write(block)
    if size != info.file_size or checksum != info.CRC:
        temporary.unlink()
        raise zipfile.BadZipFile(f"{info.filename} is not what the archive declares")
    os.replace(temporary, target)


def _expanded(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A member's content in blocks of bounded size; zipfile itself expands all that it reads of bzip2 at once."""
    raw = copy.copy(info)
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, info.compress_size
    del raw.CRC  # it is that of the expanded content
    with file.open(raw) as source:
        if info.compress_type == zipfile.ZIP_DEFLATED:
            yield from _inflated(source)
        elif info.compress_type == zipfile.ZIP_BZIP2:
            expand = bz2.BZ2Decompressor()
            while not expand.eof:
                data = source.read(BLOCK) if expand.needs_input else b""
                if expand.needs_input and not data:
                    return
                try:
                    yield expand.decompress(data, BLOCK)
                except OSError as error:  # one without a number: it is no disk's
                    raise zipfile.BadZipFile(f"{info.filename}: {error}") from error
        else:
            yield from iter(lambda: source.read(BLOCK), b"")


def _inflated(source: BinaryIO) -> Iterator[bytes]:
    expand = zlib.decompressobj(-zlib.MAX_WBITS)
    data = source.read(BLOCK)
    while data and not expand.eof:
        yield expand.decompress(data, BLOCK)
        data = expand.unconsumed_tail or source.read(BLOCK)
    while block := expand.decompress(b"", BLOCK):
        yield block


def _room(folder: Path, needed: float, name: str, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {name} takes {needed / 1e9:.1f} GB when {what}, {free / 1e9:.1f} GB are free: make room"
        )


def _read(marker: Path) -> object:
    """What `write_json` wrote, or None."""
    try:
        return json.loads(marker.read_text("utf-8"))
    except ValueError:
        return None


def _stamp(file: Path) -> list[int]:
    return [file.stat().st_size, file.stat().st_mtime_ns]


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _said(error: object) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the disk"
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
