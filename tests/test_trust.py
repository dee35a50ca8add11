"""Nothing that a user hands in is unpickled, evaluated or given to a shell: the syntax of all code is looked at."""

import ast
import json
from pathlib import Path

import pytest

from lib import ROOT

CODE = sorted([*(ROOT / "lib").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *ROOT.glob("notebooks/*.ipynb")])
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pandas.read_pickle"),
    *("asyncio.create_subprocess_shell", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
}
NEEDED = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
LOADERS = {"_StrictLoader"}


def source(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text("utf-8")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """``np.load`` as ``numpy.load``, by what was imported."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def imported(tree: ast.Module) -> dict[str, str]:
    """What every imported name stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {item.asname: item.name for item in node.names if item.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
    return names


def dangers(text: str) -> list[str]:
    """What in a module unpickles, evaluates, or starts a shell: a line each."""
    tree, found = ast.parse(text), []
    names = imported(tree)
    for node in ast.walk(tree):
        modules = [item.name for item in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"line {node.lineno}: imports {name}" for name in modules if name.split(".")[0] in UNPICKLING]
        if isinstance(node, ast.Call):
            found += [f"line {node.lineno}: {problem}" for problem in _of_call(node, dotted(node.func, names))]
    return found


def _of_call(call: ast.Call, name: str):
    options = {item.arg: item.value for item in call.keywords}
    if name in FORBIDDEN:
        yield f"calls {name}"
    if name in NEEDED:
        option, value = NEEDED[name]
        if getattr(options.get(option), "value", None) is not value:
            yield f"{name} without {option}={value}"
    if name == "yaml.load" and not (len(call.args) == 2 and getattr(call.args[1], "id", "") in LOADERS):
        yield "yaml.load with another loader"
    if "shell" in options:
        yield f"{name} with shell"
    if (
        name.startswith("subprocess.")
        and call.args
        and isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)
    ):
        yield f"{name} of a text"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path):
    assert dangers(source(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(x)",
        "import torch as t\nt.load(x, weights_only=False)",
        "from torch import load\nload(x)",
        "import numpy as np\nnp.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(x)",
        "import yaml\nyaml.load(x, yaml.Loader)",
        "import os\nos.system(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import subprocess\nsubprocess.run(f'ls {x}')",
        "from subprocess import getoutput\ngetoutput(x)",
        "eval(x)",
    ],
)
def test_the_look_finds_what_it_looks_for(text):
    assert len(dangers(text)) == 1
