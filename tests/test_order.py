"""The packages stand in one order, imports run against it alone, and nothing imports in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lib import ROOT

ORDER = [
    *("profile", "machine", "store", "model", "data", "scoring losses", "mixing separate study", "training transfer"),
    *("pretrain finetune", "arms", "experiments", "report", "listening", "pipeline"),
]
"""Packages and modules of `lib`, first those that import no other; those of one line do not import each other."""
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names.split()}


def modules(root: Path) -> dict[str, str]:
    """The text of every module below ``root``, by its dotted name from there; a package goes by its own."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text("utf-8")
    return found


def imports(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """What of ``texts`` each module imports: anywhere in it, within functions and under TYPE_CHECKING too."""
    graph = {}
    for name, text in texts.items():
        found = {named for node in ast.walk(ast.parse(text)) for named in _named(node, texts)}
        graph[name] = found - {name, name.split(".")[0]}  # the root holds names that everyone uses
    return graph


def _named(node: ast.AST, texts: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        candidates = [[alias.name] for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "relative imports are not followed here"
        candidates = [[f"{node.module}.{alias.name}", node.module] for alias in node.names]
    else:
        candidates = []
    yield from filter(None, (next((name for name in some if name in texts), None) for some in candidates))


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports of one package from another that does not stand before it."""
    place = lambda name: name.split(".")[1]  # noqa: E731
    pairs = [(name, other) for name, others in graph.items() for other in others if place(name) != place(other)]
    return sorted(f"{name} imports {other}" for name, other in pairs if LEVEL[place(other)] >= LEVEL[place(name)])


def circular(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others."""

    def reached(name: str) -> set[str]:
        seen, waiting = set(), list(graph[name])
        while waiting:
            if (other := waiting.pop()) not in seen:
                seen.add(other)
                waiting += graph[other]
        return seen

    return [name for name in graph if name in reached(name)]


@pytest.fixture(scope="module")
def graph():
    return imports(modules(ROOT / "lib"))


def test_every_package_has_its_place(graph):
    assert {name.split(".")[1] for name in graph if name != "lib"} == set(LEVEL)


def test_packages_import_only_those_before_them(graph):
    assert upward({name: others for name, others in graph.items() if name != "lib"}) == []


def test_nothing_imports_in_a_circle(graph):
    assert circular(graph) == []


def test_what_is_forbidden_is_found():
    late = "def f():\n    from lib.pipeline import train\n"
    typed = "if TYPE_CHECKING:\n    from lib.arms import Arm\n"
    texts = {"lib": "", "lib.arms": "import lib.losses\nfrom lib import mixing", "lib.losses": typed}
    texts |= {"lib.mixing": "from lib import study", "lib.study": "", "lib.pipeline.train": "import os"}
    found = imports(texts | {"lib.experiments.probes": late})
    assert upward({name: others for name, others in found.items() if name != "lib"}) == [
        "lib.experiments.probes imports lib.pipeline.train",
        "lib.losses imports lib.arms",
        "lib.mixing imports lib.study",
    ]
    assert circular(found) == ["lib.arms", "lib.losses"]


@pytest.mark.parametrize("module", ["lib.profile", "lib.pipeline.notebooks"])
def test_a_wrong_call_does_not_wait_for_torch(module):
    call = f"import sys, {module}; sys.exit(bool({{'torch', 'pandas', 'scipy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", call], cwd=ROOT, check=False).returncode == 0
