"""Profiles as YAML: a strict reader, fields checked by pydantic, errors in one line, and a JSON schema for editors."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from lib import UserError
from lib.profile.fields import Profile, contradictions

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
        # YAML 1.1 reads 0100 as 64 and 1:30 as 90; Python prints no number of thousands of digits
        if _AMBIGUOUS.match(self.construct_scalar(node)):
            raise _refused(f"write {node.value!r:.60} as a plain decimal number", node)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


def _refused(problem: str, place: yaml.Node | yaml.Event) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


_AMBIGUOUS = re.compile(r"[-+]?0[\d_]|.*:|.{1000}")
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
    maps = [key for key, value in over.items() if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)]
    return {**base, **over, **{key: merged(base[key], over[key]) for key in maps}}


PROFILE = TypeAdapter(Profile)
_PROBLEMS = {
    "missing": "is missing",
    "dataclass_type": "must be a map, not {value}",
    "dict_type": "must be a map, not {value}",
    "bool_type": "must be true or false, not {value}",
    "int_type": "must be a whole number, not {value}",
    "float_type": "must be a finite number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "string_type": "must be a text, not {value}",
    "string_unicode": "holds control characters or invalid UTF-8",
    "string_too_short": "must not be empty",
    "empty": "must not be empty",
    "too_short": "must hold {min_length} values, not {actual_length}",
    "too_long": "must hold {max_length} values, not {actual_length}",
    "literal_error": "must be {expected}, not {value}",
    "greater_than": "must be more than {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
}
"""What is wrong with a field, by pydantic's name of the error."""


def build(content: Mapping, where: str) -> Profile:
    """The profile that ``content`` holds. Raises: UserError for the first fault, a line that begins with ``where``."""
    profile = checked(PROFILE, Profile, content, where)
    for problem in contradictions(profile):
        raise UserError(f"{where}: {problem}")
    return profile


def checked(adapter: TypeAdapter, kind: type, content: Mapping, where: str) -> object:
    """``content`` as the dataclass ``kind``. Raises: UserError for the first fault, after ``where``."""
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        # what is missing comes last: its key may be misspelt
        first = min(error.errors(include_url=False), key=lambda found: found["type"] == "missing")
        raise UserError(f"{where}: {_problem(first, kind)}") from None


def _problem(error: Mapping, root: type) -> str:
    """One of pydantic's errors as "FIELD must ..., not ..."."""
    if error["type"] in ("unexpected_keyword_argument", "invalid_key"):
        *parents, key = error["loc"]
        return f"unknown key '{_dotted(*parents, str(key))}': {_nearest(root, parents, str(key))}"
    kind = "empty" if error["type"] == "too_short" and not error["input"] else error["type"]
    facts = error.get("ctx", {})
    problem = _PROBLEMS.get(kind) or str(facts.get("error", error["msg"]))  # a rule of `fields` says it itself
    return f"{_dotted(*error['loc']) or 'a key'} {problem.format(value=format(repr(error['input']), '.60'), **facts)}"


def _dotted(*path: str | int) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _nearest(kind: object, parents: Sequence[str | int], key: str) -> str:
    """What an unknown key in a dataclass may stand for."""
    for parent in parents:
        kind = typing.get_args(kind)[0] if isinstance(parent, int) else typing.get_type_hints(kind)[parent]
    known = [item.name for item in dataclasses.fields(kind)]
    near = difflib.get_close_matches(key, known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"the keys here are {', '.join(known)}"


def leaves(value: object, dotted: str = "") -> Iterator[tuple[str, object]]:
    """Every field of nested dataclasses that is no dataclass, as (dotted name, value)."""
    for item in dataclasses.fields(value):
        inner, name = getattr(value, item.name), f"{dotted}{item.name}"
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{name}.")
        else:
            yield name, inner


def json_schema() -> dict:
    """What editors check the file of a profile by: no field is required, and it may have a ``base``."""
    schema = PROFILE.json_schema()
    del schema["required"]
    base = {"type": "string", "description": "profile to start from: its name, or its file"}
    schema["properties"] = {"base": base, **schema["properties"]}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}
