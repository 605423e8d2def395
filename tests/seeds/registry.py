"""The agents' registry: flock on the data file itself, with LOCK_NB, a timeout and retries after 50 ms; `r` to read it, `r+` to change it.

As in its document's "after" picture the lock is held from the read to the write. (Its two helper functions lock each for itself, which makes no
read-modify-write of them, on any filesystem.) Unlocked, its first form: `r` to read, `w` to write.
"""
import fcntl
import json
import os
import sys
import time

import crowd

REGISTRY = 'registry.json'
TIMEOUT = 60.0


def with_lock(mode, act):
    start = time.time()
    while True:
        f = open(REGISTRY, mode)
        try:
            try:
                fcntl.flock(f.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.time() - start >= TIMEOUT:
                    raise TimeoutError(f'Could not acquire lock on {REGISTRY} within {TIMEOUT}s')
                f.close()
                time.sleep(0.05)
                continue
            return act(f)
        finally:
            if not f.closed:
                fcntl.flock(f.fileno(), fcntl.LOCK_UN)
                f.close()


def whole(content):
    registry = json.loads(content)
    active = sum(status == 'active' for status in registry['agents'].values())
    if registry['active_count'] != active:
        raise ValueError('torn: ' + content)
    return registry


def terminated(registry, number, turn):
    registry['agents'][f'{number}.{turn}'] = 'terminated'
    registry['active_count'] = sum(status == 'active' for status in registry['agents'].values())
    return registry


def locked(number, turn):
    def change(f):
        registry = terminated(whole(f.read()), number, turn)
        f.seek(0)
        f.truncate()
        json.dump(registry, f, indent=2)
        f.flush()
        os.fsync(f.fileno())

    with_lock('r+', change)
    registry = with_lock('r', lambda f: whole(f.read()))
    if registry['agents'][f'{number}.{turn}'] != 'terminated':
        raise ValueError('its own change was lost')


def unlocked(number, turn):
    with open(REGISTRY) as f:
        registry = whole(f.read())
    terminated(registry, number, turn)
    with open(REGISTRY, 'w') as f:
        json.dump(registry, f, indent=2)


if __name__ == '__main__':
    form, processes, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    agents = {f'{number}.{turn}': 'active' for number in range(processes) for turn in range(times)}
    with open(REGISTRY, 'w') as f:
        json.dump({'active_count': len(agents), 'agents': agents}, f)
    crowd.run({'locked': locked, 'unlocked': unlocked}[form], whole, REGISTRY, processes, times)
    with open(REGISTRY) as f:
        print(len(agents) - whole(f.read())['active_count'])
