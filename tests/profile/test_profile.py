"""Profiles: what is read, what is refused, and that a refusal is one line that names the field."""

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from lib import UserError
from lib.profile import schema
from lib.profile.fields import PROFILES, Profile
from lib.profile.load import load, override, to_dict

AXIS = "ablations: {axes: [{name: size, base: a, levels: [{label: a}, {label: b, set: {model.size: %s}}]}]}"


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_and_nested_values(write):
    mine = load(write("finetune: {learning_rate: 1e-3, seeds: [4, 5], gain_db: [-3, 3]}\nmodel: {size: tiny}"))
    assert (mine.name, mine.results) == ("mine", "results/mine")
    assert mine.finetune.learning_rate == 0.001
    assert mine.finetune.seeds == (4, 5) and mine.finetune.gain_db == (-3.0, 3.0)
    assert mine.model.size == "tiny" and mine.model.sources == Profile("x", "x").model.sources


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_of_the_project_loads_and_survives_a_round_trip(path, write):
    import yaml

    first = load(path.stem)
    assert load(write(yaml.safe_dump(to_dict(first)))) == first


def test_every_field_that_published_sets_back_stands_in_the_table_of_differences():
    paper, published = (dict(schema.leaves(load(name))) for name in ("paper", "published"))
    different = {field for field in paper if paper[field] != published[field]} - {"name", "results"}
    text = (PROFILES / "README.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+\.\w+)`", text)) - {"paper.yaml", "published.yaml", "scores.csv"}
    assert different <= named <= set(paper) and len(different) >= 7


def test_base_is_merged_but_its_name_and_results_are_not_inherited(write):
    write("name: parent\nresults: results/p\npretrain: {steps: 7, batch: 2}\nfinetune: {seeds: [1, 2]}", "parent.yaml")
    child = load(write("base: parent.yaml\npretrain: {batch: 3}\nfinetune: {seeds: [9]}", "child.yaml"))
    assert (child.pretrain.steps, child.pretrain.batch, child.finetune.seeds) == (7, 3, (9,))
    assert (child.name, child.results) == ("child", "results/child")


def test_a_base_that_leads_back_is_refused(write):
    write("base: b.yaml", "a.yaml")
    assert "leads back" in refusal(write("base: a.yaml", "b.yaml"))


def test_overrides_are_typed_and_texts_are_taken_as_typed(write):
    changes = ["finetune.seeds=[3]", "corpus.unlabeled=/my: music #1", "pretrain.learning_rate=1", "pretrain.steps=5"]
    mine = load(write("pretrain: {steps: 4}"), changes)
    assert mine.finetune.seeds == (3,) and mine.corpus.unlabeled == "/my: music #1"
    assert mine.pretrain.learning_rate == 1.0 and isinstance(mine.pretrain.learning_rate, float)
    assert mine.pretrain.steps == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pretrain: {stps: 3}", "pretrain.stps"),
        ("pretrain: {steps: 3, steps: 4}", "twice"),
        ("pretrain: {steps: three}", "pretrain.steps must be a whole number"),
        ("pretrain: {steps: 1.5}", "pretrain.steps must be a whole number"),
        ("pretrain: {steps: true}", "pretrain.steps must be a whole number"),
        ("pretrain: {steps: 0}", "pretrain.steps must be more than 0"),
        ("pretrain: {seeds: [-1]}", "pretrain.seeds[0] must be at least 0"),
        ("pretrain: {clip_norm: .nan}", "pretrain.clip_norm must be a finite number"),
        ("pretrain: {clip_norm: .inf}", "pretrain.clip_norm must be a finite number"),
        ("pretrain: {level_db: [5, -5]}", "pretrain.level_db"),
        ("pretrain: {level_db: [5]}", "pretrain.level_db must hold 2 values"),
        ("pretrain: {assignment: best}", "must be 'exact' or 'least_squares', not 'best'"),
        ("pretrain: [1]", "pretrain must be a map"),
        ("finetune: {seeds: []}", "finetune.seeds must not be empty"),
        ("finetune: {seeds: [1, 1]}", "twice"),
        ("finetune: {seeds: 3}", "finetune.seeds must be a list, not 3"),
        ("finetune: {transfers: [magic]}", "finetune.transfers[0] must be 'body', 'sliced'"),
        ("model: {size: huge}", "model.size"),
        ("model: {sources: 17}", "model.sources"),
        ("compute: {precision: '16'}", "compute.precision"),
        ("separate: {mixture_consistency: 1}", "true or false"),
        ("separate: {window_seconds: 2, hop_seconds: 3}", "separate.hop_seconds"),
        ("audio: {n_fft: 512, hop: 171}", "audio.hop must not exceed a third"),
        ("corpus: {segment_seconds: 3}", "pretrain.crop_seconds must not exceed corpus.segment_seconds, 3.0"),
        ("finetune: {crop_seconds: 0.001}", "finetune.crop_seconds must not be below an FFT"),
        ("pretrain: {checkpoint: x.safetensors, seeds: [0, 1]}", "pretrain.seeds must name one seed"),
        ("corpus: {labeled: ''}", "corpus.labeled must not be empty"),
        ("corpus: {labeled: 'fma:small'}", "corpus.labeled cannot be FMA"),
        ("corpus: {unlabeled: 'fma:small + rendered'}", "corpus.unlabeled must be one of fma:small, "),
        ("corpus: {unlabeled: 'fma:tiny'}", "corpus.unlabeled must be one of fma:small, "),
        ("corpus: {unlabeled: rendered + musdb18hq}", "corpus.unlabeled cannot be musdb18hq"),
        ('corpus: {labeled: "a\\x1b"}', "corpus.labeled holds control characters"),
        ("name: a/b", "name must be a word"),
        ("separat: {}", "unknown key 'separat': did you mean separate?"),
        ("audio: {frequency: 3}", "unknown key 'audio.frequency': the keys here are rate, n_fft, hop"),
        ("ablations: {axes: [{name: a, base: b, levls: []}]}", "'ablations.axes[0].levls': did you mean levels?"),
        ("ablations: {axes: [{name: a, base: b}]}", "ablations.axes[0].levels is missing"),
        (AXIS % "huge", "ablations 'size', level 'b': model.size must be"),
        (AXIS % "tiny}, transfer: {", "ablations.axes[0].levels[1].transfer must be"),
        (AXIS.replace("base: a", "base: c") % "tiny", "base 'c'"),
        (AXIS.replace("model.size", "results") % "x", "cannot set"),
        ("just a text", "must be a map"),
        ("pretrain: [", "line 1"),
        ("x: !!python/object/apply:os.getcwd []", "line 1"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_names_the_field(write, text, expected):
    message = refusal(write(text))
    assert expected in message and message.startswith("mine")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("pretrain.step=3", "did you mean steps"),
        ("pretrain.steps.x=3", "pretrain.steps must be a whole number"),
        ("pretrain.steps=abc", "pretrain.steps must be a whole number"),
        ("pretrain.steps=", "pretrain.steps must be a whole number"),
        ("pretrain.steps", "key=value"),
        ("pretrain.steps=[", "not readable"),
        ("pretrain.steps=0", "mine.yaml with pretrain.steps=0: pretrain.steps must be more than 0, not 0"),
        ("name=../x", "name must be a word"),
    ],
)
def test_bad_overrides_are_refused(write, change, expected):
    assert expected in refusal(write("pretrain: {steps: 4}"), [change])


def test_unknown_profile_names_the_known_ones():
    assert "smoke" in refusal("nope")
    assert "unknown" in refusal("/nowhere/x.yaml")


def test_override_checks_like_load_and_leaves_the_original_alone():
    base = Profile("x", "results/x")
    changed = override(base, {"model.size": "large", "finetune.seeds": [7]})
    assert (changed.model.size, changed.finetune.seeds, base.model.size) == ("large", (7,), "small")
    with pytest.raises(UserError, match=r"model\.size"):
        override(base, {"model.size": 3})


def test_fields_that_contradict_the_file_may_be_overridden_together(write):
    changes = ["corpus.segment_seconds=2", "pretrain.crop_seconds=1", "finetune.crop_seconds=2"]
    assert load(write("audio: {rate: 16000}"), changes).corpus.segment_seconds == 2.0


def test_the_defaults_are_a_profile():
    assert override(Profile("x", "results/x"), {}) == Profile("x", "results/x")


def test_a_profile_cannot_be_changed_and_travels_between_processes():
    study = load("study")
    assert pickle.loads(pickle.dumps(study)) == study
    assert len({study.pretrain, load("study").pretrain, study.finetune}) == 2
    assert dataclasses.replace(study.pretrain, steps=3).steps == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.pretrain.steps = 3


def test_reading_a_profile_imports_neither_torch_nor_numpy():
    code = (
        "import sys, lib.profile; lib.profile.load('paper'); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROFILES.parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_sizes_are_those_of_the_model():
    from lib.model.locoformer import SIZES

    assert schema.json_schema()["$defs"]["Model"]["properties"]["size"]["enum"] == list(SIZES)


def test_editors_are_given_the_schema_of_today():
    """Remade by ``python -m lib.profile``."""
    assert json.loads((PROFILES / "schema.json").read_text("utf-8")) == schema.json_schema()


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_of_the_project_names_the_schema_and_fits_it(path):
    assert path.read_text("utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    Draft7Validator(schema.json_schema()).validate(schema.read(path))


@pytest.mark.parametrize(
    "text",
    [
        "pretrain: {stps: 3}",
        "pretrain: {steps: 0}",
        "pretrain: {steps: 1.5}",
        "finetune: {seeds: []}",
        "finetune: {seeds: [1, 1]}",
        "model: {size: huge}",
        "finetune: {gain_db: [1]}",
        "ablations: {axes: [{name: a}]}",
    ],
)
def test_the_schema_marks_what_loading_refuses(write, text):
    content = schema.read(Path(write(text)))
    assert not Draft7Validator(schema.json_schema()).is_valid(content)


def test_the_schema_describes_every_field():
    sections = schema.json_schema()
    for section in (sections, *sections["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, name


def test_folders_are_joined_by_plus_or_listed_and_may_have_one_in_their_names(tmp_path):
    for name in ("Rock + Pop", "Rock", "c"):
        (tmp_path / name).mkdir()
    both = f"{tmp_path}/Rock + Pop"
    file = tmp_path / "p.yaml"
    for text, parts in (
        (f"'{both}'", (both,)),
        (f"'{tmp_path}/Rock + rendered'", (f"{tmp_path}/Rock", "rendered")),
        (f"'{tmp_path}/c + {both} + rendered'", (f"{tmp_path}/c", both, "rendered")),
        (f"['{both}', rendered, '{tmp_path}/c']", (both, "rendered", f"{tmp_path}/c")),
    ):
        file.write_text(f"base: smoke\ncorpus: {{unlabeled: {text}}}\n")
        assert load(file).corpus.unlabeled_parts == parts
    for text in ("[]", "[1]", "['fma:small', rendered]", "[[rendered]]"):
        file.write_text(f"base: smoke\ncorpus: {{unlabeled: {text}}}\n")
        with pytest.raises(UserError, match=r"corpus\.unlabeled"):
            load(file)
