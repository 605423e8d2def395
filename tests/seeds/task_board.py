"""The task board: a lock file beside the board (flock, with a timeout), safe_json_read and safe_json_write (a temporary file, then a rename).

Unlocked, its first form: it reads the board and writes it back in place.
"""
import fcntl
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import crowd

BOARD = Path('runtime/agent_comms/project_boards/working_tasks.json')


class FileLock:
    """A lock file of its own, which stays: whoever removed it would let two in."""

    def __init__(self, path, timeout=60.0):
        self.path, self.timeout = f'{path}.lock', timeout

    def __enter__(self):
        start = time.time()
        self.file = open(self.path, 'a')
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.time() - start > self.timeout:
                    raise TimeoutError(self.path)
                time.sleep(0.01)

    def __exit__(self, *_):
        fcntl.flock(self.file, fcntl.LOCK_UN)
        self.file.close()


def safe_json_read(path, default):
    try:
        return whole(path.read_text())
    except FileNotFoundError:
        return default


def safe_json_write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temp = tempfile.mkstemp(dir=path.parent, suffix='.tmp')
    with os.fdopen(fd, 'w') as f:
        json.dump(value, f)
    if path.exists():
        os.chmod(temp, path.stat().st_mode & 0o7777)
    os.replace(temp, path)


def whole(content):
    tasks = json.loads(content)
    if [task['id'] for task in tasks] != list(range(len(tasks))):
        raise ValueError('torn: ' + content)
    return tasks


def update(tasks, number, turn):
    task = tasks[number]
    task['status'] = f'step {turn}'
    task['history'].append(turn)
    return tasks


def locked(number, turn):
    with FileLock(BOARD):
        safe_json_write(BOARD, update(safe_json_read(BOARD, default=[]), number, turn))


def unlocked(number, turn):
    tasks = update(whole(BOARD.read_text()), number, turn)
    BOARD.write_text(json.dumps(tasks))


if __name__ == '__main__':
    form, processes, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    safe_json_write(BOARD, [{'id': number, 'status': 'new', 'history': []} for number in range(processes)])
    crowd.run({'locked': locked, 'unlocked': unlocked}[form], whole, BOARD, processes, times)
    tasks = whole(BOARD.read_text())
    print(sum(len(task['history']) for task in tasks))
    if form == 'locked':
        assert all(task['history'] == list(range(times)) for task in tasks), 'each in its order'
        left = [name for name in os.listdir(BOARD.parent) if name.endswith('.tmp')]
        assert left == [], left
        with FileLock(BOARD, timeout=1):
            pass
