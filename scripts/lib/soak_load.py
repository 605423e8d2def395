"""The soak's load: writers and readers over a few coordinated files, and the log of everything that they did.

Each process appends to its own file in the log directory, one line an event, times from CLOCK_MONOTONIC in nanoseconds:

  begin FILE WRITER COUNT TIME           about to save document COUNT of WRITER
  done FILE WRITER COUNT TIME RESULT     "ok": close(2) or rename(2) returned 0; "refused-ERRNO"; "unknown-ERRNO"
  read FILE WRITER COUNT OPENED ENDED    a read gave exactly this document, whole
  bad FILE OPENED ENDED COPY             a read gave something else; its bytes are in the log directory under COPY
  error FILE ERRNO OPENED ENDED          a read failed
  base FILE VERSION                      the version that the first document got

Processes reach the files only by a directory descriptor, opened when the log's `generation` file says that the mount is there
(and has the device number named there). So nothing is ever written past the mount while it is down.
"""

import errno
import hashlib
import os
import random
import re
import signal
import time

HEAD = re.compile(rb"doc (\d+) (\d+) (\d+)\n")
TEMPORARY = "tmp"
# How long a process may need to end after `stop`: the default `wait` of 5 s for the file, and room.
GRACE_S = 30
# The daemon is gone, or went while it worked: nobody can say whether the save was published.
UNKNOWN = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ESHUTDOWN}


def document(writer, count):
    """The bytes of a document; whoever knows the two numbers knows every byte."""
    key = b"%d %d" % (writer, count)
    size = 200 + int.from_bytes(hashlib.blake2b(key, digest_size=2).digest(), "big") % 12_000
    return b"doc %d %d %d\n" % (writer, count, size) + hashlib.shake_128(key).hexdigest(size).encode() + b"\nend\n"


def identify(data):
    """(writer, count) of the document that `data` is, byte for byte; None when it is none."""
    head = HEAD.match(data)
    if not head:
        return None
    writer, count = int(head[1]), int(head[2])
    return (writer, count) if document(writer, count) == data else None


def file_names(files):
    """The coordinated files; *.md is among the built-in rules."""
    return [f"shared-{n}.md" for n in range(files)]


class Log:
    """One process's log. Each line is one write(2): it survives the process being killed."""

    def __init__(self, directory, name):
        self.directory = directory
        self.name = name
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.fd = os.open(os.path.join(directory, name + ".log"), flags, 0o644)

    def write(self, *words):
        os.write(self.fd, (" ".join(map(str, words)) + "\n").encode())

    def keep(self, data, number):
        copy = f"{self.name}-bad-{number}"
        with open(os.path.join(self.directory, copy), "wb") as f:
            f.write(data)
        return copy


def stopped(log_directory):
    return os.path.exists(os.path.join(log_directory, "stop"))


def announce_mount(log_directory, directory):
    """Says to the load that `directory` is mounted (again)."""
    path = os.path.join(log_directory, "generation")
    generation = read_generation(log_directory)[0] + 1
    with open(path + ".new", "w") as f:
        f.write(f"{generation} {os.stat(directory).st_dev}")
    os.replace(path + ".new", path)


def read_generation(log_directory):
    try:
        with open(os.path.join(log_directory, "generation")) as f:
            generation, device = f.read().split()
        return int(generation), int(device)
    except FileNotFoundError:
        return 0, 0


class Root:
    """The directory of the files, through the mount."""

    def __init__(self, directory, log_directory):
        self.directory = directory
        self.log_directory = log_directory
        self.generation = 0
        self.fd = -1

    def reopen(self):
        """Waits for a mount newer than the last one; False when the load was stopped instead."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        while not stopped(self.log_directory):
            generation, device = read_generation(self.log_directory)
            if generation > self.generation:
                try:
                    fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
                    if os.fstat(fd).st_dev == device:
                        self.fd, self.generation = fd, generation
                        return True
                    os.close(fd)
                except OSError:
                    pass
            time.sleep(0.02)
        return False

    def open(self, name, flags):
        return os.open(name, flags, 0o644, dir_fd=self.fd)


def write_all(fd, data, parts):
    """Writes in several write(2)s: a reader that sees the file itself sees it grow."""
    step = max(1, len(data) // parts)
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        if os.write(fd, piece) != len(piece):
            raise OSError(errno.ENOSPC, "short write")


def save_truncating(root, name, data, _writer):
    """open(O_TRUNC), writes, close."""
    fd = root.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(fd, data, 4)
    finally:
        os.close(fd)


def save_replacing(root, name, data, writer):
    """A temporary file in an ordinary directory, then rename."""
    temporary = f"{TEMPORARY}/{writer}"
    fd = root.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(fd, data, 2)
    finally:
        os.close(fd)
    os.replace(temporary, name, src_dir_fd=root.fd, dst_dir_fd=root.fd)


def save_over(root, name, data, _writer):
    """open(O_RDWR) without O_TRUNC, writes over what is there, cuts to length."""
    fd = root.open(name, os.O_RDWR)
    try:
        write_all(fd, data, 3)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


WAYS = {"truncate": save_truncating, "replace": save_replacing, "over": save_over}


def writer_loop(number, root, names, ways, pace_s):
    log = Log(root.log_directory, f"writer-{number}")
    draw = random.Random(number)
    save = WAYS[ways[number % len(ways)]]
    count = 0
    alive = root.reopen()
    while alive and not stopped(root.log_directory):
        name, count = draw.choice(names), count + 1
        data = document(number, count)
        log.write("begin", name, number, count, time.monotonic_ns())
        result = "ok"
        try:
            save(root, name, data, number)
        except OSError as error:
            kind = "unknown" if error.errno in UNKNOWN else "refused"
            result = f"{kind}-{errno.errorcode.get(error.errno, error.errno)}"
        log.write("done", name, number, count, time.monotonic_ns(), result)
        if result.startswith("unknown"):
            alive = root.reopen()
        time.sleep(draw.random() * pace_s)


def read_file(root, name):
    fd = root.open(name, os.O_RDONLY)
    try:
        # Small pieces: many publishes may come between the first and the last.
        return b"".join(iter(lambda: os.read(fd, 3000), b""))
    finally:
        os.close(fd)


def reader_loop(number, root, names):
    log = Log(root.log_directory, f"reader-{number}")
    draw = random.Random(-number)
    bad = 0
    alive = root.reopen()
    while alive and not stopped(root.log_directory):
        name, opened = draw.choice(names), time.monotonic_ns()
        try:
            data = read_file(root, name)
        except OSError as error:
            code = errno.errorcode.get(error.errno, error.errno)
            log.write("error", name, code, opened, time.monotonic_ns())
            if error.errno in UNKNOWN:
                alive = root.reopen()
            continue
        ended, found = time.monotonic_ns(), identify(data)
        if found:
            log.write("read", name, *found, opened, ended)
        else:
            bad += 1
            log.write("bad", name, opened, ended, log.keep(data, bad))
        time.sleep(draw.random() * 0.005)


def spawn(loop, *arguments):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = 1
        try:
            loop(*arguments)
            code = 0
        finally:
            os._exit(code)
    return pid


def seed(directory, names, log_directory, versions_of):
    """Writes document (0, n) to each name, and logs it like any other save."""
    log = Log(log_directory, "writer-0")
    os.makedirs(os.path.join(directory, TEMPORARY), exist_ok=True)
    for count, name in enumerate(names):
        log.write("begin", name, 0, count, time.monotonic_ns())
        with open(os.path.join(directory, name), "wb") as f:
            f.write(document(0, count))
        log.write("done", name, 0, count, time.monotonic_ns(), "ok")
        versions = versions_of(os.path.join(directory, name))
        if versions:
            log.write("base", name, versions[0]["version"])


class Load:
    """All processes of one load; every one of them is ended by `finish` or `kill_all`."""

    def __init__(self, arguments, names):
        self.arguments = arguments
        self.names = names
        self.next_writer = 1
        self.writers = {}
        self.readers = {}

    def root(self):
        return Root(self.arguments.dir, self.arguments.log)

    def add_writer(self):
        number, self.next_writer = self.next_writer, self.next_writer + 1
        pace_s = self.arguments.pace_ms / 1000
        pid = spawn(writer_loop, number, self.root(), self.names, self.arguments.ways.split(","), pace_s)
        self.writers[pid] = number

    def start(self):
        for _ in range(self.arguments.writers):
            self.add_writer()
        for number in range(1, self.arguments.readers + 1):
            self.readers[spawn(reader_loop, number, self.root(), self.names)] = number

    def kill_one_writer(self):
        """SIGKILL in mid-save, and a new writer in its place."""
        pid = random.choice(list(self.writers))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.writers[pid]
        self.add_writer()

    def finish(self):
        """Returns what went wrong with the processes themselves."""
        with open(os.path.join(self.arguments.log, "stop"), "w"):
            pass
        wrong = []
        deadline = time.monotonic() + GRACE_S
        for kind, pids in (("writer", self.writers), ("reader", self.readers)):
            while pids:
                pid, number = next(iter(pids.items()))
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    del pids[pid]
                    if status:
                        wrong.append(f"{kind} {number} ended with status {os.waitstatus_to_exitcode(status)}")
                elif time.monotonic() > deadline:
                    wrong.append(f"{kind} {number} (pid {pid}) is stuck: it did not end within {GRACE_S} s")
                    os.kill(pid, signal.SIGKILL)
                    del pids[pid]
                else:
                    time.sleep(0.02)
        return wrong

    def kill_all(self):
        for pid in [*self.writers, *self.readers]:
            os.kill(pid, signal.SIGKILL)
