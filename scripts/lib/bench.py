"""Measures native, concordfs and bindfs side by side and writes docs/PERFORMANCE.md. Called by scripts/bench.sh.

Each side has a copy of everything on one filesystem; a round measures one thing on all sides, one after the other, in an order
that turns from round to round; a ratio is the median of the rounds' own ratios.
"""

import argparse
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

import soak_check
import soak_crash

SIDES = ("native", "concord", "bindfs")
MIB = 1 << 20
RUN_TIMEOUT_S = 900


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.work = os.path.abspath(arguments.work)
        self.sides = [side for side in SIDES if os.path.isdir(os.path.join(self.work, side))]
        self.rows = []

    def path(self, side, *names):
        return os.path.join(self.work, side, *names)

    def loop(self, name, path, count, size=0):
        """Nanoseconds per operation."""
        return float(run([self.arguments.loops, name, path, str(count), str(size)]))

    def compare(self, title, measure, target, sides=None, unit="us"):
        """`measure(side, round)` gives nanoseconds; adds one row with each side's median and concord's ratios."""
        sides = sides or self.sides
        taken = {side: [] for side in sides}
        for number in range(self.arguments.rounds):
            turn = number % len(sides)
            for side in sides[turn:] + sides[:turn]:
                taken[side].append(measure(side, number))
        ratios = {
            side: statistics.median(concord / other for concord, other in zip(taken["concord"], taken[side])) for side in sides
        }
        medians = {side: statistics.median(values) for side, values in taken.items()}
        self.add_row(title, medians, ratios, target, unit)

    def add_row(self, title, medians, ratios, target, unit):
        scale, digits = {"us": (1e3, 2), "ms": (1e6, 1)}[unit]
        shown = [f"{medians[side] / scale:.{digits}f}" if side in medians else "—" for side in SIDES]
        native, bindfs = ratios.get("native"), ratios.get("bindfs")
        verdicts = []
        if target is not None:
            verdicts.append(f"{'pass' if native <= target else 'FAIL'} (≤ {target})")
        if bindfs is not None:
            verdicts.append(f"{'pass' if bindfs < 1 else 'FAIL'} (ahead of bindfs)")
        ratio = [f"{value:.2f}" if value is not None else "—" for value in (native, bindfs)]
        self.rows.append(f"| {title} | {unit} | {' | '.join(shown + ratio)} | {', '.join(verdicts)} |")
        print(self.rows[-1], flush=True)

    def add_single(self, title, value, target, passed):
        self.rows.append(f"| {title} |  | — | {value} | — | — | — | {'pass' if passed else 'FAIL'} ({target}) |")
        print(self.rows[-1], flush=True)

    def data(self):
        size = self.arguments.size_mib * MIB
        count = self.arguments.count * 10
        for name, title, write in (
            ("seq-read", "sequential read, a 128 KiB block", False),
            ("seq-write", "sequential write, a 128 KiB block", True),
            ("rand-read", "random 4 KiB read", False),
            ("rand-write", "random 4 KiB write", True),
        ):
            operations = size // (128 * 1024) if name.startswith("seq") else count

            def measure(side, _, name=name, write=write, operations=operations):
                value = self.loop(name, self.path(side, "big.bin"), operations, size)
                if write:
                    # Not in the time: the disk's own speed, which all sides share.
                    run(["sync", "-f", self.path(side, "big.bin")])
                return value

            self.compare(f"{title} ({self.arguments.size_mib} MiB file)", measure, 1.05)

    def small_files(self):
        count = self.arguments.count
        self.compare("stat", lambda s, _: self.loop("stat", self.path(s, "small.bin"), count * 5), 1.1)
        self.compare(
            "open, read, close a small file", lambda s, _: self.loop("open-read-close", self.path(s, "small.bin"), count), None
        )
        self.compare(
            "create, write 4 KiB, unlink", lambda s, _: self.loop("create-write-unlink", self.path(s, "new.bin"), count // 4), None
        )

    def tree(self):
        def timed(*command):
            begin = time.perf_counter_ns()
            run(list(command), accepted=(0, 1))
            return time.perf_counter_ns() - begin

        def unpack(side, _):
            target = self.path(side, "unpacked")
            os.mkdir(target)
            value = timed("tar", "-xf", os.path.join(self.work, "tree.tar"), "-C", target)
            shutil.rmtree(target)
            return value

        for side in self.sides:
            timed("git", "-C", self.path(side, "tree"), "status", "--short")
        self.compare("git status", lambda s, _: timed("git", "-C", self.path(s, "tree"), "status", "--short"), 1.3, unit="ms")
        self.compare("grep -r", lambda s, _: timed("grep", "-rq", "no such words here", self.path(s, "tree")), None, unit="ms")
        self.compare("unpack a tar", unpack, None, unit="ms")

    def saves(self):
        count = max(30, self.arguments.count // 20)

        def measure(side, _):
            if side == "native":
                return self.loop("save-direct", self.fresh(self.path(side, "saves"), "direct.md"), count)
            return self.loop("save", self.path(side, "coordinated.md"), count)

        title = "coordinated 4 KiB save; native: the same steps done directly"
        self.compare(title, measure, 1.6, sides=["native", "concord"])

    def fresh(self, directory, name):
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        path = os.path.join(directory, name)
        with open(path, "wb") as f:
            f.write(b"\4" * 4096)
        return path

    def contention(self):
        path, ms = self.path("concord", "contended.md"), self.arguments.contend_s * 1000
        ratios, waits = [], []
        for _ in range(self.arguments.rounds):
            one, _ = self.contend(path, 1, ms)
            many, longest = self.contend(path, self.arguments.writers, ms)
            ratios.append(many / one)
            # Fair: a save waits for one save of every other writer, and takes as long as all of them together.
            waits.append(longest / 1e6 / (ms * self.arguments.writers / many))
        ratio, wait = statistics.median(ratios), statistics.median(waits)
        writers = self.arguments.writers
        self.add_single(f"{writers} writers on one file: total saves against one writer's", f"{ratio:.2f}", "≥ 0.7", ratio >= 0.7)
        self.add_single(f"{writers} writers on one file: longest wait against the fair share", f"{wait:.2f}", "≤ 2", wait <= 2)

    def contend(self, path, writers, ms):
        lines = run([self.arguments.loops, "contend", path, str(writers), str(ms)]).split("\n")
        pairs = [tuple(map(int, line.split())) for line in lines if line]
        if len(pairs) != writers:
            raise RuntimeError(f"{writers} writers, but {len(pairs)} reports")
        return sum(saves for saves, _ in pairs), max(longest for _, longest in pairs)

    def memory(self):
        concord = soak_check.Concord(self.arguments.concord)
        pid = soak_crash.daemon_pid(concord, self.path("concord"), self.path("concord"))
        # -size makes find stat every file.
        run(["find", self.path("concord", "many"), "-size", "+1k"])
        with open(f"/proc/{pid}/status") as f:
            fields = dict(line.split(":", 1) for line in f)
        mib = int(fields["VmRSS"].split()[0]) / 1024
        title = f"daemon's resident memory after find over {self.arguments.many:,} files"
        self.add_single(title, f"{mib:.0f} MiB", "≤ 64 MiB", mib <= 64)

    def everything(self):
        for part in (self.data, self.small_files, self.tree, self.saves, self.contention, self.memory):
            try:
                part()
            except Exception as error:
                self.rows.append(f"| {part.__name__.replace('_', ' ')} | | | | | | | FAIL: not measured: {one_line(error)} |")
                print(self.rows[-1], flush=True)


def one_line(error):
    return " ".join(str(error).split()).replace("|", "/")[:200]


def run(command, accepted=(0,)):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    if done.returncode not in accepted:
        raise RuntimeError(f"{os.path.basename(command[0])} {' '.join(command[1:2])}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def machine(work):
    with open("/proc/cpuinfo") as f:
        models = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    with open("/proc/meminfo") as f:
        memory_gib = int(f.readline().split()[1]) / (1 << 20)
    filesystem = run(["df", "--output=fstype", work]).split()[-1]
    return (
        f"{os.cpu_count()} × {models[0] if models else platform.machine()}, {memory_gib:.0f} GiB of memory, "
        f"Linux {platform.release().split('-')[0]}, {filesystem}, "
        f"{'root' if os.getuid() == 0 else 'an unprivileged user'}, {datetime.date.today()}"
    )


def report(bench):
    arguments = bench.arguments
    lines = [
        "# Performance",
        "",
        "Written by `scripts/bench.sh`; do not edit. One run, all sides in turn, medians of "
        f"{arguments.rounds} rounds{'; a quick run, too short to judge by' if arguments.quick else ''}.",
        "",
        f"Machine: {machine(bench.work)}.",
        "",
        "Times are per operation, with what is read in the page cache and what is written not yet synced, except in the coordinated save.",
        "A ratio is concordfs's time over the other's: below 1, concordfs is faster.",
        "",
        "| what | unit | native | concordfs | bindfs | to native | to bindfs | target |",
        "|---|---|---:|---:|---:|---:|---:|---|",
        *bench.rows,
        "",
        "The coordinated save is open(O_TRUNC), write 4 KiB, close on a `*.md` under the mount (`durability = \"full\"`). Done directly, its "
        "steps are: create a shadow, write, fdatasync, link the old file aside, rename, fsync the directory.",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="holds native/, concord/ and perhaps bindfs/, and tree.tar")
    parser.add_argument("--loops", required=True, help="the bench_loops binary")
    parser.add_argument("--concord", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=4000, help="operations per measurement, the base of all counts")
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--many", type=int, default=200_000)
    parser.add_argument("--writers", type=int, default=100)
    parser.add_argument("--contend-s", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    bench.everything()
    with open(arguments.out, "w") as f:
        f.write(report(bench))
    return 1 if any("FAIL" in row for row in bench.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
