"""Reads the document, changes it, writes it back over the old one: open(path, "r+"), seek, truncate.

As such programs do, it begins anew when it cannot make sense of what it reads; what was in the file is lost then.
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from documents import json_document, json_sum

path, stop = sys.argv[1:3]
saves = refused = restarted = 0
while not os.path.exists(stop):
    by = f"update {saves + refused}"
    try:
        with open(path) as f:
            document = json.load(f)
        items = document["items"][1:] + document["items"][:1]
    except (OSError, ValueError, KeyError):
        restarted += 1
        items = json_document(by, 100)["items"]
    for item in items:
        item["by"] = by
    document = {"by": by, "items": items, "sum": json_sum([item["text"] for item in items])}
    try:
        with open(path, "r+") as f:
            f.truncate(0)
            json.dump(document, f, indent=2)
        saves += 1
    except OSError as error:
        print(error, file=sys.stderr)
        refused += 1
    time.sleep(0.01)
print(f"saves={saves} refused={refused} restarted={restarted}")
