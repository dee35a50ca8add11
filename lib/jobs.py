"""All runs of a study, and one of them from the command line: ``python -m lib.training --profile PROFILE ...``.

Alone, under ``torchrun --nproc-per-node N -m lib.training ...`` or under srun, with one process a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence

from lib import UserError, compute, disk, probes, regime, results, schema, stopping
from lib.profile import ROOT, TRANSFERS, Profile, load, resolve, to_dict
from lib.runs import Run
from lib.stages import EQUAL_COMPUTE, LONG, SCRATCH, SHUFFLED, Study, pretraining_words, supervised_words
from lib.training import share_of_batch
from lib.workers import MIXIT, Job, planned

STAGES = ("pretrain", SCRATCH, "finetune", EQUAL_COMPUTE, SHUFFLED, LONG)
STOPPED = 75
"""Exit status of a run that a signal ended: EX_TEMPFAIL, the same call goes on."""


class Outline(Study):
    """A study whose corpora count by what the profile says of them: it names its runs without a look at any music."""

    def _unlabeled_content(self) -> object:
        facts = to_dict(self.profile)["corpus"]
        if "rendered" not in self.profile.corpus.unlabeled_parts:
            del facts["rendered"]
        return {key: value for key, value in facts.items() if key not in ("labeled", "workers")}

    def _labeled_content(self, count: int) -> object:
        corpus = self.profile.corpus
        rendered = corpus.rendered.seed if corpus.labeled == "rendered" else None
        return [count, corpus.labeled, corpus.validation_songs, rendered]


def runs(profile: Profile, absent: bool = False) -> dict[Run, Job]:
    """Every run of a profile, each once, pre-trainings first; nothing is read or written.

    Levels of the ablations whose music is not there are left out, unless ``absent``.
    """
    study = Outline(profile)
    wanted = [Job(profile, MIXIT, seed) for seed in profile.pretrain.seeds]
    wanted += [*probes.pretraining_jobs(study), *probes.reference_jobs(study), *results.claim_jobs(study)]
    wanted += [*regime.search_jobs(study), *regime.map_jobs(study), *results.ablation_jobs(study, absent)]
    return planned(wanted, Outline)


def words(job: Job, name: str) -> list[str]:
    """The arguments of `lib.training` that make a job's run, from a profile by name or file."""
    plain, mine = (dict(schema.leaves(profile)) for profile in (load(name), job.profile))
    changed = {key: value for key, value in mine.items() if plain[key] != value}
    fields = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items()]
    how = pretraining_words(job.seed) if job.how == MIXIT else supervised_words(job.how, job.seed, job.labeled_songs)
    return ["--profile", name, *how, *fields]


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 finished, 2 wrong call or input, `STOPPED` after a signal (of the first process; others 0).

    1 stands for anything else that went wrong, such as a full disk.
    """
    call, folder = _parse(arguments), ROOT
    try:
        profile = load(call.profile, call.changes)
        folder = resolve(profile.results)
        if call.list:
            for job in runs(profile).values():
                print(shlex.join(["python", "-m", "lib.training", *words(job, call.profile)]))
            return 0
        run = _train(_chosen(call, profile))
        if compute.rank() == 0:
            loss = run.facts()["best_validation_loss"]
            print(f"finished: {run.folder}" + ("" if loss is None else f", best validation loss {loss:.3f} dB"))
        return 0
    except UserError as error:
        print(_from_process(str(error)), file=sys.stderr)
        return 2
    except stopping.Stopped as reason:
        if compute.rank() == 0:
            print(reason, file=sys.stderr)
            return STOPPED
        return 0
    except Exception as error:  # torch and safetensors have kinds of their own for a full disk
        if not (fault := disk.fault(error, folder)):
            raise
        print(_from_process(fault), file=sys.stderr)
        return 1
    finally:
        compute.leave()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lib.training", description="Train one run of a study.")
    parser.add_argument("--profile", required=True, help="a name in notebooks/profiles, or a .yaml file")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stage", choices=STAGES, help="what to train")
    what.add_argument("--list", action="store_true", help="print the call for every run of the study, and end")
    what.add_argument("--run", type=int, metavar="N", help="train the run in line N of --list, from 1")
    parser.add_argument("--seed", type=int, help="default: the first of the profile's")
    parser.add_argument("--transfer", choices=TRANSFERS, help="with finetune; default: the first of the profile's")
    parser.add_argument("--songs", type=int, help="labelled songs; default: the first of the profile's budgets")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="dotted profile fields")
    call = parser.parse_intermixed_args(arguments)
    if not 0 <= (call.seed or 0) < 1 << 32:
        parser.error(f"--seed from 0 to {(1 << 32) - 1}")
    for option in ("songs", "run"):
        if getattr(call, option) is not None and getattr(call, option) < 1:
            parser.error(f"--{option} from 1")
    if not call.stage and (call.seed, call.transfer, call.songs) != (None, None, None):
        parser.error("--seed, --transfer and --songs go with --stage")
    if call.transfer and call.stage != "finetune":
        parser.error("--transfer goes with --stage finetune")
    if call.songs and call.stage == "pretrain":
        parser.error("--songs goes with the supervised stages")
    return call


def _chosen(call: argparse.Namespace, profile: Profile) -> Job:
    if call.run is not None:
        jobs = list(runs(profile).values())
        if not 1 <= call.run <= len(jobs):
            raise UserError(f"--run {call.run}: {profile.name} has runs 1 to {len(jobs)}, see --list")
        return jobs[call.run - 1]
    stage = profile.pretrain if call.stage == "pretrain" else profile.finetune
    seed = stage.seeds[0] if call.seed is None else call.seed
    if call.stage == "pretrain":
        return Job(profile, MIXIT, seed)
    how = (call.transfer or profile.finetune.transfers[0]) if call.stage == "finetune" else call.stage
    return Job(profile, how, seed, call.songs or profile.finetune.labeled_songs[0])


def _train(job: Job) -> Run:
    stage = job.profile.pretrain if job.how == MIXIT else job.profile.finetune
    local, nodes = compute.world()
    share_of_batch(stage, local * nodes)  # before a corpus is looked into
    stopping.listen()
    compute.start_fabric(job.profile.compute)
    study = Study(job.profile)
    run = study.pretrain(job.seed) if job.how == MIXIT else study.supervised(job.how, job.seed, job.labeled_songs)
    study.load(run)  # a record has no weights: they are made again
    return run


def _from_process(message: str) -> str:
    """A message of a process that is not the first says whose it is."""
    number = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))
    return message if number == 0 else f"process {number}: {message}"
