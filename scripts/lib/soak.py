"""Many writers and readers over a few coordinated files, and the checker that knows every byte ever written.

  soak.py load  --dir DIR --log LOG [--seconds N] [--writers N] [--readers N] [--kill-writers] [--concord BIN]
  soak.py check --dir DIR --log LOG [--concord BIN] [--crashed]
  soak.py crash --dir DIR --log LOG --concord BIN [--backing DIR2] [--rounds N] [--every S] (and load's options)

DIR is (in) a mounted project, LOG a new directory outside of it. `check` may be run on the mount or, after unmounting, on the
backing tree; with --concord it looks at the history too. `crash` has its own mount made and removed: it kills the daemon under
the load, recovers, checks, mounts again. --crashed: the daemon died during this load, so reads may have failed with ENOTCONN.
Exit codes: 0, 1 for a broken promise (each on a line of its own), 2 for usage or something that could not be run.
"""

import argparse
import os
import signal
import sys
import time
import traceback

import soak_check
import soak_crash
import soak_load

SHOWN_MAX = 20


def report(wrong, line):
    for violation in wrong[:SHOWN_MAX]:
        print(violation)
    if len(wrong) > SHOWN_MAX:
        print(f"... and {len(wrong) - SHOWN_MAX} more")
    if line:
        print(line)
    print(f"{len(wrong)} broken promises")
    return 1 if wrong else 0


def load(arguments):
    names = soak_load.file_names(arguments.files)
    versions_of = soak_check.Concord(arguments.concord).history if arguments.concord else lambda _: None
    os.makedirs(arguments.log, exist_ok=True)
    soak_load.seed(arguments.dir, names, arguments.log, versions_of)
    running = soak_load.Load(arguments, names)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        running.start()
        if not arguments.until_stop:
            soak_load.announce_mount(arguments.log, arguments.dir)
        end = time.monotonic() + arguments.seconds
        while not soak_load.stopped(arguments.log) and (arguments.until_stop or time.monotonic() < end):
            time.sleep(0.1)
            if arguments.kill_writers:
                running.kill_one_writer()
        wrong = running.finish()
    finally:
        running.kill_all()
    return report(wrong, "")


def check(arguments):
    concord = soak_check.Concord(arguments.concord) if arguments.concord else None
    return report(*soak_check.check(arguments.dir, arguments.log, concord, time.monotonic_ns(), arguments.crashed))


def crash(arguments):
    return report(*soak_crash.run(arguments, os.path.abspath(__file__)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, do in (("load", load), ("check", check), ("crash", crash)):
        command = commands.add_parser(name)
        command.set_defaults(do=do)
        command.add_argument("--dir", required=True)
        command.add_argument("--log", required=True)
        command.add_argument("--concord", required=do is crash)
        if do is check:
            command.add_argument("--crashed", action="store_true")
            continue
        command.add_argument("--writers", type=int, default=100)
        command.add_argument("--readers", type=int, default=20)
        command.add_argument("--files", type=int, default=4)
        command.add_argument("--pace-ms", type=float, default=10, help="a writer's longest pause between saves")
        command.add_argument("--ways", default="truncate,replace,over", help="how writers save, by turns")
        command.add_argument("--kill-writers", action="store_true", help="SIGKILL one every 0.1 s")
        if do is load:
            command.add_argument("--seconds", type=float, default=30)
            command.add_argument("--until-stop", action="store_true", help="end when LOG/stop is there")
        else:
            command.add_argument("--backing")
            command.add_argument("--rounds", type=int, default=5)
            command.add_argument("--every", type=float, default=3, help="seconds of load before each kill")
    arguments = parser.parse_args()
    try:
        return arguments.do(arguments)
    except Exception:
        # 1 is for broken promises only.
        traceback.print_exc()
        return 2


if __name__ == "__main__":
    sys.exit(main())
