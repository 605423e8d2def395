"""Kills the daemon under load, again and again, and looks at what is left each time (contract F1)."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

import soak_check
import soak_load

MOUNT_TIMEOUT_S = 60
RECOVER_TIMEOUT_S = 120


def read_link(path):
    """The target, or nothing when it is gone: a busy daemon opens and closes files all the time."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def daemon_pid(concord, directory, tree):
    """The daemon's pid, from `status --json`, else from .concord/daemon.json. It must hold /dev/fuse open, or it is not killed."""
    try:
        found = json.loads(concord.run("status", directory, "--json"))
    except (RuntimeError, ValueError):
        with open(os.path.join(tree, ".concord", "daemon.json")) as f:
            found = json.load(f)
    # One mount's status may come as an object or as a list of one.
    found = found[0] if isinstance(found, list) else found
    pid = found.get("pid") or found.get("daemon", {}).get("pid")
    if not isinstance(pid, int) or pid < 2:
        raise RuntimeError(f"no daemon pid in the status of {directory}: {found}")
    links = [read_link(link) for link in glob.glob(f"/proc/{pid}/fd/*")]
    if "/dev/fuse" not in links:
        raise RuntimeError(f"pid {pid} does not hold /dev/fuse: not a daemon, not killed")
    return pid


def detach(directory):
    for command in (["umount", "-l"], ["fusermount3", "-u", "-z"]):
        try:
            if subprocess.run([*command, directory], stdin=subprocess.DEVNULL, capture_output=True, timeout=30).returncode == 0:
                return
        except FileNotFoundError:
            continue
    raise RuntimeError(f"{directory}: the dead mount cannot be detached")


class Crasher:
    """One project that is mounted, killed and recovered."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.concord = soak_check.Concord(arguments.concord)
        self.directory = os.path.abspath(arguments.dir)
        self.tree = os.path.abspath(arguments.backing) if arguments.backing else self.directory
        self.mounted = False

    def mount(self):
        backing = ["--backing", self.tree] if self.arguments.backing else []
        # Not to a pipe: the daemon may keep it open.
        with open(os.path.join(self.arguments.log, "mount.out"), "ab") as out:
            command = [self.arguments.concord, "mount", self.directory, *backing]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=MOUNT_TIMEOUT_S, check=False
            )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}; see mount.out in {self.arguments.log}")
        self.mounted = True

    def kill(self):
        """Returns when the daemon was killed, in CLOCK_MONOTONIC nanoseconds."""
        pid = daemon_pid(self.concord, self.directory, self.tree)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic_ns()
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}") and not zombie(pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"daemon {pid} survives SIGKILL for 30 s")
            time.sleep(0.01)
        detach(self.directory)
        self.mounted = False
        return killed

    def round(self, number):
        """One kill, and all checks on the bare tree; returns the violations."""
        killed = self.kill()
        # Without history: the daemon is down, and `concord history` must work all the same.
        self.concord.run("recover", self.tree, timeout_s=RECOVER_TIMEOUT_S)
        wrong, line = soak_check.check(self.tree, self.arguments.log, self.concord, killed, crashed=True)
        kept = glob.glob(os.path.join(glob.escape(self.tree), ".concord", "recovered", "*"))
        print(f"kill {number}: {line}; {len(kept)} entries in recovered/; {len(wrong)} broken", flush=True)
        return [f"after kill {number}: {violation}" for violation in wrong]


def zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def start_load(arguments, script):
    passed = ["writers", "readers", "files", "pace_ms", "ways"]
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in passed]
    if arguments.kill_writers:
        options.append("--kill-writers")
    command = [sys.executable, script, "load", "--until-stop", f"--concord={arguments.concord}"]
    return subprocess.Popen([*command, f"--dir={os.path.abspath(arguments.dir)}", f"--log={arguments.log}", *options])


def wait_for_seed(arguments, load):
    """The load begins by saving every file once, before the first kill may come."""
    last = soak_load.file_names(arguments.files)[-1]
    deadline = time.monotonic() + 60
    while f"base {last} " not in read_or_empty(os.path.join(arguments.log, "writer-0.log")):
        if load.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the load could not begin (see above); or `concord history --json` gave no version")
        time.sleep(0.05)


def read_or_empty(path):
    try:
        with open(path) as f:
            return f.read()
    except FileNotFoundError:
        return ""


def run(arguments, script):
    """Returns (violations, a line of numbers)."""
    os.makedirs(arguments.log, exist_ok=True)
    crasher = Crasher(arguments)
    wrong = []
    load = None
    try:
        crasher.mount()
        load = start_load(arguments, script)
        wait_for_seed(arguments, load)
        soak_load.announce_mount(arguments.log, crasher.directory)
        for number in range(1, arguments.rounds + 1):
            time.sleep(arguments.every)
            wrong += crasher.round(number)
            crasher.mount()
            soak_load.announce_mount(arguments.log, crasher.directory)
        time.sleep(arguments.every)
        wrong += finish(arguments, load)
        final, line = soak_check.check(
            crasher.directory, arguments.log, crasher.concord, time.monotonic_ns(), crashed=True
        )
        return wrong + final, line
    finally:
        if load and load.poll() is None:
            load.terminate()
            load.wait(30)
        if crasher.mounted:
            subprocess.run(
                [arguments.concord, "unmount", crasher.directory, "--force"], stdin=subprocess.DEVNULL, timeout=60, check=False
            )


def finish(arguments, load):
    with open(os.path.join(arguments.log, "stop"), "w"):
        pass
    code = load.wait(soak_load.GRACE_S + 30)
    return [] if code == 0 else [f"the load ended with exit code {code} (see above)"]
