"""The soak's checker: does what the readers saw, and what is there now, agree with what the writers did?

The rules follow from the contract; each is sound, whatever the processes' order was:

  R1  every read is exactly one document that some writer had begun to save to that file, whole
  W6  no read and no final content is older than what was already published when it was opened: document D is stale when another
      one was begun after D was done and was itself done (or read by somebody) before
  W6  a save that was refused is never seen
  H1  every acknowledged save has a version: the numbers grew by as many, plus at most the saves whose outcome is unknown
  H1  versions are in an order that the writers' times allow, and none that must lie between two kept ones is missing
  F1  nothing but the files lies outside .concord
"""

import bisect
import glob
import json
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field

from soak_load import TEMPORARY, document, identify

NEVER = 1 << 62


@dataclass
class Save:
    begin: int
    end: int = NEVER
    result: str = "unknown"


@dataclass
class Events:
    """What the logs hold, by file."""

    saves: dict = field(default_factory=lambda: defaultdict(dict))
    reads: dict = field(default_factory=lambda: defaultdict(list))
    bad: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    bases: dict = field(default_factory=dict)


def load_events(log_directory):
    events = Events()
    for path in sorted(glob.glob(os.path.join(glob.escape(log_directory), "*.log"))):
        with open(path) as f:
            for line in f:
                # The last line of a killed or still running process may be half there.
                if line.endswith("\n"):
                    add_event(events, line.split())
    return events


def add_event(events, words):
    kind, name, *rest = words
    if kind == "begin":
        writer, count, time = map(int, rest)
        events.saves[name][writer, count] = Save(time)
    elif kind == "done":
        writer, count, time = map(int, rest[:3])
        save = events.saves[name][writer, count]
        save.result = rest[3]
        if rest[3] == "ok":
            save.end = time
    elif kind == "read":
        writer, count, opened, ended = map(int, rest)
        events.reads[name].append(((writer, count), opened, ended))
    elif kind == "bad":
        events.bad.append((name, *rest))
    elif kind == "error":
        events.errors.append((name, rest[0], int(rest[1])))
    elif kind == "base":
        events.bases[name] = int(rest[0])


class FileChecker:
    """One file's saves and reads against each other."""

    def __init__(self, name, events):
        self.name = name
        self.saves = events.saves[name]
        self.reads = events.reads[name]
        # When a document was published at the latest: its save returned, or somebody had read it.
        published = {key: save.end for key, save in self.saves.items()}
        for key, _, ended in self.reads:
            if key in published:
                published[key] = min(published[key], ended)
        self.published = published
        order = sorted((time, self.saves[key].begin, key) for key, time in published.items() if time < NEVER)
        self.times = [time for time, _, _ in order]
        # newest[i]: the latest-begun document among the i+1 first published.
        self.newest = []
        for _, begin, key in order:
            last = self.newest[-1] if self.newest else (-1, None)
            self.newest.append(max(last, (begin, key)))

    def problem(self, key, opened):
        """Why a read that was opened at `opened` must not have given document `key`; None when it may."""
        save = self.saves.get(key)
        if save is None:
            return "was never saved to this file"
        if save.result.startswith("refused"):
            return f"is a save that failed with {save.result}"
        before = bisect.bisect_left(self.times, opened) - 1
        if before < 0:
            return None
        begin, newer = self.newest[before]
        if self.published[key] < begin:
            return f"is stale: {newer} was begun after it was done, and was published before this open"
        return None

    def check_reads(self):
        for key, opened, _ in self.reads:
            problem = self.problem(key, opened)
            if problem:
                yield f"R1/W6 {self.name}: a read gave document {key}, which {problem}"

    def check_content(self, data, now, where):
        """What lies in the file now."""
        key = identify(data)
        if key is None:
            yield f"F1 {self.name}: {where} is no whole document: {len(data)} bytes, {data[:60]!r}"
            return
        problem = self.problem(key, now)
        if problem:
            yield f"F1/W6 {self.name}: {where} is document {key}, which {problem}"

    def check_history(self, listing, show, base):
        """`listing`: `concord history --json`; `show(version)`: that version's bytes; `base`: the first document's version."""
        numbers = [entry["version"] for entry in listing]
        current = [entry["version"] for entry in listing if entry.get("current")]
        if not numbers:
            yield f"H1 {self.name}: no history"
            return
        if numbers != sorted(set(numbers), reverse=True) or current != numbers[:1]:
            yield f"H1 {self.name}: versions {numbers[:30]}, current {current}: not newest first with the newest current"
            return
        if base is not None:
            yield from self.check_count(numbers[0] - base)
        kept = []
        for number in numbers:
            if base is not None and number < base:
                break
            data = show(number)
            key = identify(data)
            if key is None or self.problem(key, 0):
                yield f"H1 {self.name}@{number}: {self.problem(key, 0) if key else f'no whole document ({len(data)} bytes)'}"
                return
            kept.append(key)
        yield from self.check_order(kept)

    def check_count(self, grown):
        acknowledged = sum(save.result == "ok" for key, save in self.saves.items() if key[0] != 0)
        unknown = sum(save.result.startswith("unknown") for save in self.saves.values())
        if not acknowledged <= grown <= acknowledged + unknown:
            yield f"H1 {self.name}: {acknowledged} saves acknowledged, {unknown} unknown, but {grown} versions were added"

    def check_order(self, kept):
        """`kept`: documents, newest first."""
        if len(set(kept)) != len(kept):
            yield f"H1 {self.name}: a document is in the history twice: {kept}"
        for newer, older in zip(kept, kept[1:]):
            if self.saves[older].begin > self.published[newer]:
                yield f"H1 {self.name}: {older} is listed before {newer}, but was begun after that was published"
        if kept:
            last = self.published[kept[-1]]
            for key in self.saves.keys() - set(kept):
                save = self.saves[key]
                if save.result == "ok" and save.begin > last:
                    yield f"H1 {self.name}: {key} was acknowledged after {kept[-1]}, which is kept, but is not in the history"


def strays(directory, expected):
    """Paths below `directory` that nobody should have left, the programs' own temporary directory aside."""
    found = []
    for parent, directories, files in os.walk(directory):
        if parent == directory:
            directories[:] = [d for d in directories if d not in (".concord", TEMPORARY)]
            files = [f for f in files if f not in expected and f != "concord.toml"]
        found += [os.path.join(parent, f) for f in files]
    return found


class Concord:
    """The command, for the checker."""

    def __init__(self, binary):
        self.binary = binary

    def run(self, *arguments, timeout_s=60):
        done = subprocess.run(
            [self.binary, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"concord {' '.join(arguments)}: exit {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def history(self, path):
        return json.loads(self.run("history", path, "--json"))

    def show(self, path, version):
        return self.run("show", f"{path}@{version}")


def check(directory, log_directory, concord, now, crashed=False):
    """All checks; returns (violations, a line of numbers)."""
    events = load_events(log_directory)
    wrong = [f"R1 {name}: a read gave no whole document, kept as {where}" for name, _, _, where in events.bad]
    if not crashed:
        wrong += [f"R1 {name}: a read failed with {code}" for name, code, _ in events.errors]
    else:
        allowed = {"ENOTCONN", "ECONNABORTED", "EIO", "ESHUTDOWN"}
        wrong += [f"R1 {name}: a read failed with {code}" for name, code, _ in events.errors if code not in allowed]
    for name in sorted(events.saves):
        checker = FileChecker(name, events)
        wrong += checker.check_reads()
        path = os.path.join(directory, name)
        with open(path, "rb") as f:
            data = f.read()
        wrong += checker.check_content(data, now, "its content")
        if concord:
            listing = concord.history(path)
            wrong += checker.check_history(listing, lambda n, p=path: concord.show(p, n), events.bases.get(name))
            if listing and concord.show(path, listing[0]["version"]) != data:
                wrong.append(f"H1 {name}: its content is not the newest version, {listing[0]['version']}")
    wrong += [f"F1 left behind: {path}" for path in strays(directory, set(events.saves))]
    return wrong, numbers(events)


def numbers(events):
    results = defaultdict(int)
    for saves in events.saves.values():
        for save in saves.values():
            results[save.result] += 1
    reads = sum(map(len, events.reads.values()))
    shown = ", ".join(f"{n} {result}" for result, n in sorted(results.items()))
    return f"saves: {shown}; reads: {reads} whole, {len(events.bad)} not, {len(events.errors)} failed"
