"""make_files.py DIR COUNT [--sources]: COUNT files in directories of 100; empty, or with --sources like a program's sources."""

import os
import random
import sys

SUFFIXES = ["rs"] * 7 + ["py"] * 2 + ["c"] * 4 + ["h"] * 3 + ["md", "toml", "json", "txt"]
WORDS = "let mut match return if else for while struct impl use crate self value index result error path state".split()


def main():
    directory, count = sys.argv[1], int(sys.argv[2])
    sources = "--sources" in sys.argv[3:]
    draw = random.Random(1)
    for number in range(count):
        place = os.path.join(directory, f"d{number // 1000:03}", f"e{number // 100 % 10}")
        if number % 100 == 0:
            os.makedirs(place, exist_ok=True)
        name = f"f{number:06}.{draw.choice(SUFFIXES) if sources else 'dat'}"
        with open(os.path.join(place, name), "w") as f:
            if sources:
                lines = (" ".join(draw.choices(WORDS, k=8)) for _ in range(draw.randrange(5, 150)))
                f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
