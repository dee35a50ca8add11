"""Archives: fetched from a server on this machine that breaks off or knows no ranges, and unpacked with suspicion."""

import hashlib
import os
import resource
import shutil
import stat
import tracemalloc
import zipfile
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import UserError
from lib.corpora import download
from lib.corpora.download import Archive, fetch, provide_archive, unpack

CONTENT = {"set/a.txt": b"a" * 5000, "set/deep/b.bin": bytes(range(256)) * 40, "set/empty": b""}


def zipped(path, content=CONTENT, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def archive_of(server, data, name="set.zip"):
    server.files[name] = data
    return Archive(server.url + name, "sha1", hashlib.sha1(data).hexdigest())


def provide(archive, root, allowed=True):
    provide_archive(archive, root, lambda: (root / "set").is_dir(), allowed, "corpus.fma_root")


def one_line(error):
    text = str(error.value)
    assert text and "\n" not in text
    return text


def contents(root):
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.suffix != ".zip"}


def test_an_archive_is_fetched_checked_and_unpacked_once(server, tmp_path, monkeypatch):
    archive, root = archive_of(server, zipped(tmp_path / "set.zip").read_bytes()), tmp_path / "deep" / "root"
    check, checked = download.check, []
    monkeypatch.setattr(download, "check", lambda *facts: checked.append(facts[1].name) or check(*facts))
    provide(archive, root)
    assert contents(root) == CONTENT and server.asked == [None] and checked == ["set.zip.part"]
    (root / "set.zip").unlink()
    provide(archive, root)
    assert server.asked == [None], "what is there is not asked for again, without its archive either"


def test_a_connection_that_breaks_off_is_taken_up_where_it_broke(server, tmp_path):
    data = os.urandom(300_000)
    archive = archive_of(server, data)
    server.breaks += [100_000, 50_000]
    fetch(archive, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == data and not (tmp_path / "set.zip.part").exists()
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize(("ranges", "there"), [(True, 1234), (False, 1234), (True, 300_000), (True, 0)])
def test_a_later_call_goes_on_from_the_part_that_is_there(server, tmp_path, ranges, there):
    data, server.ranges = os.urandom(300_000), ranges
    (tmp_path / "set.zip.part").write_bytes(data[:there])
    fetch(archive_of(server, data), tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == data
    assert server.asked == [f"bytes={there}-" if there else None]


def test_a_server_that_stops_giving_is_given_up_and_the_part_kept(server, tmp_path):
    archive = archive_of(server, os.urandom(10_000))
    server.breaks += [4000] + [0] * 100
    with pytest.raises(UserError) as error:
        fetch(archive, tmp_path / "set.zip")
    assert "broke off" in one_line(error) and "call again" in one_line(error)
    assert len(server.asked) == 2 + download.RETRIES
    assert (tmp_path / "set.zip.part").stat().st_size == 4000
    server.breaks.clear()
    fetch(archive, tmp_path / "set.zip")


@pytest.mark.parametrize("part", [b"", b"something else"])
def test_a_wrong_checksum_leaves_nothing_and_says_so(server, tmp_path, part):
    data = zipped(tmp_path / "made.zip").read_bytes()
    archive = archive_of(server, data)
    if part:
        (tmp_path / "set.zip.part").write_bytes(part)
    else:
        server.files["set.zip"] = data[:-1] + b"!"
    with pytest.raises(UserError) as error:
        provide(archive, tmp_path)
    assert "checksum" in one_line(error) and "call again" in one_line(error)
    assert {path.name for path in tmp_path.iterdir()} == {"made.zip", ".download.lock"}
    server.files["set.zip"] = data
    provide(archive, tmp_path)
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize(("code", "attempts"), [(404, 1), (403, 1), (503, 1 + download.RETRIES)])
def test_a_server_that_refuses_is_one_line(server, tmp_path, code, attempts):
    server.missing = code
    with pytest.raises(UserError) as error:
        fetch(Archive(f"{server.url}gone.zip", "sha1", ""), tmp_path / "gone.zip")
    assert str(code) in one_line(error) and len(server.asked) == attempts


def test_no_network_is_one_line(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as error:
        fetch(Archive(f"{server.url}set.zip", "sha1", ""), tmp_path / "set.zip")
    assert "no connection" in one_line(error) and "yourself" in one_line(error)


def test_room_is_looked_for_before_anything_is_written(server, tmp_path, monkeypatch):
    archive = archive_of(server, zipped(tmp_path / "made.zip").read_bytes())
    size = len(server.files["set.zip"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * size))
    with pytest.raises(UserError) as error:
        provide(archive, tmp_path)
    assert "make room" in one_line(error) and "fetched and unpacked" in one_line(error)
    assert not (tmp_path / "set.zip.part").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * size))
    with pytest.raises(UserError, match="when unpacked"):  # 15 kB of text out of half a kB
        provide(archive, tmp_path)
    assert contents(tmp_path) == {}


def test_without_leave_nothing_is_fetched_and_the_line_says_what_to_do(server, tmp_path):
    archive = archive_of(server, zipped(tmp_path / "made.zip").read_bytes())
    with pytest.raises(UserError) as error:
        provide(archive, tmp_path / "root", allowed=False)
    for hint in ("corpus.download=true", "set.zip", archive.url, "corpus.fma_root", str(tmp_path / "root")):
        assert hint in one_line(error)
    assert server.asked == [] and not (tmp_path / "root").exists()


def test_an_archive_put_there_by_hand_is_checked_and_unpacked_and_stays(server, tmp_path):
    zipped(tmp_path / "set.zip")
    archive = archive_of(server, (tmp_path / "set.zip").read_bytes())
    with pytest.raises(UserError) as error:
        provide(Archive(archive.url, "sha1", "0" * 40), tmp_path, allowed=False)
    assert "delete it and fetch it anew" in one_line(error) and (tmp_path / "set.zip").exists()
    provide(archive, tmp_path, allowed=False)
    assert contents(tmp_path) == CONTENT and server.asked == [] and (tmp_path / "set.zip").exists()


def test_unpacking_that_was_stopped_goes_on_and_no_member_is_there_in_part(server, tmp_path, monkeypatch):
    content = {f"set/{number}": os.urandom(3000) for number in range(6)}
    archive = archive_of(server, zipped(tmp_path / "set.zip", content).read_bytes())
    extract, seen = download._extract, []

    def stopped(file, info, root):
        if len(seen) == 3:
            monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        seen.append(info.filename)
        extract(file, info, root)

    monkeypatch.setattr(download, "_extract", stopped)
    with pytest.raises(KeyboardInterrupt):
        provide(archive, tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == {name: content[name] for name in seen[:3]}
    assert (tmp_path / "set").is_dir(), "the folder alone does not make it whole"
    before = {path: path.stat().st_ino for path in (tmp_path / "set").glob("[0-9]")}
    monkeypatch.setattr(download, "check", lambda *_: pytest.fail("checked again"))
    provide(archive, tmp_path)
    assert contents(tmp_path) == content
    assert {path: path.stat().st_ino for path in before} == before
    assert not [path for path in (tmp_path / "set").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_every_method_of_the_published_archives_unpacks(tmp_path, method, monkeypatch):
    monkeypatch.setattr(download, "BLOCK", 1000)
    unpack(zipped(tmp_path / "set.zip", CONTENT | {"noise": os.urandom(50_000)}, method), tmp_path / "root")
    assert CONTENT.items() <= contents(tmp_path / "root").items()


def member(path, name, mode=0, data=b"evil", method=zipfile.ZIP_STORED):
    info = zipfile.ZipInfo("name")
    info.filename, info.external_attr, info.compress_type = name, mode << 16, method
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("set/good", b"good")
        file.writestr(info, data)
    return path


ATTACKS = {
    "absolute": ("/tmp/evil", 0, "leave the folder"),
    "parent": ("set/../../evil", 0, "leave the folder"),
    "backslash": ("set\\..\\evil", 0, "leave the folder"),
    "drive": ("C:evil", 0, "leave the folder"),
    "newline": ("set/e\nvil", 0, "leave the folder"),
    "symlink": ("set/link", stat.S_IFLNK | 0o777, "link or special"),
    "device": ("set/device", stat.S_IFCHR | 0o666, "link or special"),
    "pipe": ("set/pipe", stat.S_IFIFO | 0o666, "link or special"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_member_that_is_no_plain_file_inside_is_refused_before_anything_is_written(tmp_path, attack):
    name, mode, expected = ATTACKS[attack]
    (tmp_path / "root").mkdir()
    path = member(tmp_path / "set.zip", name, mode, b"/etc/passwd")
    with pytest.raises(UserError) as error:
        unpack(path, tmp_path / "root")
    assert expected in one_line(error) and "set.zip" in one_line(error)
    assert list((tmp_path / "root").iterdir()) == [] and {p.name for p in tmp_path.iterdir()} == {"root", "set.zip"}


@given(name=st.text(st.sampled_from("./\\:aC~\0 \n"), min_size=1, max_size=12))
def test_no_name_leaves_the_folder(tmp_path_factory, name):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "root").mkdir()
    try:
        unpack(member(outer / "set.zip", name), outer / "root")
    except (UserError, OSError) as error:
        assert not isinstance(error, OSError) or "/" in name, "a file where a folder is needed, or the folder itself"
    assert {path.name for path in outer.iterdir()} == {"root", "set.zip"}
    assert not any(path.is_symlink() for path in (outer / "root").rglob("*"))


def test_a_link_that_was_there_before_is_not_followed(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "set").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link out of"):
        unpack(zipped(tmp_path / "set.zip"), tmp_path / "root")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def declare(path, compressed=None, expanded=None, flags=None):
    """Let the last entry of an archive's directory declare other sizes or flags."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    for offset, size, value in ((20, 4, compressed), (24, 4, expanded), (8, 2, flags)):
        if value is not None:
            data[at + offset : at + offset + size] = value.to_bytes(size, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_bomb_is_refused_by_its_declared_size_and_stopped_where_that_lies(tmp_path, method):
    root = tmp_path / "root"
    honest = member(tmp_path / "honest.zip", "set/bomb", 0, bytes(30 << 20), method)
    with pytest.raises(UserError, match="declare"):
        unpack(honest, root)
    lying = declare(member(tmp_path / "lying.zip", "set/bomb", 0, bytes(30 << 20), method), expanded=1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))  # a file that grows beyond is an OSError
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            unpack(lying, root)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "not what the archive declares" in one_line(error) and peak < 10 << 20
    assert contents(root) == {"set/good": b"good"} and len(list((root / "set").iterdir())) == 1


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("lie", [{"expanded": 50}, {"expanded": 200}, {"compressed": 10}])
def test_a_member_of_another_size_than_declared_is_refused(tmp_path, method, lie):
    path = declare(member(tmp_path / "set.zip", "set/liar", 0, os.urandom(100), method), **lie)
    with pytest.raises(UserError) as error:
        unpack(path, tmp_path / "root")
    one_line(error)
    assert contents(tmp_path / "root") == {"set/good": b"good"}


def test_damage_encryption_and_unknown_methods_are_one_line(tmp_path):
    good = zipped(tmp_path / "set.zip", {"set/a": os.urandom(5000)}, zipfile.ZIP_STORED).read_bytes()
    flipped = bytearray(good)
    flipped[2000] ^= 1
    cases = {
        "not what the archive declares": bytes(flipped),
        "no ZIP file": good[:3000],
        "damaged": b"<html>not found</html>",
    }
    for expected, data in cases.items():
        (tmp_path / "bad.zip").write_bytes(data)
        with pytest.raises(UserError) as error:
            unpack(tmp_path / "bad.zip", tmp_path / "root")
        assert expected in one_line(error)
    with pytest.raises(UserError, match="encrypted"):
        unpack(declare(zipped(tmp_path / "set.zip"), flags=1), tmp_path / "root")
    with pytest.raises(UserError, match="7-Zip"):
        unpack(zipped(tmp_path / "set.zip", method=zipfile.ZIP_LZMA), tmp_path / "root")
    assert contents(tmp_path / "root") == {}
