"""Writes a document as it comes in, a piece every 20 ms, like an agent that streams its answer into a file."""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from documents import text_document

path, by = sys.argv[1:3]
text = text_document(by, 200)
with open(path, "w") as f:
    for start in range(0, len(text), 1000):
        f.write(text[start : start + 1000])
        f.flush()
        print(start, flush=True)
        time.sleep(0.02)
