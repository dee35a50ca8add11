"""Does a study come out the same however often it is cut off? ``python -m tests.kills [--kills 20] [--seed 0]``

The smoke profile runs undisturbed once, then again and again on fresh results folders, each time cut off at several
random moments, spread over all stages as an undisturbed run spends its time: three times in four by SIGKILL to the
whole process group, else by Ctrl-C, which has to end it with one line and status 130. Whatever comes last on a folder
is a call that has to finish, with the very tables of the undisturbed run. ``--set-up`` cuts off the making of ``.venv``
instead. Both end with a table, and with status 1 if anything came out otherwise. A call with the same ``--folder`` goes
on where an earlier one ended. An hour on two cores; the set-up takes 5 GB and 10 minutes, from pip's cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STAGE = re.compile(r"^(\d\d_\w+) \(\d+ of \d+\) \.\.\.$", re.M)
BEFORE = "start"
"""What comes before the first notebook."""
TIMES = re.compile(r"(against_)?core_seconds")
"""Columns of times, which differ from call to call, as all of ``cost.csv`` does."""
INTERRUPTED = "interrupted: "
PATIENCE = 15.0
"""Seconds after which an interruption is called slow: two, on a machine that has nothing else to do."""
MOST = 6
"""Cuts on one results folder."""
SET_UP_SECONDS = 60.0
"""The set-up is cut off within so many seconds of its start."""


class Call:
    """``run_all.sh smoke`` in a process group of its own; what it says is in a file."""

    def __init__(self, project: Path, *arguments: str, environment: str = ""):
        variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
        variables |= {"VIRTUAL_ENV": environment} if environment else {}
        self.log, self.started = project / "said", time.monotonic()
        self.log.unlink(missing_ok=True)  # what an earlier call left may still write to the old file for a second
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                ["./run_all.sh", "smoke", *arguments], cwd=project, env=variables, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def stage(self) -> str:
        """The notebook that runs."""
        return (STAGE.findall(self.said) or [BEFORE])[-1]

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def until(self, condition) -> None:
        """Wait until ``condition()`` holds, or the call has ended."""
        while not self.ended and not condition():
            time.sleep(0.05)

    def cut(self, number: signal.Signals) -> str:
        """End the whole group by a signal; what came of it, in words, with "wrong" where it should not be so."""
        if self.ended:
            return "had ended" if self.process.returncode == 0 else f"wrong: ended with {self.process.returncode}"
        before, began = len(self.said), time.monotonic()
        os.killpg(self.process.pid, number)
        status = self.process.wait()
        if number == signal.SIGKILL:
            return "killed"
        took, lines = time.monotonic() - began, self.said[before:].split("\n")
        lines = [line for line in lines if line and "%|" not in line]  # a bar may have moved on meanwhile
        fine = status == 130 and len(lines) == 1 and INTERRUPTED in lines[0] and took < PATIENCE
        return f"{'' if fine else 'wrong: '}status {status}, {len(lines)} line(s), {took:.1f} s"

    def finished(self) -> str:
        """Wait for the end: "" or what went wrong."""
        status = self.process.wait()
        return "" if status == 0 else f"wrong: status {status}, {' '.join(self.said.splitlines()[-1:])}"


def undisturbed(project: Path, results: Path) -> list[tuple[str, float]]:
    """Run a study: (stage, second of its start), the last being the end."""
    shutil.rmtree(results, ignore_errors=True)
    call, times = Call(project, f"results={results}", environment=sys.prefix), [(BEFORE, 0.0)]

    def noted() -> bool:
        if call.stage != times[-1][0]:
            times.append((call.stage, time.monotonic() - call.started))
        return False

    call.until(noted)
    if problem := call.finished():
        sys.exit(f"undisturbed: {problem}")
    return [*times, ("end", time.monotonic() - call.started)]


def drawn(kills: int, seed: int, seconds: float) -> list[list[tuple[float, str]]]:
    """For each results folder, the moments of its cuts in their order, and the signals."""
    generator, chains = np.random.default_rng(seed), []
    while (left := kills - sum(map(len, chains))) > 0:
        count = min(left, int(generator.integers(1, MOST + 1)))
        moments = sorted(generator.uniform(0, seconds, count).tolist())
        signals = ["SIGINT" if one else "SIGKILL" for one in generator.uniform(size=count) < 0.25]
        chains.append(list(zip(moments, signals, strict=True)))
    return chains


def cut_at(project: Path, results: Path, times: list, moment: float, name: str) -> tuple[str, str]:
    """Start a study and cut it off as far within a stage as ``moment`` is in an undisturbed run: (stage, outcome)."""
    stage, start = next((stage, start) for (stage, start), (_, end) in pairwise(times) if start <= moment < end)
    call = Call(project, f"results={results}", environment=sys.prefix)
    call.until(lambda: stage == BEFORE or (call.stage != BEFORE and call.stage >= stage))
    reached = time.monotonic()
    call.until(lambda: time.monotonic() - reached >= moment - start)
    return call.stage, call.cut(signal.Signals[name])


def compared(results: Path, reference: Path) -> str:
    """ "" if all tables are the same, bit by bit, and nothing else lies beside them."""
    tables = [{path.name: timeless(path) for path in (one / "tables").iterdir()} for one in (results, reference)]
    names = (tables[0].keys() | tables[1].keys()) - {"cost.csv"}
    differing = sorted(name for name in names if tables[0].get(name) != tables[1].get(name))
    return f"wrong: {', '.join(differing)}" if differing else ""


def timeless(path: Path) -> list[list[str]]:
    """The cells of a table but for its columns of times."""
    with open(path, newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    kept = [i for i, name in enumerate(head) if not TIMES.fullmatch(name)]
    return [[row[i] for i in kept] for row in (head, *rows)]


def end_left_over(results: Path) -> None:
    """End a study of an earlier call of this module that was itself cut off."""
    try:
        number = int((results / "runs" / "lock").read_text())
        if str(results) in Path(f"/proc/{number}/cmdline").read_text():
            os.killpg(number, signal.SIGKILL)
    except (OSError, ValueError):
        return


def studies(folder: Path, kills: int, seed: int) -> int:
    """Cut off studies; print the table. Returns the exit status."""
    project, file = copied(folder / "project"), folder / f"state-{seed}.json"
    state = json.loads(file.read_text()) if file.exists() else {"rows": {}}
    if "times" not in state:
        state["times"] = undisturbed(project, folder / "undisturbed")
        file.write_text(json.dumps(state))
    times = [(stage, start) for stage, start in state["times"]]
    told("folder", "moment", "stage", "signal", "outcome")
    for number, chain in enumerate(drawn(kills, seed, times[-1][1])):
        results = folder / f"study-{seed}-{number}"
        for index, (moment, name) in enumerate([*chain, (times[-1][1], "")]):
            key = f"{number}.{index if name else 'end'}"
            if key not in state["rows"]:
                end_left_over(results)
                if name:
                    stage, outcome = cut_at(project, results, times, moment, name)
                else:
                    call = Call(project, f"results={results}", environment=sys.prefix)
                    stage, outcome = "end", call.finished() or compared(results, folder / "undisturbed")
                state["rows"][key] = [number, f"{moment:.0f} s", stage, name or "none", outcome or "the same tables"]
                file.write_text(json.dumps(state))
                if not name and not outcome:
                    shutil.rmtree(results)
            told(*state["rows"][key])
    wrong = sum("wrong" in row[-1] for row in state["rows"].values())
    cuts = sum(row[3] != "none" and row[-1] != "had ended" for row in state["rows"].values())
    ends = f"{len(state['rows']) - kills} studies to their end, undisturbed {times[-1][1]:.0f} s"
    print(f"{cuts} cuts, {ends}: {wrong} wrong")
    return 1 if wrong else 0


def set_up(folder: Path, seed: int) -> int:
    """Cut off the making of ``.venv`` by each signal, and let it be made. Returns the exit status."""
    project, generator, rows = copied(folder / "set-up"), np.random.default_rng(seed), []
    shutil.rmtree(project / ".venv", ignore_errors=True)
    told("moment", "signal", "outcome")
    for name in ("SIGKILL", "SIGINT", ""):
        call, moment = Call(project, "--plan"), generator.uniform(0, SET_UP_SECONDS)
        if name:
            call.until(lambda call=call, moment=moment: time.monotonic() - call.started >= moment)
            outcome = call.cut(signal.Signals[name])
        else:
            outcome = call.finished() or ("" if "making .venv" in call.said else "wrong: nothing was made")
        rows.append((f"{moment:.0f} s" if name else "end", name or "none", outcome or "made and used"))
        told(*rows[-1])
    again = Call(project, "--plan")
    outcome = again.finished() or ("wrong: made again" if "making .venv" in again.said else "used as it is")
    told("again", "none", outcome)
    return int(any("wrong" in what for what in (outcome, *(row[-1] for row in rows))))


def copied(project: Path) -> Path:
    """What a study needs of this tree, without its environment, its history and its results."""
    if not project.exists():
        for name in ("lib", "notebooks"):
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (ROOT / "run_all.sh", *ROOT.glob("requirements*")):
            shutil.copy(path, project)
    return project


def told(*cells: object) -> None:
    print("  ".join(f"{cell!s:<12}" for cell in cells).rstrip(), flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how many cuts")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "kills", help="where all is kept")
    parser.add_argument("--set-up", action="store_true", help="cut off the making of .venv instead")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder.resolve()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
    return set_up(folder, chosen.seed) if chosen.set_up else studies(folder, chosen.kills, chosen.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
