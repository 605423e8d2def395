#!/usr/bin/env python3
"""Saves a file in each way that programs use, and looks whether a watcher that reads when it is told of something sees each save.

Usage: watch_saves.py DIRECTORY SAVES -- COMMAND...

COMMAND is started anew in DIRECTORY for each way. It prints a line when it watches, and "saw LAST LINE" whenever it was told of something and has read
STATE.md. Each way is tried with nobody else having the file open, and with a reader that opened it before the save. Prints a line for each: the way, how
many saves were seen, of how many.
"""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

FILE = "STATE.md"
# Far more than any watcher here waits, also on a loaded machine.
SEEN_WITHIN_SECONDS = 3
STARTED_WITHIN_SECONDS = 60
# chokidar leaves out what comes faster than this, on any filesystem.
BETWEEN_SAVES_SECONDS = 0.2
LONG_SAVE_SECONDS = 0.5


def truncate_in_place(text):
    with open(FILE, "w") as file:
        file.write(text)


def rename(text):
    fd, temporary = tempfile.mkstemp(dir=".")
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, FILE)


def redirection(text):
    subprocess.run(["sh", "-c", f'printf "%s" "$1" > {FILE}', "sh", text], check=True)


def append(text):
    subprocess.run(["sh", "-c", f'printf "%s" "$1" >> {FILE}', "sh", text], check=True)


def overwrite(text):
    with open(FILE, "r+") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def long_save(text):
    """Writes, and closes the file only after every watcher has looked."""
    with open(FILE, "w") as file:
        file.write(text)
        file.flush()
        time.sleep(LONG_SAVE_SECONDS)


WAYS = [truncate_in_place, rename, redirection, append, overwrite, long_save]


def save(way, text):
    """Saves in a process of its own: descendants of the writer, as the watcher would be of this one, see what it has not published yet."""
    child = os.fork()
    if child == 0:
        try:
            way(text)
        except BaseException as error:
            print(f"{way.__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit("The save failed: its message is above")


def listen(stream, lines):
    for line in stream:
        lines.put(line.strip())
    lines.put(None)


def hear(lines, wanted, seconds):
    """Whether the line comes in time; None ends the program, because the watcher has ended."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            break
        if line is None:
            sys.exit("The watcher ended by itself: its messages are above")
        if wanted is None or line == wanted:
            return True
    return False


def try_way(command, way, held, saves):
    """How many saves were seen, each before the next was made."""
    with open(FILE, "w") as file:
        file.write("line 0\n")
    # A group of its own: it may be several processes.
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        lines = queue.Queue()
        threading.Thread(target=listen, args=(watcher.stdout, lines), daemon=True).start()
        if not hear(lines, None, STARTED_WITHIN_SECONDS):
            sys.exit(f"The watcher did not start within {STARTED_WITHIN_SECONDS} s")
        seen = 0
        for number in range(1, saves + 1):
            time.sleep(BETWEEN_SAVES_SECONDS)
            reader = open(FILE) if held else None
            save(way, f"line {number}\n")
            seen += hear(lines, f"saw line {number}", SEEN_WITHIN_SECONDS)
            if reader:
                reader.close()
        return seen
    finally:
        os.killpg(watcher.pid, signal.SIGKILL)
        watcher.wait()


def main():
    directory, saves, dashes, *command = sys.argv[1:]
    if dashes != "--" or not command:
        sys.exit(__doc__)
    os.chdir(directory)
    for way in WAYS:
        for held in (False, True):
            seen = try_way(command, way, held, int(saves))
            print(f"{way.__name__}{'::held' if held else ''} {seen} {saves}", flush=True)


main()
