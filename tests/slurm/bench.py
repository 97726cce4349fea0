"""A one-node SLURM on loopback, started by hand: no systemd, no cgroups, no accounting.

Everything that it writes is under one folder. Its daemons are children of this process, and end
with it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from services import HOST, end_group, free_port, wait_until

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "munge": "munge",
    "setpriv": "util-linux",
}
"""The programs that a bench needs, and the Debian packages that have them."""

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where daemons are, which need not be in a user's PATH."""

PATIENCE = 400.0
"""Seconds within which SLURM and Dask do anything that a test waits for."""

NODE = "localhost"
PARTITION = "batch"

# slurmctld looks for expired time limits every 30 seconds; a limit is a minute at least.
SLURM_CONF = """\
ClusterName=bench
SlurmctldHost={node}({host})
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
KillWait=2
InactiveLimit=0
MinJobAge=300
NodeName={node} NodeAddr={host} NodeHostname={node} Port={node_port} CPUs=8 RealMemory=16000
PartitionName={partition} Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""

# Read even where no plugin uses cgroups.
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint={folder}/cgroup
"""


def missing() -> str | None:
    """What to install before a bench can start; None if all of it is there."""
    absent = [name for name in PACKAGES if _program(name) is None]
    if not absent:
        return None
    packages = " ".join(dict.fromkeys(PACKAGES[name] for name in absent))
    return f"{', '.join(absent)} not found: apt-get install --no-install-recommends {packages}"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}")


class Bench:
    """A SLURM with one node and one partition, from `start` to `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.env = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the daemons, and wait until the node takes jobs."""
        for name in ("state", "spool", "cgroup"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        values = {
            "folder": self.folder,
            "user": getpass.getuser(),
            "host": HOST,
            "node": NODE,
            "partition": PARTITION,
            "ctld_port": free_port(),
            "node_port": free_port(),
        }
        self.conf.write_text(SLURM_CONF.format(**values))
        (self.folder / "cgroup.conf").write_text(CGROUP_CONF.format(**values))
        socket = self.folder / "munge.sock"
        files = {"--key-file": key, "--socket": socket}
        files |= {f"--{kind}-file": self.folder / f"munged.{kind}" for kind in ("pid", "seed")}
        options = [f"{option}={path}" for option, path in files.items()]
        # --force: the folders of a test run are nobody else's, which munge takes for a mistake.
        self._start("munged", "--foreground", "--force", *options)
        self._wait_for(lambda: self._succeeds("munge", "-n", "-S", str(socket)), "munged")
        self._start("slurmctld", "-D", "-c")
        self._wait_for(lambda: self._succeeds("scontrol", "ping"), "slurmctld")
        self._start("slurmd", "-D", "-c", "-N", NODE)
        self._wait_for(lambda: self.node_state() == "idle", "slurmd")

    def run(self, *command: str) -> str:
        """The output of a SLURM command. AssertionError if it fails."""
        answer = subprocess.run(command, env=self.env, capture_output=True, text=True)
        assert answer.returncode == 0, f"{' '.join(command)}: {answer.stderr}\n{self.logs()}"
        return answer.stdout.strip()

    def node_state(self) -> str:
        """The node's state in `sinfo`'s words, such as `idle` or `drained`."""
        return self.run("sinfo", "--noheader", "--format", "%T")

    def jobs(self) -> dict[str, str]:
        """The state of each job that is not over, by its id."""
        lines = self.run("squeue", "--noheader", "--format", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def job(self, number: str) -> str:
        """What `scontrol` knows of a job, over or not."""
        return self.run("scontrol", "show", "job", number)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)

    @contextlib.contextmanager
    def drained(self, reason: str) -> Iterator[Callable[[], None]]:
        """Drain the node; yields what resumes it, which its end does too."""

        def resume() -> None:
            if self.node_state().startswith("drain"):
                self.run("scontrol", "update", f"nodename={NODE}", "state=resume")

        drain = ["scontrol", "update", f"nodename={NODE}", "state=drain", f"reason={reason}"]
        self.run(*drain)
        try:
            yield resume
        finally:
            resume()

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait for their end."""
        self.run("scancel", "--user", getpass.getuser())
        wait_until(lambda: not self.jobs(), timeout=PATIENCE, what="the end of all SLURM jobs")

    def close(self) -> None:
        """End all jobs and all daemons. Safe to repeat, and after a `start` that failed."""
        try:
            if "slurmd" in self._daemons:
                self.cancel_all()
        finally:
            for daemon in reversed(self._daemons.values()):
                end_group(daemon.pid)
                daemon.wait()
            self._daemons.clear()

    def _start(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None, missing()
        # The kernel ends a process whose parent is killed. munged undoes that for itself, hence
        # timeout(1), which passes the signal on; 0 is no timeout.
        command = ["setpriv", "--pdeathsig", "TERM", "timeout", "0", program, *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for(self, condition: Callable[[], bool], name: str) -> None:
        def has_come_up() -> bool:
            assert self._daemons[name].poll() is None, f"{name} has ended:\n{self.logs()}"
            return condition()

        wait_until(has_come_up, timeout=PATIENCE, what=f"{name} to come up:\n{self.logs()}")

    def _succeeds(self, *command: str) -> bool:
        return subprocess.run(command, env=self.env, capture_output=True).returncode == 0
