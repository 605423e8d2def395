"""Makes the mutations of mutations.py in a copy of the work tree, one after the other, and runs the tests that must fail with each."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutations import MUTATIONS

REPO = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 900
# The tests of one mutation. Who waits for something that the mutated daemon never does is seen to fail, too.
TEST_SECONDS = 240
# How long a test waits for what never comes.
COMMAND_SECONDS = 20
# A mutant is built once and run for seconds: what cargo can reuse counts more than how fast it runs.
PROFILE = {"OPT_LEVEL": "1", "INCREMENTAL": "true", "DEBUG": "0"}

SEEN, SURVIVED, BROKEN = "seen to fail", "SURVIVED", "CANNOT BE MADE"


class Copy:
    """A copy of the work tree, with what is not committed, and the directory that its tests may fill and mount in."""

    def __init__(self, home: Path):
        self.tree, self.tests = home / "tree", home / "tests"
        self.tests.mkdir()
        home.chmod(0o755)
        self.tests.chmod(0o755)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO, check=True, capture_output=True
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (REPO / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / name, self.tree / name)
        target = os.environ.get("CARGO_TARGET_DIR") or str(REPO / "target" / "mutations")
        self.environment = os.environ | {f"CARGO_PROFILE_RELEASE_{key}": value for key, value in PROFILE.items()}
        self.environment |= {
            "CARGO_TARGET_DIR": target,
            "TMPDIR": str(self.tests),
            "CONCORD_TEST_COMMAND_SECONDS": str(COMMAND_SECONDS),
        }

    def cargo(self, arguments: list[str], seconds: int) -> tuple[int | None, str]:
        """Exit code, None after the time limit; and all that was said."""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                ["cargo", *arguments],
                cwd=self.tree,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                os.killpg(process.pid, signal.SIGKILL)
            if code is None:
                # Somebody waits for a mount: nothing else ends him.
                self.clear_mounts()
                process.wait()
            said.seek(0)
            return code, said.read().decode(errors="replace")

    def clear_mounts(self):
        """Cuts off what is mounted below the tests' directory, and ends the daemons of it."""
        for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
            fields, _, rest = line.partition(" - ")
            device, point = fields.split()[2], fields.split()[4]
            if not point.startswith(f"{self.tests}/"):
                continue
            abort = Path(f"/sys/fs/fuse/connections/{device.split(':')[1]}/abort")
            if rest.startswith("fuse.concordfs") and abort.exists():
                abort.write_text("1")
            subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL, timeout=30)
        for beacon in self.tests.glob("*/*/.concord/daemon.json"):
            try:
                os.kill(json.loads(beacon.read_text())["pid"], signal.SIGKILL)
            except (OSError, ValueError, KeyError):
                pass

    def run_tests(self, tests: list[str]) -> tuple[dict[str, str], str]:
        """What became of each test: "ok", "FAILED", "hangs", or nothing when it does not exist. And all that was said."""
        targets: dict[str, list[str]] = {}
        for test in tests:
            target, name = test.split("::", 1)
            targets.setdefault(target, []).append(name)
        build = ["test", "--release", "--no-run", *(word for target in targets for word in which(target))]
        code, said = self.cargo(build, BUILD_SECONDS)
        if code != 0:
            return {}, said
        ended: dict[str, str] = {}
        for target, names in targets.items():
            code, text = self.cargo(["test", "--release", *which(target), "--", "--exact", *names], TEST_SECONDS)
            said += text
            for name, result in re.findall(r"^test (\S+) \.\.\. (ok|FAILED)$", text, re.MULTILINE):
                ended[f"{target}::{name}"] = result
            if code is None:
                ended |= {f"{target}::{name}": "hangs" for name in names if f"{target}::{name}" not in ended}
            self.clear_mounts()
        return ended, said


def which(target: str) -> list[str]:
    """What cargo calls a target; `lib` is the unit tests."""
    return ["--lib"] if target == "lib" else ["--test", target]


def attempt(copy: Copy, mutation) -> tuple[str, str]:
    """How a mutation fared, and why or with what."""
    path = copy.tree / mutation.file
    original = path.read_text() if path.exists() else ""
    found = original.count(mutation.old)
    if found != 1:
        return BROKEN, f"the old text is {found} times in {mutation.file}; it must be there once"
    try:
        path.write_text(original.replace(mutation.old, mutation.new))
        ended, said = copy.run_tests(mutation.tests)
    finally:
        path.write_text(original)
    if missing := [test for test in mutation.tests if test not in ended]:
        errors = "\n".join(line for line in said.splitlines() if re.match(r"error|running 0|\s+-->", line))
        return BROKEN, f"no result of {', '.join(missing)}\n{errors or said[-2000:]}"
    if passed := [test for test in mutation.tests if ended[test] == "ok"]:
        return SURVIVED, f"passed: {', '.join(passed)}"
    return SEEN, ", ".join(f"{test} {ended[test]}{why_failed(test, said)}" for test in mutation.tests)


def why_failed(test: str, said: str) -> str:
    """Where and with what a test ended, in brackets, so that one that failed for another reason than the mutation is noticed."""
    name = re.escape(test.split("::", 1)[1])
    panic = re.search(rf"^thread '{name}'[^\n]* panicked at (\S+):\n(.*?)\n(?:stack backtrace|note):", said, re.MULTILINE | re.DOTALL)
    if not panic:
        return ""
    words = " ".join(panic[2].split())
    return f" ({panic[1]}: {words if len(words) < 300 else f'{words[:150]} … {words[-150:]}'})"


def check_baseline(copy: Copy, mutations) -> bool:
    """A test that fails anyway shows nothing."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    ended, said = copy.run_tests(tests)
    wrong = [test for test in tests if ended.get(test) != "ok"]
    for test in wrong:
        print(f"with the code as it is: {test} {ended.get(test, 'does not run')}")
    if wrong:
        print(said[-8000:])
    print(f"with the code as it is: {len(tests) - len(wrong)} of {len(tests)} tests pass", flush=True)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutate.sh")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", action="append", metavar="CLAIM", default=[])
    parser.add_argument("--no-baseline", action="store_true")
    options = parser.parse_args()
    wanted = {word.lower() for word in options.only}
    mutations = [m for m in MUTATIONS if not wanted or wanted & {m.claim.lower(), m.name}]
    if not mutations:
        print(f"no mutation of {', '.join(options.only)}; --list shows them", file=sys.stderr)
        return 2
    if options.list:
        stale = [m for m in mutations if (REPO / m.file).read_text().count(m.old) != 1]
        for mutation in mutations:
            print(f"{mutation.claim:6} {mutation.name}{' (STALE)' if mutation in stale else ''}")
            print(f"       {mutation.file}: {', '.join(mutation.tests)}")
        print(f"{len(mutations)} mutations of {len({m.claim for m in mutations})} claims, {len(stale)} of them stale")
        return int(bool(stale))
    results = []
    with tempfile.TemporaryDirectory(prefix="concord-mutate-", ignore_cleanup_errors=True) as home:
        copy = Copy(Path(home))
        try:
            if not options.no_baseline and not check_baseline(copy, mutations):
                return 1
            for mutation in mutations:
                began = time.monotonic()
                result, why = attempt(copy, mutation)
                results.append(result)
                print(f"{result:14} {mutation.claim:6} {mutation.name} ({time.monotonic() - began:.0f} s): {why}", flush=True)
        finally:
            copy.clear_mounts()
            # The copy's path is never the same again, and so is nothing that was built for it but the dependencies.
            copy.cargo(["clean", "--release", "-p", "concordfs"], BUILD_SECONDS)
    print(", ".join(f"{results.count(result)} {result}" for result in (SEEN, SURVIVED, BROKEN)))
    return int(any(result != SEEN for result in results))


if __name__ == "__main__":
    sys.exit(main())
