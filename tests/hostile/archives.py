"""ZIP files that lie: without the published checksum none of them is opened; with it, damage is one line."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lib.data import download
from tests.hostile import Case, written

NAMES = {
    "far up": "../" * 40 + "tmp/evil",
    "up after down": "set/a/../../../evil",
    "absolute": "/evil",
    "drive and slash": "C:/evil",
    "backslashes": "..\\..\\evil",
    "escape": "set/\x1b[31mevil",
    "line": "set/a\nb",
}
DAMAGED, REFUSED = "damaged, or no ZIP", "checksum is .* delete it and download it again"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED, mode: int = 0) -> bytes:
    """A ZIP file of members by the very names that are given."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo("name")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, method
            file.writestr(info, data)
    return out.getvalue()


def cases() -> Iterator[Case]:
    noise = os.urandom(5000)
    for what, name in NAMES.items():
        yield _refused(what, zipped({"set/good": b"good", name: b"evil"}))
    for what, mode in (("link", stat.S_IFLNK), ("socket", stat.S_IFSOCK), ("block device", stat.S_IFBLK)):
        yield _refused(what, zipped({"set/x": b"/etc/passwd"}, mode=mode | 0o777))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        good = zipped({"set/a": noise, "set/b": bytes(5000)}, method)
        name = zipfile.compressor_names[method]
        for part in (0.1, 0.5, 0.999):
            yield _refused(f"{name}, cut at {part}", good[: int(len(good) * part)])
            yield _unpacked(f"{name}, published cut at {part}", good[: int(len(good) * part)], DAMAGED)
        yield _refused(f"{name}, a bit flipped", _flipped(good, 2000))
        yield _unpacked(f"{name}, published with a bit flipped", _flipped(good, 2000), DAMAGED)
        yield _refused(f"{name}, bomb", zipped({"set/bomb": bytes(10 << 20)}, method))
    for what, data in {"words": b"no archive, just words", "nothing": b""}.items():
        yield _refused(what, data)
        yield _unpacked(f"published {what}", data, DAMAGED)
    yield _unpacked("no members", zipped({}), gives=[])
    yield _unpacked("extra field that is too long", _extra(zipped({"set/a": noise})), gives=["set/a"])
    yield _unpacked("junk before", b"junk" * 100 + zipped({"set/a": b"a"}), gives=["set/a"])
    yield _unpacked("file where a folder is needed", zipped({"set": b"x", "set/a": b"a"}), "must name a folder")
    yield Case("archive: a record of unpacking that is damaged", _marked, gives=["set/a"])
    yield Case("archive: a folder in its place", _folder, "Is a directory|must name a folder")


def _refused(name: str, content: bytes) -> Case:
    """An archive that is not the published one."""
    return Case(f"archive: {name}", partial(_provided, content, digest=hashlib.sha1(b"published").hexdigest()), REFUSED)


def _unpacked(name: str, content: bytes, says: str = "", gives: object = None) -> Case:
    return Case(f"archive: {name}", partial(_provided, content, digest=hashlib.sha1(content).hexdigest()), says, gives)


def _provided(content: bytes, folder: Path, digest: str) -> list[str]:
    """Names of what is unpacked from an archive that lies in the folder."""
    written(folder / "set.zip", content)
    archive = download.Archive("http://127.0.0.1/set.zip", "sha1", digest)
    download.provide_archive(archive, folder, lambda: (folder / "set").is_dir(), False, "corpus.fma_root")
    return sorted(str(p.relative_to(folder)) for p in (folder / "set").rglob("*") if p.is_file())


def _marked(folder: Path) -> list[str]:
    written(folder / ".set.zip.unpacking", b"\xff{no record")
    content = zipped({"set/a": b"a"})
    return _provided(content, folder, hashlib.sha1(content).hexdigest())


def _folder(folder: Path) -> None:
    (folder / "set.zip").mkdir()
    archive = download.Archive("http://127.0.0.1/set.zip", "sha1", "")
    download.provide_archive(archive, folder, lambda: False, False, "corpus.fma_root")


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _extra(data: bytes) -> bytes:
    at = data.rindex(b"PK\x01\x02") + 30
    return data[:at] + (0xFFF0).to_bytes(2, "little") + data[at + 2 :]
