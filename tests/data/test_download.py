"""Archives: downloaded from a server on this machine that breaks off or knows no ranges, checked, and unpacked."""

import hashlib
import os
import shutil
import zipfile
from types import SimpleNamespace

import pytest

from lib import UserError
from lib.data import download
from lib.data.download import Archive, fetch, provide_archive, unpack

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
    assert "make room" in one_line(error) and "downloaded and unpacked" in one_line(error)
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
    assert "delete it and download it again" in one_line(error) and (tmp_path / "set.zip").exists()
    provide(archive, tmp_path, allowed=False)
    assert contents(tmp_path) == CONTENT and server.asked == [] and (tmp_path / "set.zip").exists()


def test_unpacking_that_was_stopped_goes_on_where_it_was(server, tmp_path, monkeypatch):
    content = {f"set/{number}": os.urandom(3000) for number in range(6)}
    archive = archive_of(server, zipped(tmp_path / "set.zip", content).read_bytes())
    copy, copied = shutil.copyfileobj, []

    def stopped(source, target, *_):
        if len(copied) == 3:
            target.write(source.read(1000))
            raise KeyboardInterrupt
        copied.append(copy(source, target))

    monkeypatch.setattr(shutil, "copyfileobj", stopped)
    with pytest.raises(KeyboardInterrupt):
        provide(archive, tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == {f"set/{n}": content[f"set/{n}"][: 1000 if n == 3 else None] for n in range(4)}
    before = {path: path.stat().st_mtime_ns for path in map(tmp_path.joinpath, ("set/0", "set/1", "set/2"))}
    monkeypatch.setattr(download, "check", lambda *_: pytest.fail("checked again"))
    provide(archive, tmp_path)  # the folder alone does not make it whole
    assert contents(tmp_path) == content
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was whole is kept"


def test_an_archive_that_changed_while_it_was_half_unpacked_is_checked_again(server, tmp_path):
    archive = archive_of(server, zipped(tmp_path / "set.zip").read_bytes())
    (tmp_path / ".set.zip.unpacking").write_bytes(b"\xff{no record")
    with pytest.raises(UserError, match="checksum"):
        provide(Archive(archive.url, "sha1", "0" * 40), tmp_path)
    provide(archive, tmp_path)
    assert contents(tmp_path) == CONTENT and not (tmp_path / ".set.zip.unpacking").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_every_method_of_the_published_archives_unpacks(tmp_path, method):
    unpack(zipped(tmp_path / "set.zip", CONTENT | {"noise": os.urandom(50_000)}, method), tmp_path / "root")
    assert CONTENT.items() <= contents(tmp_path / "root").items()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_damage_behind_the_checksum_is_one_line_and_nothing_wrong_is_kept(tmp_path, method):
    noise = os.urandom(5000)
    good = zipped(tmp_path / "set.zip", {"set/a": noise, "set/b": b"b"}, method).read_bytes()
    flipped = bytearray(good)
    flipped[2000] ^= 1
    for data in (bytes(flipped), good[:3000], b"<html>not found</html>", b""):
        (tmp_path / "bad.zip").write_bytes(data)
        with pytest.raises(UserError, match="damaged, or no ZIP file") as error:
            unpack(tmp_path / "bad.zip", tmp_path / "root")
        assert "delete it and download it again" in one_line(error)
    unpack(tmp_path / "set.zip", tmp_path / "root")
    assert contents(tmp_path / "root") == {"set/a": noise, "set/b": b"b"}
