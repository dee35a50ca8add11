"""A profile read from YAML and checked, with ``key=value`` overrides."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib import ROOT, UserError
from lib.profile import schema
from lib.profile.fields import PROFILES, Level, Profile, project_path

MOST_BASES = 20
_TEXTS = {dotted for dotted, value in schema.leaves(Profile("", "")) if isinstance(value, str)}


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Profile:
    """Read a profile by its name in ``notebooks/profiles`` or by its path, then apply ``key=value`` overrides.

    A file may start from another with ``base: NAME or FILE`` (maps are merged, lists replaced). ``name`` and
    ``results`` are never inherited: they default to the file's own name and ``results/NAME``.

    Raises: UserError, one line naming file or override, and field.
    """
    overrides = overrides or ()
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        raise UserError(f"overrides must be a list of texts, key=value, not {overrides!r:.60}")
    path = find(name_or_path)
    content = {"name": path.stem, "results": f"results/{path.stem}", **_with_base(path)}
    for text in overrides:
        content = schema.merged(content, _change(text))
    where = " with ".join((path.name, *overrides))
    profile = schema.build(content, where)
    for axis in profile.ablations.axes:
        for level in axis.levels:
            _check_level(profile, level, f"{where}: ablations '{axis.name}', level '{level.label}'")
    return profile


def command_line(module: str, description: str) -> argparse.ArgumentParser:
    """``python -m MODULE [PROFILE] [key=value ...]``, to be parsed with its options anywhere (intermixed)."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("profile", nargs="?", default="demo", help="a name in notebooks/profiles, or a .yaml file")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="dotted profile fields")
    return parser


def find(name_or_path: str) -> Path:
    """The file of a profile given by name, or by a path ending in .yaml. Raises: UserError."""
    with contextlib.suppress(OSError, RuntimeError):  # a name that is too long, or the home of nobody
        given = Path(str(name_or_path)).expanduser()
        for path in (PROFILES / f"{name_or_path}.yaml", given, ROOT / given):  # an executed notebook may lie elsewhere
            if path.suffix in (".yaml", ".yml") and path.is_file():
                return path
    known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
    raise UserError(f"profile '{name_or_path}' is unknown: use one of {known}, or the path of a .yaml file")


def override(profile: Profile, changes: Mapping[str, object], where: str = "") -> Profile:
    """``profile`` with dotted fields replaced (``{"finetune.seeds": [0, 1]}``; maps are merged), checked.

    Raises: UserError, one line that begins with ``where`` or the profile's name.
    """
    content = to_dict(profile)
    for dotted, value in changes.items():
        content = schema.merged(content, _nested(dotted, value))
    return schema.build(content, where or profile.name)


def to_dict(profile: Profile) -> dict:
    """The profile as nested maps, lists, numbers and texts: what a YAML file of it would hold."""
    return schema.PROFILE.dump_python(profile, mode="json", warnings=False)


def _with_base(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    if path.resolve() in seen:
        raise UserError(f"{path.name}: base leads back to this file")
    if len(seen) > MOST_BASES:
        raise UserError(f"{path.name}: base upon base, more than {MOST_BASES}")
    content = schema.read(path)
    if "base" not in content:
        return content
    name = content.pop("base")
    if not isinstance(name, str):
        raise UserError(f"{path.name}: base must be the name or file of a profile, not {name!r:.60}")
    beside = project_path(str(path.parent / name))
    base = _with_base(beside if beside.is_file() else find(name), (*seen, path.resolve()))
    return schema.merged({key: value for key, value in base.items() if key not in ("name", "results")}, content)


def _change(text: str) -> dict:
    """What ``key=value`` changes. Texts, folders above all, are as typed: YAML gives a meaning to ': ' and '#'."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"override '{text}' is not of the form key=value")
    return _nested(key, value if key in _TEXTS else schema.parse(value, f"override '{text}'"))


def _nested(dotted: str, value: object) -> dict:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def _check_level(profile: Profile, level: Level, where: str) -> None:
    """Build an ablation's level once, so that a bad one is refused before anything runs. Raises: UserError."""
    if any(key.split(".")[0] in ("name", "results", "ablations") for key in level.set):
        raise UserError(f"{where}: cannot set {', '.join(level.set)}")
    override(profile, level.set, where)
