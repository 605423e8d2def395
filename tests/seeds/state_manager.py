"""The state manager: STATE.md with a `.lock` file, a backup before each write, a temporary file, and retries.

Unlocked, its first form: it reads STATE.md and writes it back in place.
"""
import errno
import fcntl
import os
import random
import re
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import crowd

STATE = Path('STATE.md')
MAX_RETRIES, RETRY_DELAY, DELAY_MAX = 200, 0.02, 0.5


@contextmanager
def lock_state():
    lock_path = STATE.with_suffix('.lock')
    lock_file = open(lock_path, 'w')
    try:
        fcntl.flock(lock_file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock_file
    except IOError as e:
        if e.errno == errno.EWOULDBLOCK:
            raise RuntimeError('STATE.md is locked by another process')
        raise
    finally:
        fcntl.flock(lock_file.fileno(), fcntl.LOCK_UN)
        lock_file.close()


def validate_markdown(content):
    if not re.search(r'^# Workflow:', content, re.MULTILINE):
        raise ValueError("Missing '# Workflow:' header")
    notes = re.findall(r'^- \[x\] \d+\.\d+$', content, re.MULTILINE)
    said = re.search(r'^Wave (\d+)/\1$', content, re.MULTILINE)
    if not said or int(said[1]) != len(notes) or not content.endswith('## End\n'):
        raise ValueError('torn: ' + content)
    return notes


def write_state_atomic(content):
    validate_markdown(content)
    if STATE.exists():
        shutil.copy2(STATE, STATE.with_suffix('.backup'))
    temp_path = STATE.with_suffix('.tmp')
    temp_path.write_text(content, encoding='utf-8')
    temp_path.rename(STATE)


def to_markdown(notes):
    lines = ''.join(note + '\n' for note in notes)
    return f'# Workflow: seed\nWave {len(notes)}/{len(notes)}\n## Completed\n{lines}## End\n'


def add_note(number, turn):
    notes = validate_markdown(STATE.read_text())
    return to_markdown(notes + [f'- [x] {number}.{turn}'])


def locked(number, turn):
    for attempt in range(MAX_RETRIES):
        try:
            with lock_state():
                write_state_atomic(add_note(number, turn))
                return
        except RuntimeError:
            time.sleep(min(DELAY_MAX, RETRY_DELAY * 2 ** min(attempt, 6)) * random.random())
    raise RuntimeError(f'could not acquire the lock after {MAX_RETRIES} attempts')


def unlocked(number, turn):
    STATE.write_text(add_note(number, turn))


if __name__ == '__main__':
    form, processes, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    STATE.write_text(to_markdown([]))
    crowd.run({'locked': locked, 'unlocked': unlocked}[form], validate_markdown, STATE, processes, times)
    print(len(set(validate_markdown(STATE.read_text()))))
    if form == 'locked':
        assert len(validate_markdown(STATE.with_suffix('.backup').read_text())) == processes * times - 1
        assert not STATE.with_suffix('.tmp').exists()
        with lock_state():
            pass
