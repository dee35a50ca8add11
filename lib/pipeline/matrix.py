"""All runs of a study, named without reading any music."""

from __future__ import annotations

import json

from lib.arms import Finetuning, Pretraining
from lib.data import corpora
from lib.experiments import ablations, claim, probes, search
from lib.experiments.jobs import Job, planned
from lib.profile import schema
from lib.profile.fields import ARRANGED, RENDERED, Profile
from lib.profile.load import load, to_dict
from lib.store.runs import Run
from lib.study import Study


class Outline(Study):
    """A study whose corpora are identified by the profile alone, so that no music is read."""

    def unlabeled_content(self) -> object:
        facts = to_dict(self.profile)["corpus"]
        for made in {RENDERED, ARRANGED} - set(self.profile.corpus.unlabeled_parts):
            del facts[made]
        return {key: value for key, value in facts.items() if key not in ("labeled", "workers", "folds")}

    def labeled_content(self, count: int) -> object:
        corpus = self.profile.corpus
        made = corpus.recipe_of(corpus.labeled)
        return [count, corpus.labeled, corpus.validation_songs, made and made.seed, corpus.folds, self.fold]


def runs(profile: Profile) -> dict[Run, Job]:
    """Every run of a profile once, pre-trainings first, whether or not its music is there; no music is read."""
    study = Outline(profile)
    first = [Pretraining(study, seed) for seed in profile.pretrain.seeds]
    supervised = [*probes.reference_trainings(study), *claim.claim_trainings(study)]
    jobs = [*map(Job, first), *probes.pretraining_jobs(study), *map(Job, supervised)]
    jobs += [*search.search_jobs(study), *ablations.ablation_jobs(study, absent=True)]
    return planned(jobs)


def missing_music(training: Pretraining | Finetuning) -> str:
    """The unlabelled music that a run needs and that is not there, or ""."""
    profile = training.study.profile
    needed = isinstance(training, Pretraining) or training.pretraining
    return profile.corpus.unlabeled if needed and not corpora.available(profile) else ""


def arguments(training: Pretraining | Finetuning, name: str) -> list[str]:
    """The arguments of `lib.pipeline.train` for a run of the profile ``name`` (or file)."""
    plain, mine = (dict(schema.leaves(profile)) for profile in (load(name), training.study.profile))
    changed = {key: value for key, value in mine.items() if plain[key] != value}
    fields = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items()]
    return ["--profile", name, *training.arguments, *fields]
