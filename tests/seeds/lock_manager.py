"""The lock manager, as it was reviewed: a lock is a file made with open('x'), refreshed by a rename, removed at its release or when it is stale.
The lock protects COORDINATION.md, which its holder reads and writes back.

Unlocked, its first form: a refresh unlinks the lock file and makes it anew, so that two agents can have it.
"""
import json
import os
import sys
import time
from pathlib import Path

import crowd

LOCKS = Path('.agent_locks')
DATA = Path('COORDINATION.md')
STALE_TIMEOUT = 300


def read_lock(path):
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def is_stale(lock):
    return time.time() - lock['locked_at'] > STALE_TIMEOUT


def write_lock(path, agent, at=None):
    with path.open('x') as f:
        json.dump({'agent_id': agent, 'locked_at': at or time.time()}, f)


def refresh(path, agent, form):
    if form == 'unlocked':
        try:
            path.unlink()
            write_lock(path, agent)
        except (FileNotFoundError, FileExistsError):
            pass
        return
    temp = path.with_suffix('.lock.tmp')
    with temp.open('w') as f:
        json.dump({'agent_id': agent, 'locked_at': time.time()}, f)
    os.replace(temp, path)


def acquire(path, agent):
    try:
        write_lock(path, agent)
        return True
    except FileExistsError:
        return False


def release(path, agent):
    lock = read_lock(path)
    if lock and lock['agent_id'] == agent:
        path.unlink(missing_ok=True)


def cleanup_stale_locks():
    """Returns how many it removed."""
    count = 0
    for path in LOCKS.glob('*.lock'):
        lock = read_lock(path)
        if lock and is_stale(lock):
            try:
                path.unlink()
                count += 1
            except FileNotFoundError:
                pass
    return count


def whole(content):
    lines = content.splitlines()
    if not lines or lines[0] != f'# Coordination {len(lines) - 2}' or lines[-1] != 'end':
        raise ValueError('torn: ' + content)
    return lines[1:-1]


def with_entry(entry):
    entries = whole(DATA.read_text()) + [entry]
    return '\n'.join([f'# Coordination {len(entries)}', *entries, 'end', ''])


def turn_of(form):
    def work(number, turn):
        path, agent = LOCKS / 'coordination.lock', f'agent-{number}'
        while not acquire(path, agent):
            cleanup_stale_locks()
            time.sleep(0.003)
        try:
            refresh(path, agent, form)
            DATA.write_text(with_entry(f'{agent}: {turn}'))
        finally:
            release(path, agent)

    return work


if __name__ == '__main__':
    form, processes, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    LOCKS.mkdir()
    DATA.write_text('# Coordination 0\nend\n')
    # What an agent left that died long ago.
    write_lock(LOCKS / 'coordination.lock', 'dead', at=time.time() - 2 * STALE_TIMEOUT)
    assert cleanup_stale_locks() == 1
    crowd.run(turn_of(form), whole, DATA, processes, times)
    print(len(set(whole(DATA.read_text()))))
    if form == 'locked':
        assert list(LOCKS.iterdir()) == [], 'no lock and no temporary file is left'
