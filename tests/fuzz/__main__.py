"""Coverage-guided fuzzing: ``python -m tests.fuzz profile|tracks|checkpoint [SECONDS]``, needs ``pip install atheris``.

Inputs that are answered by anything but a result or a `UserError` of one line are counted by kind, and the first of
each kind is kept in ``fuzz-finds``. Inputs that grow the corpus are not kept.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

INSTRUMENTED = {
    "profile": ["lib.profile", "yaml"],
    "tracks": ["lib.data.fma"],
    "checkpoint": ["lib.model", "zipfile"],
}
SECONDS_EACH, MEGABYTES = 20, 4096
"""An input that takes longer, or more memory, ends the fuzzing."""


def main(arguments: list[str]) -> int:
    """Exit status: 2 for a wrong call; else libFuzzer's (0, and 1 where it stopped at a hang or for memory)."""
    try:
        import atheris
    except ImportError:
        print("needs atheris (Python 3.11): pip install atheris, into an environment of its own", file=sys.stderr)
        return 2
    if not arguments or arguments[0] not in INSTRUMENTED:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    name, seconds = arguments[0], int(arguments[1]) if len(arguments) > 1 else 600
    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        from tests.fuzz import harness
    folder, finds, seen = Path(tempfile.mkdtemp(prefix="fuzz-corpus-")), Path("fuzz-finds"), set()
    _, seeds, longest = harness.HARNESSES[name]
    for data in seeds():
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data[:longest])
    (folder.parent / f"{folder.name}.dict").write_text("".join(f'"{word}"\n' for word in harness.words()))

    def one(data: bytes) -> None:
        if (wrong := harness.outcome(name, data)) and (kind := wrong.split(":")[0]) not in seen:
            seen.add(kind)
            finds.mkdir(exist_ok=True)
            (finds / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}").write_bytes(data)
            print(f"find {len(seen)}: {wrong}", file=sys.stderr, flush=True)

    options = [f"-max_total_time={seconds}", f"-timeout={SECONDS_EACH}", f"-rss_limit_mb={MEGABYTES}"]
    options += [f"-max_len={longest}", f"-dict={folder}.dict", "-print_final_stats=1", f"-artifact_prefix={folder}-"]
    atheris.Setup([sys.argv[0], *options, str(folder)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
