"""Music of Debian's packages: what is kept of it, what is refused, and calls that end early."""

import hashlib
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from lib import ROOT, UserError
from lib.data import corpora, folder
from lib.data.sources import SOURCES, archives, debian, likeness
from lib.data.sources.__main__ import summary
from lib.data.sources.archives import unpack
from lib.data.sources.packages import Packages, licence_of
from lib.profile.fields import RECORDED, STEMMED, Corpus, Profile
from tests.data.packages import COPYRIGHT, Archive, coded, music, zipped

WHERE = "usr/share/games/game/music"
SOURCE = Packages("debian", ("alpha", "beta"), folder.MUSIC, debian.choose)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive of two packages, and files that are listened to in this process."""
    monkeypatch.setattr(debian, "in_processes", lambda look, files, _: enumerate(map(look, files)))
    return Archive(tmp_path, monkeypatch)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "debian"


def placed(files):
    return {f"{WHERE}/{name}": data for name, data in files.items()}


def table(root):
    rows = pd.read_csv(root / "pieces.csv", keep_default_na=False)
    assert list(rows) == ["piece", "seconds", "package", "version", "licence", "note", "left_out"]
    return rows


def reasons(root):
    rows = table(root)
    return {row.piece.rsplit("/", 1)[-1]: row.left_out for row in rows.itertuples() if row.left_out}


def kept(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and folder.MUSIC.search(p.name))


def provide(root, source=SOURCE, download=True):
    source.provide(root, download, 1)


def one_line(error):
    text = str(error.value)
    assert text and "\n" not in text
    return text


def test_music_is_kept_in_its_coding_and_every_file_is_in_the_table(archive, root):
    song, other = coded(music(21, 0)), coded(music(22, 1), "FLAC")
    files = {"a/one.ogg": song, "b two.flac": other, "click.ogg": coded(music(2, 2)), "readme.txt": b"x"}
    files |= {"words.mp3": b"just words" * 50, "cut.ogg": song[: len(song) * 2 // 3]}
    files |= {"silence.wav": coded(np.zeros((8000 * 21, 2)), "WAV")}
    rain = {"usr/share/games/game/sounds/rain.ogg": coded(music(21, 5))}
    archive.add("alpha", placed(files) | rain)
    archive.add("beta", {f"{WHERE}/b.pk3": zipped({"music/three.ogg": coded(music(23, 3)), "models/x.md3": b"x"})})
    provide(root)
    assert kept(root) == ["alpha/a/one.ogg", "alpha/b two.flac", "beta/three.ogg"]
    assert (root / "alpha/a/one.ogg").read_bytes() == song and (root / "alpha/copyright").read_text() == COPYRIGHT
    assert len(table(root)) == 8 and set(table(root)["version"]) == {"1:2.0-1"}
    found = reasons(root)
    assert found["click.ogg"] == "under 20 s" and found["rain.ogg"] == "among effects"
    assert found["silence.wav"] == "silent" and "truncated" in found["cut.ogg"]
    assert found.keys() == {"click.ogg", "silence.wav", "cut.ogg", "words.mp3", "rain.ogg"}
    assert "3 pieces, 0.0 h; 5 left out" in summary(root)
    tracks, skipped = folder.read(root, root.parent / "cache", 1, 10.0)
    assert [track.name for track in tracks] == kept(root) and skipped == []


def test_a_duplicate_is_found_in_other_codings_levels_and_packages(archive, root):
    wave = music(30, 0)
    late = np.concatenate([np.zeros((4000, 2)), wave])
    files = {
        "first.ogg": coded(wave),
        "second.flac": coded(0.3 * wave, "FLAC"),
        "third.opus": coded(late, "OGG", "OPUS"),
    }
    archive.add("alpha", placed(files | {"unlike.ogg": coded(music(30, 1))}))
    archive.add("beta", {f"{WHERE}/fourth.mp3": coded(wave, "MP3")})
    provide(root)
    assert kept(root) == ["alpha/first.ogg", "alpha/unlike.ogg"]
    found = reasons(root)
    assert found.pop("fourth.mp3") == "a duplicate of alpha/first.ogg"
    assert found.keys() == {"second.flac", "third.opus"} and all("first.ogg" in why for why in found.values())


def test_of_a_loop_one_period_is_kept(archive, root):
    passage = music(24, 0)
    jingle = np.tile(music(4, 1), (8, 1))
    files = {"loop.ogg": coded(np.tile(passage, (3, 1))), "jingle.ogg": coded(jingle)}
    archive.add("alpha", placed(files | {"song.ogg": coded(np.concatenate([passage, music(24, 2), passage]))}))
    archive.add("beta", {})
    provide(root)
    assert kept(root) == ["alpha/loop.ogg.flac", "alpha/song.ogg"]
    assert soundfile.info(root / "alpha/loop.ogg.flac").duration == pytest.approx(24, abs=0.01)
    assert reasons(root) == {"jingle.ogg": "a loop of 4.0 s"}
    assert (
        table(root).set_index("piece")["note"]["alpha/loop.ogg.flac"] == "of 72 s, a loop of 24.0 s: one period is kept"
    )


def test_music_that_is_played_again_with_one_more_part_is_no_loop():
    rate, passage = likeness.RATE, music(12, 0).mean(1)
    assert likeness.period(np.tile(passage, 3)) == pytest.approx(12, abs=0.01)
    more = np.tile(passage, 3) + 0.5 * music(36, 1).mean(1)
    assert likeness.period(more) == 0.0
    kick = np.tile(np.exp(-np.arange(rate // 2) / 800) * np.sin(2 * np.pi * 50 * np.arange(rate // 2) / rate), 72)
    assert likeness.period(5 * kick + music(36, 2).mean(1)) == 0.0, "a kick drum, as loud as it may be"


def test_a_package_that_is_done_is_not_fetched_again(archive, root, monkeypatch):
    archive.add("alpha", {f"{WHERE}/a.ogg": coded(music(21, 0))})
    with pytest.raises(UserError, match="knows no packages"):
        (archive.folder / "lists").write_text("100")
        provide(root)
    (archive.folder / "lists").unlink()
    (archive.folder / "offline").touch()
    with pytest.raises(UserError) as error:
        provide(root)
    assert "resolving" in one_line(error) and "call again" in one_line(error)
    (archive.folder / "offline").unlink()
    provide(root)
    assert reasons(root) == {"": "apt does not know it"} and kept(root) == ["alpha/a.ogg"]
    asked = len(archive.asked)
    provide(root)
    provide(root, download=False)
    assert len(archive.asked) == asked and SOURCE.there(root)


@pytest.mark.parametrize("ended", ["unpack", "write_json", "licence_of"])
def test_a_call_after_one_that_ended_anywhere_gives_the_same(archive, root, monkeypatch, ended):
    from lib.data.sources import packages

    archive.add("alpha", {f"{WHERE}/a.ogg": coded(music(21, 0))})
    archive.add("beta", {f"{WHERE}/b.ogg": coded(music(21, 1)), f"{WHERE}/again.ogg": coded(music(21, 0))})
    provide(root)
    whole = table(root), kept(root)
    shutil.rmtree(root)
    real, calls = getattr(packages, ended), []

    def end(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(packages, ended, end)
        with pytest.raises(KeyboardInterrupt):
            provide(root)
    provide(root)
    assert table(root).equals(whole[0]) and kept(root) == whole[1]
    assert not (root / ".unpacked").exists() and not (root / ".kept").exists() and not (root / ".fetched").exists()


def test_a_package_that_lies_there_is_used_and_needs_no_leave(archive, root):
    with pytest.raises(UserError) as error:
        provide(root, download=False)
    assert "corpus.download=true" in one_line(error) and "alpha" in one_line(error) and archive.asked == []
    for package in SOURCE.packages:
        shutil.move(archive.add(package, {f"{WHERE}/{package}.ogg": coded(music(21, len(package)))}), root)
    provide(root, download=False)
    assert kept(root) == ["alpha/alpha.ogg", "beta/beta.ogg"] and archive.asked == []


@pytest.mark.parametrize("data", [b"words, no package", b""])
def test_a_damaged_package_is_one_line(archive, root, data):
    root.mkdir(parents=True)
    (root / "alpha_1_all.deb").write_bytes(data)
    with pytest.raises(UserError, match=r"alpha_1_all\.deb: damaged") as error:
        provide(root)
    one_line(error)


def test_a_machine_without_apt_or_dpkg_is_told_what_to_do(archive, root, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError) as error:
        provide(root)
    assert "apt-get" in one_line(error) and "python -m lib.data.sources debian" in one_line(error)
    (root / "alpha_1_all.deb").write_bytes(b"")
    with pytest.raises(UserError, match="dpkg-deb is not on PATH"):
        provide(root)


def unpacked(archive, tmp_path, files):
    target = tmp_path / "unpacked"
    target.mkdir()
    refused = unpack(archive.add("alpha", files), target, folder.MUSIC)
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert not [p for p in tmp_path.rglob("evil*")]
    return found, dict(refused)


def lying(data, name, size):
    """A ZIP file of a member whose entries declare another size."""
    out = bytearray(zipped({name: data}))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", out, out.index(signature) + at, size)
    return bytes(out)


@pytest.mark.parametrize(("what", "content", "why"), [
    ("bomb", zipped({"a.ogg": bytes(50_000_000)}), "declares 50 MB"),
    ("lies about its size", lying(bytes(50_000_000), "a.ogg", 100), "damaged"),
    ("up", zipped({"../../../../evil.ogg": b"x"}), "leads out"),
    ("absolute", zipped({"/tmp/evil.ogg": b"x"}), "leads out"),
    ("backslashes", zipped({"..\\evil.ogg": b"x"}), "leads out"),
    ("hidden", zipped({".evil/a.ogg": b"x"}), "hidden"),
    ("escape", zipped({"evil\x1b[31m.ogg": b"x"}), "control characters"),
    ("long", zipped({"evil" * 100 + ".ogg": b"x"}), "cannot be written"),
    ("bzip2", zipped({"a.ogg": b"x"}, zipfile.ZIP_BZIP2), "method"),
    ("truncated", zipped({"a.ogg": b"x" * 5000})[:60], "damaged, or no ZIP"),
    ("words", b"words, no archive", "damaged, or no ZIP"),
    ("nested bomb", zipped({"b.zip": zipped({"a.ogg": bytes(50_000_000)})}), "declares 50 MB"),
    ("nested up", zipped({"b.zip": zipped({"../../evil.ogg": b"x"})}), "leads out"),
    ("three deep", zipped({"b.zip": zipped({"c.zip": zipped({"a.ogg": b"x"})})}), "an archive within"),
], ids=lambda value: value if isinstance(value, str) else "bytes")  # fmt: skip  # ZIP files hold the time
def test_an_archive_that_harms_is_refused_and_the_rest_kept(archive, tmp_path, what, content, why):
    found, refused = unpacked(archive, tmp_path, {f"{WHERE}/x.pk3": content, f"{WHERE}/good.ogg": b"good"})
    assert found == {f"{WHERE}/good.ogg": b"good"}
    ((path, reason),) = refused.items()
    assert why in reason and f"{WHERE}/x.pk3" in path and path.isprintable()


def test_a_damaged_member_is_refused_alone(archive, tmp_path):
    data = bytearray(zipped({"a.ogg": b"a" * 100, "b.ogg": b"b" * 100}, zipfile.ZIP_STORED))
    data[data.index(b"aaaa")] ^= 1
    inner = zipped({"nested.zip": zipped({"c.ogg": b"c"}), "d.txt": b"d"})
    found, refused = unpacked(archive, tmp_path, {f"{WHERE}/x.pk3": bytes(data), f"{WHERE}/y.zip": inner})
    assert found == {f"{WHERE}/x.pk3/b.ogg": b"b" * 100, f"{WHERE}/y.zip/nested.zip/c.ogg": b"c"}
    assert refused.keys() == {f"{WHERE}/x.pk3/a.ogg"}


def test_members_and_bytes_are_bounded(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST", 1000)
    monkeypatch.setattr(archives, "MEMBERS", 2)
    many = zipped({f"{i}.ogg": b"x" for i in range(3)})
    files = {f"{WHERE}/a.ogg": b"a" * 600, f"{WHERE}/b.ogg": b"b" * 600, f"{WHERE}/c.zip": many}
    found, refused = unpacked(archive, tmp_path, files)
    assert found.keys() == {f"{WHERE}/a.ogg"}
    assert "too large" in refused[f"{WHERE}/b.ogg"] and refused[f"{WHERE}/c.zip"] == "holds 3 files"


def test_links_are_not_followed(archive, tmp_path):
    import tarfile

    path = archive.add("alpha", {f"{WHERE}/a.ogg": b"a"})
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"./{WHERE}/{kind.decode()}.ogg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    (tmp_path / "out").mkdir()
    assert [reason for _, reason in unpack(path, tmp_path / "out", folder.MUSIC)] == ["a link"] * 2


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb on this machine")
def test_a_package_as_dpkg_builds_it(tmp_path):
    package = tmp_path / "built"
    (package / "DEBIAN").mkdir(parents=True)
    control = "Package: real\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: music\n"
    (package / "DEBIAN" / "control").write_text(control)
    (package / "usr").mkdir()
    (package / "usr" / "a.ogg").write_bytes(b"a" * 100_000)
    subprocess.run(["dpkg-deb", "--build", package, tmp_path / "real_1.0_all.deb"], check=True, capture_output=True)
    (tmp_path / "out").mkdir()
    assert unpack(tmp_path / "real_1.0_all.deb", tmp_path / "out", folder.MUSIC) == []
    assert (tmp_path / "out" / "usr" / "a.ogg").stat().st_size == 100_000
    data = (tmp_path / "real_1.0_all.deb").read_bytes()
    (tmp_path / "cut_1.0_all.deb").write_bytes(data[:-40])
    (tmp_path / "out2").mkdir()
    with pytest.raises(UserError, match="damaged"):
        unpack(tmp_path / "cut_1.0_all.deb", tmp_path / "out2", folder.MUSIC)


@pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no apt on this machine")
def test_apt_fetches_what_it_knows_and_the_rest_is_listed(tmp_path, monkeypatch, root):
    apt, index = tmp_path / "apt", []
    folders = ("repository", "state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d")
    for place in folders:
        (apt / place).mkdir(parents=True)
    for name in ("alpha", "dpkg"):  # apt is asked for dpkg where it does not know a package
        control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: music\n"
        (tmp_path / name / "DEBIAN").mkdir(parents=True)
        (tmp_path / name / "DEBIAN" / "control").write_text(control)
        (tmp_path / name / f"{name}.ogg").write_bytes(coded(music(21, 0)))
        file = apt / "repository" / f"{name}_1.0_all.deb"
        subprocess.run(["dpkg-deb", "--build", tmp_path / name, file], check=True, capture_output=True)
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        index.append(f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {digest}\n\n")
    (apt / "repository" / "Packages").write_text("".join(index))
    (apt / "etc" / "sources.list").write_text(f"deb [trusted=yes] file:{apt / 'repository'} ./\n")
    (apt / "state" / "status").touch()
    places = {"Dir::State": "state", "Dir::State::status": "state/status", "Dir::Cache": "cache", "Dir::Etc": "etc"}
    lines = [f'{key} "{apt / place}";\n' for key, place in places.items()]
    (apt / "apt.conf").write_text("".join([*lines, 'APT::Sandbox::User "root";\n']))
    monkeypatch.setenv("APT_CONFIG", str(apt / "apt.conf"))
    monkeypatch.setattr(debian, "in_processes", lambda look, files, _: enumerate(map(look, files)))
    with pytest.raises(UserError, match="knows no packages"):
        provide(root, Packages("debian", ("beta",), folder.MUSIC, debian.choose))
    subprocess.run(["apt-get", "update"], check=True, capture_output=True)
    provide(root)
    assert kept(root) == ["alpha/alpha.ogg"] and reasons(root) == {"": "apt does not know it"}
    assert (table(root)["version"] == ["1.0", ""]).all()


@pytest.mark.parametrize(("path", "licence"), [
    ("usr/share/games/game/music/beta.ogg", "CC-BY-SA-3.0"),
    ("usr/share/games/game/music/alpha.ogg", "GPL-2+"),
    ("usr/share/games/game/loops/deep/alpha.ogg", "CC-BY-SA-3.0"),
])  # fmt: skip
def test_the_licence_is_that_of_the_last_stanza_that_names_the_file(path, licence):
    assert licence_of(COPYRIGHT, path) == licence


def test_a_text_that_no_machine_reads_gives_the_names_in_it():
    assert licence_of("Licensed under the GPL-2, music under CC BY-SA 3.0.", "a.ogg") == "CC BY-SA 3.0, GPL-2"
    assert licence_of("", "a.ogg") == ""


def test_names_in_profiles_are_those_that_are_fetched(archive, tmp_path):
    assert {*RECORDED, *STEMMED} <= SOURCES.keys()
    corpus = Corpus(unlabeled="debian", sources_root=str(tmp_path / "data"))
    profile = Profile("test", str(tmp_path / "results"), corpus=corpus)
    assert corpus.folder_of("debian") == tmp_path / "data" / "debian" and not corpora.available(profile)
    with pytest.raises(UserError, match=r"corpus\.download=true"):
        corpora.provide(profile)


def test_the_command_prints_what_there_is_and_refuses_a_name_it_does_not_know(tmp_path):
    command = [sys.executable, "-m", "lib.data.sources", "fma"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "debian" in done.stderr
