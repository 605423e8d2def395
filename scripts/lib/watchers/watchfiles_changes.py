"""Python's watchfiles (Rust's notify) on a path: at each batch of changes FILE is read; what was read goes out as a line.

Arguments: PATH FILE.
"""

import sys
import threading

from watchfiles import watch

path, file = sys.argv[1:]
# It yields nothing before the first change, unless there was none for so long: by then it watches.
changes = watch(path, yield_on_timeout=True, rust_timeout=1000, recursive=False)
next(changes)
print("ready", flush=True)
for change in changes:
    if not change:
        continue
    try:
        with open(file) as reader:
            lines = reader.read().splitlines()
    except FileNotFoundError:
        lines = []
    print("saw", lines[-1] if lines else "none", flush=True)
