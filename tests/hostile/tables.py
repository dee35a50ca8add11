"""FMA's ``tracks.csv`` in all the ways that a table can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lib.data import fma
from tests.hostile import Case, written

HEAD = ",set,set,track\n,split,subset,title\ntrack_id,,,\n"
ROWS = "2,training,small,a\n3,test,small,b\n"
WHOLE = ["000002", "000003"]

MEGA = 1_000_000
DAMAGED = r"tracks\.csv: not FMA's"

# what is long is made where it is read
TABLES: dict[str, tuple[str | bytes | Callable[[], str], str, object]] = {
    "whole": (HEAD + ROWS, "", WHOLE),
    "byte order mark": ("\ufeff" + HEAD + ROWS, "", WHOLE),
    "line ends of Windows": ((HEAD + ROWS).replace("\n", "\r\n"), "", WHOLE),
    "line ends of old": ((HEAD + ROWS).replace("\n", "\r"), "", WHOLE),
    "no third header row": (HEAD.replace("track_id,,,\n", "") + ROWS, "", WHOLE),
    "empty lines": (HEAD + "\n\n" + ROWS + "\n\n", "", WHOLE),
    "columns in another order": (",track,set,set\n,title,subset,split\n2,a,small,training\n", "", ["000002"]),
    "spaces around nothing": (HEAD + "2,training,small,  \n", "", ["000002"]),
    "commas and quotes in titles": (HEAD + '2,training,small,"a, ""b"", \n c"\n', "", ["000002"]),
    "the same row twice": (HEAD + ROWS + "2,training,small,a\n", "", WHOLE),
    "the same track in two splits": (HEAD + ROWS + "2,test,small,a\n", r"track 2 stands there twice", None),
    "the same track by another number": (HEAD + ROWS + "0002,test,small,a\n", r"track 2 stands there twice", None),
    "the same track in two subsets": (HEAD + ROWS + "2,training,large,a\n", r"track 2 stands there twice", None),
    "unknown split": (HEAD + ROWS + "5,Training,small,a\n", r"track 5 is of split 'Training'", None),
    "split of lines": (HEAD + ROWS + '5,"a\nb",small,a\n', r"track 5 is of split 'a b'", None),
    "unknown subset": (HEAD + ROWS + "5,training,tiny,a\n", r"track 5 is of subset 'tiny'", None),
    "number of thirty digits": (HEAD + ROWS + f"{'9' * 30},training,small,a\n", "", WHOLE),
    "digits of another script": (HEAD + ROWS + "\u0663,training,small,a\n", "", WHOLE),
    "negative number": (HEAD + ROWS + "-4,training,small,a\n", "", WHOLE),
    "number with a fraction": (HEAD + ROWS + "4.0,training,small,a\n", "", WHOLE),
    "path for a number": (HEAD + ROWS + "../../4,training,small,a\n", "", WHOLE),
    "no split": (HEAD + ROWS + "4,,small,a\n", "", WHOLE),
    "a short row": (HEAD + ROWS + "4\n", "", WHOLE),
    "a long row": (HEAD + ROWS + "4,training,small,a,b,c,d\n", "", [*WHOLE, "000004"]),
    "no header": (ROWS, DAMAGED, None),
    "one header row": (",split,subset,title\n" + ROWS, DAMAGED, None),
    "header rows swapped": (",split,subset,title\n,set,set,track\ntrack_id,,,\n" + ROWS, DAMAGED, None),
    "header in capitals": (HEAD.upper() + ROWS, DAMAGED, None),
    "no subset": (",set,track\n,split,title\ntrack_id,,\n2,training,a\n", DAMAGED, None),
    "semicolons": ((HEAD + ROWS).replace(",", ";"), DAMAGED, None),
    "tabs": ((HEAD + ROWS).replace(",", "\t"), DAMAGED, None),
    "header alone": (HEAD, "", []),
    "nothing": ("", DAMAGED, None),
    "one line": (",set,set,track\n", DAMAGED, None),
    "line ends alone": ("\n" * 50, DAMAGED, None),
    "open quote": (HEAD + '2,training,small,"a\n' + ROWS, DAMAGED, None),
    "UTF-16": ((HEAD + ROWS).encode("utf-16"), DAMAGED, None),
    "UTF-32": ((HEAD + ROWS).encode("utf-32"), DAMAGED, None),
    "Latin-1 title": ((HEAD + "2,training,small,caf\u00e9\n").encode("latin-1"), "", ["000002"]),
    "zeros": (bytes(5000), DAMAGED, None),
    "a zero in a title": (HEAD + "2,training,small,a\0b\n3,test,small,b\n", "", WHOLE),
    "zip": (b"PK\x03\x04" + bytes(range(256)) * 20, DAMAGED, None),
    "10 MB of title": (lambda: HEAD + "2,training,small," + "a" * 10 * MEGA + "\n3,test,small,b\n", "", WHOLE),
    "10 MB of split": (lambda: f"{HEAD}2,{'t' * 10 * MEGA},small,a\n", r"track 2 is of split 't+ \.\.\. ", None),
    "10 MB of name": (lambda: HEAD.replace("title", "t" * 10 * MEGA) + ROWS, "header rows take more", None),
    "millions of columns": (lambda: ("," * 6 * MEGA + "\n") * 2 + ROWS, "header rows take more", None),
    "millions of fields in a row": (lambda: HEAD + "2,training,small" + "," * 6 * MEGA + "\n", "", ["000002"]),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for name, (content, says, gives) in TABLES.items():
        yield Case(f"table: {name}", partial(_read, content), says, gives)
    yield Case("table: a folder", _folder, DAMAGED)
    yield Case("table: of no file", lambda folder: _named(folder), DAMAGED)


def _named(folder: Path) -> list[str]:
    """Names of the tracks that the table asks for; there are no clips, so that all of them are left out."""
    tracks, skipped = fma.read(folder, "small", folder / "cache", 1, 44100, 1.0)
    assert not tracks and {item.reason for item in skipped} <= {"no such file"}
    return [Path(item.path).stem for item in skipped]


def _read(content: str | bytes | Callable[[], str], folder: Path) -> list[str]:
    written(folder / fma.METADATA, content() if callable(content) else content)
    return _named(folder)


def _folder(folder: Path) -> list[str]:
    (folder / fma.METADATA).mkdir(parents=True)
    return _named(folder)
