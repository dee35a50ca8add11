"""Weights that are damaged, lie about their size, or are something else."""

from __future__ import annotations

import functools
import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lib.losses import stem_snr_loss
from lib.model.checkpoints import load, save
from lib.model.locoformer import Size
from lib.model.separator import Separator
from lib.profile.fields import Compute, Optimisation
from lib.store.runs import Run
from lib.training import Task, fit
from tests.hostile import Case, written

TINY = Size(1, 4, 4, 2, 2, 1e-3)


class Payload:
    """What leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return (open, ("harm", "w"))


@functools.cache
def whole() -> Separator:
    torch.manual_seed(0)
    return Separator(TINY, 4, 8000, 64, 16, band_scale=16.0).eval()


@functools.cache
def saved() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(whole(), Path(folder) / "x.safetensors")
        return (Path(folder) / "x.safetensors").read_bytes()


def header(data: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(head: object, body: bytes) -> bytes:
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + body


def configured(**changes: object) -> bytes:
    """The checkpoint with fields of its configuration, or of its size, replaced."""
    head, body = header(saved())
    config = json.loads(head["__metadata__"]["separator"])
    for key, value in changes.items():
        (config["size"] if key in config["size"] else config)[key] = value
    head["__metadata__"]["separator"] = json.dumps(config)
    return joined(head, body)


def described(separator: object) -> bytes:
    head, body = header(saved())
    head["__metadata__"] = {"separator": separator if isinstance(separator, str) else json.dumps(separator)}
    return joined(head, body)


def weights(**changes: torch.Tensor | None) -> bytes:
    """The checkpoint with weights added, replaced or left out."""
    state = {**whole().state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    state = {name: value.contiguous() for name, value in state.items() if value is not None}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file(state, path, metadata={"separator": json.dumps(whole().config())})
        return path.read_bytes()


def torched(content: object, **options: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


GAMMA = "masker__blocks__0__time__norms__0__gamma"
HUGE = 10**9
SAFETENSORS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not a checkpoint"),
    "words": (lambda: b"no weights, just words" * 99, "not a checkpoint"),
    "zeros": (lambda: bytes(5000), "not a checkpoint"),
    "cut in the header": (lambda: saved()[:300], "not a checkpoint"),
    "cut in the weights": (lambda: saved()[:-4], "not a checkpoint"),
    "more than it says": (lambda: saved() + bytes(4), "not a checkpoint"),
    "header beyond the file": (lambda: struct.pack("<Q", 10**6) + saved()[8:], "not a checkpoint"),
    "header of exabytes": (lambda: struct.pack("<Q", 2**63) + saved()[8:], "not a checkpoint"),
    "header of no bytes": (lambda: bytes(8) + saved()[8:], "not a checkpoint"),
    "header of lists": (lambda: joined([1, 2], b""), "not a checkpoint"),
    "deep header": (lambda: struct.pack("<Q", 100_000) + b"[" * 100_000, "not a checkpoint"),
    "deep configuration": (lambda: described("[" * 100_000), "not a checkpoint"),
    "no metadata": (lambda: joined(dict(list(header(saved())[0].items())[1:]), header(saved())[1]), "not a checkpoint"),
    "configuration of words": (lambda: described("words"), "not a checkpoint"),
    "configuration of a list": (lambda: described([1]), "not a checkpoint"),
    "configuration of nothing": (lambda: described({}), "not a checkpoint"),
    "configuration of a number": (lambda: described(7), "not a checkpoint"),
    "size of a list": (lambda: configured(size=[1]), "not a checkpoint"),
    "unknown field": (lambda: configured(shell="rm"), "not a checkpoint"),
    "offsets that overlap": (lambda: _offsets(0, 4), "not a checkpoint"),
    "offsets beyond": (lambda: _offsets(0, HUGE), "not a checkpoint"),
    "offsets backwards": (lambda: _offsets(8, 0), "not a checkpoint"),
    "milliards of blocks": (lambda: configured(blocks=HUGE), "blocks"),
    "thousands of blocks": (lambda: configured(blocks=3000), "3000 blocks"),
    "no blocks": (lambda: configured(blocks=0), "blocks is 0"),
    "milliards of features": (lambda: configured(features=HUGE), "features"),
    "a million features": (lambda: configured(features=1_000_000), "has shape|is missing"),
    "a million hidden": (lambda: configured(hidden=1_000_000), "has shape|is missing"),
    "features of a fraction": (lambda: configured(features=4.0), "features is 4.0"),
    "features of words": (lambda: configured(features="4"), "features is '4'"),
    "features of yes": (lambda: configured(features=True), "features is True"),
    "heads that do not divide": (lambda: configured(heads=3), "no multiple of 3 heads"),
    "groups that do not divide": (lambda: configured(groups=3), "no multiple of"),
    "no heads": (lambda: configured(heads=0), "heads is 0"),
    "milliards of sources": (lambda: configured(sources=HUGE), "sources"),
    "other sources": (lambda: configured(sources=5), "is missing"),
    "milliards of stems": (lambda: configured(stems=HUGE), "stems"),
    "stems without a matrix": (lambda: configured(stems=4), "stem_matrix is missing"),
    "huge FFT": (lambda: configured(n_fft=1 << 40), "n_fft"),
    "other FFT": (lambda: configured(n_fft=128), "has shape|is missing"),
    "hop of zero": (lambda: configured(hop=0), "hop is 0"),
    "hop beyond the FFT": (lambda: configured(hop=64), "do not go together"),
    "rate of zero": (lambda: configured(rate=0), "rate is 0"),
    "NaN for the bands": (lambda: configured(band_scale=float("nan")), "band_scale is nan"),
    "negative dropout": (lambda: configured(dropout=-1), "dropout is -1"),
    "dropout of one": (lambda: configured(dropout=1.0), "dropout is 1.0"),
    "infinite learning rate": (lambda: configured(learning_rate=float("inf")), "learning_rate is inf"),
    "NaN weight": (lambda: weights(**{GAMMA: torch.tensor([1, 1, np.nan, 1])}), "gamma holds NaN"),
    "infinities that cancel": (lambda: weights(**{GAMMA: torch.tensor([np.inf, -np.inf, 1, 1])}), "gamma holds NaN"),
    "a weight too few": (lambda: weights(**{GAMMA: None}), "gamma is missing"),
    "a weight too many": (lambda: weights(harm=torch.ones(3)), "harm is no weight"),
    "a weight of another shape": (lambda: weights(**{GAMMA: torch.ones(5)}), r"gamma has shape \(5,\)"),
    "a weight of no dimension": (lambda: weights(**{GAMMA: torch.tensor(1.0)}), r"gamma has shape \(\)"),
    "a pickle by that name": (lambda: pickle.dumps({"x": Payload()}), "not a checkpoint"),
}  # fmt: skip

PTH: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "cannot be read as a checkpoint"),
    "words": (lambda: b"words" * 999, "cannot be read as a checkpoint"),
    "pickle": (lambda: pickle.dumps({"model.x": Payload()}), "cannot be read as a checkpoint"),
    "pickle, protocol 0": (lambda: pickle.dumps({"model.x": Payload()}, 0), "cannot be read as a checkpoint"),
    "pickle of a command": (lambda: b"cos\nsystem\n(S'touch harm'\ntR.", "cannot be read as a checkpoint"),
    "pickle in a zip": (lambda: torched({"model.x": Payload()}), "cannot be read as a checkpoint"),
    "pickle in a state dict": (lambda: torched({"state_dict": {"model.x": Payload()}}), "cannot be read"),
    "pickle, old format": (lambda: torched(Payload(), _use_new_zipfile_serialization=False), "cannot be read"),
    "whole module": (lambda: torched(whole()), "cannot be read as a checkpoint"),
    "cut": (lambda: torched({"model.x": torch.ones(999)})[:-500], "cannot be read as a checkpoint"),
    "list": (lambda: torched([torch.ones(3)]), "cannot be read as a checkpoint"),
    "tensor": (lambda: torched(torch.ones(3)), "cannot be read as a checkpoint"),
    "number": (lambda: torched(3), "cannot be read as a checkpoint"),
    "nothing by name": (lambda: torched({}), "not a published checkpoint"),
    "names of numbers": (lambda: torched({1: torch.ones(3)}), "not a published checkpoint"),
    "numbers by name": (lambda: torched({"model.x": 3}), "'model.x' is no tensor"),
    "state dict of a list": (lambda: torched({"state_dict": [1]}), "cannot be read as a checkpoint"),
    "others' names": (lambda: torched({"encoder.weight": torch.ones(3)}), "not a published checkpoint"),
    "sparse": (lambda: torched({"model.x": torch.ones(3).to_sparse()}), "no plain tensor"),
    "complex": (lambda: torched({"model.x": torch.ones(3, dtype=torch.complex64)}), "no plain tensor"),
    "of no device": (lambda: torched({"model.x": torch.ones(3, device="meta")}), "no plain tensor|cannot be read"),
    "terabytes out of a number": (lambda: _published(shape=(HUGE, HUGE, 1)), "that stand for"),
    "gigabytes out of a number": (lambda: _published(shape=(30_000, 30_000, 8)), "that stand for"),
    "half precision out of a number": (lambda: _published((40_000, 40_000, 8), torch.float16), "that stand for"),
    "milliards of blocks": (lambda: _published(more=f"blocks.{HUGE}.x"), "blocks"),
    "blocks of words": (lambda: _published(more="blocks.one.x"), "not a published checkpoint"),
    "negative blocks": (lambda: _published(more="blocks.-5.x"), "not a published checkpoint"),
    "no dimensions": (lambda: _published(shape=()), "not a published checkpoint"),
    "no features": (lambda: _published(shape=(0, 0, 8)), "not a published checkpoint"),
    "weights that are missing": (lambda: _published(), "not a published checkpoint"),
    "bomb": (lambda: zipped({"x/data.pkl": bytes(200 << 20), "x/version": b"3"}), "that declare"),
    "zip of nothing": (lambda: zipped({}), "cannot be read as a checkpoint"),
    "audio": (lambda: b"RIFF" + bytes(100) + b"WAVE", "cannot be read as a checkpoint"),
    "deep pickle": (lambda: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "cannot be read|not a published"),
}

NPZ: dict[str, tuple[Callable[[], bytes], str]] = {
    "words": (lambda: b"words" * 99, "cannot be read as a checkpoint"),
    "objects": (lambda: _npz(**{"model.x": np.array([Payload()], object)}), "cannot be read as a checkpoint"),
    "pickle": (lambda: pickle.dumps(Payload()), "cannot be read as a checkpoint"),
    "bomb": (lambda: zipped({"model.x.npy": bytes(200 << 20)}), "that declare"),
    "texts": (lambda: _npz(**{"model.x": np.array(["a"])}), "cannot be read as a checkpoint"),
    "shape beyond the content": (lambda: zipped({"model.x.npy": _npy((10**6, 10**6))}), "cannot be read"),
    "negative shape": (lambda: zipped({"model.x.npy": _npy((-1, 4))}), "cannot be read"),
    "header of code": (
        lambda: zipped({"model.x.npy": _npy("__import__('os').abort()")}),
        "cannot be read",
    ),
    "others' names": (lambda: _npz(x=np.ones(3)), "not a published checkpoint"),
}


def cases() -> Iterator[Case]:
    whole(), saved()
    for suffix, kinds in (("safetensors", SAFETENSORS), ("pth", PTH), ("npz", NPZ)):
        for name, (content, says) in kinds.items():
            yield Case(f"{suffix}: {name}", partial(_loaded, f"model.{suffix}", content), rf"model\.{suffix}: .*{says}")
    yield Case("safetensors: whole", partial(_loaded, "model.safetensors", saved), gives=4)
    yield Case("safetensors: half precision", partial(_loaded, "model.safetensors", _half), gives=4)
    yield Case("checkpoint: of no file", lambda folder: _load(folder / "no.pth"), r"no\.pth: no checkpoint here")
    yield Case("checkpoint: an empty folder", lambda folder: _load(folder), "no checkpoint here")
    yield Case("checkpoint: a folder by the file's name", _folder, "no checkpoint here")
    yield Case("checkpoint: a device", lambda folder: _load(Path("/dev/zero")), "no checkpoint here")
    yield Case("checkpoint: a link to itself", _loop, "no checkpoint here|symbolic")
    for name, change in RESUMED.items():
        yield Case(f"last.ckpt: {name}", partial(_resumed, change), r"last\.ckpt: damaged checkpoint .* delete it")


def _load(path: Path) -> int:
    return load(path).sources


def _loaded(name: str, content: Callable[[], bytes], folder: Path) -> int:
    found = _load(written(folder / name, content()))
    assert not (folder / "harm").exists()
    return found


def _folder(folder: Path) -> None:
    (folder / "model.safetensors").mkdir()
    _load(folder)


def _loop(folder: Path) -> None:
    (folder / "model.pth").symlink_to("model.pth")
    _load(folder / "model.pth")


def _offsets(start: int, stop: int) -> bytes:
    head, body = header(saved())
    name = next(key for key in head if key != "__metadata__")
    head[name]["data_offsets"] = [start, stop]
    return joined(head, body)


def _half() -> bytes:
    return weights(**{GAMMA: torch.ones(4, dtype=torch.float16)})


def _published(
    shape: tuple[int, ...] = (4, 4, 8), dtype: torch.dtype = torch.float32, more: str = "blocks.0.x"
) -> bytes:
    """The tensors whose shapes tell the size of a published model, the first of them a view of one number."""
    names = ("blocks.0.freq_path.ffn.0.deconv1d.weight", "band_split_module.bandwise_decoding_module.0.4.weight")
    found = OrderedDict({f"model.model.{name}": torch.ones(16, 4) for name in (*names, more)})
    found[f"model.model.{names[0]}"] = torch.ones((), dtype=dtype).expand(shape)
    return torched(found)


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _npy(shape: object) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


STAGE = Optimisation(steps=3, batch=1, validate_every=1, checkpoint_every=1, average_best=1)
STATE = {"step": 1, "seconds": 1.0, "waited": 0.0, "skipped": 0, "bad_in_a_row": 0, "stalled_at": 0, "best": []}


def _state(**changes: object) -> bytes:
    state = {key: value for key, value in {**STATE, **changes}.items() if value is not None}
    optimiser = torch.optim.AdamW([{"params": list(whole().parameters()), "scale": 1.0}])
    return torched({"weights": whole().state_dict(), "optimiser": optimiser.state_dict(), "state": state})


RESUMED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "words": lambda: b"words" * 99,
    "pickle": lambda: torched({"weights": Payload()}),
    "cut": lambda: _state()[:-100],
    "no state": lambda: torched({"weights": whole().state_dict(), "optimiser": {}}),
    "list": lambda: torched([1]),
    "no step": lambda: _state(step=None),
    "step of words": lambda: _state(step="1"),
    "step of NaN": lambda: _state(step=float("nan")),
    "best of a number": lambda: _state(best=7),
    "best of one value": lambda: _state(best=[[1.0]]),
    "best that is not there": lambda: _state(best=[[1.0, 1]]),
    "other weights": lambda: torched({"weights": {"x": torch.ones(1)}, "optimiser": {}, "state": STATE}),
    "optimiser of nothing": lambda: torched({"weights": whole().state_dict(), "optimiser": {}, "state": STATE}),
}


def _resumed(content: Callable[[], bytes], folder: Path) -> None:
    run = Run(folder / "runs" / "pretrain-0", {})
    written(run.folder / "last.ckpt", content())
    task = Task(
        whole(),
        [torch.zeros(4, 2, 640)] * 9,
        lambda model, stems: stem_snr_loss(model(stems.sum(1)), stems),
        lambda _: 0.0,
    )
    fit(task, STAGE, run, 0, Compute(accelerator="cpu"), 0, "hostile")
