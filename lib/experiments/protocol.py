"""What a study is to test, written down before any test song is scored; and whether its tables are still of that.

``results/PROFILE/protocol.json`` holds the design that the first test score was made for. A study whose design is
another one afterwards, or that has scores without a protocol, is exploratory.
"""

from __future__ import annotations

import pandas as pd

from lib import losses, mixing, scoring, separate, training, transfer
from lib.arms import NOT_IDENTIFYING, method_name, of_profile, pairs
from lib.experiments.intervals import LEVEL
from lib.machine.distributed import rank
from lib.model import separator
from lib.profile import schema, to_dict
from lib.store.files import read_facts, write_json
from lib.study import Study

FILE = "protocol.json"
CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory: "
LOOKED_AT = ("outputs", "gains")
"""Files that runs of pre-training keep of what they hold of test songs (`lib.experiments.outputs`)."""
HYPOTHESES = {
    "H1": "after fine-tuning on the same labelled songs, a separator pre-trained by MixIT scores higher than scratch",
    "H2a": "correlation between the sources of a song limits MixIT: trained on re-dealt stems it separates better",
    "H2b": "an undefined source limits MixIT: a few labels that group its outputs close much of the distance",
}
FAMILIES = (
    "the label budgets of a comparison (means over stems)",
    "the stems of a comparison at one budget",
    "the levels of an axis of the ablations: their gains; and by how much each exceeds the base's",
    "the outputs and groups of one training, tested on one kind of songs",
    "the kinds of correlation within songs",
    "what may close the distance to the supervised model",
    "definition against correlation: one test",
)
SECTIONS = ("audio", "corpus", "model", "pretrain", "finetune", "probes", "separate", "ablations", "protocol")
"""Sections of a profile that belong to the design."""
PLACES = tuple(f"corpus.{name}" for name in ("workers", "download", "fma_root", "musdb_root", "sources_root"))
"""Fields of those sections that do not."""
COUNTED = {
    "pretrain.seeds": "pre-training",
    "finetune.seeds": "seed",
    "probes.seeds": "seed of the probes",
    "ablations.seeds": "seed of the ablations",
    "finetune.labeled_songs": "label budget",
    "finetune.transfers": "arm",
    "finetune.controls": "arm",
}
"""What the entries of a list of the profile are."""


def design(study: Study) -> dict:
    """The protocol as plain values: no date, no machine, the same for the same profile and versions."""
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in schema.leaves(study.profile)
        if name.split(".")[0] in SECTIONS and name.split(".")[-1] not in NOT_IDENTIFYING and name not in PLACES
    }
    fields["ablations.axes"] = to_dict(study.profile)["ablations"]["axes"]
    modules = (separator, losses, mixing, training, transfer, separate, scoring)
    return {
        "hypotheses": HYPOTHESES,
        "primary_outcome": f"{study.profile.scoring.primary} in dB, mean over stems, paired by song and seed",
        "test": f"t test by min F', songs and pre-trainings crossed, two-sided, {LEVEL} after Holm within a family",
        "families": list(FAMILIES),
        "arms": [method_name(arm) for arm in of_profile(study)],
        "comparisons": [[method_name(arm) for arm in pair] for pair in pairs(study)],
        "profile": fields,
        "versions": {module.__name__: module.VERSION for module in modules},
    }


def register(study: Study) -> None:
    """Write the protocol, in place of an earlier one, unless a test score is there already."""
    if rank() == 0 and _registered(study) != design(study) and not scored(study):
        write_json(study.results / FILE, design(study))


def status(study: Study) -> str:
    """`CONFIRMATORY` if the study's tables test what was registered before its test songs were scored.

    Otherwise `EXPLORATORY` and why.
    """
    then, now = _registered(study), design(study)
    if not then:
        return f"{EXPLORATORY}no protocol was registered {'before the scores' if scored(study) else 'yet'}"
    reason = _difference(then, now)
    return f"{EXPLORATORY}{reason} after the protocol was registered" if reason else CONFIRMATORY


def scored(study: Study) -> bool:
    """Whether a model was tried on test songs: of a file of scores, the name of the experiment alone is read."""
    if (study.results / "tables" / "scores.csv").exists():
        return True
    for path in (path for kind in ("runs", "records") for path in study.results.glob(f"{kind}/*-*/*-*.csv")):
        name = path.name.rpartition("-")[0]
        if name in LOOKED_AT:
            return True
        if name == "scores" and "test" in set(pd.read_csv(path, usecols=["experiment"])["experiment"]):
            return True
    return False


def _registered(study: Study) -> dict:
    return read_facts(study.results / FILE) if (study.results / FILE).exists() else {}


def _difference(then: dict, now: dict) -> str:
    """The first thing in which two designs differ, as "2 pre-trainings were added"; "" if there is none."""
    old, new = ({k: v for k, v in of.get("profile", {}).items() if k not in PLACES} for of in (then, now))
    for name in [name for name in {**old, **new} if old.get(name) != new.get(name)]:
        if name in COUNTED:
            sides = set(old.get(name) or ()), set(new.get(name) or ())
            for count, what in ((len(sides[1] - sides[0]), "added"), (len(sides[0] - sides[1]), "removed")):
                if count:
                    return f"{count} {COUNTED[name]}{'s were' if count > 1 else ' was'} {what}"
        return f"{name} was changed"
    others = [key for key in now if key != "profile" and then.get(key) != now[key]]
    return f"{others[0]} of the protocol changed" if others else ""
