"""Writes the names of the tests that bear each claim into the table at the end of docs/SEMANTICS.md. Run from the repository's root."""

import glob
import os
import re

found = {}
for path in sorted(glob.glob("tests/*.rs")):
    for name in re.findall(r"#\[test\]\s+fn ((?:[rwhof]\d+|never)_\w+)", open(path).read()):
        claim = name.split("_")[0]
        claim = claim.upper() if claim != "never" else "Never"
        found.setdefault(claim, {}).setdefault(os.path.basename(path), []).append(name)

lines = open("docs/SEMANTICS.md").read().split("\n")
for number, line in enumerate(lines):
    cells = line.split(" | ")
    claim = cells[0].removeprefix("| ")
    if len(cells) == 3 and re.fullmatch(r"[RWHOF]\d+|Never", claim):
        tests = "; ".join(
            f"`{file}`: " + ", ".join(f"`{name}`" for name in sorted(names)) for file, names in sorted(found.get(claim, {}).items())
        )
        lines[number] = " | ".join([cells[0], tests or "(none)", cells[2]])
open("docs/SEMANTICS.md", "w").write("\n".join(lines))
