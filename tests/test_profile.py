"""Profiles: what is read, what is refused, and that a refusal is one line that names the field."""

import pytest

from lib import UserError, profile
from lib.profile import PROFILES, Profile, load, override, to_dict

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
        ("pretrain: {seeds: [-1]}", "pretrain.seeds must be"),
        ("pretrain: {clip_norm: .nan}", "pretrain.clip_norm must be a finite number"),
        ("pretrain: {clip_norm: .inf}", "pretrain.clip_norm must be a finite number"),
        ("pretrain: {level_db: [5, -5]}", "pretrain.level_db"),
        ("pretrain: {level_db: [5]}", "pretrain.level_db must hold 2 values"),
        ("pretrain: {assignment: best}", "exact, least_squares"),
        ("pretrain: [1]", "pretrain must be a map"),
        ("finetune: {seeds: []}", "finetune.seeds must not be empty"),
        ("finetune: {seeds: [1, 1]}", "twice"),
        ("finetune: {transfers: [magic]}", "body, sliced, group"),
        ("model: {size: huge}", "model.size"),
        ("model: {sources: 17}", "model.sources"),
        ("compute: {precision: '16'}", "compute.precision"),
        ("separate: {mixture_consistency: 1}", "true or false"),
        ("separate: {window_seconds: 2, hop_seconds: 3}", "separate.hop_seconds"),
        ("corpus: {labeled: ''}", "corpus.labeled must not be empty"),
        (AXIS % "huge", "model.size"),
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
        ("pretrain.steps.x=3", "unknown key"),
        ("pretrain.steps=abc", "pretrain.steps must be a whole number"),
        ("pretrain.steps=", "pretrain.steps must be a whole number"),
        ("pretrain.steps", "key=value"),
        ("pretrain.steps=[", "not readable"),
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


def test_sizes_are_those_of_the_model():
    from lib.model import SIZES

    assert profile._CHOICES["size"] == tuple(SIZES)
