"""The refresh of a lock, as its report tests it: one agent refreshes its lock file while all the others look for a moment at which it is not there.
A lock's file has a coordinated name here (`.json`), as an agent's own design may.

Unlocked, its first form: the refresh removes the file and makes it anew, in two steps.
"""
import json
import os
import sys
import time
from pathlib import Path

import crowd

LOCK = Path('lock.json')


def whole(content):
    lock = json.loads(content)
    if lock['agent_id'] != 'agent-0' or lock['reason'] != 'x' * lock['refreshed']:
        raise ValueError('torn: ' + content)
    return lock


def stored(refreshed):
    return json.dumps({'agent_id': 'agent-0', 'refreshed': refreshed, 'reason': 'x' * refreshed}, indent=2)


def refresh(form):
    lock = whole(LOCK.read_text())
    if form == 'unlocked':
        LOCK.unlink()
        LOCK.write_text(stored(lock['refreshed'] + 1))
        return
    temp = LOCK.with_suffix('.lock.tmp')
    with temp.open('w') as f:
        f.write(stored(lock['refreshed'] + 1))
    os.replace(temp, LOCK)


def work_of(form):
    def work(number, turn):
        if number == 0:
            return refresh(form)
        try:
            whole(LOCK.read_text())
            if form == 'locked':
                # Somebody else tries to get it.
                os.close(os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                raise RuntimeError('it was not there')
        except FileExistsError:
            pass
        except FileNotFoundError:
            if form == 'locked':
                raise
        time.sleep(0.001)

    return work


if __name__ == '__main__':
    form, processes, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    LOCK.write_text(stored(0))
    data = LOCK
    if form == 'unlocked':
        # It may well not be there when it is looked for.
        data = Path('still.json')
        data.write_text(stored(0))
    crowd.run(work_of(form), whole, data, processes, times)
    print(whole(LOCK.read_text())['refreshed'])
    assert not LOCK.with_suffix('.lock.tmp').exists()
