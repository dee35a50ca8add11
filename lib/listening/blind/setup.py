"""What an experimenter sets in a YAML file or a profile: the kind of test, its questions, its texts in any language."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated

from pydantic import TypeAdapter, with_config

from lib import UserError
from lib.profile import schema
from lib.profile.fields import Blind, Design, DistinctOrEmpty, Flag, Listed, Text, doc, project_path

WORDS = Path(__file__).with_name("words.json")
"""Every text of the pages, in English; ``words`` of a YAML file replaces any of them."""
FILE = "test.yaml"
"""Settings beside one's own stimuli."""
QUESTIONS = {
    "target": "How good is the quality of {about}, compared with the reference?",
    "suppression": "How well is everything but {about} suppressed, compared with the reference?",
    "artefacts": "How free is it of artificial sounds (gurgling, chirping, dullness), compared with the reference?",
}
OVERALL = {"quality": "How good is the quality, compared with the reference?"}
STEM_LABELS = {"bass": "the bass", "drums": "the drums", "vocals": "the vocals", "other": "the accompaniment"}


@dataclass(frozen=True)
class Asked:
    """A line of the questionnaire after the last page; without ``choices``, a field for text."""

    ask: Text
    choices: DistinctOrEmpty[Text] = ()


@with_config(extra="forbid", allow_inf_nan=False, field_title_generator=lambda key, _: key)
@dataclass(frozen=True)
class Setup(Design):
    """A blind test of any sounds, and its texts."""

    questions: Annotated[dict[Text, Text], doc("what is asked about every item, by a name")] = field(
        default_factory=OVERALL.copy
    )
    labels: Annotated[dict[Text, Text], doc("what an item is called on its page, by its folder")] = field(
        default_factory=dict
    )
    title: Annotated[str, doc("heading of the first page")] = ""
    language: Annotated[Text, doc("language of the texts (BCP 47)")] = "en"
    contact: Annotated[str, doc("whom participants may ask")] = ""
    consent: Annotated[str, doc("what participants agree to before they begin")] = ""
    questionnaire: Annotated[Listed[Asked], doc("asked after the last page")] = ()
    comment: Annotated[Flag, doc("whether the last page has a field for a comment")] = True
    words: Annotated[dict[Text, Text], doc("replacements of texts in words.json")] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, str]:
        """All texts of the pages."""
        return json.loads(WORDS.read_text("utf-8")) | self.words


SETUP = TypeAdapter(Setup)


def build(content: Mapping, where: str) -> Setup:
    """The setup that ``content`` holds. Raises: UserError for the first fault, a line that begins with ``where``."""
    setup = schema.checked(SETUP, Setup, content, where)
    known = json.loads(WORDS.read_text("utf-8"))
    if unknown := sorted(set(setup.words) - set(known)):
        raise UserError(f"{where}: unknown word '{unknown[0]}': the words are those of {WORDS}")
    if len((known | setup.words)["bands"].split(",")) != 5:
        raise UserError(f"{where}: words.bands must name the five bands of the scale, with commas between them")
    if not setup.questions:
        raise UserError(f"{where}: questions must not be empty")
    return setup


def of_folder(folder: Path) -> Setup:
    """The setup in ``test.yaml`` of a folder of stimuli, if there is one. Raises: UserError."""
    path = folder / FILE
    return build(schema.read(path) if os.path.exists(path) else {}, path.name)


def of_profile(blind: Blind) -> Setup:
    """The setup of a profile's test, and of the YAML file ``listening.blind.texts``. Raises: UserError."""
    shared = {item.name: asdict(blind)[item.name] for item in fields(Design)}
    asked = {"questions": {name: QUESTIONS[name] for name in blind.questions}, "labels": STEM_LABELS}
    path = project_path(blind.texts) if blind.texts else None
    return build({**shared, **asked, **(schema.read(path) if path else {})}, path.name if path else "listening.blind")
