"""Several processes on one SQLite database. Prints what happened; exit 0 when all is right, 3 when it is right but some were
refused, 1 when something is wrong: an acknowledged commit that is gone, a reader that saw half a transaction, a damaged database.

A transaction adds one to a counter and one row to a log; so in every state the log has as many rows as the counter says, and at the
end there is a row for each commit that was acknowledged."""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

# The writer that is asked to wait by SQLite's own locks.
BUSY_SECONDS = 30
REFUSALS = ("readonly", "unable to open", "disk I/O error", "no such table")
# Any program must be ready for these on any filesystem: SQLite does not wait while somebody rolls a killed writer's journal back.
BUSY = ("database is locked", "database is busy", "journal to roll back")


def connect(path, mode):
    base = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    base.execute(f"PRAGMA journal_mode={mode}")
    base.execute("PRAGMA synchronous=NORMAL")
    return base


def refused(error):
    """The message, when the error is one that a program is told instead of a wrong result."""
    for word in REFUSALS + BUSY:
        if word in str(error):
            return word
    raise error


def write(path, mode, name, until, reopen):
    """Prints one line of JSON for each commit, once it is acknowledged."""
    base, number, denied = None, 0, {}
    while time.time() < until:
        try:
            base = base or connect(path, mode)
            base.execute("BEGIN IMMEDIATE")
            base.execute("UPDATE counter SET n = n + 1")
            base.execute("INSERT INTO log(writer, number, filler) VALUES (?, ?, ?)", (name, number, "x" * random.randrange(2000)))
            base.execute("COMMIT")
            print(json.dumps([name, number]), flush=True)
            number += 1
            if reopen:
                base.close()
                base = None
                time.sleep(0.01)
        except sqlite3.OperationalError as error:
            word = refused(error)
            denied[word] = denied.get(word, 0) + 1
            if base is not None:
                base.close()
                base = None
            time.sleep(0.05)
    if base is not None:
        base.close()
    print(json.dumps(["refused", denied]), flush=True)


def read(path, until, reopen):
    """Fails when the log and the counter of one state differ, or the state goes back."""
    base, last, denied = None, 0, {}
    while time.time() < until:
        try:
            base = base or sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            base.execute("BEGIN")
            (count,) = base.execute("SELECT n FROM counter").fetchone()
            (rows,) = base.execute("SELECT count(*) FROM log").fetchone()
            base.execute("COMMIT")
            if rows != count:
                sys.exit(f"a reader saw {rows} rows where the counter said {count}")
            if count < last:
                sys.exit(f"a reader saw {count} commits after it had seen {last}")
            last = count
        except sqlite3.OperationalError as error:
            # A killed writer left a journal, which a connection that only reads must not roll back: SQLITE_READONLY_ROLLBACK.
            word = refused(error).replace("readonly", "journal to roll back")
            denied[word] = denied.get(word, 0) + 1
            base = None
        if reopen:
            base = None
        time.sleep(0.01)
    print(json.dumps(["refused", denied]), flush=True)


def start(*arguments, out):
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=out, stderr=subprocess.PIPE, text=True)


def make(path, mode):
    base = connect(path, mode)
    base.execute("CREATE TABLE counter(n INTEGER)")
    base.execute("CREATE TABLE log(writer TEXT, number INTEGER, filler TEXT)")
    base.execute("INSERT INTO counter VALUES (0)")
    base.close()


def run(options):
    path = os.path.join(options.dir, "base.db")
    try:
        make(path, options.mode)
    except sqlite3.OperationalError as error:
        print(f"refused from the beginning: {refused(error)}; wrong: nothing")
        return 3
    until = time.time() + options.seconds
    notes = []

    def writer(name):
        note = open(os.path.join(options.dir, f"../{os.path.basename(options.dir)}.{name}.notes"), "w+")
        os.unlink(note.name)
        notes.append(note)
        return start("write", path, options.mode, name, until, int(options.reopen), out=note)

    processes = [writer(f"w{i}") for i in range(options.writers)]
    for _ in range(options.readers):
        note = open(os.path.join(options.dir, "../reader.notes"), "w+")
        os.unlink(note.name)
        notes.append(note)
        processes.append(start("read", path, until, int(options.reopen), out=note))
    killed = []
    while options.kill and time.time() < until - 0.5:
        time.sleep(random.uniform(0.1, 0.6))
        victim = processes[0]
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        killed.append(victim)
        processes[0] = writer(f"k{len(killed)}")
    wrong = []
    for process in processes:
        _, complaint = process.communicate(timeout=options.seconds + 120)
        if process.returncode != 0:
            wrong.append(complaint.strip().splitlines()[-1])
    acknowledged, denied = set(), {}
    for note in notes:
        note.seek(0)
        for line in note:
            # A killed writer's last line may be cut short; then the commit counts as not acknowledged.
            if not line.endswith("\n"):
                continue
            name, number = json.loads(line)
            if name == "refused":
                for word, times in number.items():
                    denied[word] = denied.get(word, 0) + times
            else:
                acknowledged.add((name, number))
    judge(path, acknowledged, wrong)
    shown = ", ".join(f"{times} x {word!r}" for word, times in denied.items()) or "none"
    print(f"{len(acknowledged)} commits acknowledged; refused: {shown}; {len(killed)} writers killed; wrong: {wrong or 'nothing'}")
    return 1 if wrong else 3 if set(denied) - set(BUSY) else 0


def judge(path, acknowledged, wrong):
    try:
        base = sqlite3.connect(path, timeout=BUSY_SECONDS)
        (sound,) = base.execute("PRAGMA integrity_check").fetchone()
        if sound != "ok":
            wrong.append(f"integrity_check: {sound}")
        (count,) = base.execute("SELECT n FROM counter").fetchone()
        rows = set(base.execute("SELECT writer, number FROM log"))
        base.close()
    except sqlite3.Error as error:
        wrong.append(f"at the end: {error}")
        return
    if len(rows) != count:
        wrong.append(f"{len(rows)} rows where the counter says {count}")
    if acknowledged - rows:
        wrong.append(f"{len(acknowledged - rows)} acknowledged commits are gone")


def main():
    if sys.argv[1] == "write":
        path, mode, name, until, reopen = sys.argv[2:]
        return write(path, mode, name, float(until), reopen == "1")
    if sys.argv[1] == "read":
        path, until, reopen = sys.argv[2:]
        return read(path, float(until), reopen == "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", required=True)
    parser.add_argument("--mode", default="delete", choices=["delete", "truncate", "persist", "wal"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--kill", action="store_true", help="SIGKILL a writer now and then")
    parser.add_argument("--reopen", action="store_true", help="a connection for each transaction")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
