"""Command lines: arguments of the wrong kind, and paths where nothing can be."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lib import UserError, separate
from lib.listening import analyse, serve, sources
from lib.listening.blind import prepare
from lib.model.checkpoints import save
from lib.pipeline import audit, estimate, notebooks, train
from tests.hostile import Case, called, written
from tests.hostile.sounds import encoded, noise, separator

ROOT = Path(__file__).resolve().parents[2]
LONG = "x" * 5000

SEPARATE = {
    "window of NaN": (["--window", "nan"], "--window"),
    "infinite window": (["--window", "inf"], "--window"),
    "negative window": (["--window", "-1"], "--window|argument"),
    "hop of NaN": (["--hop", "nan"], "--hop"),
    "hop of zero": (["--hop", "0"], "--hop"),
    "batch of a fraction": (["--batch", "1.5"], "--batch"),
    "negative batch": (["--batch", "-3"], "--batch"),
    "unknown precision": (["--precision", "8"], "--precision"),
    "unknown device": (["--device", "toaster"], "device|toaster"),
    "device that is not here": (["--device", "cuda:99"], "."),
    "device of nothing": (["--device", ""], "device|invalid|empty"),
    "device without data": (["--device", "meta"], "."),
    "unknown option": (["--shell"], "--shell"),
    "a folder without music": (["{folder}/out"], "failed: .*no music in this folder"),
    "a device for a song": (["/dev/zero"], "failed: .*a pipe or device"),
    "too long a song": ([LONG], "failed: .*name too long"),
    "a null in a song": (["a\0b.wav"], "failed: .*null byte"),
    "an address for a song": (["http://127.0.0.1/a.mp3"], "failed: .*no such file"),
    "a pipe for a song": (["pipe:0"], "failed: .*no such file"),
    "out is a file": (["--out", "{folder}/song.wav"], "song.wav"),
    "out below a file": (["--out", "{folder}/song.wav/x"], "song.wav"),
    "out too long": (["--out", LONG], "name too long"),
    "checkpoint too long": (["--checkpoint", LONG], "name too long|no checkpoint"),
    "checkpoint of a null": (["--checkpoint", "a\0b"], "no checkpoint"),
    "checkpoint is a song": (["--checkpoint", "{folder}/song.wav"], "cannot be read as a checkpoint"),
}
STUDY = {
    "nothing": ([], "usage:"),
    "unknown profile": (["nope"], "unknown"),
    "an option": (["--help"], "unknown"),
    "override without =": (["smoke", "x"], "key=value"),
    "results in a null": (["smoke", "results=a\0b"], "results.*control"),
    "results too long": (["smoke", f"results={LONG}"], "name too long"),
    "results of nobody": (["smoke", "results=~nobody-of-that-name/x"], "nobody-of-that-name|home"),
    "results below a file": (["smoke", "results=/etc/passwd/x"], "/etc/passwd"),
    "results below a device": (["smoke", "results=/dev/null/x"], "/dev/null"),
    "music of nobody": (["smoke", "corpus.labeled=~nobody-of-that-name/x"], "home"),
    "music too long": (["smoke", f"corpus.unlabeled={LONG}"], "name too long"),
    "music is a file": (["smoke", "corpus.labeled=/etc/passwd"], "there is no folder"),
    "music of several, one missing": (["smoke", "corpus.unlabeled=rendered + /no/such"], "there is no folder /no/such"),
    "FMA where nothing is": (["smoke", "corpus.unlabeled=fma:small", "corpus.fma_root=/no/such"], "fma_metadata.zip"),
    "FMA too long": (["smoke", "corpus.unlabeled=fma:small", f"corpus.fma_root={LONG}"], "name too long"),
    "more disk than there is": (["smoke", "corpus.rendered.unlabeled_songs=999999999"], "GB needed"),
    "more seeds than there are": (["smoke", f"finetune.seeds={list(range(20_000))}"], "GB needed|at most"),
}
TRAINING = {
    "nothing": ([], "--profile"),
    "no stage": (["--profile", "smoke"], "required|--stage"),
    "unknown stage": (["--profile", "smoke", "--stage", "x"], "--stage"),
    "unknown profile": (["--profile", "nope", "--list"], "unknown"),
    "stage and list": (["--profile", "smoke", "--stage", "scratch", "--list"], "not allowed"),
    "negative seed": (["--profile", "smoke", "--stage", "scratch", "--seed", "-1"], "--seed"),
    "huge seed": (["--profile", "smoke", "--stage", "scratch", "--seed", "9" * 30], "--seed"),
    "seed of words": (["--profile", "smoke", "--stage", "scratch", "--seed", "one"], "--seed"),
    "no songs": (["--profile", "smoke", "--stage", "scratch", "--songs", "0"], "--songs from 1"),
    "negative songs": (["--profile", "smoke", "--stage", "scratch", "--songs", "-1"], "--songs from 1"),
    "songs for pre-training": (["--profile", "smoke", "--stage", "pretrain", "--songs", "2"], "and --fold go with"),
    "transfer from scratch": (["--profile", "smoke", "--stage", "scratch", "--transfer", "group"], "--transfer goes"),
    "seed for a run": (["--profile", "smoke", "--run", "1", "--seed", "1"], "go with --stage"),
    "run zero": (["--profile", "smoke", "--run", "0"], "--run from 1"),
    "negative run": (["--profile", "smoke", "--run", "-5"], "--run from 1|argument"),
    "override of nothing": (["--profile", "smoke", "--list", "="], "unknown key"),
    "override that is an option": (["--profile", "smoke", "--list", "--steps=3"], "--steps"),
    "batch that cannot be": (["--profile", "smoke", "--stage", "scratch", "finetune.batch=0"], "finetune.batch"),
}
PLAN = {
    "unknown profile": (["nope"], "unknown"),
    "unknown device": (["smoke", "--device", "abacus"], "not measured yet"),
    "device of lines": (["smoke", "--device", "a\nb\x1b[31m"], "not measured yet"),
    "bad field": (["smoke", "pretrain.stps=1"], "did you mean steps"),
}
PROVENANCE = {
    "nothing": ([], "results"),
    "of no folder": (["/no/such"], "no provenance.json"),
    "a file": (["/etc/passwd"], "no provenance.json"),
    "too long": ([LONG], "no provenance.json"),
    "cell without a row": (["{results}", "--cell", "tables/claim.csv"], "--cell"),
    "cell elsewhere": (["{results}", "--cell", "../../README.md:1"], "--cell"),
    "cell of words": (["{results}", "--cell", "tables/claim.csv:one"], "--cell"),
    "cell zero": (["{results}", "--cell", "tables/claim.csv:0"], "has rows 1 to"),
    "cell beyond": (["{results}", "--cell", f"tables/claim.csv:{'9' * 30}"], "has rows 1 to"),
    "cell of other digits": (["{results}", "--cell", "tables/claim.csv:\u00b2"], "--cell"),
    "record of another kind": (["{folder}/other"], "was not written by a study"),
    "cell of a figure": (["{results}", "--cell", "figures/claim.png:1"], "no table|--cell"),
}
SERVE = {
    "nothing": ([], "name a profile"),
    "port zero": (["smoke", "--port", "0"], "--port from 1"),
    "port too high": (["smoke", "--port", "99999"], "--port from 1"),
    "port of words": (["smoke", "--port", "http"], "--port"),
    "network of options": (["smoke", "--network", "0.0.0.0 --token="], "--network takes"),
    "network of nothing": (["smoke", "--network", ""], "--network takes"),
    "codes of nobody": (["smoke", "--codes", "/no/such"], "--codes"),
}
PREPARE = {
    "unknown profile": (["nope"], "unknown"),
    "unknown test": (["smoke", "listening.blind.test=x"], "listening.blind.test"),
    "no such field": (["smoke", "listening.blind.tset=x"], "did you mean test"),
    "stimuli of nobody": (["--stimuli", "/no/such"], "no such folder"),
    "stimuli too long": (["--stimuli", LONG], "no such folder|too long"),
    "stimuli that are a file": (["--stimuli", "/etc/passwd"], "no such folder"),
}
ANALYSE = {
    "nothing": ([], "folder"),
    "no folder": (["/no/such"], "no design.json"),
    "too long": ([LONG], "no design.json|too long"),
}
EXAMPLES = {
    "nothing": ([], "--profile"),
    "unknown profile": (["--profile", "nope"], "unknown"),
    "bad field": (["--profile", "smoke", "listening.song=1"], "did you mean songs"),
}
RUN_ALL = {
    "unknown profile": (["nope"], "unknown profile 'nope'"),
    "command in a name": (["$(touch harm)"], "unknown profile"),
    "command in an override": (["smoke", "`touch harm`"], "not of the form key=value"),
    "key of a command": (["smoke", "$(touch harm)=1"], "not of the form key=value"),
    "an option": (["--seed=1"], "not of the form key=value"),
    "key in capitals": (["smoke", "PATH=/tmp"], "not of the form key=value"),
    "key of spaces": (["smoke", "a b=1"], "not of the form key=value"),
    "nothing": ([""], "unknown profile"),
    "a folder": (["/etc"], "unknown profile"),
    "a file that is none": (["/etc/passwd"], "unknown profile"),
    "too long": ([LONG], "unknown profile"),
    "plan of nothing": (["smoke", "--plan", "x"], "not of the form key=value"),
    "two profiles": (["smoke", "demo"], "not of the form key=value"),
}


def cases() -> Iterator[Case]:
    separator()
    for name, (arguments, says) in SEPARATE.items():
        yield Case(f"lib.separate: {name}", partial(_separate, arguments), says)
    for name, main, kinds in (
        ("lib.pipeline.notebooks", notebooks.main, STUDY),
        ("lib.pipeline.train", train.main, TRAINING),
        ("lib.pipeline.estimate", estimate.main, PLAN),
        ("lib.pipeline.audit", audit.main, PROVENANCE),
        ("lib.listening.serve", serve.main, SERVE),
        ("lib.listening.blind.prepare", prepare.main, PREPARE),
        ("lib.listening.analyse", analyse.main, ANALYSE),
        ("lib.listening.sources", sources.main, EXAMPLES),
    ):
        for case, (arguments, says) in kinds.items():
            yield Case(f"{name}: {case}", partial(_called, main, arguments), says)
    for name, (arguments, says) in RUN_ALL.items():
        yield Case(f"run_all.sh: {name}", partial(_run_all, arguments), says)


def _filled(arguments: list[str], folder: Path) -> list[str]:
    return [text.replace("{folder}", str(folder)).replace("{results}", str(folder / "results")) for text in arguments]


def _separate(arguments: list[str], folder: Path) -> str:
    (folder / "song.wav").write_bytes(encoded(noise()))
    save(separator(), folder / "model.safetensors")
    songs = [] if arguments[0][:2] != "--" else [str(folder / "song.wav")]
    fixed = ["--checkpoint", str(folder), "--out", str(folder / "out"), "--precision", "32-true"]
    return called(separate.main, *songs, *fixed, *_filled(arguments, folder))


def _results(folder: Path) -> None:
    """A results folder with a table and a figure, and one whose record lacks a part."""
    record = {"notebook": "00", "sha256": "0"}
    facts = {"files": {"tables/claim.csv": record, "figures/claim.png": record}, "profile": {"name": "p"}}
    written(folder / "results" / "tables" / "claim.csv", "a\n1\n")
    written(folder / "results" / "figures" / "claim.png", b"\x89PNG" + bytes(range(256)))
    written(folder / "other" / "provenance.json", json.dumps(facts))
    facts |= {"stages": {}, "code": {}, "corpora": {}}
    written(folder / "results" / "provenance.json", json.dumps(facts))


def _called(main, arguments: list[str], folder: Path) -> str:
    _results(folder)
    return called(main, *_filled(arguments, folder))


def _run_all(arguments: list[str], folder: Path) -> str:
    call = [str(ROOT / "run_all.sh"), *arguments]
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(call, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)
    lines = done.stderr.splitlines()
    assert not (folder / "harm").exists() and not (ROOT / "harm").exists()
    if done.returncode == 2 and len(lines) == 1:
        raise UserError(lines[0])
    return f"{done.returncode}: {done.stderr}"
