"""Does this code train to the bits that an earlier revision trained to? ``python -m tests.same_bits REVISION``

Both render the same songs and train every kind of run that a study has, a few steps each, in a fresh process; songs,
weights and scores are compared. If all are equal, it prints the lines for `lib.runs.SAME_BITS`, by which what was made
earlier keeps its name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TRAIN = """
import hashlib, json, sys
from pathlib import Path
from lib import stages
from lib.profile import CONTROLS, TRANSFERS, load
from lib.runs import LIB, code_fingerprint
from lib.stages import SCRATCH, Study
from lib import evaluation
small = ["pretrain.steps=3", "finetune.steps=3", "pretrain.seeds=[0]", "model.dropout=0.1"]
study = Study(load("smoke", [f"results={sys.argv[1]}", "corpus.workers=0", *small]))
changes = {"corpus.rendered.redealt": True, "pretrain.same_song": True, "pretrain.assignment": "least_squares"}
changes = [{}, *({key: value} for key, value in changes.items())]
found = {}
for change in changes:
    found[f"MixIT {change}"] = study.variant(change).pretrain(0)
for how in (SCRATCH, *CONTROLS, *TRANSFERS):
    found[how] = study.supervised(how, 1, 2)
files = {key: run.folder / "model.safetensors" for key, run in found.items()}
weights = {key: hashlib.sha256(file.read_bytes()).hexdigest() for key, file in files.items()}
scores = evaluation.scores(study, found[SCRATCH], SCRATCH, 1, 2)["value"].tolist()
music = [path for path in sorted(Path(sys.argv[1]).rglob("*")) if path.suffix in (".wav", ".mp3")]
songs = hashlib.sha256(b"".join(path.read_bytes() for path in music)).hexdigest()
codes = {"training": stages.TRAINING_CODE, "scoring": evaluation.SCORING_CODE, "windows": ("separate",)}
codes["songs"] = ("corpora/compose", "corpora/rendered")
codes = {kind: code_fingerprint(*modules) for kind, modules in codes.items()}
print(json.dumps({"weights": weights, "scores": scores, "songs": songs, "codes": codes}))
"""


def trained(project: Path, folder: Path) -> dict:
    """Digests of the weights that the code in ``project`` trains to, its scores, and its fingerprints."""
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", TRAIN, str(folder)]
    done = subprocess.run(call, cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{project}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(revision: str) -> int:
    """Exit status: 0 the same bits, 1 others."""
    with tempfile.TemporaryDirectory() as temporary:
        earlier = Path(temporary) / "code"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(earlier)], check=True)
        subprocess.run(["git", "checkout", "-q", revision], cwd=earlier, check=True)
        before, now = trained(earlier, Path(temporary) / "before"), trained(ROOT, Path(temporary) / "now")
    differing = [key for key, digest in now["weights"].items() if before["weights"].get(key, digest) != digest]
    differing += [key for key in ("scores", "songs") if before[key] != now[key]]
    if differing:
        print(f"not the same bits as {revision}: {', '.join(differing)}")
        return 1
    print(f"the same bits as {revision}; for SAME_BITS in lib/runs.py:")
    for kind, code in now["codes"].items():
        if code != before["codes"][kind]:
            print(f'    "{code}": "{before["codes"][kind]}",  # {kind}')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
