"""How long a file is where its header only guesses: MPEG audio frame by frame, Ogg page by page, WAV by its chunks.

libsndfile reads no further than it takes a file to last: of an MP3 without a Xing header that is its size by the bit
rate of its first frames, of Ogg streams in a chain the first one, of a WAV what a recorder wrote last into its header.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RATES = (44100, 48000, 32000)
KBITS = {  # by (MPEG-1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
KBITS[False, 3] = KBITS[False, 2]
LAST_PAGES = 1 << 17
"""Bytes at the end of an Ogg file that hold its last two pages: a page has 65,307 bytes at most."""


LEAST_MORE = 1 << 16
"""Bytes behind the sound of a WAV from which on they may be sound as well."""


class Mpeg(NamedTuple):
    """What MPEG audio holds: samples in all its frames, those its Xing header says (0: none), bytes of its frames."""

    samples: int
    declared: int
    bytes: int


def mpeg(path: Path) -> Mpeg:
    """Add up the frames of an MPEG audio file (ISO 11172-3, 13818-3); tags between them are passed over."""
    samples = declared = size = 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for at, length, count in _frames(data):
            if not size and (frames := _xing(data[at : at + length])) is not None:
                declared = frames * count
            else:
                samples += count
            size += length
    return Mpeg(samples, declared, size)


def _frames(data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """(position, bytes, samples) of every frame. A frame counts where another, a tag or the end follows it."""
    at, following = 0, True
    while at + 4 <= len(data):
        if data[at : at + 3] == b"ID3":
            at += 10 + sum((byte & 127) << 7 * i for i, byte in enumerate(reversed(data[at + 6 : at + 10])))
            continue
        length, count = _frame(data[at : at + 4])
        end = at + length
        if length and (following or end >= len(data) or _frame(data[end : end + 4])[0]):
            if end <= len(data):  # the last one may be cut off
                yield at, length, count
            at, following = end, True
        else:
            at, following = data.find(b"\xff", at + 1), False
            if at < 0:
                return


def _frame(header: bytes) -> tuple[int, int]:
    """Bytes and samples of a frame by its header; (0, 0) if that is none, or of free format."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0, 0
    version, layer, rate = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3
    kbits = (header[2] >> 4) - 1
    if version == 1 or layer == 4 or rate == 3 or not 0 <= kbits < 14:
        return 0, 0
    first, padding = version == 3, header[2] >> 1 & 1
    hertz = RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * KBITS[first, layer][kbits]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4, 384
    samples = 576 if layer == 3 and not first else 1152
    return samples // 8 * bits // hertz + padding, samples


def _xing(frame: bytes) -> int | None:
    """The number of frames that a Xing, Info or VBRI header says, 0 if it says none; None if this is no such frame."""
    at = next((at for name in (b"Xing", b"Info") if 0 <= (at := frame.find(name, 4)) < 48), None)
    if at is not None:
        return int.from_bytes(frame[at + 8 : at + 12]) if frame[at + 7] & 1 else 0
    return int.from_bytes(frame[50:54]) if frame[36:40] == b"VBRI" else None


def ogg(path: Path) -> tuple[bool, bool]:
    """Whether Ogg streams follow one another in a file (those that begin together count as one), and whether its last
    page breaks off."""
    beginning, chained, end = True, False, path.stat().st_size
    with open(path, "rb") as file:
        while (head := file.read(27))[:4] == b"OggS":
            lacing = file.read(head[26]) if len(head) == 27 else b""
            following = file.tell() + sum(lacing)
            if len(head) < 27 or len(lacing) < head[26] or following > end:
                return chained, True
            began, beginning = beginning, bool(head[5] & 2)
            chained |= beginning and not began
            file.seek(following)
    return chained, False


def unfinished(path: Path) -> bool:
    """Whether a WAV or CAF was never finished: its length is left open, or, of a WAV, much more follows than it says.

    That is what follows the chunk of sound and is no chunk itself, nor tags or zeros.
    """
    with open(path, "rb") as file:
        kind, wide = file.read(4), 0
        if kind not in (b"RIFF", b"RF64", b"caff"):
            return False
        at, order, width = (8, "big", 8) if kind == b"caff" else (12, "little", 4)
        end, size = file.seek(0, 2), 0
        while at + 4 + width <= end:
            file.seek(at)
            name, size = file.read(4), int.from_bytes(file.read(width), order)
            at += 4 + width
            if name == b"data":
                break
            wide = int.from_bytes(file.read(16)[8:], order) if name == b"ds64" else wide
            at += size + (size % 2 if width == 4 else 0)
        else:
            return False
        size = wide if kind == b"RF64" and size == 0xFFFFFFFF else size
        if size in (0, (1 << 64) - 1):
            return end > at
        file.seek(min(at + size, end))
        more = file.read(5)  # some leave out the byte that makes lengths even
    named = any(all(32 <= byte < 127 for byte in name) for name in (more[:4], more[1:]))
    tags = named or more.startswith(b"ID3") or not more.strip(b"\0")
    return width == 4 and end - at - size >= LEAST_MORE and not tags


def last_page(path: Path) -> int:
    """The first sample of the last page of an Ogg Vorbis file; 0 if it has but one."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_PAGES))
        tail = file.read()
    last = tail.rfind(b"OggS")
    while last > 0 and (last := tail.rfind(b"OggS", 0, last)) >= 0:
        granule = int.from_bytes(tail[last + 6 : last + 14], "little", signed=True)
        if granule >= 0:  # -1: no packet ends on that page
            return granule
    return 0
