"""The table of scripts/mutate.sh: for each claim of docs/SEMANTICS.md the code behind it, broken, and the tests that must then fail.

What src/session and src/store promise by themselves has tests there; here it is what programs see on a mount. One place is broken at a time. The
old text must be in its file exactly once. A mutation that no test sees is a missing test: write it, and name it here.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    claim: str
    name: str
    file: str
    old: str
    new: str
    tests: list[str]


COORDINATED = "src/mount/coordinated/"

MUTATIONS = [
    # Readers.
    Mutation(
        "R1",
        "r1-publish-copies-into-the-current-file",
        "src/store/publish.rs",
        "Some(_) => (self.disk().exchange(from, to), io::ErrorKind::NotFound),",
        """Some(_) => (
                self.disk()
                    .open_or_create(place.dir, place.name)
                    .and_then(|live| self.disk().copy_content(&shadow.file, &live)),
                io::ErrorKind::NotFound,
            ),""",
        [
            "readers::r1_a_read_handle_keeps_its_version_across_many_publishes",
            "readers::r1_a_mapping_keeps_its_version_across_many_publishes",
            "readers::r1_readers_beside_hammering_writers_never_see_a_torn_file",
        ],
    ),
    Mutation(
        "R1",
        "r1-a-nonblocking-writer-takes-the-node-of-readers",
        COORDINATED + "open.rs",
        "Some(node) if !own_node && self.tree.nodes.open_pin(node).is_some() => {",
        "Some(node) if !own_node && self.tree.nodes.open_pin(node).is_some() && id.0 == 0 => {",
        ["waiting::w2_a_nonblocking_open_leaves_readers_their_version"],
    ),
    Mutation(
        "R1",
        "r1-a-replaced-version-is-reached-by-its-name",
        COORDINATED + "close.rs",
        """            Ok(published) => {
                self.replace_node(replaced, session);""",
        """            Ok(published) => {
                drop(replaced);""",
        ["readers::r1_a_path_descriptor_keeps_its_version"],
    ),
    Mutation(
        "R1",
        "r1-what-a-rename-or-unlink-replaced-is-reached-by-its-name",
        "src/mount/entry.rs",
        ".supersede(id, Some(Arc::new(Pin::new(victim.fd, Access::Path, None))));",
        ".supersede(id, None);",
        ["readers::r1_a_path_descriptor_keeps_its_version"],
    ),
    Mutation(
        "R3",
        "r3-readers-queue-like-writers",
        "src/mount/route.rs",
        "if flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::TRUNC) {",
        "if flags & OFlags::RWMODE == OFlags::RDONLY && flags.contains(OFlags::DIRECTORY) {",
        ["readers::r3_readers_and_writers_do_not_wait_for_each_other"],
    ),
    Mutation(
        "R3",
        "r3-a-writer-is-refused-while-somebody-reads",
        COORDINATED + "open.rs",
        """            return answer(Err(Errno::STALE));
        }
        if self.files.lock().session_on(node).is_none() {""",
        """            return answer(Err(Errno::BUSY));
        }
        if self.files.lock().session_on(node).is_none() {""",
        ["readers::r3_readers_and_writers_do_not_wait_for_each_other"],
    ),
    Mutation(
        "R3",
        "r3-a-reader-is-given-anybodys-shadow",
        COORDINATED + "open.rs",
        """                own.map(|_| Arc::new(Ordinary { node, pin })).ok_or(Errno::STALE)
            }
        };""",
        """                drop(own);
                return Ok(Arc::new(Ordinary { node, pin }));
            }
        };""",
        ["readers::r3_a_reader_by_path_descriptor_gets_the_current_version"],
    ),
    Mutation(
        "R4",
        "r4-everybody-finds-the-shadow",
        COORDINATED + "open.rs",
        "&& let Some(session) = self.nearest_of(key, &caller::opener(caller))",
        "&& let Some(session) = self.files.lock().sessions(key).last().cloned()",
        [
            "readers::r4_others_see_the_current_version_and_the_holder_its_shadow",
            "names::w9_a_new_file_appears_at_its_close",
        ],
    ),
    Mutation(
        "R4",
        "r4-the-holder-finds-the-current-version",
        COORDINATED + "open.rs",
        "if !self.files.lock().sessions(key).is_empty()\n",
        "if self.files.lock().sessions(key).len() > 1000\n",
        [
            "readers::r4_others_see_the_current_version_and_the_holder_its_shadow",
            "waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file",
        ],
    ),
    Mutation(
        "R4",
        "r4-an-open-shows-the-empty-shadow",
        COORDINATED + "session.rs",
        "if let (Some(base), false) = (&self.base, self.changed) {",
        "if let (Some(base), true) = (&self.base, self.unlinked) {",
        ["readers::r4_others_see_the_current_version_and_the_holder_its_shadow"],
    ),
    Mutation(
        "R4",
        "r4-publishing-sets-the-time",
        COORDINATED + "close.rs",
        "let based_on = staged.shadow.based_on;\n        let appears",
        """let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = rustix::fs::futimens(&*content, &times);
        let based_on = staged.shadow.based_on;
        let appears""",
        ["readers::r4_the_time_after_close_is_that_of_the_last_write", "readers::r4_a_set_time_survives_the_close"],
    ),
    Mutation(
        "R4",
        "r4-a-copy-of-the-base-has-a-new-time",
        COORDINATED + "session.rs",
        ".and_then(|()| keep_times(base, &self.shadow.file))",
        ".and_then(|()| Ok(drop(keep_times)))",
        ["readers::r4_a_change_of_mode_alone_leaves_the_time"],
    ),
    Mutation(
        "R4",
        "r4-every-writer-gets-another-node",
        COORDINATED + "open.rs",
        "return files.expects(key) || self.tree.nodes.open_pin(node).is_some();",
        "return true;",
        ["readers::r4_in_place_writes_that_nobody_contends_keep_the_inode_number"],
    ),
    # One writer at a time.
    Mutation(
        "W1",
        "w1-all-processes-are-one",
        COORDINATED + "caller.rs",
        """        tgid: process.pid,
        unique: process.unique,""",
        """        tgid: 1,
        unique: process.unique.min(1),""",
        ["sessions::w1_the_second_writer_waits_for_the_first", "waiting::w1_waiters_are_served_first_come_first_served"],
    ),
    Mutation(
        "W1",
        "w1-last-come-first-served",
        "src/session/line.rs",
        "let Some((&first, waiter)) = self.waiters.first_key_value() else {",
        "let Some((&first, waiter)) = self.waiters.last_key_value() else {",
        ["waiting::w1_waiters_are_served_first_come_first_served"],
    ),
    Mutation(
        "W1",
        "w1-leases-do-not-end",
        COORDINATED + "wait.rs",
        "Wake::LeaseExpired { session } => self.expire(session),",
        "Wake::LeaseExpired { session } => log::warn!(\"{session:?} goes on\"),",
        ["waiting::w1_lease_a_holder_that_others_wait_for_too_long_is_discarded"],
    ),
    Mutation(
        "W1",
        "w1-truncating-opens-for-reading-are-readers",
        "src/mount/route.rs",
        "if flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::TRUNC) {",
        "if flags & OFlags::RWMODE == OFlags::RDONLY {",
        ["sessions::w1_a_truncating_open_for_reading_is_a_session"],
    ),
    Mutation(
        "W1",
        "w1-appends-go-where-the-kernel-thinks",
        COORDINATED + "handles.rs",
        "let append = self.append && !at_offset;",
        "let append = self.append && at_offset;",
        ["sessions::w1_an_appender_that_waited_writes_after_what_it_waited_for"],
    ),
    # Waiting.
    Mutation(
        "W2",
        "w2-nonblocking-opens-wait",
        COORDINATED + "wait.rs",
        "let patience = if claim.nonblock {",
        "let patience = if claim.nonblock && claim.caller.tid == 0 {",
        ["waiting::w2_a_wait_ends_with_ebusy_and_a_nonblocking_open_does_not_wait"],
    ),
    Mutation(
        "W2",
        "w2-the-rule-s-wait-is-ignored",
        COORDINATED + "wait.rs",
        "Patience::Until(now.saturating_add(millis(target.policy.wait)))",
        "Patience::Until(now.saturating_add(Millis(9000)))",
        ["waiting::w2_a_wait_ends_with_ebusy_and_a_nonblocking_open_does_not_wait"],
    ),
    Mutation(
        "W2",
        "w2-signals-of-waiters-are-ignored",
        COORDINATED + "wait.rs",
        "if proc::signal_waits(tid) != Some(false) {",
        "if proc::signal_waits(tid).is_none() {",
        ["waiting::w2_a_signal_ends_the_wait_with_eintr"],
    ),
    Mutation(
        "W2",
        "w2-signals-are-noticed-late",
        COORDINATED + "wait.rs",
        "const SIGNALS_EVERY: Duration = Duration::from_millis(40);",
        "const SIGNALS_EVERY: Duration = Duration::from_millis(400);",
        ["waiting::w2_a_signal_is_noticed_within_100_ms"],
    ),
    Mutation(
        "W2",
        "w2-a-waiter-holds-a-thread",
        COORDINATED + "wait.rs",
        """                self.counts.add(Counted::Waited);
                self.wakeup.call();""",
        """                self.counts.add(Counted::Waited);
                self.wakeup.call();
                while self.files.lock().waiting.contains_key(&ticket) {
                    std::thread::sleep(SIGNALS_EVERY);
                }""",
        ["waiting::w2_hundreds_of_waiting_opens_stall_nobody"],
    ),
    Mutation(
        "W2",
        "w2-an-open-by-path-descriptor-is-sent-round-for-ever",
        COORDINATED + "open.rs",
        "let own_node = reroute.is_some();",
        "let own_node = reroute.is_some() && nonblock;",
        ["waiting::w2_an_open_by_path_descriptor_waits_too"],
    ),
    Mutation(
        "W2",
        "w2-close-answers-before-the-file-is-free",
        COORDINATED + "close.rs",
        """        let wakes = self.let_go(held);
        drop(session);
        replies.into_iter().for_each(|reply| reply(result));""",
        """        replies.into_iter().for_each(|reply| reply(result));
        std::thread::sleep(std::time::Duration::from_millis(1));
        let wakes = self.let_go(held);
        drop(session);""",
        ["handover::w2_who_does_not_wait_gets_a_file_that_was_just_closed"],
    ),
    # No deadlocks.
    Mutation(
        "W3",
        "w3-a-process-has-no-ancestors",
        COORDINATED + "caller.rs",
        """            .map(|process| id(&process))
            .collect(),""",
        """            .map(|process| id(&process))
            .take(0)
            .collect(),""",
        [
            "waiting::w3_a_child_of_the_holder_opens_its_file",
            "waiting::w3_a_parent_that_holds_the_file_runs_sed_on_it",
        ],
    ),
    Mutation(
        "W3",
        "w3-truncating-opens-join",
        COORDINATED + "open.rs",
        "let intent = if truncate { Intent::Truncate } else { Intent::Modify };",
        "let intent = Intent::Modify;",
        ["waiting::w3_four_threads_that_truncate_have_private_shadows_published_in_close_order"],
    ),
    Mutation(
        "W3",
        "w3-nobody-joins",
        COORDINATED + "open.rs",
        "let intent = if truncate { Intent::Truncate } else { Intent::Modify };",
        "let intent = Intent::Truncate;",
        [
            "waiting::w3_threads_that_do_not_truncate_join_the_session",
            "waiting::w3_a_child_of_the_holder_opens_its_file",
        ],
    ),
    Mutation(
        "W3",
        "w3-the-first-close-of-a-joined-session-ends-it",
        COORDINATED + "close.rs",
        "Ok((staged.handles == 0).then_some(staged.last_exit))",
        "Ok(Some(staged.last_exit))",
        ["waiting::w3_a_joined_session_is_published_when_its_last_handle_is_closed"],
    ),
    Mutation(
        "W3",
        "w3-an-own-rename-leaves-what-was-written",
        COORDINATED + "names.rs",
        "this.end_now(own, Ending::Closed)?;",
        "log::debug!(\"{own:?} stays {:?}\", Ending::Closed);",
        ["waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file"],
    ),
    Mutation(
        "W3",
        "w3-an-unlinked-file-comes-back-at-close",
        COORDINATED + "names.rs",
        """                let _ = own.staged(|staged| {
                    staged.unlinked = true;""",
        """                let _ = own.staged(|staged| {
                    staged.unlinked = false;""",
        ["waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file"],
    ),
    Mutation(
        "W4",
        "w4-cycles-are-not-looked-for",
        "src/session/queue.rs",
        "if !line.has_same_wait(&request) && self.closes_cycle(file, &request.lineage, place) {",
        "if line.has_same_wait(&request) && self.closes_cycle(file, &request.lineage, place) {",
        ["waiting::w4_the_open_that_would_close_a_cycle_fails_with_edeadlk"],
    ),
    Mutation(
        "W4",
        "w4-a-deadlock-is-told-as-ebusy",
        COORDINATED + "files.rs",
        "Refusal::Deadlock => Errno::DEADLK,",
        "Refusal::Deadlock => Errno::BUSY,",
        ["waiting::w4_the_open_that_would_close_a_cycle_fails_with_edeadlk"],
    ),
    # Publishing.
    Mutation(
        "W5",
        "w5-every-flush-publishes",
        COORDINATED + "close.rs",
        "Ok(processes) if is_held(&processes, session.about.node.0) => reply(Ok(())),",
        "Ok(processes) if is_held(&processes, 0) => reply(Ok(())),",
        [
            "closing::w5_redirections_publish_once_each",
            "closing::w5_duplicates_forks_and_inherited_descriptors_are_one_session",
            "sessions::w5_a_shell_group_is_one_version",
        ],
    ),
    Mutation(
        "W5",
        "w5-descendants-are-not-asked",
        COORDINATED + "close.rs",
        "            || proc::descendants(*pid)\n                .iter()\n",
        "            || proc::descendants(*pid)\n                .iter()\n                .take(0)\n",
        [
            "closing::w5_a_grandchild_that_outlives_both_publishes_when_it_closes",
            "closing::w7_a_killed_parent_leaves_the_session_to_its_child",
        ],
    ),
    Mutation(
        "W5",
        "w5-who-closes-is-not-remembered",
        COORDINATED + "close.rs",
        "if flusher.is_known() && !staged.processes.contains(&flusher.tgid) {",
        "if flusher.is_known() && staged.processes.is_empty() {",
        ["closing::w5_a_grandchild_that_outlives_both_publishes_when_it_closes"],
    ),
    Mutation(
        "W5",
        "w5-sessions-without-a-change-publish",
        COORDINATED + "close.rs",
        "if staged.unlinked || !staged.changed {",
        "if staged.unlinked {",
        ["closing::w5_a_session_that_wrote_nothing_publishes_nothing"],
    ),
    Mutation(
        "W5",
        "w5-copied-ranges-are-no-change",
        COORDINATED + "handles.rs",
        "staged.changed |= copied.is_ok_and(|count| count > 0);",
        "staged.changed |= copied.is_ok_and(|count| count > usize::MAX / 2);",
        ["closing::w5_each_way_to_change_a_session_is_a_change_by_itself"],
    ),
    Mutation(
        "W5",
        "w5-allocating-is-no-change",
        COORDINATED + "handles.rs",
        """            rustix::fs::fallocate(&staged.shadow.file, mode, offset, length)?;
            staged.changed = true;""",
        "            rustix::fs::fallocate(&staged.shadow.file, mode, offset, length)?;",
        ["closing::w5_each_way_to_change_a_session_is_a_change_by_itself"],
    ),
    Mutation(
        "W5",
        "w5-what-comes-late-is-lost",
        COORDINATED + "handles.rs",
        "if let Life::Done(content, version) = session.settle()? {",
        "if let (Life::Done(content, version), true) = (session.settle()?, session.is_late()) {",
        [
            "closing::w5_what_is_written_through_a_descriptor_that_was_passed_on_is_published_late",
            "waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file",
        ],
    ),
    Mutation(
        "W5",
        "w5-a-task-in-execve-is-asked",
        COORDINATED + "close.rs",
        "if doing == Doing::Exec {",
        "if doing == Doing::Exec && caller.tid == 0 {",
        ["closing::w5_a_descriptor_that_execve_closes_hangs_nobody"],
    ),
    # What close says.
    Mutation(
        "W6",
        "w6-close-answers-before-the-publish",
        COORDINATED + "close.rs",
        """                let taken = session.take();
                session.on_end(reply);""",
        """                let taken = session.take();
                reply(Ok(()));""",
        ["closing::w6_close_returns_what_the_publish_failed_with", "closing::w6_after_close_every_process_sees_it_at_once"],
    ),
    Mutation(
        "W6",
        "w6-close-hides-the-error",
        COORDINATED + "close.rs",
        """            Outcome::Done { .. } => Ok(()),
            Outcome::Lost(errno) => Err(*errno),""",
        "            Outcome::Done { .. } | Outcome::Lost(_) => Ok(()),",
        ["closing::w6_close_returns_what_the_publish_failed_with"],
    ),
    Mutation(
        "W6",
        "w6-a-refused-shadow-is-not-kept",
        "src/store/publish.rs",
        "let kept = if published {",
        "let kept = if published || info.now > 0 {",
        ["closing::w6_close_returns_what_the_publish_failed_with"],
    ),
    Mutation(
        "W6",
        "w6-a-descriptor-for-reading-puts-the-publish-off",
        "src/os/proc.rs",
        "flags & O_PATH == 0 && flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32",
        "flags & O_PATH == 0",
        ["closing::w6_a_close_publishes_although_its_process_reads_the_file_too"],
    ),
    # Killed writers.
    Mutation(
        "W7",
        "w7-the-kill-is-not-looked-at",
        COORDINATED + "close.rs",
        "if exit == Exit::Killed {",
        "if exit == Exit::Killed && exit == Exit::Not {",
        [
            "closing::w7_a_killed_writer_publishes_nothing_and_its_bytes_are_kept",
            "names::w9_a_killed_creators_file_never_appears_and_a_waiting_creator_goes_on",
        ],
    ),
    Mutation(
        "W7",
        "w7-every-exit-is-a-kill",
        COORDINATED + "close.rs",
        "if exit == Exit::Killed {",
        "if exit != Exit::Not {",
        ["closing::w7_an_exit_without_close_is_a_close"],
    ),
    Mutation(
        "W7",
        "w7-what-was-staged-is-thrown-away",
        COORDINATED + "close.rs",
        "self.discard(session, staged, reason);",
        "log::warn!(\"{reason}: {:?}\", self.store.drop_unwritten(staged.shadow).is_ok());",
        [
            "closing::w7_a_killed_writer_publishes_nothing_and_its_bytes_are_kept",
            "unmount::f5_a_forced_unmount_keeps_what_was_staged",
            "waiting::w1_lease_a_holder_that_others_wait_for_too_long_is_discarded",
        ],
    ),
    # Whole-file savers.
    Mutation(
        "W8",
        "w8-renames-do-not-wait",
        COORDINATED + "names.rs",
        "let targets = moving.source.iter().chain(&moving.target).cloned().collect();",
        "let targets = moving.source.iter().chain(&moving.target).cloned().take(0).collect();",
        ["names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces"],
    ),
    Mutation(
        "W8",
        "w8-unlink-does-not-wait",
        COORDINATED + "names.rs",
        "let targets = vec![target.clone()];",
        "let targets = Vec::new();",
        ["names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces"],
    ),
    Mutation(
        "W8",
        "w8-truncate-by-path-goes-to-anybodys-session",
        COORDINATED + "names.rs",
        "if let Some(own) = self.nearest_of(key, &opener) {\n            let result",
        "if let Some(own) = self.files.lock().sessions(key).last().cloned() {\n            let result",
        ["names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces"],
    ),
    Mutation(
        "W8",
        "w8-link-does-not-wait",
        COORDINATED + "names.rs",
        "self.with_all(caller, opener, vec![target], work, answer);",
        "self.with_all(caller, opener, Vec::new(), work, answer);",
        ["names::w8_a_link_to_a_name_that_is_being_created_waits_for_it"],
    ),
    Mutation(
        "W8",
        "w8-renames-are-plain-ones",
        COORDINATED + "names.rs",
        "if !by_store || !unusual.is_empty()",
        "if by_store || !unusual.is_empty()",
        [
            "names::w8_renames_and_truncations_by_many_processes_are_versions_in_one_order",
            "history::h2_each_way_by_which_a_version_comes_is_recorded",
        ],
    ),
    Mutation(
        "W8",
        "w8-what-leaves-for-an-ordinary-name-leaves-no-version",
        COORDINATED + "names.rs",
        "(source.is_none() && target.is_none())",
        "target.is_none()",
        ["names::w8_a_file_that_leaves_for_an_ordinary_name_stays_restorable"],
    ),
    Mutation(
        "W8",
        "w8-a-renamed-session-keeps-its-old-name",
        COORDINATED + "names.rs",
        "own.set_name(moving.new.clone());",
        "own.set_name(moving.old.clone());",
        ["names::w8_a_coordinated_temporary_name_becomes_the_file"],
    ),
    Mutation(
        "W8",
        "w8-unlink-answers-before-the-name-is-free",
        COORDINATED + "names.rs",
        """            let wakes = this.let_go(held);
            answer(result);""",
        """            answer(result);
            std::thread::sleep(std::time::Duration::from_millis(1));
            let wakes = this.let_go(held);""",
        ["handover::w8_a_name_that_was_unlinked_is_free_at_once"],
    ),
    # New files.
    Mutation(
        "W9",
        "w9-a-new-file-appears-at-its-open",
        COORDINATED + "open.rs",
        "let unnamed = self.make_unnamed(caller, &dir, creation)?;",
        """let unnamed = self.make_unnamed(caller, &dir, creation)?;
                let early = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(rustix::fs::openat(&dir, &*target.name.name, early, Mode::RWXU));""",
        ["names::w9_a_new_file_appears_at_its_close"],
    ),
    Mutation(
        "W9",
        "w9-o-excl-is-told-ebusy",
        COORDINATED + "open.rs",
        "return answer(Err(Errno::EXIST));",
        "return answer(Err(Errno::BUSY));",
        ["names::w9_a_new_file_appears_at_its_close"],
    ),
    Mutation(
        "W9",
        "w9-mkdir-does-not-see-what-is-being-created",
        "src/mount/route.rs",
        "if self.coordination.is_promised(&Name::new(parent, name)) {",
        "if self.coordination.is_promised(&Name::new(parent, std::ffi::OsStr::new(\"\"))) {",
        ["names::w9_a_new_file_appears_at_its_close"],
    ),
    Mutation(
        "W9",
        "w9-rmdir-does-not-see-what-is-being-created",
        "src/mount/fs.rs",
        "if self.coordination.is_promised_in(node(parent), name) {",
        "if self.coordination.is_promised_in(node(parent), OsStr::new(\"\")) {",
        ["names::w9_a_killed_creators_file_never_appears_and_a_waiting_creator_goes_on"],
    ),
    Mutation(
        "W9",
        "w9-new-files-are-the-daemons",
        COORDINATED + "open.rs",
        "let _caller = caller.assume(creation.mode, creation.umask)?;",
        "log::trace!(\"not as {caller:?}\");",
        ["names::w9_owner_mode_and_default_acl_of_a_new_file_are_as_anywhere"],
    ),
    Mutation(
        "W9",
        "w9-who-waits-for-a-creator-may-not-create",
        COORDINATED + "open.rs",
        "let creates = reroute.and_then(|reroute| reroute.creates).or_else(promised);",
        "let creates = promised();",
        ["names::w9_a_killed_creators_file_never_appears_and_a_waiting_creator_goes_on"],
    ),
    Mutation(
        "W9",
        "w9-what-its-creator-unlinks-appears-all-the-same",
        COORDINATED + "names.rs",
        """            return answer(own.staged(|staged| {
                staged.unlinked = true;""",
        """            return answer(own.staged(|staged| {
                staged.unlinked = false;""",
        ["names::w9_a_new_file_that_its_creator_unlinks_never_appears"],
    ),
    Mutation(
        "W9",
        "w9-a-new-name-is-not-told-to-the-kernel",
        COORDINATED + "close.rs",
        "        if appears {\n",
        "        if appears && name.name.is_empty() {\n",
        ["sessions::w9_a_new_file_is_listed_after_its_close_also_in_a_directory_that_was_listed_before"],
    ),
    # What a file is.
    Mutation(
        "W11",
        "w11-the-shadow-is-the-daemons",
        "src/store/shadow.rs",
        "self.disk().copy_meta(current, file, privileges)?;",
        "log::trace!(\"{privileges}\");",
        ["names::w11_publishing_in_place_keeps_mode_owner_acl_and_attributes"],
    ),
    Mutation(
        "W11",
        "w11-the-owner-is-not-kept",
        "src/store/real.rs",
        "if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {",
        "if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) && old.st_nlink > 1 {",
        ["names::w11_publishing_in_place_keeps_mode_owner_acl_and_attributes"],
    ),
    Mutation(
        "W11",
        "w11-acls-and-attributes-are-not-kept",
        "src/store/real.rs",
        "        copy_xattrs(from, to, privileges)\n",
        "        copy_xattrs(from, from, privileges)\n",
        ["names::w11_publishing_in_place_keeps_mode_owner_acl_and_attributes"],
    ),
    Mutation(
        "W11",
        "w11-set-id-bits-stay-for-everybody",
        COORDINATED + "open.rs",
        "let who = self.descriptions.of(process, caller.uid);\n        let base",
        "let who = self.descriptions.of(process, 0);\n        let base",
        ["names::w11_set_id_bits_stay_for_root_only"],
    ),
    Mutation(
        "W11",
        "w11-a-chmod-beside-a-session-is-lost",
        "src/store/publish.rs",
        "live.filter(|live| !shadow.meta_touched && shadow.meta_from != Some((live.ino, live.ctime_ns)))",
        "live.filter(|live| !shadow.meta_touched && shadow.meta_from == Some((live.ino, live.ctime_ns)))",
        ["names::w11_attributes_changed_during_and_outside_a_session_stay"],
    ),
    Mutation(
        "W11",
        "w11-a-chmod-by-descriptor-is-lost",
        COORDINATED + "names.rs",
        "staged.shadow.meta_touched = true;",
        "staged.shadow.meta_touched = false;",
        ["names::w11_what_a_session_changes_by_descriptor_wins"],
    ),
    Mutation(
        "W11",
        "w11-symbolic-links-are-files",
        "src/mount/attr.rs",
        "rustix::fs::FileType::Symlink => FileType::Symlink,",
        "rustix::fs::FileType::Symlink => FileType::RegularFile,",
        ["names::w11_a_symbolic_link_is_followed_and_stays_one"],
    ),
    # History.
    Mutation(
        "H1",
        "h1-the-replaced-version-is-not-kept",
        "src/store/publish.rs",
        "self.disk().rename(from, (&history.dir, &name))?;",
        "self.disk().unlink(from.0, from.1)?;",
        [
            "names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces",
            "history::h3_history_show_and_diff_say_the_same_mounted_and_unmounted",
        ],
    ),
    Mutation(
        "H1",
        "h1-keep-is-ignored",
        "src/store/files.rs",
        "let goes = kept >= retain.keep || too_old",
        "let goes = kept >= retain.keep.max(1000) || too_old",
        ["history::h1_the_newest_versions_are_kept_as_many_as_the_rule_says"],
    ),
    Mutation(
        "H1",
        "h1-max-age-is-ignored",
        "src/store/files.rs",
        "|| too_old ||",
        "|| (too_old && kept > 1000) ||",
        ["history::h1_versions_older_than_the_rule_allows_go_at_the_next_publish"],
    ),
    Mutation(
        "H1",
        "h1-max-bytes-is-ignored",
        "src/store/files.rs",
        "retain.max_bytes.is_some_and(|max| bytes > max)",
        "retain.max_bytes.is_some_and(|max| bytes > max << 10)",
        ["history::h1_versions_are_kept_within_the_bytes_that_the_rule_allows"],
    ),
    Mutation(
        "H1",
        "h1-copies-go-through-memory",
        "src/store/real.rs",
        "        copy_extents(from, to)\n",
        """        let _ = copy_extents;
        let mut all = vec![0; from.metadata()?.len() as usize];
        from.read_exact_at(&mut all, 0)?;
        to.write_all_at(&all, 0)
""",
        ["closing::h1_a_small_change_to_a_big_file_costs_the_daemon_no_memory"],
    ),
    Mutation(
        "H2",
        "h2-the-agents-variable-is-not-read",
        COORDINATED + "caller.rs",
        "match proc::environment(own.pid, AGENT_VARIABLE) {",
        "match proc::environment(own.pid, AGENT_VARIABLE).filter(Vec::is_empty) {",
        ["history::h2_a_version_records_who_wrote_it_what_it_is_and_what_it_was_based_on"],
    ),
    Mutation(
        "H2",
        "h2-ancestors-name-no-agent",
        COORDINATED + "caller.rs",
        "let ancestors = proc::ancestors(&own).into_iter();",
        "let ancestors = proc::ancestors(&own).into_iter().take(0);",
        ["history::h2_a_process_that_runs_under_a_known_agent_is_recorded_as_that_agents"],
    ),
    Mutation(
        "H2",
        "h2-renames-are-recorded-as-closes",
        COORDINATED + "names.rs",
        "let info = publish_info(How::Rename, &target.policy);",
        "let info = publish_info(How::Close, &target.policy);",
        ["history::h2_each_way_by_which_a_version_comes_is_recorded"],
    ),
    Mutation(
        "H2",
        "h2-based-on-is-forgotten",
        "src/store/publish.rs",
        "            based_on: shadow.based_on,",
        "            based_on: None,",
        ["history::h2_a_version_records_who_wrote_it_what_it_is_and_what_it_was_based_on"],
    ),
    Mutation(
        "H2",
        "h2-what-changed-behind-the-mount-is-taken-for-the-last-version",
        "src/store/history.rs",
        "if identity.is(live) {",
        "if identity.is(live) || live.size > 0 {",
        ["history::h2_a_change_made_while_nothing_was_mounted_becomes_a_found_version"],
    ),
    Mutation(
        "H3",
        "h3-another-version-is-restored",
        COORDINATED + "restore.rs",
        ".open_version(path, version)",
        ".open_version(path, version.min(1))",
        ["history::h3_a_restore_is_itself_a_publish_that_can_be_taken_back"],
    ),
    Mutation(
        "H3",
        "h3-a-deleted-file-cannot-be-restored",
        COORDINATED + "restore.rs",
        "                            creates,\n",
        "                            creates: creates.filter(|made| made.mode == 0),\n",
        ["history::h3_a_deleted_file_is_listed_and_restored_by_any_path"],
    ),
    Mutation(
        "H4",
        "h4-kept-versions-change-hands",
        "src/store/publish.rs",
        "self.disk().rename(from, (&history.dir, &name))?;",
        """let old = self.disk().open(from.0, from.1)?;
            let copy = self.disk().create(&history.dir, &name)?;
            self.disk().copy_content(&old, &copy)?;
            self.disk().unlink(from.0, from.1)?;""",
        ["history::h4_a_kept_version_has_the_mode_and_the_owner_that_it_had"],
    ),
    Mutation(
        "H4",
        "h4-a-store-open-to-all-stays-so",
        "src/store/real.rs",
        "if mode.intersects(Mode::RWXG | Mode::RWXO) {",
        "if mode.is_empty() {",
        ["history::h4_a_store_that_was_open_to_others_is_closed_by_the_next_mount"],
    ),
    Mutation(
        "H4",
        "h4-everybody-finds-the-store",
        "src/mount/tree.rs",
        "caller.uid == 0 || caller.uid == self.owner",
        "caller.uid == 0 || caller.uid >= self.owner",
        ["ordinary::o1_the_store_is_hidden_and_read_only", "history::h4_another_user_reads_nothing_through_history"],
    ),
    # Faults.
    Mutation(
        "F1",
        "f1-what-was-staged-is-deleted-at-the-next-start",
        "src/store/recover.rs",
        "} else if stat.size == 0 {",
        "} else if stat.size < 1000 {",
        ["faults::f1_what_a_session_had_staged_when_the_daemon_died_is_kept_with_a_record"],
    ),
    Mutation(
        "F2",
        "f2-content-is-not-synced",
        "src/store/publish.rs",
        "self.disk().sync_file(&shadow.file).map_err(at(Stage::Sync))?;",
        "log::trace!(\"{:?}\", Stage::Sync);",
        ["durability::f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing"],
    ),
    Mutation(
        "F2",
        "f2-the-name-is-not-synced",
        "src/store/publish.rs",
        "if info.durability == Durability::Full {",
        "if info.durability == Durability::Full && history.next == 0 {",
        ["durability::f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing"],
    ),
    Mutation(
        "F2",
        "f2-fast-waits-for-content",
        "src/store/publish.rs",
        "if info.durability != Durability::Fast {",
        "if info.durability != Durability::Fast || info.now > 0 {",
        ["durability::f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing"],
    ),
    Mutation(
        "F3",
        "f3-a-refused-write-is-published",
        COORDINATED + "session.rs",
        "self.refused = Some((offset + written as u64, stopped));",
        "self.refused = None;",
        ["small_disks::f3_a_save_that_did_not_fit_leaves_the_version_before"],
    ),
    Mutation(
        "F3",
        "f3-a-write-made-good-is-not-published",
        COORDINATED + "session.rs",
        "self.refused = self.refused.filter(|(at, _)| !(offset..end).contains(at));",
        "self.refused = self.refused.filter(|(at, _)| !(offset..offset).contains(at) || end == 0);",
        ["small_disks::f3_a_writer_that_makes_room_and_writes_again_is_published"],
    ),
    Mutation(
        "F3",
        "f3-a-failed-sync-is-forgotten",
        COORDINATED + "session.rs",
        "synced.inspect_err(|errno| self.failed = Some(*errno))",
        "synced.inspect_err(|errno| log::warn!(\"{errno}\"))",
        ["durability::f3_after_a_failed_sync_the_session_is_not_published"],
    ),
    Mutation(
        "F3",
        "f3-what-could-not-be-synced-is-published",
        "src/store/publish.rs",
        "self.disk().sync_file(&shadow.file).map_err(at(Stage::Sync))?;",
        "let _ = self.disk().sync_file(&shadow.file);",
        ["durability::f3_a_publish_that_cannot_be_synced_is_an_error_of_close"],
    ),
    Mutation(
        "F5",
        "f5-a-forced-unmount-publishes",
        COORDINATED + "status.rs",
        "super::close::Ending::Unmounted",
        "super::close::Ending::Closed",
        ["unmount::f5_a_forced_unmount_keeps_what_was_staged", "unmount::f5_sigterm_forces_after_grace"],
    ),
    Mutation(
        "F5",
        "f5-an-unmount-does-not-wait",
        "src/cli/mount/service.rs",
        """        while !self.coordination.drain() {
            if self.forced""",
        """        while !self.coordination.drain() && force {
            if self.forced""",
        ["unmount::f5_an_unmount_waits_for_an_open_session"],
    ),
    Mutation(
        "F5",
        "f5-sessions-begin-while-an-unmount-waits",
        COORDINATED + "wait.rs",
        "if self.is_closing() {",
        "if self.is_closing() && claim.caller.tid == 0 {",
        ["unmount::f5_while_an_unmount_waits_no_session_begins"],
    ),
    Mutation(
        "F5",
        "f5-sigterm-does-not-wait",
        "src/cli/mount/daemon.rs",
        "let grace = if asked { Duration::ZERO } else { service.grace() };",
        "let grace = if asked { service.grace() } else { Duration::ZERO };",
        ["unmount::f5_sigterm_waits_for_sessions_within_grace"],
    ),
    Mutation(
        "F5",
        "f5-a-second-sigterm-waits-too",
        "src/cli/mount/daemon.rs",
        "let grace = if asked { Duration::ZERO } else { service.grace() };",
        "let grace = if asked { service.grace() * 2 } else { service.grace() };",
        ["unmount::f5_a_second_sigterm_does_not_wait"],
    ),
    Mutation(
        "F5",
        "f5-grace-does-not-end",
        "src/cli/mount/daemon.rs",
        "match (patient, ended.recv_timeout(grace)) {",
        "match (patient, ended.recv_timeout(grace + Duration::from_secs(20))) {",
        ["unmount::f5_sigterm_forces_after_grace"],
    ),
    Mutation(
        "F5",
        "f5-a-dead-mount-is-left",
        "src/cli/unmount.rs",
        "mountinfo::liveness(dir) == Liveness::Dead {",
        "mountinfo::liveness(dir) != Liveness::Dead {",
        ["unmount::f5_a_dead_mount_is_cleared_by_unmount_or_by_recover"],
    ),
    Mutation(
        "F5",
        "f5-two-daemons-share-a-tree",
        "src/store/real.rs",
        "Err(Errno::WOULDBLOCK) => Ok(false),",
        "Err(Errno::WOULDBLOCK) => Ok(true),",
        ["unmount::f5_two_daemons_for_one_backing_tree_are_refused"],
    ),
    # Never, and ordinary files.
    Mutation(
        "Never",
        "never-locks-are-coordinated",
        "src/rules/builtin.rs",
        '    "**/*.lock",\n',
        "",
        ["config::never_is_what_the_built_in_rules_leave_alone_coordinated"],
    ),
    Mutation(
        "Never",
        "never-git-is-coordinated",
        "src/rules/builtin.rs",
        '    "**/.git/**",\n',
        "",
        ["config::never_is_what_the_built_in_rules_leave_alone_coordinated", "config::never_git_works_on_the_mount"],
    ),
    Mutation(
        "Never",
        "never-the-store-is-coordinated",
        COORDINATED + "mod.rs",
        "(!self.tree.is_private(parent, name).unwrap_or(true)).then(|| Target {",
        "self.tree.is_private(parent, name).is_ok().then(|| Target {",
        ["history::every_way_to_write_to_the_store_through_the_mount_is_refused_with_erofs"],
    ),
    Mutation(
        "O1",
        "o1-new-files-are-the-daemons",
        "src/mount/file.rs",
        "let _caller = caller.assume(mode, umask)?;",
        "log::trace!(\"not as {caller:?} {umask}\");",
        ["ordinary::o1_new_files_belong_to_the_caller_with_umask_and_set_group_id_directories"],
    ),
    Mutation(
        "O1",
        "o1-a-deleted-file-is-found-by-its-name",
        "src/mount/entry.rs",
        "        self.gone(victim, &Name::new(parent, name));\n        Ok(())",
        "        drop(victim);\n        Ok(())",
        ["ordinary::o1_a_deleted_file_lives_on_for_who_has_it_open_or_by_path_descriptor"],
    ),
    Mutation(
        "O1",
        "o1-truncation-leaves-set-id-bits",
        "src/mount/file.rs",
        "let _caller = creds::Assumed::user(caller.uid, caller.gid);",
        "log::trace!(\"not as {caller:?}\");",
        ["ordinary::o1_new_files_belong_to_the_caller_with_umask_and_set_group_id_directories"],
    ),
    Mutation(
        "O2",
        "o2-no-passthrough",
        "src/mount/file.rs",
        "if !self.passthrough.load(Ordering::Relaxed) {",
        "if self.passthrough.load(Ordering::Relaxed) {",
        ["ordinary::o2_what_is_read_and_written_does_not_go_through_the_daemon"],
    ),
    Mutation(
        "config",
        "config-a-good-save-changes-nothing",
        "src/cli/mount/service.rs",
        "watched.coordination.set_rules(rules);",
        "drop(rules);",
        ["config::a_good_save_holds_at_once_for_files_opened_after"],
    ),
    Mutation(
        "R6",
        "r6-links-in-the-store-are-followed",
        "src/store/real.rs",
        "const FILE_FLAGS: OFlags = OFlags::NOFOLLOW\n    .union(OFlags::CLOEXEC)",
        "const FILE_FLAGS: OFlags = OFlags::empty()\n    .union(OFlags::CLOEXEC)",
        ["bad_input::r6_a_link_in_place_of_anything_in_the_store_is_not_followed"],
    ),
]
