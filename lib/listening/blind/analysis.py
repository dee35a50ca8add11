"""Analysis of blind tests: post-screening, means, paired tests, order effects, agreement with uSDR.

As pre-trainings in `lib.experiments.intervals`, participants are a random effect crossed with songs, so that results
generalise to other listeners and songs. Where a test is split, a participant of every part in turn is joined into one
listener who has heard all of it: rows of the table stay independent, and each is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, ttest_1samp

from lib import STEMS, UserError
from lib.experiments.intervals import holm_within, mean_interval, paired_interval, rank_correlation
from lib.listening.blind import simulated
from lib.listening.blind.answers import part_of, read
from lib.listening.blind.design import FIXED, HIDDEN, critical_count
from lib.listening.blind.simulated import SIMULATED, SimulatedListeners
from lib.scoring import MEAN
from lib.store.files import read_facts

RECOGNISED, TOLERATED, UNUSABLE = 90, 0.15, 0.25
"""BS.1534-3, 4.1.2: exclude participants who rate the hidden reference below 90, or an anchor above 90, in more than
15% of the trials; where more than 25% of the participants rate an anchor so, it does not count."""
PAGE = ["question", "song", "stem"]


@dataclass
class Analysis:
    """What is known of a test: ``said``, in sentences; ``tables`` by name; ``ratings`` of participants who count."""

    said: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    ratings: pd.DataFrame = field(default_factory=pd.DataFrame)


def of_folder(folder: Path) -> Analysis:
    """The analysis of the answers to the test in ``folder``, few or none of them though they be.

    Raises: UserError if the design or an answer is damaged, or if an answer belongs to another design.
    """
    design = read_facts(folder / "design.json", "fingerprint", "setup", "items", "parts")
    answers, people = collected(folder, design)
    found = Analysis([f"{folder.name}: {len(people)} participants, {int(people['finished'].sum())} of them finished"])
    if people.empty:
        found.said.append("no answers yet")
        return found
    found.tables["participants"] = people
    finished = answers[answers["participant"].isin(people.loc[people["finished"], "participant"])]
    if finished.empty:
        found.said.append("no participant has answered every page yet: nothing is analysed")
    elif design["setup"]["test"] == "mushra":
        _mushra(found, design, finished)
    else:
        _pairs(found, design, finished)
    return found


def of_design(folder: Path, design: Mapping) -> Analysis:
    """The analysis of a design as described, if there are answers to it below ``folder``. Raises: as `of_folder`."""
    place = folder / f"{design['setup']['test']}-{design['fingerprint']}"
    return of_folder(place) if (place / "answers").is_dir() else Analysis(["no answers to this test yet"])


def of_simulated_listeners(design: Mapping, listeners: int) -> Analysis:
    """The MUSHRA analysis of simulated listeners, a tenth of them careless, who rate all items of a design."""
    questions, panel = list(design["setup"]["questions"]), SimulatedListeners(careless=0.1)
    heard = simulated.ratings(questions, simulated.quality(design), listeners, design["setup"]["seed"], panel)
    found = Analysis([f"{listeners} SIMULATED listeners"])
    _mushra(found, {**design, "parts": [list(itertools.chain(*design["parts"]))]}, heard.assign(part=0))
    found.tables = {name: table.assign(**{SIMULATED: True}) for name, table in found.tables.items()}
    return found


def collected(folder: Path, design: Mapping) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(answers, participants): the last answer to every page, a row per letter; a row per participant.

    Raises: UserError as `of_folder`.
    """
    rows, people = [], []
    for path in sorted((folder / "answers").glob("*.jsonl")):
        events = read(path)
        if not events or events[0].get("design") != design["fingerprint"]:
            raise UserError(f"{path}: answers to another design than {folder.name}: move it to the folder of its own")
        pages = {event["page"]: event for event in events if event["kind"] == "answer"}  # the last of each
        facts = {"participant": path.stem, "part": part_of(events)}
        times = [event["elapsed"] for event in pages.values()]
        told = next((event for event in reversed(events) if event["kind"] == "questionnaire"), {})
        given = {"comment": told.get("comment", ""), **told.get("answers", {})}
        counts = {"pages": len(pages), "finished": len(pages) == len(design["parts"][facts["part"]])}
        people.append({**facts, **counts, "minutes": round(sum(times) / 60, 1), **given})
        for page in pages.values():
            shared = {**facts, **{key: page[key] for key in ("page", *PAGE)}, "elapsed": page["elapsed"]}
            heard = list(zip(page["plays"], page["seconds"], strict=True))[-len(page["slots"]) :]
            values = [*page["values"], *[np.nan] * (len(page["slots"]) - len(page["values"]))]  # X has none
            for slot, (name, value, (plays, seconds)) in enumerate(zip(page["slots"], values, heard, strict=True)):
                rows.append(
                    {**shared, "slot": slot, "condition": name, "value": value, "plays": plays, "seconds": seconds}
                )
    columns = ["participant", "part", "page", *PAGE, "elapsed", "slot", "condition", "value", "plays", "seconds"]
    default = ["participant", "part", "pages", "finished", "minutes", "comment"]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(people, columns=None if people else default)


def _mushra(found: Analysis, design: Mapping, answers: pd.DataFrame) -> None:
    screening = screened(answers)
    found.tables["screening"] = screening
    kept = answers[answers["participant"].isin(screening.loc[~screening["excluded"], "participant"])]
    kept = joined(design, kept)
    found.said.append(f"{int(screening['excluded'].sum())} of {len(screening)} fail the screening")
    if kept.empty:
        found.said.append("nobody is left, in one part of the test at least: no means or tests")
        return
    found.said.append(f"{kept['participant'].nunique()} are analysed")
    found.ratings = kept
    found.tables |= {"means": means(kept), "tests": tests(kept), "agreement": agreement(kept, design)}
    if "page" in kept:
        found.tables["order"] = order_effects(kept)


def _pairs(found: Analysis, design: Mapping, answers: pd.DataFrame) -> None:
    setup = design["setup"]
    found.tables["two_alternatives"] = two_alternatives(setup["test"], setup["alpha"], counted(setup["test"], answers))
    first = answers[answers["slot"] == 0].groupby(["participant", "page"])["value"].first()
    test = binomtest(int(first.sum()), len(first), 0.5)
    low, high = test.proportion_ci(0.95)
    facts = {"effect": "share of answers A", "change": first.mean(), "low": low, "high": high, "p": test.pvalue}
    found.tables["order"] = pd.DataFrame([{**facts, "participants": answers["participant"].nunique()}])


def screened(ratings: pd.DataFrame) -> pd.DataFrame:
    """Per participant: trials, share with the hidden reference below 90, with an anchor above, exclusion."""
    hidden = ratings[ratings["condition"] == HIDDEN]
    by = hidden.assign(missed=hidden["value"] < RECOGNISED).groupby("participant", sort=True)["missed"]
    table = by.agg(trials="count", missed="mean").reset_index()
    anchors = ratings[ratings["condition"].isin(set(FIXED) - {HIDDEN})]
    anchors = anchors.assign(over=(anchors["value"] > RECOGNISED).astype(float))
    common = anchors.groupby([*PAGE, "condition"])["over"].transform("mean") > UNUSABLE
    shares = anchors[~common].groupby(["participant", "condition"])["over"].mean().groupby("participant").max()
    table["overrated"] = table["participant"].map(shares).fillna(0.0)
    return table.assign(excluded=(table["missed"] > TOLERATED) | (table["overrated"] > TOLERATED))


def joined(design: Mapping, ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings with a column ``seed``, the number of the listener that participants of all parts are joined into.

    Participants beyond those of the rarest part that a question needs are left out of that question.
    """
    part = ratings.groupby("participant")["part"].first()
    number, counts, frames = part.groupby(part).cumcount(), part.value_counts(), [ratings.assign(seed=0)[:0]]
    for question, rows in ratings.groupby("question", sort=False):
        needed = [n for n, pages in enumerate(design["parts"]) if any(asked == question for asked, _ in pages)]
        seed = rows["participant"].map(number)
        frames.append(rows.assign(seed=seed)[seed < min(counts.get(n, 0) for n in needed)])
    return pd.concat(frames, ignore_index=True)


def _scores(ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings as scores: listeners as seeds, questions as metrics, conditions as methods."""
    codes = {code: number for number, code in enumerate(sorted(ratings["participant"].unique()))}
    seed = ratings["seed"] if "seed" in ratings else ratings["participant"].map(codes)
    stem = ratings["stem"].replace("", STEMS[0])  # items that are no stems
    return ratings.rename(columns={"condition": "method", "question": "metric"}).assign(
        seed=seed.astype("Int64"), stem=stem
    )


def means(ratings: pd.DataFrame) -> pd.DataFrame:
    """Mean rating with 95% interval, median and quartiles by question, condition and stem (and over stems, "mean")."""
    scores, rows = _scores(ratings), []
    keys = ["question", "condition", "stem"]
    quartiles = pd.concat([ratings, ratings.assign(stem=MEAN)]).groupby(keys)["value"].quantile([0.25, 0.5, 0.75])
    quartiles = quartiles.unstack().set_axis(["quartile_1", "median", "quartile_3"], axis=1).reset_index()
    for question, condition in itertools.product(ratings["question"].unique(), sorted(ratings["condition"].unique())):
        interval = mean_interval(scores, condition, question)
        rows.append(interval.assign(question=question, condition=condition))
    table = pd.concat(rows, ignore_index=True)
    table = table[[*keys, "mean", "low", "high"]].merge(quartiles, on=keys)
    return table.assign(participants=ratings["participant"].nunique(), songs=ratings["song"].nunique())


def tests(ratings: pd.DataFrame) -> pd.DataFrame:
    """Paired differences between all methods, over stems, with 95% interval, p, and p after Holm's correction.

    A family is the pairs of methods of one question; reference and anchors are not tested.
    """
    scores, rows = _scores(ratings), []
    names = sorted(set(ratings["condition"]) - set(FIXED))
    for question in ratings["question"].unique():
        for first, second in itertools.combinations(names, 2):
            stems = paired_interval(scores, first, second, question)
            facts = {"question": question, "method": first, "against": second}
            rows.append({**facts, **stems[stems["stem"] == MEAN].iloc[0].drop(["stem", "n_origins"])})
    columns = ["question", "method", "against", "difference", "low", "high", "p", "effect", "n_songs", "n_seeds"]
    table = holm_within(pd.DataFrame(rows, columns=columns), ["question"])
    return table.rename(columns={"n_seeds": "n_participants"})


def agreement(ratings: pd.DataFrame, design: Mapping) -> pd.DataFrame:
    """Spearman's rho between mean rating and uSDR over all (song, stem, method), with 95% interval, by question.

    uSDR is that of the passages at equal loudness; reference and anchors are excluded.
    """
    scored = {
        (item["song"], item["stem"], name): facts["sdr"]
        for item in design["items"]
        for name, facts in item["conditions"].items()
        if name not in FIXED and facts["sdr"] is not None
    }
    rows = []
    for question, part in ratings.groupby("question", sort=False):
        rated = part.groupby(["song", "stem", "condition"])["value"].mean()
        keys = [key for key in rated.index if key in scored]
        values = ([rated[key] for key in keys], [scored[key] for key in keys])
        rho = rank_correlation(*values)[:3] if len(keys) > 2 else (np.nan,) * 3
        rows.append({"question": question, **dict(zip(("rho", "low", "high"), rho, strict=True)), "n": len(keys)})
    return pd.DataFrame(rows)


def order_effects(ratings: pd.DataFrame) -> pd.DataFrame:
    """Whether ratings of methods drift with the page (points per 10 pages) or the letter (points per letter).

    Slopes per participant of what is left of ratings after the mean of every sound, with 95% interval and p of their
    mean (t test). Columns: effect, change, low, high, p, participants.
    """
    methods, rows = ratings[~ratings["condition"].isin(FIXED)], []
    left = methods["value"] - methods.groupby([*PAGE, "condition"])["value"].transform("mean")
    for effect, place in (("10 pages", methods["page"] / 10), ("a letter", methods["slot"])):
        table = pd.DataFrame({"left": left, "place": place.astype(float), "who": methods["participant"]})
        slopes = [
            np.polyfit(part["place"], part["left"], 1)[0]
            for _, part in table.groupby("who")
            if part["place"].nunique() > 1
        ]
        test = ttest_1samp(slopes, 0.0) if len(slopes) > 1 else None
        low, high = test.confidence_interval() if test else (np.nan, np.nan)
        facts = {"change": np.mean(slopes) if slopes else np.nan, "low": low, "high": high}
        rows.append({"effect": effect, **facts, "p": test.pvalue if test else np.nan, "participants": len(slopes)})
    return pd.DataFrame(rows)


def counted(test: str, answers: pd.DataFrame) -> pd.DataFrame:
    """Answers in pairs as in `two_alternatives`: preference by method; of ABX, whether X was recognised."""
    if test == "preference":
        return answers[["participant", "page", "condition", "value"]]
    rows = []
    for (who, page), part in answers.sort_values("slot").groupby(["participant", "page"]):
        first, second, x = part["condition"]
        chosen = first if part["value"].iloc[0] else second
        rows.append((who, page, " / ".join(sorted({first, second})), int(chosen == x)))
    return pd.DataFrame(rows, columns=["participant", "page", "condition", "value"])


def two_alternatives(test: str, alpha: float, answers: pd.DataFrame) -> pd.DataFrame:
    """Exact binomial tests of a preference or ABX test, per participant and pooled.

    Columns: participant ("all" last), answer (the counted method, or the pair of ABX), count, of, share, low, high
    (95%, Clopper and Pearson), p (preference: two-sided, ABX: one-sided), needed (smallest significant count).
    """
    preference = test == "preference"
    counted = min(answers["condition"].unique(), default="")
    chosen = answers[answers["condition"] == counted]
    rows = []
    for who, part in [*chosen.groupby("participant", sort=True), ("all", chosen)]:
        count, of = int(part["value"].sum()), len(part)
        if of:
            exact = binomtest(count, of, 0.5, alternative="two-sided" if preference else "greater")
            low, high = binomtest(count, of).proportion_ci(0.95)
            needed = critical_count(of, alpha / (2 if preference else 1))
            facts = {"participant": who, "answer": counted, "count": count, "of": of, "share": count / of}
            rows.append({**facts, "low": low, "high": high, "p": exact.pvalue, "needed": needed})
    columns = ["participant", "answer", "count", "of", "share", "low", "high", "p", "needed"]
    return pd.DataFrame(rows, columns=columns)
