"""A real Slurm on this machine, without root, systemd or cgroups: a controller, two virtual nodes, four fake GPUs."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo", "munged", "mungekey")
DEVICES = {"ci0": ("/dev/null", "/dev/zero"), "ci1": ("/dev/full", "/dev/random")}  # plain files are refused
CONF = """\
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire={wait}
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/run/ctld.pid
SlurmdPidFile={folder}/run/d-%n.pid
SlurmctldLogFile={folder}/log/ctld.log
SlurmdLogFile={folder}/log/d-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
BatchStartTimeout=4
KillWait=5
MinJobAge=3600
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{more}
NodeName=ci0 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=4 RealMemory=2000 Gres=gpu:2
NodeName=ci1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=4 RealMemory=2000 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=20
PartitionName=high Nodes=ALL PriorityTier=10
"""


def missing():
    """The programs of Slurm and munge that are not here."""
    return [name for name in PROGRAMS if _where(name) is None]


def _where(name):
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """Started in ``folder`` (of a short path: sockets lie in it); `stop` ends everything.

    ``wait``: seconds until a requeued job may start again, which Slurm calls cred_expire (its default is 120);
    ``more``: lines of slurm.conf; ``environment``: what a person's shell has who uses it.
    """

    def __init__(self, folder, wait=120, more=""):
        self.folder, self.conf = Path(folder), Path(folder) / "slurm.conf"
        for name in ("run", "log", "state", "spool/ci0", "spool/ci1"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        host, user = socket.gethostname().partition(".")[0], getpass.getuser()
        self.conf.write_text(
            CONF.format(folder=self.folder, host=host, user=user, ports=_free_ports(3), wait=wait, more=more)
        )
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName={node} Name=gpu File={file}\n" for node, files in DEVICES.items() for file in files)
        )
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        self.environment = {**bare, "SLURM_CONF": str(self.conf)}
        self._daemons = {}
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self):
        folder = self.folder
        self._run("mungekey", "-c", "-f", "-k", folder / "munge.key")
        options = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "run/munge.pid", "seed-file": "seed",
                   "log-file": "log/munge.log"}  # fmt: skip
        self._spawn("munged", "-F", "-f", *(f"--{name}={folder / path}" for name, path in options.items()))
        self._wait("munged", lambda: (folder / "munge.sock").exists())
        self._spawn("slurmctld", "-D", "-c")
        for node in DEVICES:
            self.start_node(node)
        self._wait("the nodes", lambda: len(self.idle()) == len(DEVICES))

    def start_node(self, node):
        """Start (again) the slurmd of a node."""
        self._spawn("slurmd", "-D", "-N", node, name=node)

    @property
    def controller(self):
        """The pid of slurmctld."""
        return self._daemons["slurmctld"].pid

    def end_controller(self):
        """End slurmctld, which saves what it knows."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(60)

    def start_controller(self):
        """Start it again with what it had saved, and wait until it answers."""
        self._spawn("slurmctld", "-D")
        self._wait("slurmctld", lambda: "is UP" in self.ask("scontrol", "ping", check=False))

    def kill_node(self, node):
        """Kill the slurmd of a node with everything that runs on it, as a machine that loses power."""
        daemon, steps = self._daemons.pop(node), self._steps_of(node)
        # slurmstepd before what it watches, else it tells slurmctld that the job has ended.
        for pid in [daemon.pid, *steps, *_descendants(steps)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def _steps_of(self, node):
        """The slurmstepd of a node, which its slurmd does not keep as children."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "comm").read_text().strip() != "slurmstepd":
                    continue
                environment = (path / "environ").read_bytes().split(b"\0")
                opened = [os.readlink(one) for one in (path / "fd").iterdir()]
                if f"SLURM_CONF={self.conf}".encode() in environment and any(f"/d-{node}.log" in one for one in opened):
                    found.append(int(path.name))
        return found

    def idle(self):
        """The nodes that wait for work."""
        return sorted({*self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split()})

    def ask(self, *command, check=True):
        """What a program of Slurm prints."""
        done = self._run(*command, check=check)
        return done.stdout

    def _run(self, name, *arguments, check=True):
        command = [_where(name), *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=check, timeout=60)

    def _spawn(self, program, *arguments, name=""):
        log = (self.folder / "log" / f"{name or program}.out").open("ab")
        with log:
            # A session of its own: Ctrl-C in a test's terminal is not for it.
            self._daemons[name or program] = subprocess.Popen(
                [_where(program), *map(str, arguments)], env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def _wait(self, what, done, patience=120):
        deadline = time.monotonic() + patience
        while not done():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = [path.read_text(errors="replace")[-1500:] for path in sorted((self.folder / "log").iterdir())]
                raise RuntimeError(f"{what} did not start; ended: {ended}\n" + "\n".join(logs))
            time.sleep(0.05)

    def cancel_all(self, patience=30):
        """Cancel every job, and wait until none of them runs."""
        self.ask("scancel", f"--user={getpass.getuser()}", check=False)
        deadline = time.monotonic() + patience
        while self.ask("squeue", "-h", "-t", "PD,R,CG", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.1)

    def stop(self):
        """Cancel all jobs and end every process of it."""
        if "slurmctld" in self._daemons and self._daemons["slurmctld"].poll() is None:
            with contextlib.suppress(subprocess.SubprocessError):
                self.cancel_all()
        steps = [pid for node in DEVICES for pid in self._steps_of(node)]
        for pid in [*_descendants(steps), *steps]:  # what no slurmd has ended
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in (*DEVICES, "slurmctld", "munged"):
            daemon = self._daemons.pop(name, None)
            if daemon is None:
                continue
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _descendants(pids):
    """The pids of everything that was started below these."""
    children = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.name))
    found, todo = [], list(pids)
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
