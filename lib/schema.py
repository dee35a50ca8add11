"""Nested dataclasses from YAML, strictly: unknown, duplicate or ill-typed fields are refused in one line."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

import yaml

from lib import UserError

_WANTED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", tuple: "a list"}


LARGEST = 1 << 18
"""Characters that a profile may have."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, aliases and ambiguous numbers, and reads 1e-3 as the number it is."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        # a few lines of them can stand for more values than any memory holds, or lead back to themselves
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise _refused(f"write the value of *{alias.anchor} out: aliases are not read", alias)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refused(f"a key must be a text, not {key!r:.60}", key_node)
            if key in seen:
                raise _refused(f"key {key!r:.200} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        # YAML 1.1 reads 0100 as 64 and 1:30 as 90
        if _AMBIGUOUS.match(self.construct_scalar(node)):
            raise _refused(f"write {node.value!r:.60} as a plain decimal number", node)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


def _refused(problem: str, place: yaml.Node | yaml.Event) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


_AMBIGUOUS = re.compile(r"[-+]?0[\d_]|.*:")
for kind in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{kind}", _StrictLoader.construct_number)


_EXPONENT = re.compile(r"[-+]?\d[\d_]*e[-+]?\d+$", re.IGNORECASE)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, "-+0123456789")


def parse(text: str, where: str) -> object:
    """The plain value of a YAML text. Raises: UserError, one line with the line number."""
    if len(text) > LARGEST:
        raise UserError(f"{where}: {len(text)} characters are no profile: at most {LARGEST}")
    try:
        return yaml.load(text, _StrictLoader)
    except RecursionError:
        raise UserError(f"{where}: not readable as YAML: nested too deeply") from None
    except Exception as error:  # explicit tags on odd values raise anything from KeyError to AttributeError
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}: not readable as YAML{line}: {problem}") from None


def read(path: Path) -> dict:
    """The map that a YAML file holds. Raises: UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name}: cannot be read: {error}") from None
    content = parse(text, path.name)
    if not isinstance(content, dict):
        raise UserError(f"{path.name}: must be a map of fields, not {content!r:.60}")
    return content


def merged(base: Mapping, over: Mapping) -> dict:
    """``base`` with the fields of ``over``: maps are merged, everything else is replaced."""
    return {
        **base,
        **{
            key: merged(base[key], value)
            if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
            else value
            for key, value in over.items()
        },
    }


def kind_of(kind: object, dotted: str, where: str) -> object:
    """The annotated type of a dotted field of a dataclass. Raises: UserError for an unknown field."""
    for key in dotted.split("."):
        known = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if key not in known:
            raise UserError(f"{where}: unknown key '{dotted}'{_nearest(key, known)}")
        kind = known[key]
    return kind


def build(kind: object, value: object, where: str, dotted: str = "") -> object:
    """``value`` as ``kind``: a dataclass, tuple, dict, bool, int, float or str annotation. Raises: UserError."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _build_dataclass(kind, value, where, dotted)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is not ... and len(value) != len(arguments):
            raise UserError(f"{where}: {dotted} must hold {len(arguments)} values, not {len(value)}")
        return tuple(build(arguments[0], item, where, f"{dotted}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if origin is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) is origin and origin in (bool, int, str):
        return value
    raise UserError(f"{where}: {dotted} must be {_WANTED.get(origin, 'a map')}, not {value!r:.60}")


def plain(value: object) -> object:
    """Nested dataclasses as maps and tuples as lists: what a YAML file would hold."""
    if dataclasses.is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def replaced(instance: object, changes: Mapping[str, object], where: str) -> object:
    """A dataclass with dotted fields replaced by values as YAML gives them; maps are merged. Raises: UserError."""
    content = plain(instance)
    for key, value in changes.items():
        kind_of(type(instance), key, where)
        *parents, last = key.split(".")
        inner = content
        for parent in parents:
            inner = inner[parent]
        whole = isinstance(value, Mapping) and isinstance(inner[last], Mapping)  # a section: the rest of it stays
        inner[last] = merged(inner[last], value) if whole else plain(value)
    return build(type(instance), content, where)


def leaves(value: object, dotted: str = "") -> Iterator[tuple[str, object]]:
    """Every field of nested dataclasses that is no dataclass, as (dotted name, value)."""
    for item in dataclasses.fields(value):
        inner, name = getattr(value, item.name), f"{dotted}{item.name}"
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{name}.")
        else:
            yield name, inner


def _build_dataclass(kind: type, value: Mapping, where: str, dotted: str) -> object:
    known, prefix = typing.get_type_hints(kind), f"{dotted}." if dotted else ""
    for key in value:
        if key not in known:
            raise UserError(f"{where}: unknown key '{prefix}{key}'{_nearest(str(key), known)}")
    for item in dataclasses.fields(kind):
        if item.default is item.default_factory is dataclasses.MISSING and item.name not in value:
            raise UserError(f"{where}: {prefix}{item.name} is missing")
    return kind(**{key: build(known[key], item, where, f"{prefix}{key}") for key, item in value.items()})


def _nearest(key: str, known: Mapping) -> str:
    near = difflib.get_close_matches(key, known, n=2)
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f": the keys here are {', '.join(known)}" if known else ": nothing is nested there"
