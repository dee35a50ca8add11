"""Do the cluster's batch files do what they say? ``python -m tests.slurm`` asks SLURM itself.

Debian's slurmctld, munge and two slurmd make a cluster of two nodes on this machine, each with two GPUs that are links
to /dev/null. On it, the smallest study trains over both nodes, is told to stop and queued again, is cancelled, trains
as an array and loses a node; a task trains on a GPU of its own. Needs root. It ends what it started, takes its two
lines out of /etc/hosts again, prints a line for each check, and ends with status 1 if one failed, 77 where SLURM is not
installed.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lib import ROOT
from lib.arms import Pretraining
from lib.pipeline.matrix import runs
from lib.study import Study
from tests import toys
from tests.browser import free_port

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
MISSING = (
    "tests.slurm: {} not found: as root, apt-get install slurmctld slurmd slurm-client munge, or as your system does it"
)
NODES = ("mixit-node1", "mixit-node2")
GPUS = 2
HOSTS = Path("/etc/hosts")
OVER_TWO_NODES = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1"]
PATIENCE = 300.0
"""Seconds that anything may take."""
STEPS = {"steps": 40, "batch": 2, "validate_every": 40, "checkpoint_every": 5}
FIELDS = {f"{stage}.{key}": value for stage in ("pretrain", "finetune") for key, value in STEPS.items()}
FIELDS |= {"finetune.labeled_songs": [2], "finetune.transfers": ["sliced"], "finetune.controls": []}
FIELDS |= {"regime.learning_rates": [], "regime.pretrain_steps": [], "ablations.axes": []}
FIELDS |= {"pretrain.validate_every": 10}
DEVICE = """
import os, torch
from lib.machine import distributed
shown = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
torch.cuda.device_count = lambda: len(shown)  # which finds no GPU in a link
devices = distributed.process_devices("cuda", distributed.world()[0])
print(shown[devices[int(os.environ["SLURM_LOCALID"])].index])
"""
"""Prints which of the node's GPUs a task trains on."""
CONF = """
ClusterName=mixit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthInfo=socket={folder}/munge.socket,cred_expire=20
SlurmUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmdTimeout=5
KillWait=20
ReturnToService=2
MessageTimeout=60
SchedulerParameters=batch_sched_delay=0,sched_interval=2
GresTypes=gpu
PartitionName=all Nodes=ALL Default=YES
"""


class Cluster:
    """SLURM in a folder; what it is asked is asked with its own settings."""

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, {}
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        self.environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        self.environment["PATH"] = os.pathsep.join([f"{sys.prefix}/bin", os.environ["PATH"], "/usr/sbin"])

    def configure(self) -> None:
        host = self.ask("hostname", "-s").strip()
        text = CONF.format(folder=self.folder, host=host, port=free_port())
        for node in NODES:
            text += f"NodeName={node} NodeAddr=127.0.0.1 Port={free_port()} CPUs=8 Gres=gpu:{GPUS} State=UNKNOWN\n"
        (self.folder / "slurm.conf").write_text(text)
        names = ",".join(NODES)
        (self.folder / "gres.conf").write_text(f"NodeName={names} Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        for number in range(GPUS):
            (self.folder / f"gpu{number}").symlink_to(os.devnull)  # SLURM takes devices alone
        for name in ("state", *NODES):
            (self.folder / name).mkdir()
        self.ask("mungekey", "--create", f"--keyfile={self.folder}/munge.key")

    def start(self, name: str, *call: str) -> None:
        with open(self.folder / f"{name}.log", "a") as log:
            self.daemons[name] = subprocess.Popen(
                call, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def start_all(self) -> None:
        own = [f"--{what}={self.folder}/munge.{ending}" for what, ending in MUNGE.items()]
        self.start("munged", "munged", "--foreground", *own)
        wait_for("munge", (self.folder / "munge.socket").exists)
        self.start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_for("two idle nodes", lambda: self.states() == ["idle", "idle"])

    def start_node(self, node: str) -> None:
        self.start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """End a node with all that runs on it, as a lack of power does."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        for number, variables in self.processes():
            if f"SLURMD_NODENAME={node}" in variables or f"slurmstepd {node}" in variables:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def states(self) -> list[str]:
        return self.ask("sinfo", "--noheader", "--Node", "--format=%T", check=False).split()

    def ask(self, *call: str, check: bool = True) -> str:
        done = subprocess.run(call, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(call)}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, file: str, options: list[str], *arguments: str) -> str:
        """The number of the job of one of the batch files, with fewer tasks and CPUs than it asks for."""
        small = ["--cpus-per-task=1", "--time=10", f"--output={self.folder}/said-%j.log", *options]
        return self.ask("sbatch", "--parsable", *small, f"cluster/{file}.sbatch", *arguments).strip()

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        words = self.ask("scontrol", "--oneliner", "show", "job", number, check=False).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def said(self, number: str) -> str:
        file = self.folder / f"said-{number}.log"
        return file.read_text() if file.exists() else ""

    def processes(self) -> Iterator[tuple[int, str]]:
        """Number, environment and call of every process of this cluster, daemons apart."""
        own = {daemon.pid for daemon in self.daemons.values()}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (path / "environ").read_text("utf-8", "replace").replace("\0", "\n")
                variables += (path / "cmdline").read_text("utf-8", "replace").replace("\0", " ")
                if str(self.folder) in variables and int(path.name) not in own and int(path.name) != os.getpid():
                    yield int(path.name), variables

    def stop(self) -> None:
        """End everything."""
        self.ask("scancel", "--user=root", check=False)
        with contextlib.suppress(AssertionError):
            wait_for("no jobs", lambda: not self.ask("squeue", "--noheader", check=False).strip())
        for daemon in reversed(list(self.daemons.values())):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for number, _ in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Raises: AssertionError if ``condition()`` does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited for {what} in vain")
        time.sleep(0.2)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster."""
    names = "".join(f"127.0.0.1 {node}\n" for node in NODES)
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        os.chmod(name, 0o755)  # munge refuses a socket that others cannot reach
        found = Cluster(Path(name))
        try:
            HOSTS.write_text(HOSTS.read_text() + names)
            found.configure()
            found.start_all()
            yield found
        finally:
            found.stop()
            HOSTS.write_text(HOSTS.read_text().replace(names, "", 1))


class Checks:
    """What is asked of the batch files, each with a study of its own."""

    def __init__(self, slurm: Cluster):
        self.slurm = slurm

    def study(self, name: str) -> tuple[Study, str]:
        """A study of its own, and its profile."""
        study = toys.study(self.slurm.folder, FIELDS, results=name)
        return study, toys.profile_file(study)

    def rows(self, study: Study) -> list[dict[str, str]]:
        """What the pre-training of a study has logged, a row a step."""
        log = Pretraining(study, 0).run.folder / "log.csv"
        return list(csv.DictReader(log.read_text().splitlines())) if log.exists() else []

    def over_two_nodes(self, study: Study, profile: str) -> str:
        """A pre-training on both nodes, once it is under way."""
        number = self.slurm.submit("pretrain", OVER_TWO_NODES, profile)
        wait_for("eleven steps", lambda: len(self.rows(study)) > 10)
        return number

    def finished(self, study: Study, number: str, restarts: int) -> None:
        run = Pretraining(study, 0).run
        wait_for("the end of the run", lambda: run.finished)
        wait_for("the end of the job", lambda: self.slurm.job(number).get("JobState") == "COMPLETED")
        assert self.slurm.job(number)["Restarts"] == str(restarts), self.slurm.job(number)
        assert run.facts()["processes"] == len(NODES), run.facts()

    def a_run_over_two_nodes_stops_at_usr1_is_queued_again_and_finishes(self) -> None:
        study, profile = self.study("usr1")
        number = self.over_two_nodes(study, profile)
        self.slurm.ask("scancel", "--signal=USR1", number)
        self.finished(study, number, 1)
        assert "stopped by SIGUSR1 after step" in self.slurm.said(number), self.slurm.said(number)

    def a_cancelled_run_keeps_a_checkpoint_and_is_not_queued_again(self) -> None:
        study, profile = self.study("cancelled")
        number = self.over_two_nodes(study, profile)
        self.slurm.ask("scancel", number)
        wait_for("the end of the job", lambda: self.slurm.job(number).get("JobState") == "CANCELLED")
        wait_for("the end of its processes", lambda: not any(profile in text for _, text in self.slurm.processes()))
        run = Pretraining(study, 0).run
        assert (run.folder / "last.ckpt").exists() and not run.finished
        assert not self.slurm.ask("squeue", "--noheader").strip()

    def an_array_trains_every_run_of_the_list(self) -> None:
        study, profile = self.study("array")
        planned = list(runs(study.profile))
        options = ["--ntasks-per-node=1", "--gpus-per-node=1"]
        first = self.slurm.submit("matrix", [*options, "--array=1"], profile)
        rest = [*options, f"--array=2-{len(planned)}", f"--dependency=afterok:{first}"]
        number = self.slurm.submit("matrix", rest, profile)
        wait_for("the array", lambda: not self.slurm.ask("squeue", "--noheader").strip())
        for job in (first, number):
            assert self.slurm.job(job)["JobState"] == "COMPLETED", self.slurm.said(job)
        done = len(list((study.results / "runs").glob("*/done.json")))
        assert done == len(planned), f"{done} of {len(planned)} runs finished"

    def a_task_trains_on_a_gpu_of_its_own_whether_it_sees_one_or_all(self) -> None:
        study, profile = self.study("gpus")
        all_shown, call = (
            ["srun", "--nodes=1", f"--ntasks={GPUS}", f"--{option}", "--cpus-per-task=1"]
            for option in (f"gpus-per-node={GPUS}", "gpus-per-task=1")
        )
        own = [str(number) for number in range(GPUS)]
        shown = self.slurm.ask(*call, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES").split()
        assert sorted(shown) == own, shown
        for asked in (all_shown, call):
            taken = self.slurm.ask(*asked, sys.executable, "-c", DEVICE).split()
            assert sorted(taken) == own, taken
        train = [sys.executable, "-m", "lib.pipeline.train", "--profile", profile, "--stage", "pretrain"]
        self.slurm.ask(*call, *train, "pretrain.steps=2", "pretrain.validate_every=1")
        (facts,) = (json.loads(path.read_text()) for path in (study.results / "runs").glob("*/done.json"))
        assert facts["processes"] == GPUS, facts

    # the last check: after it, SLURM 22.05 has been seen to start no further job on the GPUs of the lost one
    def a_run_that_lost_a_node_is_queued_again_and_resumes_when_it_is_back(self) -> None:
        study, profile = self.study("node")
        number = self.over_two_nodes(study, profile)
        before = float(self.rows(study)[9]["seconds"])
        self.slurm.kill_node(NODES[1])
        wait_for("what the other process says", lambda: "another process of this run" in self.slurm.said(number))
        wait_for("a job that waits for its node", lambda: self.slurm.job(number).get("JobState") == "PENDING")
        self.slurm.start_node(NODES[1])
        wait_for("the end of the job", lambda: self.slurm.job(number).get("JobState") in ("COMPLETED", "FAILED"))
        if refused := self.slurm.job(number)["JobState"] == "FAILED":  # seen with SLURM 22.05
            assert "srun: error: Unable to create step" in self.slurm.said(number), self.slurm.said(number)
            number = self.slurm.submit("pretrain", OVER_TWO_NODES, profile)
        self.finished(study, number, 0 if refused else 1)
        assert float(self.rows(study)[0]["seconds"]) == before, "trained from the start"
        assert "Traceback" not in self.slurm.said(number), self.slurm.said(number)


def main() -> int:
    """The exit status."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if absent := [program for program in PROGRAMS if not shutil.which(program, path=path)]:
        print(MISSING.format(", ".join(absent)), file=sys.stderr)
        return 77
    if os.geteuid():
        print("tests.slurm: SLURM changes users and /etc/hosts gets two names: run as root", file=sys.stderr)
        return 77
    failed = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends the cluster, too
    with cluster() as slurm:
        checks = Checks(slurm)
        for name in [name for name in vars(Checks) if name.startswith(("a_", "an_"))]:
            began, problem = time.monotonic(), ""
            try:
                getattr(checks, name)()
            except AssertionError as error:
                problem, failed = f": {error}", failed + 1
                slurm.ask("scancel", "--user=root", check=False)
            print(
                f"{'failed' if problem else 'passed'} in {time.monotonic() - began:3.0f} s: {name}{problem}", flush=True
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
