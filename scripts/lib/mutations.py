"""The table of scripts/mutate.sh: for each claim of docs/SEMANTICS.md the code behind it, broken, and the tests that must then fail.

What src/session and src/store promise by themselves has tests there; here it is what programs see on a mount. One place is broken at a time. The
old text must be in its file exactly once. A mutation that no test sees is a missing test: write it, and name it here.
"""

from typing import NamedTuple

from mutations_files import FILES
from mutations_sessions import SESSIONS


class Mutation(NamedTuple):
    """`tests` are named "file::test", those in tests/; each of them must fail when `old` in `file` has become `new`."""

    claim: str
    name: str
    file: str
    old: str
    new: str
    tests: list[str]


MUTATIONS = [Mutation(*entry) for entry in SESSIONS + FILES]
