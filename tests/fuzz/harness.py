"""What is fuzzed: bytes as a file of a user's. Anything but a result or a `UserError` of one line is a find."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from lib import UserError, profile
from lib.data import fma
from lib.model import checkpoints
from lib.model.locoformer import Size
from lib.model.separator import Separator
from lib.profile.schema import leaves

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
TRACKS = ',set,set,track\n,split,subset,title\ntrack_id,,,\n2,training,small,a\n3,test,large,"b, ""c"""\n'


def _file(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read_profile(data: bytes) -> None:
    """A profile's file; what is accepted must survive a round trip through the values it holds."""
    found = profile.load(str(_file("fuzzed.yaml", data)))
    assert profile.override(found, {}) == found


def read_tracks(data: bytes) -> None:
    """FMA's ``tracks.csv``; every track comes once, with a split of ours."""
    path = _file("fma_metadata/tracks.csv", data)
    for subset in ("small", "full"):
        rows = fma._rows(path, subset)
        assert len({track for track, *_ in rows}) == len(rows) and all(split in fma.SPLITS for _, split, _ in rows)


def read_checkpoint(data: bytes) -> None:
    """A file of weights; the first byte says by which name. What loads must separate without an error."""
    suffix = (".safetensors", ".pth", ".npz")[data[0] % 3] if data else ".pth"
    separator = checkpoints.load(_file(f"fuzzed{suffix}", data[1:]))
    with torch.inference_mode():
        separator(torch.zeros(1, 2, 2 * separator.n_fft))


def _profiles() -> Iterator[bytes]:
    # one section each: YAML is slow to read, and short inputs are tried more often
    for name, value in profile.to_dict(profile.load("smoke")).items():
        yield yaml.safe_dump({name: value}, default_flow_style=True).encode()
    yield b'base: smoke\nfinetune: {seeds: [0x1, 1_0], learning_rate: 1e-3, gain_db: [-3, .5]}\nname: "a b"\n'
    yield b"? [a, b]\n: !!set {x}\n&a b: *a\n<<: *a\n--- !!binary |\n  aGk=\n"


def _tables() -> Iterator[bytes]:
    for text in (TRACKS, "\ufeff" + TRACKS.replace("\n", "\r\n"), TRACKS.replace("track_id,,,\n", "")):
        yield text.encode()
        yield text.encode("utf-16")


def _checkpoints() -> Iterator[bytes]:
    torch.manual_seed(0)
    separator = Separator(Size(1, 2, 2, 1, 1, 1e-3), 1, 1000, 16, 4, band_scale=64.0)
    checkpoints.save(separator, FOLDER / "seed.safetensors")
    yield b"\0" + (FOLDER / "seed.safetensors").read_bytes()
    save_file({"x": torch.ones(2)}, FOLDER / "seed.safetensors", metadata={"separator": json.dumps({"size": {}})})
    yield b"\0" + (FOLDER / "seed.safetensors").read_bytes()
    for zipped in (True, False):
        weights = {f"model.{name}": value for name, value in separator.masker.state_dict().items()}
        torch.save(weights, FOLDER / "seed.pth", _use_new_zipfile_serialization=zipped)
        yield b"\1" + (FOLDER / "seed.pth").read_bytes()


HARNESSES: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]], int]] = {
    "profile": (read_profile, _profiles, 1500),
    "tracks": (read_tracks, _tables, 500),
    "checkpoint": (read_checkpoint, _checkpoints, 30_000),
}
"""What reads the bytes, where mutation starts from, and how long an input may be."""


def words() -> list[str]:
    """What profiles, tables and checkpoints are made of: an aid to mutation."""
    fields = {part for dotted, _ in leaves(profile.Profile("x", "x")) for part in dotted.split(".")}
    marks = [
        "base",
        "&a ",
        "*a",
        "<<: ",
        "!!float ",
        "!!int ",
        "!!bool ",
        "!!timestamp ",
        "!!binary ",
        "? ",
        "0x",
        "1:30",
    ]
    header = [*json.loads(json.dumps(vars(Size(1, 2, 2, 1, 1, 1e-3)))), "__metadata__", "separator", "data_offsets"]
    return sorted({*fields, *marks, *header, "training", "small", "full", "NaN", "1e999", "state_dict", "F32", "BF16"})


def outcome(name: str, data: bytes) -> str:
    """What a harness makes of ``data``: "" for a result or a proper refusal, else what is wrong with it."""
    try:
        HARNESSES[name][0](data)
    except UserError as error:
        text = str(error)
        return "" if text and text.isprintable() and len(text) < 1200 else f"message {text!r:.200}"
    except Exception as error:
        place = error.__traceback__
        while place.tb_next:
            place = place.tb_next
        return f"{type(error).__name__} in {place.tb_frame.f_code.co_name}, line {place.tb_lineno}: {error!s:.200}"
    return ""
