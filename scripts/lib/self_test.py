"""The checkers are themselves checked: each rule must accept what is right and see what is wrong."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import documents
import soak_check
import soak_load


class Documents(unittest.TestCase):
    def test_whole_documents_are_whole_and_every_prefix_is_not(self):
        samples = {
            "a.md": documents.text_document("w 1", 5).encode(),
            "a.json": json.dumps(documents.json_document("w 1", 5), indent=2).encode(),
        }
        for name, data in samples.items():
            self.assertEqual(documents.judge(name, data), documents.WHOLE)
            self.assertEqual(documents.judge(name, b""), documents.EMPTY)
            for length in range(1, len(data)):
                self.assertEqual(documents.judge(name, data[:length]), documents.TORN, (name, length))

    def test_a_document_of_two_saves_is_mixed(self):
        one, two = (documents.text_document(f"w {n}", 5).encode() for n in (1, 2))
        self.assertEqual(documents.judge("a.md", one[:40] + two[40:]), documents.MIXED)

    def test_a_document_with_one_other_character_in_its_text_is_torn(self):
        text = documents.text_document("w 1", 5).replace("what is next", "what is text", 1)
        self.assertEqual(documents.judge("a.md", text.encode()), documents.TORN)
        document = json.dumps(documents.json_document("w 1", 5)).replace("what is next", "what is text", 1)
        self.assertEqual(documents.judge("a.json", document.encode()), documents.TORN)

    def test_a_text_document_that_lost_a_line_in_its_middle_is_torn(self):
        lines = documents.text_document("w 1", 5).splitlines(keepends=True)
        self.assertEqual(documents.judge("a.md", "".join(lines[:2] + lines[3:]).encode()), documents.TORN)

    def test_a_log_with_half_a_line_is_torn_and_with_two_programs_in_a_line_mixed(self):
        line = b'{"by": "a 1", "text": "x", "end": "a 1"}\n'
        self.assertEqual(documents.judge("a.jsonl", line * 3), documents.WHOLE)
        self.assertEqual(documents.judge("a.jsonl", line + line[:12]), documents.TORN)
        self.assertEqual(documents.judge("a.jsonl", line + b'{"by": "a 2", {"by": "b 1", "end": "a 2"}\n'), documents.MIXED)


# Three saves: (1, 1) and then (2, 1), one after the other; (3, 1) refused meanwhile.
SAVES = """begin f 1 1 100
done f 1 1 200 ok
begin f 3 1 120
done f 3 1 220 refused-EBUSY
begin f 2 1 300
done f 2 1 400 ok
base f 1
"""


def checker(more=""):
    events = soak_check.Events()
    for line in (SAVES + more).splitlines():
        soak_check.add_event(events, line.split())
    return soak_check.FileChecker("f", events)


class Reads(unittest.TestCase):
    def wrong(self, more):
        return list(checker(more).check_reads())

    def test_reads_that_the_times_allow_are_accepted(self):
        self.assertEqual(self.wrong("read f 1 1 150 160\nread f 1 1 350 500\nread f 2 1 350 360\nread f 2 1 450 460"), [])

    def test_a_read_of_what_was_replaced_before_it_opened_is_stale(self):
        self.assertIn("stale", self.wrong("read f 1 1 401 410")[0])

    def test_a_read_of_the_old_after_somebody_read_the_new_is_stale(self):
        self.assertIn("stale", self.wrong("read f 2 1 310 320\nread f 1 1 330 340")[0])

    def test_a_read_of_a_refused_save_is_wrong(self):
        self.assertIn("failed", self.wrong("read f 3 1 150 160")[0])

    def test_a_read_of_what_nobody_saved_here_is_wrong(self):
        self.assertIn("never saved", self.wrong("read f 9 9 150 160")[0])

    def test_a_save_without_an_outcome_may_be_seen_or_not(self):
        pending = "begin f 4 1 500\n"
        self.assertEqual(self.wrong(pending + "read f 4 1 600 610"), [])
        self.assertEqual(self.wrong(pending + "read f 2 1 600 610"), [])


class History(unittest.TestCase):
    def wrong(self, versions, more="", numbers=None, current=0):
        numbers = numbers or list(range(len(versions), 0, -1))
        listing = [{"version": n, "current": i == current} for i, n in enumerate(numbers)]
        content = {n: soak_load.document(*key) if isinstance(key, tuple) else key for n, key in zip(numbers, versions)}
        return list(checker("begin f 0 0 10\ndone f 0 0 20 ok\n" + more).check_history(listing, content.get, 1))

    def test_a_history_with_every_acknowledged_save_is_accepted(self):
        self.assertEqual(self.wrong([(2, 1), (1, 1), (0, 0)]), [])
        self.assertEqual(self.wrong([(2, 1), (1, 1)], numbers=[3, 2]), [])

    def test_a_missing_version_is_seen_by_its_number_or_by_its_content(self):
        self.assertIn("versions were added", self.wrong([(2, 1), (0, 0)])[0])
        self.assertIn("is not in the history", self.wrong([(2, 1), (0, 0)], numbers=[3, 1])[0])

    def test_a_version_too_many_is_seen(self):
        self.assertIn("versions were added", self.wrong([(2, 1), (2, 1), (1, 1), (0, 0)])[0])

    def test_a_version_in_the_wrong_place_is_seen(self):
        self.assertIn("begun after", self.wrong([(1, 1), (2, 1), (0, 0)])[0])

    def test_a_torn_or_refused_version_is_seen(self):
        self.assertIn("no whole document", self.wrong([(2, 1), b"doc 1 1", (0, 0)])[0])
        self.assertIn("failed with refused", self.wrong([(2, 1), (3, 1), (0, 0)])[0])

    def test_a_current_version_that_is_not_the_newest_is_seen(self):
        self.assertIn("newest current", self.wrong([(2, 1), (1, 1), (0, 0)], current=1)[0])


class Content(unittest.TestCase):
    def test_torn_and_stale_content_is_seen(self):
        check = checker()
        self.assertEqual(list(check.check_content(soak_load.document(2, 1), 500, "it")), [])
        self.assertIn("stale", list(check.check_content(soak_load.document(1, 1), 500, "it"))[0])
        self.assertIn("no whole", list(check.check_content(soak_load.document(2, 1)[:-1], 500, "it"))[0])

    def test_files_left_behind_are_found(self):
        with tempfile.TemporaryDirectory() as directory:
            for name in ("f", "concord.toml", "f.tmp"):
                open(f"{directory}/{name}", "w").close()
            self.assertEqual(soak_check.strays(directory, {"f"}), [f"{directory}/f.tmp"])


SCRIPTS = Path(__file__).resolve().parents[1]
# Twice at one place; with the letters that mountinfo(5) writes in octal, each before a digit; and one that is not ours.
MOUNTINFO = r"""40 22 0:50 / /p rw - fuse.concordfs concordfs(pid77):/old rw
41 22 0:51 / /p rw - fuse.concordfs concordfs(pid78):/new\0401 rw
42 22 0:52 / /s\0401 rw shared:9 master:2 - fuse.concordfs concordfs(pid79):/s\0401 rw
43 22 0:53 / /t\0117\0121\1340\0430% rw - fuse.concordfs plain rw
44 22 0:54 / /other\0401 rw - fuse.sshfs host rw
"""


class Mounts(unittest.TestCase):
    """No mount of this machine is looked at here: the table is made up."""

    def setUp(self):
        self.table = tempfile.NamedTemporaryFile("w")
        self.table.write(MOUNTINFO)
        self.table.flush()

    def tearDown(self):
        self.table.close()

    def run_it(self, command):
        environment = os.environ | {"MOUNTINFO": self.table.name, "CONCORD": "/nonexistent", "LC_ALL": "C"}
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def shell(self, script):
        return self.run_it(["bash", "-euc", f'. "{SCRIPTS}/lib/common.sh"; {script}']).stdout

    def test_names_of_any_letters_are_what_they_are(self):
        points = self.shell("concord_mounts").split("\0")
        self.assertEqual(points, ["/t\t7\n1\\0#0%", "/s 1", "/p", "/p", ""])

    def test_of_two_mounts_at_one_place_the_newest_counts(self):
        self.assertEqual(self.shell("mount_source /p; mount_source '/s 1'; mount_source /none"), "/new 1\n/s 1\n")
        self.assertEqual(self.shell("concord_at /p; echo $DEVICE; is_mounted '/other 1' || echo no"), "0:51\nno\n")

    def test_an_option_without_its_value_is_wrong_usage_and_nothing_is_done(self):
        for script, arguments in [
            ("unmount-all.sh", ["--list", "--under"]),
            ("unmount-all.sh", ["--under", "--list"]),
            ("unmount-all.sh", ["--list", "--under", ""]),
            ("recover.sh", ["/p", "--backing"]),
            ("recover.sh", ["/p", "/s"]),
            ("quickstart.sh", ["--seconds"]),
            ("soak.sh", ["--writers"]),
            ("bench.sh", ["--size"]),
        ]:
            done = self.run_it([SCRIPTS / script, *arguments])
            self.assertEqual((done.returncode, done.stdout), (2, ""), (script, arguments))
            self.assertIn("Usage", done.stderr)


if __name__ == "__main__":
    unittest.main()
