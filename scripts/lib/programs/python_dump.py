"""json.dump into open(path, "w"): truncates the file, then writes it piece by piece."""

import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from documents import json_document

path, stop = sys.argv[1:3]
saves = refused = 0
while not os.path.exists(stop):
    document = json_document(f"dump {saves + refused}", 100 + saves * 37 % 300)
    try:
        with open(path, "w") as f:
            json.dump(document, f, indent=2)
        saves += 1
    except OSError as error:
        print(error, file=sys.stderr)
        refused += 1
    time.sleep(0.01)
print(f"saves={saves} refused={refused}")
