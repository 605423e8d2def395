"""The careful way: a temporary file beside it, then os.replace."""

import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from documents import json_document

path, stop = sys.argv[1:3]
saves = refused = 0
while not os.path.exists(stop):
    document = json_document(f"replace {saves + refused}", 100 + saves * 53 % 300)
    try:
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as f:
            json.dump(document, f, indent=2)
        os.replace(f.name, path)
        saves += 1
    except OSError as error:
        print(error, file=sys.stderr)
        refused += 1
    time.sleep(0.01)
print(f"saves={saves} refused={refused}")
