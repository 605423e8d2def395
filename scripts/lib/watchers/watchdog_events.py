"""Python's watchdog on a path: at each event that tells of a change the file is read; what was read goes out as a line.

Arguments: PATH FILE KINDS, where KINDS is "all" or the event types to listen for, by commas.
"""

import sys
import time

from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

path, file, kinds = sys.argv[1:]


class Told(FileSystemEventHandler):
    def on_any_event(self, event):
        # What reading itself makes is no change.
        if event.event_type in ("opened", "closed_no_write"):
            return
        if kinds != "all" and event.event_type not in kinds.split(","):
            return
        try:
            with open(file) as reader:
                lines = reader.read().splitlines()
        except FileNotFoundError:
            lines = []
        print("saw", lines[-1] if lines else "none", flush=True)


observer = Observer()
observer.schedule(Told(), path, recursive=False)
observer.start()
print("ready", flush=True)
while True:
    time.sleep(60)
