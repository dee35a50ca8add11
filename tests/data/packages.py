"""A Debian archive of a test's own: what apt-get and dpkg-deb do with it, and packages that are plain tar files."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import soundfile

APT = """#!/bin/sh
echo "$@" >> {archive}/asked
[ "$2" = --print-uris ] && exit $(cat {archive}/lists 2> /dev/null || echo 0)
[ -e {archive}/offline ] && {{ echo "E: Failed to fetch http://archive  Temporary failure resolving" >&2; exit 100; }}
[ -e {archive}/$2_* ] || {{ echo "E: Unable to locate package $2" >&2; exit 100; }}
cp {archive}/$2_* .
"""
DPKG = '#!/bin/sh\ncase "$(head -c 5 "$2")" in words) echo "dpkg-deb: error: no archive" >&2; exit 2;; esac\ncat "$2"\n'
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: GPL-2+

Files: data/music/b*.ogg data/loops/*
Copyright: A Composer
License: CC-BY-SA-3.0
 A text that is long.
"""


class Archive:
    """Packages that the apt-get on PATH knows."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder = folder / "archive"
        for path, text in (("bin/apt-get", APT.format(archive=self.folder)), ("bin/dpkg-deb", DPKG)):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)
            (self.folder / path).chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.folder / 'bin'}:{os.environ['PATH']}")

    def add(self, package: str, files: dict[str, bytes], text: str = COPYRIGHT) -> Path:
        path = self.folder / f"{package}_1%3a2.0-1_all.deb"
        with tarfile.open(path, "w") as tar:
            for name, data in {**files, f"usr/share/doc/{package}/copyright": text.encode()}.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    @property
    def asked(self) -> list[str]:
        """The packages that were downloaded, or asked for."""
        log = self.folder / "asked"
        calls = log.read_text().split("\n") if log.exists() else []
        return [call.removeprefix("download ") for call in calls if call and "--" not in call]


def music(seconds: float, seed: int, rate: int = 8000) -> np.ndarray:
    """Chords of random pitches, one every quarter of a second -> [T, 2]."""
    random = np.random.default_rng(seed)
    time = np.arange(rate // 4) / rate
    chords = [sum(np.sin(2 * np.pi * f * time) for f in random.uniform(80, 1800, 3)) for _ in range(round(4 * seconds))]
    wave = np.concatenate([chord * np.exp(-random.uniform(4, 12) * time) for chord in chords])
    return 0.2 * np.stack([wave, 0.8 * wave], 1) + random.normal(0, 1e-3, (len(wave), 2))


def coded(wave: np.ndarray, format: str = "OGG", subtype: str | None = None, rate: int = 8000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, subtype, format=format)
    return out.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return out.getvalue()
