"""Ten unmodified programs save the same files while readers check every read: quickstart's load.

  hammer.py run DIR --seconds S --out RESULT.json     the load; leaves the files there
  hammer.py table PLAIN.json MOUNTED.json             both results side by side; exit 1 when the mounted half was not clean

Exit codes: 0, 1 for "not clean", 2 for usage or a load that could not be run.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

import documents

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
STATE, TASKS, LOG, HANDOFF = "STATE.md", "tasks.json", "log.jsonl", "handoff.md"
READERS = 2
# A writer waits at most `wait` (5 s by default) for the file; what is not done this long after the end is stuck.
GRACE_S = 20


class Load:
    """The processes of one half, and the scratch directory (outside the files' directory) that they share."""

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        self.scratch = tempfile.mkdtemp(prefix="concord-load-")
        self.stop = os.path.join(self.scratch, "stop")
        self.templates = os.path.join(self.scratch, "templates")
        self.writers = {}
        self.readers = []

    def path(self, name):
        return os.path.join(self.directory, name)

    def prepare(self):
        """Puts a first whole document at each name."""
        os.makedirs(self.directory, exist_ok=True)
        os.mkdir(self.templates)
        for lines in (30, 120, 300):
            with open(os.path.join(self.templates, f"{lines}.md"), "w") as f:
                f.write(documents.text_template(lines))
        first = {
            STATE: documents.text_document("first 0", 60),
            HANDOFF: documents.text_document("first 0", 60),
            TASKS: json.dumps(documents.json_document("first 0", 100), indent=2),
            LOG: '{"by": "first 0", "text": "begun", "end": "first 0"}\n',
        }
        for name, content in first.items():
            with open(self.path(name), "w") as f:
                f.write(content)

    def start_writers(self):
        shell = ["bash", os.path.join(PROGRAMS, "shell.sh")]
        for way, name in (
            ("redirect", STATE),
            ("group", STATE),
            ("sed", STATE),
            ("cp", STATE),
            ("tee", STATE),
            ("append", LOG),
        ):
            self.start(f"shell: {way}", [*shell, way, self.path(name), self.stop, self.templates])
        # Two agents share the log.
        self.start("shell: append (2)", [*shell, "append", self.path(LOG), self.stop, self.templates])
        for program in ("dump", "update", "replace"):
            script = os.path.join(PROGRAMS, f"python_{program}.py")
            self.start(f"python: {program}", [sys.executable, script, self.path(TASKS), self.stop])
        node = shutil.which("node") or shutil.which("nodejs")
        if node:
            self.start("node: writeFile", [node, os.path.join(PROGRAMS, "node_write.mjs"), self.path(TASKS), self.stop])

    def start(self, label, command):
        self.writers[label] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start_readers(self):
        for number in range(READERS):
            out = os.path.join(self.scratch, f"reader-{number}.json")
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                code = 1
                try:
                    read_until(self.stop, self.directory, out)
                    code = 0
                finally:
                    os._exit(code)
            self.readers.append((pid, out))

    def finish(self):
        """Stops everything; returns each program's tallies, its complaints, and the readers' counts."""
        with open(self.stop, "w"):
            pass
        deadline = time.monotonic() + GRACE_S
        tallies, complaints = {}, {}
        for label, process in self.writers.items():
            try:
                out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                complaints[label] = f"did not end within {GRACE_S} s"
                continue
            last = out.strip().splitlines()[-1:] or [""]
            tallies[label] = {key: int(n) for key, n in (word.split("=") for word in last[0].split())}
            if process.returncode != 0 or err.strip():
                complaints[label] = f"exit {process.returncode}; {' / '.join(sorted(set(err.strip().splitlines()))[:3])}"
        return tallies, complaints, self.collect_readers(deadline)

    def collect_readers(self, deadline):
        reads = {}
        for pid, out in self.readers:
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    deadline += 5
                time.sleep(0.02)
            counts = json.load(open(out)) if os.path.exists(out) else {LOG: {"stuck": 1}}
            for name, verdicts in counts.items():
                reads[name] = dict(Counter(reads.get(name, {})) + Counter(verdicts))
        self.readers = []
        return reads

    def kill_all(self):
        """For the way out: nothing that this load started may outlive it."""
        for process in self.writers.values():
            if process.poll() is None:
                process.kill()
        for pid, _ in self.readers:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.scratch, ignore_errors=True)


def read_once(path):
    """The verdict about one open-read-close."""
    try:
        with open(path, "rb") as f:
            data = f.read()
    except FileNotFoundError:
        return documents.MISSING
    except OSError as error:
        return f"error: {error.strerror}"
    return documents.judge(path, data)


def read_until(stop, directory, out):
    """A reader: goes round the shared files until `stop` is there, then writes its counts to `out`."""
    counts = {name: Counter() for name in (STATE, TASKS, LOG)}
    while not os.path.exists(stop):
        for name in counts:
            counts[name][read_once(os.path.join(directory, name))] += 1
        time.sleep(0.002)
    with open(out, "w") as f:
        json.dump(counts, f)


def kill_writers(path, seconds):
    """Kills one slow writer after another in the middle of its save; returns (killed, left a damaged file)."""
    killed = halves = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process = subprocess.Popen(
            [sys.executable, os.path.join(PROGRAMS, "python_slow.py"), path, f"slow {killed}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(3):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        killed += 1
        halves += read_once(path) != documents.WHOLE
        time.sleep(0.1)
    return killed, halves


def run(arguments):
    load = Load(arguments.directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        load.prepare()
        load.start_writers()
        load.start_readers()
        killed, halves = kill_writers(load.path(HANDOFF), arguments.seconds)
        tallies, complaints, reads = load.finish()
        result = {
            "seconds": arguments.seconds,
            "programs": tallies,
            "complaints": complaints,
            "reads": reads,
            "killed": killed,
            "halves": halves,
            "final": {name: read_once(load.path(name)) for name in (STATE, TASKS, LOG, HANDOFF)},
        }
        with open(arguments.out, "w") as f:
            json.dump(result, f, indent=1)
    finally:
        load.kill_all()
    return 0


def summary(result):
    """The rows of the table for one half, in order; None where there is nothing to compare with."""
    verdicts = Counter()
    for counts in result["reads"].values():
        verdicts += Counter(counts)
    tally = Counter()
    for counts in result["programs"].values():
        tally += Counter(counts)
    errors = sum(n for verdict, n in verdicts.items() if verdict.startswith("error") or verdict == "stuck")
    return {
        "saves": tally["saves"],
        "saves refused with an error": tally["refused"],
        "reads": sum(verdicts.values()),
        "  empty or cut short": verdicts[documents.EMPTY] + verdicts[documents.TORN],
        "  parts of two saves mixed": verdicts[documents.MIXED],
        "  no file there, or an error": verdicts[documents.MISSING] + errors,
        "a program found garbage, began anew": tally["restarted"],
        "writers killed in mid-save": result["killed"],
        "  that left a damaged file": result["halves"],
        "files damaged at the end": sum(verdict != documents.WHOLE for verdict in result["final"].values()),
    }


# What must be zero under the mount. A killed append is not among the programs, so log.jsonl counts as well.
CLEAN = (
    "  empty or cut short",
    "  parts of two saves mixed",
    "  no file there, or an error",
    "a program found garbage, began anew",
    "  that left a damaged file",
    "files damaged at the end",
)


def table(arguments):
    with open(arguments.plain) as f:
        plain = json.load(f)
    with open(arguments.mounted) as f:
        mounted = json.load(f)
    rows, other = summary(plain), summary(mounted)
    print(f"{'':38}{'plain directory':>16}{'concordfs':>12}")
    for row, value in rows.items():
        print(f"{row:38}{value:>16}{other[row]:>12}")
    for half, result in (("plain directory", plain), ("concordfs", mounted)):
        for label, complaint in result["complaints"].items():
            print(f"{half}: {label}: {complaint}")
    clean = not any(other[row] for row in CLEAN) and other["reads"] > 0 and other["saves"] > 0
    ended = not any("did not end" in c or not c.startswith("exit 0") for c in mounted["complaints"].values())
    return 0 if clean and ended else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("directory")
    runner.add_argument("--seconds", type=float, default=5)
    runner.add_argument("--out", required=True)
    runner.set_defaults(do=run)
    shower = commands.add_parser("table")
    shower.add_argument("plain")
    shower.add_argument("mounted")
    shower.set_defaults(do=table)
    arguments = parser.parse_args()
    return arguments.do(arguments)


if __name__ == "__main__":
    sys.exit(main())
