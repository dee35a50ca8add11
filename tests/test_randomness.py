"""The same in gives the same out: nothing is drawn from a global generator, and no number of workers changes a bit."""

import ast
import dataclasses
import json
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch

from lib import ROOT, training
from lib.arms import SCRATCH, Finetuning
from lib.data.composed import render
from lib.data.composed.compose import compose
from lib.data.segments import stem_manifest
from lib.experiments import evaluate
from lib.experiments.intervals import paired_interval
from lib.machine.distributed import start_fabric
from lib.mixing import Crops, MixturesOfMixtures, StemMixtures, loader
from lib.study import Study
from lib.training import Task, mixit, train_step
from lib.transfer import shuffled, transfer
from tests import toys
from tests.toys import Noise

SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "BitGenerator"}
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
DRAWS |= {f"{name}_like" for name in ("rand", "randn", "randint")}
METHODS = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_"}
DROPOUT = {"dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d"}
ALLOWED = {
    # within the forked generator of a training step, and in no other mode than training
    ("lib/model/locoformer.py", "Dropout.forward", "random_"),
    # within that generator as well, or within the one that `_validation_loss` forks
    ("lib/pretrain.py", "reconstruction", "torch.randn_like"),
    ("lib/pretrain.py", "hidden_bins", "torch.rand"),
    # weights as a module is made: `Separator.from_size` forks the generator, whoever loads weights replaces them
    ("lib/model/locoformer.py", "BandLinear.__init__", "nn.init.uniform_"),
}


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a chain of attributes; "" before the first dot for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def draws(call: ast.Call, forked: bool) -> str:
    """What of a global generator a call draws or sets, or ""."""
    name, given = dotted(call.func), {keyword.arg for keyword in call.keywords}
    module, _, function = name.rpartition(".")
    bare = not call.args and not call.keywords
    if module in ("np.random", "numpy.random"):
        return "" if function in SEEDED and not (bare and function == "default_rng") else name
    if name in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"):
        return "" if forked else name
    if module in ("random", "torch.random") and name != "torch.random.fork_rng":
        return name
    if module == "torch" and function in DRAWS:
        return "" if "generator" in given else name
    if module in ("nn.init", "torch.nn.init", "init") and function.endswith("_"):
        return "" if function in ("zeros_", "ones_", "constant_", "eye_") or "generator" in given else name
    if module in ("F", "nn.functional", "torch.nn.functional", "torch") and function in DROPOUT:
        return name
    if function in METHODS and "generator" not in given:
        return function
    if function == "sample" and not {"random_state", "rng"} & given and "random" not in module:
        return name
    return ""


class Finder(ast.NodeVisitor):
    """Calls that draw from global generators: (line, where, what)."""

    def __init__(self):
        self.found, self.where, self.forked = [], [], 0

    def visit_scope(self, node):
        self.where.append(node.name)
        self.generic_visit(node)
        self.where.pop()

    visit_FunctionDef = visit_ClassDef = visit_scope

    def visit_With(self, node):
        forks = any(isinstance(i.context_expr, ast.Call) and dotted(i.context_expr.func).endswith("fork_rng")
                    for i in node.items)  # fmt: skip
        self.forked += forks
        self.generic_visit(node)
        self.forked -= forks

    def visit_Import(self, node):
        self.found += [(node.lineno, ".".join(self.where), name.name) for name in node.names if name.name == "random"]

    def visit_ImportFrom(self, node):
        wrong = {"random": None, "numpy.random": SEEDED, "torch": DRAWS, "numpy": {"random"}}
        for alias in node.names:
            if node.module in wrong:
                known = wrong[node.module]
                allowed = alias.name in SEEDED if node.module == "numpy.random" else known and alias.name not in known
                if not allowed:
                    self.found.append((node.lineno, ".".join(self.where), f"{node.module}.{alias.name}"))

    def visit_Call(self, node):
        if what := draws(node, bool(self.forked)):
            self.found.append((node.lineno, ".".join(self.where), what))
        self.generic_visit(node)


def found_in(source: str) -> list[tuple[int, str, str]]:
    finder = Finder()
    finder.visit(ast.parse(source))
    return finder.found


@pytest.mark.parametrize(
    "line",
    [
        "np.random.rand(3)",
        "numpy.random.seed(0)",
        "rng = np.random.default_rng()",
        "import random",
        "from random import choice",
        "from numpy.random import rand",
        "from torch import randn",
        "random.shuffle(x)",
        "torch.randn(3)",
        "torch.randint(0, 3, (4,), device=device)",
        "x.normal_()",
        "torch.empty(3).uniform_(0, 1)",
        "nn.init.xavier_uniform_(w)",
        "F.dropout(x, 0.1)",
        "torch.manual_seed(0)",
        "frame.sample(3)",
    ],
)
def test_what_draws_from_a_global_generator_is_found(line):
    assert len(found_in(f"def f(x):\n    with a() as b:\n        {line}")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "rng = np.random.default_rng([seed, 1])",
        "from numpy.random import default_rng",
        "rng.normal(0, 1)",
        "torch.randn(3, generator=g)",
        "x.normal_(generator=g)",
        "frame.sample(3, random_state=1)",
        "with torch.random.fork_rng(devices=[]):\n    torch.manual_seed(seed)",
        "nn.init.zeros_(w)",
        "self.dropout(x)",
    ],
)
def test_what_has_a_generator_of_its_own_is_not(line):
    assert found_in(line) == []


def sources() -> dict[str, str]:
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(ROOT.glob("lib/**/*.py"))}
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts[path.name] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return texts


def test_nothing_draws_from_a_global_generator():
    found = {(file, where, what) for file, text in sources().items() for _, where, what in found_in(text)}
    assert found - ALLOWED == set()
    assert found >= ALLOWED, "an exception that nothing needs any more"


def state() -> tuple:
    python, numpy = random.getstate(), np.random.get_state()
    return python, numpy[0], numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return toys.study(tmp_path_factory.mktemp("study"), {"pretrain.steps": 3, "finetune.steps": 3}, results="0")


def made(study: Study) -> dict[str, bytes | list]:
    """Weights, curves and scores of a pre-training, a fine-tuning and a training from scratch, by file."""
    for how in (SCRATCH, "group"):
        evaluate.scores(Finetuning(study, how, 0, 1), "validation")
    files = [path for path in sorted((study.results / "runs").glob("*-*/*")) if path.suffix in (".safetensors", ".csv")]
    found = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}
    for name in [name for name in found if name.endswith("log.csv")]:
        found[name] = [line.rpartition(b",")[0] for line in found[name].splitlines()]  # the last column holds seconds
    return found


def test_no_number_of_workers_changes_a_bit(study):
    expected = made(study)
    assert len(expected) == 3 * 2 + 2
    for workers in (1, 2):
        again = study.variant({"results": str(study.results.with_name(str(workers))), "corpus.workers": workers})
        assert made(again) == expected


def stem_batch(study: Study, workers: int) -> torch.Tensor:
    songs = study.budget(2)
    manifest = stem_manifest(songs, study.profile.corpus.activity_seconds, study.cache, 1)
    return next(loader(StemMixtures(Crops(songs, manifest, 4000, toys.RATE), 0, (-10, 10), 0.5), 2, range(1), workers))


def mixture_batch(study: Study, workers: int) -> torch.Tensor:
    manifest = study.mixture_segments(study.unlabeled)
    return next(
        loader(MixturesOfMixtures(Crops(study.unlabeled, manifest, 4000, toys.RATE), 0, (-5, 5)), 2, range(1), workers)
    )


def mixit_step(study: Study, accumulate: int) -> float:
    separator = study.new_separator(4, 0)
    fabric = start_fabric(study.profile.compute)
    model, optimiser = fabric.setup(separator, torch.optim.AdamW(separator.parameters()))
    optimiser.param_groups[0]["scale"] = 1.0
    stage = dataclasses.replace(study.profile.pretrain, accumulate=accumulate)
    batch = torch.stack([Noise()[index][:2] for index in range(2)])
    return train_step(fabric, model, optimiser, Task(separator, Noise(), mixit, None), stage, batch, 1e-3, 7)


def intervals(study: Study) -> pd.DataFrame:
    rows = [{"method": m, "seed": s, "song": n, "stem": "bass", "metric": "uSDR", "value": s + len(m + n)}
            for m in ("a", "bb") for s in (0, 1) for n in ("x", "yy")]  # fmt: skip
    return paired_interval(pd.DataFrame(rows), "a", "bb", "uSDR")


@pytest.mark.parametrize(
    "work",
    [
        lambda study: render.render(compose(0, "train", 1, 2.0), 8000),
        lambda study: stem_batch(study, 0),
        lambda study: stem_batch(study, 1),
        lambda study: mixture_batch(study, 0),
        lambda study: mixture_batch(study, 1),
        lambda study: mixit_step(study, 1),
        lambda study: mixit_step(study, 2),
        lambda study: training.example_flops(lambda: study.new_separator(4, 0), mixit, 2, 640),
        lambda study: transfer(study.new_separator(6, 1), "random", None, 3),
        lambda study: shuffled(study.new_separator(4, 1), 3),
        intervals,
    ],
    ids=["song", "stems", "stems, a worker", "mixtures", "mixtures, a worker", "MixIT step", "accumulated step",
         "operations", "random outputs", "shuffled weights", "intervals"],
)  # fmt: skip
def test_no_work_reads_or_changes_the_global_generators(study, work):
    first = work(study)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = state()
    second = work(study)
    assert state() == before
    assert pickle.dumps(values(first)) == pickle.dumps(values(second))


def values(result: object) -> object:
    """What of a result can be compared byte by byte."""
    if isinstance(result, torch.nn.Module):
        return {name: value.numpy().tobytes() for name, value in result.state_dict().items()}
    if isinstance(result, torch.Tensor | np.ndarray):
        return np.asarray(result).tobytes()
    return result.to_csv() if isinstance(result, pd.DataFrame) else repr(result)
