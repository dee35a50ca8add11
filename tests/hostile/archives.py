"""ZIP files that lie; traversal, links, bombs and wrong checksums are in ``test_download.py`` as well."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lib.corpora import download
from tests.hostile import Case, written

NAMES = {
    "far up": "../" * 40 + "tmp/evil",
    "up after down": "set/a/../../../evil",
    "up alone": "..",
    "absolute": "/evil",
    "absolute, twice": "//evil",
    "drive and slash": "C:/evil",
    "backslashes": "..\\..\\evil",
    "share": "\\\\host\\evil",
    "escape": "set/\x1b[31mevil",
    "direction mark": "set/\u202eevil",
    "line": "set/a\nb",
}


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
    for what, name in NAMES.items():
        yield _unpacked(what, zipped({"set/good": b"good", name: b"evil"}), "leave the folder")
    for what, mode in (("link", stat.S_IFLNK), ("socket", stat.S_IFSOCK), ("block device", stat.S_IFBLK)):
        yield _unpacked(what, zipped({"set/x": b"/etc/passwd"}, mode=mode | 0o777), "link or special")
    noise = os.urandom(5000)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        good = zipped({"set/a": noise, "set/b": bytes(5000)}, method)
        name = zipfile.compressor_names[method]
        for part in (0.1, 0.5, 0.9, 0.999):
            yield _unpacked(f"{name}, cut at {part}", good[: int(len(good) * part)], "damaged, or no ZIP")
        for at in (60, 2000):
            yield _unpacked(f"{name}, a bit flipped at {at}", _flipped(good, at), "damaged, or no ZIP|declares")
        if method:
            yield _unpacked(f"{name}, bomb", partial(_bomb, method), "declare")
            yield _unpacked(f"{name}, bomb that lies", partial(_bomb, method, 1000), "not what the archive declares")
    yield _unpacked("no members", zipped({}), gives=[])
    yield _unpacked("words", b"no archive, just words", "damaged, or no ZIP")
    yield _unpacked("nothing", b"", "damaged, or no ZIP")
    yield _unpacked("end record alone", b"PK\x05\x06" + b"\xff" * 18, "damaged, or no ZIP")
    yield _unpacked("directory far away", _moved(zipped({"set/a": noise})), "damaged, or no ZIP")
    yield _unpacked("extra field that is too long", _extra(zipped({"set/a": noise})), gives=["set/a"])
    yield _unpacked("junk before", b"junk" * 100 + zipped({"set/a": b"a"}), gives=["set/a"])
    yield _unpacked("file where a folder is needed", zipped({"set": b"x", "set/a": b"a"}), "must name a folder")
    yield _unpacked(
        "9,000 empty members, cut", lambda: zipped({f"set/{i:05}": b"" for i in range(9000)})[:-30], "damaged"
    )
    yield Case("archive: a record of unpacking that is damaged", _marked, gives=["set/a"])
    yield Case("archive: another checksum", _other, "checksum is .* delete it and fetch it anew")
    yield Case("archive: a folder in its place", _folder, "Is a directory|must name a folder")


def _unpacked(name: str, content: bytes | Callable[[], bytes], says: str = "", gives: object = None) -> Case:
    return Case(f"archive: {name}", partial(_provided, content, None), says, gives)


def _provided(
    content: bytes | Callable[[], bytes], marker: bytes | None, folder: Path, digest: Callable = hashlib.sha1
) -> list[str]:
    """Names of what is unpacked from an archive that lies in the folder."""
    content = content() if callable(content) else content
    written(folder / "set.zip", content)
    if marker is not None:
        written(folder / ".set.zip.unpacking", marker)
    archive = download.Archive("http://127.0.0.1/set.zip", "sha1", digest(content).hexdigest())
    download.provide_archive(archive, folder, lambda: (folder / "set").is_dir(), False, "corpus.fma_root")
    return sorted(str(p.relative_to(folder)) for p in (folder / "set").rglob("*") if p.is_file())


def _marked(folder: Path) -> list[str]:
    return _provided(zipped({"set/a": b"a"}), b"{no json", folder)


def _other(folder: Path) -> list[str]:
    return _provided(zipped({"set/a": b"a"}), None, folder, lambda content: hashlib.sha1(content + b"!"))


def _folder(folder: Path) -> None:
    (folder / "set.zip").mkdir()
    archive = download.Archive("http://127.0.0.1/set.zip", "sha1", "")
    download.provide_archive(archive, folder, lambda: False, False, "corpus.fma_root")


def _bomb(method: int, declared: int = 0) -> bytes:
    """100 MB of zeros, which may be declared as less."""
    data = zipped({"set/bomb": bytes(100 << 20)}, method)
    return _declared(data, declared) if declared else data


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _declared(data: bytes, size: int) -> bytes:
    at = data.rindex(b"PK\x01\x02") + 24
    return data[:at] + size.to_bytes(4, "little") + data[at + 4 :]


def _moved(data: bytes) -> bytes:
    at = data.rindex(b"PK\x05\x06") + 16
    return data[:at] + (0x7FFFFFFF).to_bytes(4, "little") + data[at + 4 :]


def _extra(data: bytes) -> bytes:
    at = data.rindex(b"PK\x01\x02") + 30
    return data[:at] + (0xFFF0).to_bytes(2, "little") + data[at + 2 :]
