"""All cases, of every kind."""

from tests.hostile import archives, checkpoints, commands, listeners, profiles, records, sounds, tables

CASES = [
    case
    for kind in (profiles, tables, sounds, archives, checkpoints, records, listeners, commands)
    for case in kind.cases()
]
