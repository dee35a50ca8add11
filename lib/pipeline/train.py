"""Train one run of a study, or list all runs: ``python -m lib.pipeline.train --profile PROFILE ...``.

One process, or one per GPU under ``torchrun --nproc-per-node N -m lib.pipeline.train ...`` or srun.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence

from lib import ROOT, UserError
from lib.arms import ARMS, Finetuning, Pretraining
from lib.machine import distributed, faults, signals
from lib.pipeline.matrix import arguments as run_arguments
from lib.pipeline.matrix import missing_music, runs
from lib.profile.fields import TRANSFERS, Profile, project_path
from lib.profile.load import load
from lib.store.runs import Run
from lib.study import Study
from lib.training import share_of_batch

STAGES = ("pretrain", "finetune", *(arm for arm in ARMS if arm not in TRANSFERS))
STOPPED = 75
"""Exit status after a signal: EX_TEMPFAIL, the same call resumes."""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 finished, 1 any other fault (a full disk), 2 wrong call or input, `STOPPED` after a signal.

    After a signal, processes of rank above 0 exit with 0.
    """
    call, folder = _parse(arguments), ROOT
    try:
        profile = load(call.profile, call.changes)
        folder = project_path(profile.results)
        if call.list:
            for job in runs(profile).values():
                line = shlex.join(["python", "-m", "lib.pipeline.train", *run_arguments(job.training, call.profile)])
                music = missing_music(job.training)
                print(line + (f"  # its music is missing: {music}" if music else ""))
            return 0
        run = _train(_chosen(call, profile))
        if distributed.rank() == 0:
            loss = run.facts()["best_validation_loss"]
            print(f"finished: {run.folder}" + ("" if loss is None else f", best validation loss {loss:.3f} dB"))
        return 0
    except UserError as error:
        print(_from_process(str(error)), file=sys.stderr)
        return 2
    except signals.Stopped as reason:
        if distributed.rank() == 0:
            print(reason, file=sys.stderr)
            return STOPPED
        return 0
    except Exception as error:  # torch and safetensors raise their own types for a full disk
        if not (fault := faults.fault(error, folder) or distributed.lost(error)):
            raise
        print(_from_process(fault), file=sys.stderr)
        return 1
    finally:
        with signals.deferred():  # a second signal has nothing left to stop
            distributed.leave()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lib.pipeline.train", description="Train one run of a study.")
    parser.add_argument("--profile", required=True, help="name of a profile, or a .yaml file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stage", choices=STAGES, help="what to train")
    what.add_argument("--list", action="store_true", help="print the call of every run of the study")
    what.add_argument("--run", type=int, metavar="N", help="train run N of --list, from 1")
    parser.add_argument("--seed", type=int, help="default: the profile's first")
    parser.add_argument("--transfer", choices=TRANSFERS, help="with finetune; default: the profile's first")
    parser.add_argument("--songs", type=int, help="labelled songs; default: the profile's first budget")
    parser.add_argument("--fold", type=int, help="from 0, if the profile has folds; default: 0")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="dotted profile fields")
    call = parser.parse_intermixed_args(arguments)
    if not 0 <= (call.seed or 0) < 1 << 32:
        parser.error(f"--seed from 0 to {(1 << 32) - 1}")
    for option in ("songs", "run"):
        if getattr(call, option) is not None and getattr(call, option) < 1:
            parser.error(f"--{option} from 1")
    if not call.stage and (call.seed, call.transfer, call.songs, call.fold) != (None, None, None, None):
        parser.error("--seed, --transfer, --songs and --fold go with --stage")
    if call.transfer and call.stage != "finetune":
        parser.error("--transfer goes with --stage finetune")
    if call.stage == "pretrain" and (call.songs, call.fold) != (None, None):
        parser.error("--songs and --fold go with the supervised stages")
    return call


def _chosen(call: argparse.Namespace, profile: Profile) -> Pretraining | Finetuning:
    if call.run is not None:
        jobs = list(runs(profile).values())
        if not 1 <= call.run <= len(jobs):
            raise UserError(f"--run {call.run}: {profile.name} has runs 1 to {len(jobs)}, see --list")
        outlined = jobs[call.run - 1].training
        if music := missing_music(outlined):
            raise UserError(f"--run {call.run}: corpus.unlabeled={music} is not there: put it there and call again")
        return dataclasses.replace(outlined, study=Study(outlined.study.profile, fold=outlined.study.fold))
    stage = profile.pretrain if call.stage == "pretrain" else profile.finetune
    seed = stage.seeds[0] if call.seed is None else call.seed
    if call.stage == "pretrain":
        return Pretraining(Study(profile), seed)
    arm = (call.transfer or profile.finetune.transfers[0]) if call.stage == "finetune" else call.stage
    folds = Study(profile).folds
    if call.fold is not None and not 0 <= call.fold < profile.corpus.folds:
        raise UserError(f"--fold {call.fold}: corpus.folds of {profile.name} is {profile.corpus.folds}")
    return Finetuning(folds[call.fold or 0], arm, seed, call.songs or profile.finetune.labeled_songs[0])


def _train(chosen: Pretraining | Finetuning) -> Run:
    profile = chosen.study.profile
    local, nodes = distributed.world()
    share_of_batch(getattr(profile, "pretrain" if isinstance(chosen, Pretraining) else "finetune"), local * nodes)
    signals.listen()
    distributed.start_fabric(profile.compute)
    chosen.load()  # retrains a record, which has no weights
    return chosen.run


def _from_process(message: str) -> str:
    """The message, prefixed with the rank if that is not 0."""
    number = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))
    return message if number == 0 else f"process {number}: {message}"


if __name__ == "__main__":
    status = main(sys.argv[1:])
    signals.ignore()
    sys.exit(status)
