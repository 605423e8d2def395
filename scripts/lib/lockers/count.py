"""Adds one to the number in a JSON file, TURNS times, each time under a lock: count.py WAY TURNS. Who starts several of these counts to their sum."""

import fcntl
import json
import os
import sys

FILE = "count.json"


def read(file):
    file.seek(0)
    return json.load(file)["count"]


def write(file, count):
    file.seek(0)
    file.truncate()
    json.dump({"count": count}, file)
    file.flush()


def saved_in_place():
    with open(FILE) as file:
        count = read(file)
    with open(FILE, "w") as file:
        json.dump({"count": count + 1}, file)


def saved_by_replacing():
    with open(FILE) as file:
        count = read(file)
    own = f"{FILE}.{os.getpid()}"
    with open(own, "w") as file:
        json.dump({"count": count + 1}, file)
    os.replace(own, FILE)


def portalocker_itself(mode):
    import portalocker

    with portalocker.Lock(FILE, mode, timeout=600, check_interval=0.01) as file:
        write(file, read(file) + 1)


def portalocker_beside(mode, save):
    import portalocker

    with portalocker.Lock("lock.json", mode, timeout=600, check_interval=0.01):
        save()


def filelock_beside(save, kind="FileLock"):
    import filelock

    with getattr(filelock, kind)("lock.json", poll_interval=0.01):
        save()


def appended():
    """Without a newline, by a handle that lives on."""
    fd = appended.fd = getattr(appended, "fd", None) or os.open(FILE, os.O_WRONLY | os.O_APPEND)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with open(FILE) as file:
        count = read(file) + 1
    os.ftruncate(fd, 0)
    os.write(fd, json.dumps({"count": count}).encode())
    fcntl.flock(fd, fcntl.LOCK_UN)


WAYS = {
    "portalocker-r+": lambda: portalocker_itself("r+"),
    "portalocker-a+": lambda: portalocker_itself("a+"),
    "portalocker-w-beside": lambda: portalocker_beside("w", saved_in_place),
    "portalocker-a-beside-replaced": lambda: portalocker_beside("a", saved_by_replacing),
    "filelock-in-place": lambda: filelock_beside(saved_in_place),
    "filelock-replaced": lambda: filelock_beside(saved_by_replacing),
    "filelock-soft": lambda: filelock_beside(saved_in_place, "SoftFileLock"),
    "flock-of-an-appender": appended,
}

for _ in range(int(sys.argv[2])):
    WAYS[sys.argv[1]]()
