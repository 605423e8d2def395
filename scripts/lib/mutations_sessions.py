"""Mutations of what readers and writers are promised: R1 to W7. See mutations.py."""

SESSIONS = [
    (
        "W6", "w6-a-thread-reads-what-another-published-before-it", "src/mount/coordinated/close.rs",
        "        session.appeared();\n    }",
        "    }",
        ["unlocked::w6_a_thread_finds_what_it_has_saved_or_what_another_saved_after_it"],
    ),
    (
        "H1", "h1-a-version-whose-directory-is-gone-is-written-to", "src/mount/coordinated/opened.rs",
        "None if !reads && self.is_kept_version(node) => return Opened::Unknown,",
        "None if !reads && false => return Opened::Unknown,",
        ["openers::h1_r1_a_version_is_not_written_to_though_its_name_and_its_directory_are_gone"],
    ),
    (
        "R1", "r1-publish-copies-into-the-current-file", "src/store/publish.rs",
        "Some(_) => (self.disk().exchange(from, to), io::ErrorKind::NotFound),",
        """Some(_) => (
                self.disk()
                    .open_writable(place.dir, place.name)
                    .and_then(|live| self.disk().copy_content(&shadow.file, &live)),
                io::ErrorKind::NotFound,
            ),""",
        [
            "readers::r1_a_read_handle_keeps_its_version_across_many_publishes",
            "readers::r1_a_mapping_keeps_its_version_across_many_publishes",
            "readers::r1_readers_beside_hammering_writers_never_see_a_torn_file",
        ],
    ),
    (
        "R1", "r1-a-writer-of-a-quiet-file-does-not-walk-again", "src/mount/coordinated/kept.rs",
        "if caller.tid == 0 || !self.tree.nodes.is_kept(node) || self.files",
        "if caller.tid != 1 || !self.tree.nodes.is_kept(node) || self.files",
        ["quiet::r4_the_first_writer_of_a_quiet_file_is_the_only_one_who_sees_what_it_stages"],
    ),
    (
        "R1", "r1-a-reader-opens-a-quiet-node-that-a-writer-has-to-himself", "src/mount/coordinated/open.rs",
        "let leads_astray = || (caller.tid == 0 || !is_back) && self.tree.nodes.is_left_behind(node);",
        "let leads_astray = || false;",
        ["quiet::w6_what_is_published_without_a_walk_is_found_by_kept_entries"],
    ),
    (
        "W10", "w10-who-has-taken-o-append-from-its-handle-appends", "src/mount/route.rs",
        "if !coming.at_end {",
        "if false {",
        ["appends::w10_o1_who_takes_o_append_from_its_handle_writes_nothing_where_it_did_not_ask"],
    ),
    (
        "W10", "w10-who-tells-watchers-is-told-the-size-of-what-was-replaced", "src/mount/coordinated/append_size.rs",
        "if !self.tree.is_teller(caller.tid) && !first.is_of_lineage(caller) {",
        "if !first.is_of_lineage(caller) {",
        ["appends::w10_the_position_of_an_appender_counts_from_what_it_has_truncated"],
    ),
    (
        "F3", "f3-what-is-held-back-is-not-synced", "src/mount/coordinated/append.rs",
        "let synced = kept.map_or(Ok(()), |file| rustix::fs::fsync(&file));",
        "let synced = kept.map_or(Ok(()), |_| Ok(()));",
        ["durability::f3_what_an_appender_has_held_back_is_synced_and_after_a_failure_not_published"],
    ),
    (
        "W10", "w10-who-does-not-append-begins-a-log", "src/mount/route.rs",
        "let begins_log = coming.at_end && writer",
        "let begins_log = writer",
        ["appends::w10_o1_who_takes_o_append_from_its_handle_writes_nothing_where_it_did_not_ask"],
    ),
    (
        "W10", "w10-the-kernel-counts-the-size-by-itself", "src/mount/coordinated/append_counted.rs",
        "let size = length.count(counted);",
        "let size = length.count(counted).filter(|_| false);",
        ["copies::w10_what_is_copied_by_the_size_that_the_kernel_counts_ends_with_a_line"],
    ),
    (
        "W6", "w6-a-directory-that-moves-takes-the-rules-along", "src/mount/coordinated/directories.rs",
        "        self.keep_kinds_below(&ways);\n", "",
        ["kinds::w6_what_is_being_created_is_saved_where_its_directory_went"],
    ),
    (
        "W6", "w6-rules-hold-for-what-is-open", "src/mount/coordinated/kinds.rs",
        "if kind.is_some() != will_be(&path) {",
        "if kind.is_none() && will_be(&path) {",
        [
            "kinds::w6_what_is_being_written_is_saved_when_no_rule_holds_any_more",
            "kinds::w10_lines_beside_who_appends_since_a_rule_went_are_seen_at_once",
        ],
    ),
    (
        "W10", "w10-rules-hold-for-who-writes-an-ordinary-file", "src/mount/handles.rs",
        "Handle::Ordinary(file) if file.access.writes() => Some(file.node),",
        "Handle::Ordinary(file) if file.access.writes() && false => Some(file.node),",
        ["kinds::w10_lines_of_who_appends_go_on_in_the_file_that_a_rule_takes_in"],
    ),
    (
        "O1", "o1-what-cannot-be-changed-is-opened", "src/mount/coordinated/begin.rs",
        "&& !attr::restrictions(file)?.is_empty()", "&& attr::restrictions(file)?.is_all()",
        ["openers::o1_who_opens_what_cannot_be_changed_is_told_so_at_once"],
    ),
    (
        "O1", "o1-nobody-appends-to-what-is-append-only", "src/mount/coordinated/append_open.rs",
        "Err(Errno::PERM) if self.is_append_only(&target) => {",
        "Err(Errno::PERM) if self.is_append_only(&target) && false => {",
        ["openers::o1_who_opens_what_cannot_be_changed_is_told_so_at_once"],
    ),
    (
        "W12", "w12-a-lock-goes-with-one-of-several-names", "src/mount/coordinated/linked.rs",
        "        self.locks.lock().renamed(&Whose::Name(name.clone()), now);", "        let _ = (name, now);",
        ["given_names::w12_a_lock_stays_with_a_file_that_loses_one_of_its_names"],
    ),
    (
        "W12", "w12-a-lock-is-by-one-name-only", "src/mount/coordinated/flock.rs",
        "                self.find_lock(&name);\n", "",
        [
            "given_names::w12_a_lock_stays_with_a_file_that_loses_one_of_its_names",
            "given_names::w12_a_lock_by_an_ordinary_name_is_one_by_the_coordinated_name",
        ],
    ),
    (
        "W12", "w12-rules-hold-for-who-has-an-ordinary-lock", "src/mount/coordinated/kinds.rs",
        "nodes.extend(self.tree.nodes.find(identity))", "drop(self.tree.nodes.find(identity))",
        ["kinds::w12_a_lock_is_one_process_s_whatever_the_rules_become"],
    ),
    (
        "W12", "w12-rules-hold-for-who-has-a-lock", "src/mount/coordinated/kinds.rs",
        "Some(Whose::Name(name)) => drop(names.insert(name)),", "Some(Whose::Name(name)) => drop(name),",
        ["kinds::w12_a_lock_is_one_process_s_whatever_the_rules_become"],
    ),
    (
        "O1", "o1-rules-never-hold-again", "src/mount/coordinated/kinds.rs",
        "self.kinds.retain(|name| used.contains(name));", "self.kinds.retain(|name| used.contains(name) || true);",
        [
            "kinds::w6_what_is_being_written_is_saved_when_no_rule_holds_any_more",
            "kinds::w10_lines_of_who_appends_go_on_in_the_file_that_a_rule_takes_in",
        ],
    ),
    (
        "W11", "w11-what-was-appended-is-written-over", "src/mount/coordinated/append_log.rs",
        "state.trail.iter_mut().filter(|piece| piece.identity == live)",
        "state.trail.iter_mut().filter(|piece| piece.identity == live && false)",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W10", "w10-the-kernel-counts-what-goes-elsewhere", "src/mount/coordinated/append_counted.rs",
        "if counted < size {",
        "if counted < size && false {",
        ["copies::w10_what_is_copied_of_a_replaced_log_ends_with_a_line"],
    ),
    (
        "W10", "w10-what-is-held-back-counts-for-the-kernel", "src/mount/coordinated/append_grow.rs",
        "if current.length.commit(to) {",
        "if current.length.commit(to) && false {",
        ["copies::w10_what_is_copied_beside_a_line_that_is_held_back_ends_with_a_line"],
    ),
    (
        "W10", "w10-who-comes-while-pages-are-dropped-does-not-wait", "src/mount/coordinated/append_counted.rs",
        "(paged != 0 && paged < size) || self.dropping.is_locked()",
        "paged != 0 && paged < size",
        [
            "lib::mount::coordinated::append_counted::tests::"
            "pages_that_were_read_before_it_grew_are_dropped_before_the_kernel_learns_of_it",
        ],
    ),
    (
        "W10", "w10-the-first-copies-may-meet", "src/cli/tell.rs",
        "News::Mounted => copy(&opened),",
        "News::Mounted => Ok(()),",
        ["copies::w10_copies_go_through_the_daemon_whoever_copies_first"],
    ),
    (
        "W10", "w10-lines-of-two-appenders-are-never-one", "src/mount/coordinated/append_log.rs",
        "            && last.identity == identity\n",
        "            && Arc::ptr_eq(&last.file, file)\n",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "R2", "r2-a-node-that-is-given-back-hides-the-one-that-others-have-open", "src/mount/nodes.rs",
        "node.detached = !free;",
        "node.detached = false;",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "R2", "r2-a-relative-reads-what-was-replaced-under-the-session", "src/mount/coordinated/names.rs",
        "self.tree.nodes.supersede(session.about.node, None);",
        "",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W3", "w3-a-reader-of-its-own-opens-the-other-session-on-the-node", "src/mount/coordinated/open.rs",
        "Some(own) => own.show(&self.store),",
        "Some(own) => own.show(&self.store).map(|shown| shown.map(|_| session.pin())),",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "R2", "r2-what-a-session-stages-is-taken-for-replaced-when-another-begins-on-its-node", "src/mount/coordinated/reader.rs",
        "staged.any(|session| session.shown().is_some())",
        "staged.any(|session| session.shown().is_some() && false)",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "R4", "r4-a-replaced-versions-attributes-are-kept-until-watchers-are-told", "src/mount/entry.rs",
        "if self.nodes.is_kept(id) {",
        "if false {",
        ["quiet::w6_what_is_published_without_a_walk_is_found_by_kept_entries"],
    ),
    (
        "R4", "r4-what-a-session-stages-is-shared-with-the-one-beside-it", "src/mount/coordinated/flock.rs",
        "Some(beside) => beside.shared().cloned(),",
        "Some(beside) => Some(beside.pin()),",
        ["opened::r4_who_has_the_node_of_several_sessions_open_is_shown_its_version"],
    ),
    (
        "R4", "r4-a-session-that-ends-takes-the-node-from-the-one-beside-it", "src/mount/coordinated/close.rs",
        "        self.leave_node(session, true);\n        if session.is_late() {",
        "        if session.is_late() {",
        ["opened::r4_a_node_that_several_sessions_had_is_what_the_last_of_them_has_published"],
    ),
    (
        "R4", "r4-a-kept-entry-shows-the-version-before", "src/mount/coordinated/shown.rs",
        "true => Shown::Anothers,",
        "true => Shown::Version,",
        ["quiet::w6_what_is_published_without_a_walk_is_found_by_kept_entries"],
    ),
    (
        "W11", "w11-a-kept-entry-leads-to-the-attributes-of-the-version-before", "src/mount/coordinated/shown.rs",
        "self.tree.nodes.is_left_behind(node) && self.walks_again(caller)",
        "false && self.walks_again(caller)",
        ["quiet::w11_attributes_that_are_asked_for_by_a_kept_entry_are_the_current_versions"],
    ),
    (
        "O2", "o2-quiet-files-are-asked-for-each-time", "src/mount/coordinated/kept.rs",
        "is_idle() && {",
        "false && {",
        ["quiet::o2_the_attributes_of_a_file_that_nobody_writes_are_had_without_the_daemon"],
    ),
    (
        "R1", "r1-a-nonblocking-writer-takes-the-node-of-readers", "src/mount/coordinated/begin.rs",
        "return (beginning.own_node || !self.tree.is_open(node)).then_some(node);",
        "return Some(node);",
        ["waiting::w2_a_nonblocking_open_leaves_readers_their_version"],
    ),
    (
        "R1", "r1-a-replaced-version-is-reached-by-its-name", "src/mount/coordinated/close.rs",
        "        self.replace_node(replaced, session);\n",
        "        drop(replaced);\n",
        ["readers::r1_a_path_descriptor_keeps_its_version"],
    ),
    (
        "R1", "r1-what-a-rename-or-unlink-replaced-is-reached-by-its-name", "src/mount/entry.rs",
        ".supersede(id, Some(Arc::new(Pin::new(victim.fd, Access::Path, None))));",
        ".overtake(id, None);",
        ["readers::r1_a_path_descriptor_keeps_its_version"],
    ),
    (
        "R3", "r3-readers-queue-like-writers", "src/mount/route.rs",
        "if only_reads(flags) {",
        "if only_reads(flags) && flags.contains(OFlags::DIRECTORY) {",
        ["readers::r3_readers_and_writers_do_not_wait_for_each_other"],
    ),
    (
        "R3", "r3-a-writer-is-refused-while-somebody-reads", "src/mount/coordinated/open.rs",
        """            return answer(Err(Errno::STALE));
        }
        if reroute.is_none() && !refused""",
        """            return answer(Err(Errno::BUSY));
        }
        if reroute.is_none() && !refused""",
        ["readers::r3_readers_and_writers_do_not_wait_for_each_other"],
    ),
    (
        "R3", "r3-a-reader-is-given-anybodys-shadow", "src/mount/coordinated/open.rs",
        "Ok(None) => Err(Errno::STALE),",
        "Ok(None) => return Ok(Arc::new(Ordinary { node, pin: session.pin() })),",
        ["readers::r3_a_reader_by_path_descriptor_gets_the_current_version"],
    ),
    (
        "R1", "r1-a-session-that-has-published-hides-its-node-from-readers", "src/mount/coordinated/open.rs",
        "None if self.is_committed(&session) => {",
        "None if self.is_committed(&session) && false => {",
        ["shown::r1_what_is_mapped_beside_a_writer_is_as_long_as_fstat_said"],
    ),
    (
        "R4", "r4-who-came-to-a-shadow-by-a-path-is-shown-it", "src/mount/coordinated/shown.rs",
        "        caller.tid != 0 && syscall::is_of_path(caller.tid)",
        "        caller.tid != 0 && syscall::is_of_path(caller.tid) && false",
        ["shown::r4_others_are_never_shown_a_size_that_is_being_staged"],
    ),
    (
        # With the time between made longer, or the test would have to run for long.
        "R4", "r4-a-round-ends-before-it-is-answered", "src/mount/getattr.rs",
        "        let found = shown(&self.tree, &self.coordination, caller, (id, insists));\n        if insists {",
        """        if insists {
            self.coordination.end_round(caller);
            std::thread::sleep(Duration::from_millis(20));
        }
        let found = shown(&self.tree, &self.coordination, caller, (id, insists));
        if insists {""",
        ["shown::r4_others_are_never_shown_a_size_that_is_being_staged"],
    ),
    (
        "R4", "r4-who-comes-to-a-shadow-is-sent-round-for-ever", "src/mount/getattr.rs",
        "let insists = self.coordination.has_been_round(caller, id);",
        "let insists = false;",
        ["shown::r4_a_writers_descriptor_shows_others_what_it_holds"],
    ),
    (
        "R4", "r4-fstat-of-a-shadow-is-sent-round", "src/os/syscall.rs",
        "flags.is_some_and(|flags| flags & libc::AT_EMPTY_PATH as u64 == 0)",
        "flags.is_some()",
        ["shown::r4_a_writers_descriptor_shows_others_what_it_holds"],
    ),
    (
        "R4", "r4-everybody-finds-the-shadow", "src/mount/coordinated/lookup.rs",
        "&& let Some(session) = self.nearest_shown(key, &caller::opener(caller))",
        "&& let Some(session) = self.files.lock().sessions(key).last().cloned()",
        ["readers::r4_others_see_the_current_version_and_the_holder_its_shadow", "names::w9_a_new_file_appears_at_its_close"],
    ),
    (
        "R4", "r4-the-holder-finds-the-current-version", "src/mount/coordinated/lookup.rs",
        """if !self.files.lock().sessions(key).is_empty()
""",
        """if self.files.lock().sessions(key).len() > 1000
""",
        [
            "readers::r4_others_see_the_current_version_and_the_holder_its_shadow",
            "waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file",
        ],
    ),
    (
        "R4", "r4-an-open-shows-the-empty-shadow", "src/mount/coordinated/staged.rs",
        "if let (Some(base), false) = (&self.base, self.changed) {",
        "if let (Some(base), true) = (&self.base, self.unlinked) {",
        ["readers::r4_others_see_the_current_version_and_the_holder_its_shadow"],
    ),
    (
        "R4", "r4-publishing-sets-the-time", "src/mount/coordinated/close.rs",
        """let in_place = is_ordinary ||""",
        """let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = rustix::fs::futimens(&*content, &times);
        let in_place = is_ordinary ||""",
        ["readers::r4_the_time_after_close_is_that_of_the_last_write", "readers::r4_a_set_time_survives_the_close"],
    ),
    (
        "R4", "r4-a-copy-of-the-base-has-a-new-time", "src/mount/coordinated/staged.rs",
        "        keep_times(base, &self.shadow)\n",
        "        Ok(drop(keep_times))\n",
        ["readers::r4_a_change_of_mode_of_a_version_that_was_replaced_leaves_its_time"],
    ),
    (
        "R4", "r4-a-number-goes-when-the-kernel-forgets-the-node", "src/mount/nodes/node.rs",
        "self.keeps_number && !self.detached",
        "false && !self.detached",
        [
            "lib::mount::nodes::tests::a_node_that_was_written_in_place_keeps_its_number_when_the_kernel_forgets_it",
            "readers::r4_a_look_at_a_file_that_is_being_written_does_not_change_its_inode_number",
        ],
    ),
    (
        "R4", "r4-numbers-are-kept-without-end", "src/mount/nodes/inner.rs",
        "if self.numbers.len() > NUMBERS_MAX\n",
        "if self.numbers.len() > 2 * NUMBERS_MAX\n",
        ["lib::mount::nodes::tests::so_many_numbers_are_kept_and_no_more"],
    ),
    (
        "R4", "r4-a-number-is-kept-of-a-file-that-is-gone", "src/mount/nodes/node.rs",
        "self.keeps_number && !self.detached && !self.names.as_slice().is_empty()",
        "self.keeps_number",
        ["lib::mount::nodes::tests::a_number_is_kept_no_longer_than_its_name_leads_to_the_node"],
    ),
    (
        "R4", "r4-every-writer-gets-another-node", "src/mount/coordinated/open.rs",
        "return files.expects(key) || self.tree.is_open(node);",
        "return true;",
        ["readers::r4_in_place_writes_that_nobody_contends_keep_the_inode_number"],
    ),
    (
        "W1", "w1-all-processes-are-one", "src/mount/coordinated/caller.rs",
        """        tgid: process.pid,
        unique: process.unique,""",
        """        tgid: 1,
        unique: process.unique.min(1),""",
        ["sessions::w1_the_second_writer_waits_for_the_first", "waiting::w1_waiters_are_served_first_come_first_served"],
    ),
    (
        "W1", "w1-last-come-first-served", "src/session/line.rs",
        "let Some((&first, waiter)) = self.waiters.first_key_value() else {",
        "let Some((&first, waiter)) = self.waiters.last_key_value() else {",
        ["waiting::w1_waiters_are_served_first_come_first_served"],
    ),
    (
        "W1", "w1-leases-do-not-end", "src/mount/coordinated/wait.rs",
        "Wake::LeaseExpired { session } => self.expire(session),",
        'Wake::LeaseExpired { session } => log::warn!("{session:?} goes on"),',
        ["waiting::w1_lease_a_holder_that_others_wait_for_too_long_is_discarded"],
    ),
    (
        "W1", "w1-truncating-opens-for-reading-are-readers", "src/mount/route.rs",
        "flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::TRUNC)\n}",
        "flags & OFlags::RWMODE == OFlags::RDONLY\n}",
        ["sessions::w1_a_truncating_open_for_reading_is_a_session"],
    ),
    (
        "W1", "w1-appends-go-where-the-kernel-thinks", "src/mount/route.rs",
        "writer.write(coordination, offset, data, coming.at_end)",
        "writer.write(coordination, offset, data, false)",
        ["sessions::w1_an_appender_that_waited_writes_after_what_it_waited_for"],
    ),
    (
        "W2", "w2-nonblocking-opens-wait", "src/mount/coordinated/wait.rs",
        "let patience = if claim.nonblock {",
        "let patience = if claim.nonblock && claim.caller.tid == 0 {",
        ["waiting::w2_a_wait_ends_with_ebusy_and_a_nonblocking_open_does_not_wait"],
    ),
    (
        "W2", "w2-the-rule-s-wait-is-ignored", "src/mount/coordinated/wait.rs",
        "Patience::Until(now.saturating_add(millis(target.policy.wait)))",
        "Patience::Until(now.saturating_add(Millis(9000)))",
        ["waiting::w2_a_wait_ends_with_ebusy_and_a_nonblocking_open_does_not_wait"],
    ),
    (
        "W2", "w2-signals-of-waiters-are-ignored", "src/mount/coordinated/wait.rs",
        "if proc::ends_wait(tid, need.ends_by()) {",
        "if proc::signals(tid).is_none() {",
        ["waiting::w2_a_signal_ends_the_wait_with_eintr"],
    ),
    (
        "W2", "w2-a-stop-ends-the-wait", "src/os/signals.rs",
        "& !self.ignored & !mask(&HARMLESS);",
        "& !self.ignored;",
        [
            "signals::w2_w8_who_is_stopped_and_continued_while_it_waits_goes_on",
            "signals::w12_who_is_stopped_and_continued_while_it_waits_for_a_lock_keeps_its_place",
            "lib::os::signals::tests::every_signal_ends_the_waits_that_it_ends_elsewhere",
        ],
    ),
    (
        "W8", "w8-a-signal-that-is-caught-ends-the-wait-of-a-saver", "src/mount/coordinated/files.rs",
        "Need::Change | Need::Directory => EndsBy::Fatal,",
        "Need::Change | Need::Directory => EndsBy::AnySignal,",
        [
            "signals::w8_a_checkout_whose_progress_timer_runs_while_it_waits_leaves_no_old_file",
            "signals::w8_a_rename_goes_on_when_a_child_of_its_process_ends",
            "signals::w8_a_signal_that_is_caught_does_not_end_the_wait_of_a_truncation_or_a_link",
            "unlocked::w8_no_signal_ends_the_wait_of_a_saver_unless_it_ends_the_saver",
        ],
    ),
    (
        "W8", "w8-a-signal-that-is-caught-ends-the-wait-of-a-truncation", "src/mount/coordinated/truncate.rs",
        "self.acquire_for(Need::Change, &awaited",
        "self.acquire_for(Need::Access, &awaited",
        ["signals::w8_a_signal_that_is_caught_does_not_end_the_wait_of_a_truncation_or_a_link"],
    ),
    (
        "W8", "w8-what-ends-a-saver-does-not-end-its-wait", "src/os/signals.rs",
        "EndsBy::Fatal => fatal != 0,",
        "EndsBy::Fatal => fatal & 1 != 0,",
        ["signals::w8_who_is_interrupted_from_the_keyboard_while_it_waits_ends"],
    ),
    (
        "W2", "w2-signals-are-noticed-late", "src/mount/coordinated/wait.rs",
        "const SIGNALS_EVERY: Duration = Duration::from_millis(40);",
        "const SIGNALS_EVERY: Duration = Duration::from_millis(400);",
        ["waiting::w2_a_signal_is_noticed_within_100_ms"],
    ),
    (
        "W2", "w2-who-was-given-the-file-is-told-that-a-signal-came", "src/mount/coordinated/files.rs",
        "if !self.queue.is_waiting(ticket) {",
        "if !self.waiting.contains_key(&ticket) {",
        ["lib::mount::coordinated::files::tests::a_signal_comes_too_late_for_who_has_been_given_the_file"],
    ),
    (
        "W2", "w2-signals-are-asked-for-once", "src/mount/coordinated/wait.rs",
        "let asks = asked.elapsed() >= SIGNALS_EVERY;",
        "let asks = asked.elapsed() >= SIGNALS_EVERY * 1000;",
        ["waiting::w2_a_signal_ends_the_wait_with_eintr", "locks::w12_a_signal_ends_the_wait"],
    ),
    (
        "W2", "w2-signals-are-asked-for-with-the-next-wait-only", "src/mount/coordinated/wait.rs",
        "SIGNALS_EVERY.saturating_sub(asked.elapsed())",
        "IDLE",
        ["waiting::w2_a_signal_is_noticed_within_100_ms"],
    ),
    (
        "W2", "w2-a-waiter-holds-a-thread", "src/mount/coordinated/wait.rs",
        """                self.counts.add(Counted::Waited);
                self.wakeup.call();""",
        """                self.counts.add(Counted::Waited);
                self.wakeup.call();
                while self.files.lock().waiting.contains_key(&ticket) {
                    std::thread::sleep(SIGNALS_EVERY);
                }""",
        ["waiting::w2_hundreds_of_waiting_opens_stall_nobody"],
    ),
    (
        "W2", "w2-an-open-by-path-descriptor-is-sent-round-for-ever", "src/mount/coordinated/open.rs",
        "let own_node = reroute.is_some();",
        "let own_node = reroute.is_some() && nonblock;",
        ["waiting::w2_an_open_by_path_descriptor_waits_too"],
    ),
    (
        "W2", "w2-close-answers-before-the-file-is-free", "src/mount/coordinated/close.rs",
        """        let wakes = self.let_go(held);
        let replies = session.end(outcome);
        drop(session);
        replies.into_iter().for_each(|reply| reply(result));""",
        """        let replies = session.end(outcome);
        replies.into_iter().for_each(|reply| reply(result));
        std::thread::sleep(std::time::Duration::from_millis(1));
        let wakes = self.let_go(held);
        drop(session);""",
        ["handover::w2_who_does_not_wait_gets_a_file_that_was_just_closed"],
    ),
    (
        "W3", "w3-a-process-has-no-ancestors", "src/mount/coordinated/caller.rs",
        """            .map(|process| id(&process))
            .collect(),""",
        """            .map(|process| id(&process))
            .take(0)
            .collect(),""",
        ["waiting::w3_a_child_of_the_holder_opens_its_file", "waiting::w3_a_parent_that_holds_the_file_runs_sed_on_it"],
    ),
    (
        "W3", "w3-truncating-opens-join", "src/mount/coordinated/open.rs",
        "let intent = if truncate { Intent::Truncate } else { Intent::Modify };",
        "let intent = Intent::Modify;",
        ["waiting::w3_four_threads_that_truncate_have_private_shadows_published_in_close_order"],
    ),
    (
        "W3", "w3-nobody-joins", "src/mount/coordinated/open.rs",
        "let intent = if truncate { Intent::Truncate } else { Intent::Modify };",
        "let intent = Intent::Truncate;",
        ["waiting::w3_threads_that_do_not_truncate_join_the_session", "waiting::w3_a_child_of_the_holder_opens_its_file"],
    ),
    (
        "W3", "w3-the-first-close-of-a-joined-session-ends-it", "src/mount/coordinated/close.rs",
        """        if let Ok(Some(why)) = last
            && let Some(staged) = session.take_left()""",
        """        if let Ok(why) = last.map(|why| why.unwrap_or(Ending::Closed))
            && let Some(staged) = session.take()""",
        ["waiting::w3_a_joined_session_is_published_when_its_last_handle_is_closed"],
    ),
    (
        "W3", "w3-an-own-rename-leaves-what-was-written", "src/mount/coordinated/rename.rs",
        ".try_for_each(|own| this.end_now(own, Ending::Closed))?;",
        ".for_each(|own| drop((own.name(), Ending::Closed)));",
        ["waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file", "model::what_went_wrong_once_goes_right"],
    ),
    (
        "W3", "w3-an-unlinked-file-comes-back-at-close", "src/mount/coordinated/session.rs",
        "staged.unlinked = true;",
        "staged.unlinked = false;",
        ["waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file"],
    ),
    (
        "W4", "w4-cycles-are-not-looked-for", "src/session/queue.rs",
        "if !line.has_same_wait(&request) && self.closes_cycle(file, &request.halted, place) {",
        "if line.has_same_wait(&request) && self.closes_cycle(file, &request.halted, place) {",
        ["waiting::w4_the_open_that_would_close_a_cycle_fails_with_edeadlk"],
    ),
    (
        "W4", "w4-who-has-threads-is-taken-for-blocked", "src/mount/coordinated/caller.rs",
        "lineage.retain(|process| proc::is_single_threaded(process.tgid));",
        "lineage.retain(|process| proc::is_single_threaded(process.tgid) || true);",
        [
            "waiting::w4_threads_that_save_two_files_at_once_are_no_deadlock",
            "waiting::w4_a_program_with_threads_goes_on_while_its_child_waits",
        ],
    ),
    (
        "W4", "w4-nobody-is-taken-for-blocked", "src/mount/coordinated/wait.rs",
        "claim.opener.halted = caller::halted(&claim.opener);",
        "claim.opener.halted = Vec::new();",
        [
            "waiting::w4_the_open_that_would_close_a_cycle_fails_with_edeadlk",
            "unlocked::w4_a_rename_that_would_close_a_cycle_fails_with_edeadlk",
        ],
    ),
    (
        "W4", "w4-a-deadlock-is-told-as-ebusy", "src/mount/coordinated/files.rs",
        "Refusal::Deadlock => Errno::DEADLK,",
        "Refusal::Deadlock => Errno::BUSY,",
        ["waiting::w4_the_open_that_would_close_a_cycle_fails_with_edeadlk"],
    ),
    (
        "W1", "w1-what-is-lost-is-synced", "src/mount/coordinated/handles.rs",
        "if !session.is_open() => session.on_end(reply),",
        "if !session.is_open() => reply(Ok(())),",
        ["waiting::w1_f3_nothing_that_a_holder_does_after_it_was_cut_off_seems_to_succeed"],
    ),
    (
        "W1", "w1-the-mode-of-what-is-lost-is-changed", "src/mount/coordinated/metadata.rs",
        "Some((_, errno)) if !self.walks_again(caller) =>",
        "Some((_, errno)) if self.walks_again(caller) =>",
        [
            "waiting::w1_f3_nothing_that_a_holder_does_after_it_was_cut_off_seems_to_succeed",
            "locks::w12_an_unlock_that_cannot_publish_says_so",
        ],
    ),
    (
        "W1", "w1-what-was-stored-through-a-mapping-is-not-asked-for", "src/mount/coordinated/close.rs",
        "nodes.into_iter().for_each(|node| self.tree.write_back(node));",
        "drop(nodes);",
        [
            "waiting::w1_what_a_holder_that_is_cut_off_has_stored_through_a_mapping_is_kept",
            "unmount::f5_a_forced_unmount_keeps_what_was_stored_through_a_mapping",
        ],
    ),
    (
        "W5", "w5-every-flush-publishes", "src/mount/coordinated/close.rs",
        "self.holders(session.about.node, flusher, &processes);",
        "self.holders(crate::mount::nodes::NodeId(0), flusher, &processes);",
        [
            "closing::w5_redirections_publish_once_each",
            "closing::w5_duplicates_forks_and_inherited_descriptors_are_one_session",
            "sessions::w5_a_shell_group_is_one_version",
        ],
    ),
    (
        "W5", "w5-only-the-main-threads-descriptors-are-looked-at", "src/os/table.rs",
        "for tid in proc::threads(pid) {",
        "for tid in [pid] {",
        [
            "closing::w5_threads_go_on_with_a_file_when_the_main_thread_has_left",
            "closing::w5_a_thread_with_a_table_of_its_own_goes_on_with_a_file",
        ],
    ),
    (
        "W5", "w5-all-threads-have-one-table", "src/os/table.rs",
        "        -1 => !proc::has_left(one),\n        _ => false,",
        "        _ => !proc::has_left(one),",
        [
            "closing::w5_a_thread_with_a_table_of_its_own_goes_on_with_a_file",
            "lib::os::table::tests::a_thread_with_a_table_of_its_own_counts",
        ],
    ),
    (
        "W5", "w5-a-descriptor-that-was-moved-is-not-looked-at", "src/mount/coordinated/tables.rs",
        "self.look(table, &others, node, is_told);",
        "self.look(table, &others[..0], node, is_told);",
        [
            "closing::w5_of_many_open_files_each_is_published_by_its_own_last_close",
            "lib::mount::coordinated::tables::tests::w5_what_is_remembered_never_says_anything_but_what_is",
        ],
    ),
    (
        "W5", "w5-a-new-descriptor-is-not-looked-for", "src/mount/coordinated/tables.rs",
        "if !held && table.count() != Some(self.told.len() + self.others.len()) {",
        "if !held && self.told.is_empty() {",
        [
            "closing::w5_of_many_open_files_each_is_published_by_its_own_last_close",
            "lib::mount::coordinated::tables::tests::w5_what_is_remembered_never_says_anything_but_what_is",
        ],
    ),
    (
        "W5", "w5-what-is-remembered-outlives-a-close", "src/mount/fs.rs",
        "self.coordination.told_of_close(node(ino));",
        "let _ = ino;",
        ["closing::w5_of_many_open_files_each_is_published_by_its_own_last_close"],
    ),
    (
        "W3", "w3-a-session-dies-with-its-openers-kinship", "src/mount/coordinated/holders.rs",
        "let new = session.inherit(heirs);",
        "let new = session.inherit(heirs.into_iter().take(0));",
        [
            "travelling::w3_a_child_that_goes_on_with_its_parents_descriptor_holds_the_session",
            "travelling::w5_children_that_outlive_their_parent_are_one_session_also_when_only_one_has_closed",
        ],
    ),
    (
        "W9", "w9-what-open-asked-for-is-not-looked-up", "src/mount/coordinated/begin.rs",
        "beginning.creates.or_else(|| creator::asked(caller)),",
        "beginning.creates.or_else(|| creator::asked(caller).filter(|_| false)),",
        ["names::w9_who_waited_with_o_creat_for_a_file_that_was_removed_creates_it"],
    ),
    (
        "W8", "w8-handles-of-a-file-with-an-ordinary-name-stay-a-sessions", "src/mount/coordinated/rename.rs",
        "if renamed.is_ok() {\n                own.iter().chain(exchanged)",
        "if renamed.is_err() {\n                own.iter().chain(exchanged)",
        ["creators::w8_a_holders_file_under_an_ordinary_name_is_a_file_like_any_other"],
    ),
    (
        "W5", "w5-descendants-are-not-asked", "src/mount/coordinated/holders.rs",
        """        let heirs = proc::descendants(flusher.tgid)
            .into_iter()
""",
        """        let heirs = proc::descendants(flusher.tgid)
            .into_iter()
            .take(0)
""",
        [
            "closing::w5_a_grandchild_that_outlives_both_publishes_when_it_closes",
            "closing::w7_a_killed_parent_leaves_the_session_to_its_child",
        ],
    ),
    (
        "W5", "w5-who-closes-is-not-remembered", "src/mount/coordinated/close.rs",
        "if flusher.is_known() && !staged.processes.contains(&flusher.tgid) {",
        "if flusher.is_known() && staged.processes.is_empty() {",
        ["travelling::w5_who_was_given_a_descriptor_and_closed_a_copy_of_it_goes_on_with_the_session"],
    ),
    (
        "W5", "w5-sessions-without-a-change-publish", "src/mount/coordinated/close.rs",
        "if !staged.matters() || !matters {",
        "if staged.unlinked || (!matters && false) {",
        ["closing::w5_a_session_that_wrote_nothing_publishes_nothing"],
    ),
    (
        "W5", "w5-copied-ranges-are-no-change", "src/mount/coordinated/handles.rs",
        "if copied.is_ok_and(|count| count > 0) {",
        "if copied.is_ok_and(|count| count > usize::MAX / 2) {",
        ["closing::w5_each_way_to_change_a_session_is_a_change_by_itself"],
    ),
    (
        "W5", "w5-allocating-is-no-change", "src/mount/coordinated/handles.rs",
        """            rustix::fs::fallocate(&staged.shadow.file, mode, offset, length)?;
            staged.note_change();""",
        "            rustix::fs::fallocate(&staged.shadow.file, mode, offset, length)?;",
        ["closing::w5_each_way_to_change_a_session_is_a_change_by_itself"],
    ),
    (
        "W5", "w5-what-comes-late-is-lost", "src/mount/coordinated/handles.rs",
        "if let Life::Done(content, version) = session.settle()? {",
        "if let (Life::Done(content, version), true) = (session.settle()?, session.is_late()) {",
        [
            "closing::w5_what_is_written_through_a_descriptor_that_was_passed_on_is_published_late",
            "waiting::w3_the_holder_reads_renames_and_unlinks_its_own_open_file",
        ],
    ),
    (
        "W5", "w5-a-task-in-execve-is-asked", "src/mount/coordinated/close.rs",
        "if closing == Closing::Exec {",
        "if closing == Closing::Exec && caller.tid == 0 {",
        ["closing::w5_a_descriptor_that_execve_closes_hangs_nobody"],
    ),
    (
        "W6", "w6-close-answers-before-the-publish", "src/mount/coordinated/close.rs",
        """                let taken = session.take_closed();
                session.on_end(reply);""",
        """                let taken = session.take_closed();
                reply(Ok(()));""",
        ["closing::w6_close_returns_what_the_publish_failed_with", "closing::w6_after_close_every_process_sees_it_at_once"],
    ),
    (
        "W6", "w6-close-hides-the-error", "src/mount/coordinated/close.rs",
        """            Outcome::Done { .. } => Ok(()),
            Outcome::Lost(errno) => Err(*errno),""",
        "            Outcome::Done { .. } | Outcome::Lost(_) => Ok(()),",
        ["closing::w6_close_returns_what_the_publish_failed_with"],
    ),
    (
        "W6", "w6-a-refused-shadow-is-not-kept", "src/store/publish.rs",
        "let kept = if published {",
        "let kept = if published || info.now > 0 {",
        ["closing::w6_close_returns_what_the_publish_failed_with"],
    ),
    (
        "W6", "w6-a-descriptor-for-reading-puts-the-publish-off", "src/os/table.rs",
        "Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR)",
        "Mode::from_raw_mode(stat.st_mode).intersects(Mode::RUSR | Mode::WUSR)",
        ["closing::w6_a_close_publishes_although_its_process_reads_the_file_too"],
    ),
    (
        "W7", "w7-the-kill-is-not-looked-at", "src/mount/coordinated/close.rs",
        "Closing::Killed => Ending::Killed,",
        "Closing::Killed => Ending::Closed,",
        [
            "closing::w7_a_killed_writer_publishes_nothing_and_its_bytes_are_kept",
            "model::what_went_wrong_once_goes_right",
            "names::w9_a_killed_creators_file_never_appears_and_a_waiting_creator_goes_on",
        ],
    ),
    (
        "W7", "w7-every-exit-is-a-kill", "src/mount/coordinated/close.rs",
        "Closing::Call | Closing::Exec | Closing::Exit => Ending::Closed,",
        "Closing::Exit => Ending::Killed,\n        Closing::Call | Closing::Exec => Ending::Closed,",
        ["closing::w7_an_exit_without_close_is_a_close"],
    ),
    (
        "W7", "w7-who-is-ended-by-anothers-exit-is-killed", "src/os/proc.rs",
        "Some(stat) if stat.exit_code & TERMINATING_SIGNAL == 0 => Closing::Exit,",
        "Some(stat) if stat.exit_code & TERMINATING_SIGNAL == 0 && stat.flags & 0x400 == 0 => Closing::Exit,",
        ["closing::w7_an_exit_with_threads_alive_is_a_close"],
    ),
    (
        "W7", "w7-what-was-staged-is-thrown-away", "src/mount/coordinated/close.rs",
        "self.discard(session, staged, counted, &reason);",
        'log::warn!("{reason}: {:?}", self.store.drop_unwritten(staged.shadow).is_ok());',
        [
            "closing::w7_a_killed_writer_publishes_nothing_and_its_bytes_are_kept",
            "unmount::f5_a_forced_unmount_keeps_what_was_staged",
            "waiting::w1_lease_a_holder_that_others_wait_for_too_long_is_discarded",
        ],
    ),
    (
        "W11", "w11-who-waited-is-not-asked-again", "src/mount/coordinated/permission.rs",
        "if caller.uid == 0 || let_in.holds_for(&file)? {",
        "if caller.uid == 0 || !matches!(let_in, LetIn::Unknown) || let_in.holds_for(&file)? {",
        [
            "users::w11_who_waited_for_a_file_may_do_what_its_new_permissions_say",
            "users::w12_a_lock_gives_nobody_a_file_that_he_may_not_write_to",
        ],
    ),
    (
        "W11", "w11-who-waited-is-let-in-by-what-the-file-was", "src/mount/coordinated/permission.rs",
        "(Some(inode), _) if !waited => LetIn::By(inode),",
        "(Some(inode), _) if !waited || inode.ino > 0 => LetIn::By(inode),",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-who-waited-is-asked-though-the-file-is-what-it-was", "src/mount/coordinated/permission.rs",
        "(_, Some(rights)) => LetIn::Before(rights),",
        "(_, Some(_)) => LetIn::Unknown,",
        ["containers::w11_who_is_not_known_waits_for_a_file_of_his_group_and_may_have_it_unless_its_mode_was_changed"],
    ),
    (
        "W11", "w11-who-waited-joins-whatever-his-relative-has", "src/mount/coordinated/open.rs",
        "if let (LetIn::Unknown | LetIn::Before(_), Some(session)) = (&let_in, &session)",
        "if let (LetIn::By(_), Some(session)) = (&let_in, &session)",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W10", "w10-lines-follow-a-name-to-any-file", "src/mount/coordinated/permission.rs",
        "let covers = *inode == Some(identity) || may_write(self.caller, self.rights.as_ref(), file);",
        "let covers = inode.is_some() || may_write(self.caller, self.rights.as_ref(), file);",
        ["model::what_went_wrong_once_goes_right", "users::w10_lines_do_not_follow_a_name_to_a_file_that_their_writer_may_not_write_to"],
    ),
    (
        "W5", "w5-a-late-session-replaces-anything", "src/mount/coordinated/permission.rs",
        "if session.about.caller.uid == 0 || same().unwrap_or(false) {",
        "if session.about.caller.uid != u32::MAX || same().unwrap_or(false) {",
        ["model::what_went_wrong_once_goes_right", "users::w5_what_is_written_late_does_not_replace_a_file_that_its_writer_may_not_write_to"],
    ),
    (
        "H4", "h4-anybodys-store-is-taken", "src/store/real.rs",
        "stat.st_uid != rustix::process::geteuid().as_raw() && ",
        "stat.st_uid == u32::MAX && ",
        ["users::a_store_that_another_user_has_put_there_is_not_used"],
    ),
    (
        "H4", "h4-anybody-may-ask-the-daemon", "src/control/server.rs",
        "    uid == 0 || uid == own\n",
        "    uid != u32::MAX || uid == own\n",
        ["users::another_user_who_reaches_the_control_socket_may_ask_nothing"],
    ),
    (
        "O1", "o1-a-mount-is-freer-than-its-backing-mount", "src/mount/mod.rs",
        "let no = |flag| flags.contains(flag);",
        "let no = |flag| flags.contains(flag) && !may;",
        ["users::what_the_backing_mount_forbids_programs_and_devices_the_mount_forbids_too"],
    ),
    (
        "O1", "o1-an-attributes-length-is-told-as-nothing", "src/mount/xattr.rs",
        "rustix::fs::getxattr_query(path, name).map(|length| Answer::Length(length as u32))",
        "rustix::fs::getxattr_query(path, name).map(|length| Answer::Length((length - length) as u32))",
        ["ordinary::o1_extended_attributes_and_acls_are_the_backing_files"],
    ),
    (
        "W5", "w5-a-strangers-first-close-publishes", "src/mount/coordinated/close.rs",
        "Ok(_) if !flusher.is_known() => reply(Ok(())),",
        "Ok(_) if !flusher.is_known() && why == Ending::Expired => reply(Ok(())),",
        ["containers::w5_shells_of_another_pid_namespace_publish_once_and_whole"],
    ),
    (
        "W1", "w1-strangers-are-not-known-again", "src/mount/coordinated/lookup.rs",
        "_ if stranger && files.expects_strangers(key) => (None, false),",
        "_ if stranger && files.expects_strangers(key) && key.0 == 0 => (None, false),",
        ["containers::w12_locks_exclude_across_pid_namespaces"],
    ),
    (
        "W12", "w12-status-shows-no-waiting-lock", "src/mount/coordinated/locks.rs",
        "waiting: waits.collect(),",
        "waiting: waits.take(0).collect(),",
        ["locks::w12_status_shows_who_has_a_lock_and_who_waits_for_it"],
    ),
    (
        "W12", "w12-who-appended-beside-a-session-asks-for-the-lock-of-the-old-name", "src/mount/entry.rs",
        "let of_old = self.nodes.formers(old);",
        "let of_old = Vec::new();",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W12", "w12-an-open-ordinary-file-that-becomes-coordinated-has-another-lock", "src/mount/coordinated/flock.rs",
        "Holder::Other => names().into_iter().find(|name| self.is_coordinated(name)),",
        "Holder::Other => None,",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W12", "w12-the-lock-of-a-file-that-never-appeared-stays", "src/mount/coordinated/names.rs",
        "if lost.is_ok() {",
        "if lost.is_err() {",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W12", "w12-letting-go-publishes-nothing", "src/mount/coordinated/flock.rs",
        "Holder::Writer(_) | Holder::Appender(_) if lets_go => Some(holder.clone()),",
        "Holder::Writer(_) | Holder::Appender(_) if lets_go => None,",
        ["locks::w12_letting_go_publishes_before_anybody_else_has_the_lock"],
    ),
    (
        "W12", "w12-who-has-only-locked-keeps-its-session", "src/mount/coordinated/flock.rs",
        "                this.give_up_unused(&writer.session());",
        "                let _ = writer;",
        [
            "lock_idioms::w12_who_has_the_file_open_only_to_lock_it_holds_up_nobody_when_it_has_let_go",
            "lock_idioms::w12_a_shell_that_opens_its_lock_file_again_each_turn_lets_others_come_in_between",
        ],
    ),
    (
        "W12", "w12-who-has-read-gives-its-session-up-with-the-lock", "src/mount/coordinated/staged.rs",
        "untouched && !self.looked_at",
        "untouched",
        ["lock_idioms::w12_what_was_read_under_the_lock_and_is_written_after_it_counts_exactly"],
    ),
    (
        "W12", "w12-who-has-read-by-name-gives-its-session-up-with-the-lock", "src/mount/coordinated/session.rs",
        "self.fill_after(store, |staged| staged.looked_at = true)",
        "self.fill(store)",
        ["lock_idioms::w12_what_was_read_under_the_lock_and_is_written_after_it_counts_exactly"],
    ),
    (
        "W12", "w12-who-has-measured-the-file-gives-its-session-up-with-the-lock", "src/mount/getattr.rs",
        "                writer.measured();",
        "                let _ = writer;",
        ["lock_idioms::w12_what_was_read_under_the_lock_and_is_written_after_it_counts_exactly"],
    ),
    (
        "W12", "w12-a-lock-and-a-session-wait-for-each-other", "src/mount/coordinated/flock.rs",
        "if that.is_with_who_waits(&again.session()) {",
        "if false {",
        ["lock_idioms::w12_who_has_a_lock_and_waits_for_who_waits_for_another_of_its_locks_is_told_so"],
    ),
    (
        "W12", "w12-letting-go-leaves-the-beginning-of-a-line", "src/mount/coordinated/flock.rs",
        "Holder::Appender(appender) => return self.publish_held(appender),",
        "Holder::Appender(_) => return Ok(()),",
        ["locks::w12_letting_go_publishes_the_beginning_of_a_line"],
    ),
    (
        "W12", "w12-who-wrote-no-line-before-it-let-go-holds-back-lines", "src/mount/coordinated/append_close.rs",
        "appender);\n        held.whole = held.removed || appender.policy.append == Append::Close;",
        "appender);\n        held.whole |= held.removed;",
        ["locks::w12_letting_go_publishes_what_is_no_line"],
    ),
    (
        "W12", "w12-who-has-only-emptied-the-file-publishes-last", "src/mount/coordinated/close.rs",
        "if staged.only_opened && self.is_overtaken(",
        "if false && self.is_overtaken(",
        ["locks::w12_who_emptied_the_file_by_its_open_and_gave_way_to_a_lock_takes_nothing_back"],
    ),
    (
        "W12", "w12-who-has-written-is-taken-for-one-who-has-not", "src/mount/coordinated/staged.rs",
        "        self.only_opened = false;",
        "",
        ["lock_idioms::w12_what_is_saved_under_a_lock_outlives_the_handle_that_only_emptied_the_file_to_lock_it"],
    ),
    (
        "W12", "w12-a-name-that-was-given-since-is-taken-for-a-publish", "src/mount/coordinated/overtaken.rs",
        "&& !self.is_current(based_on, place)",
        "",
        ["locks::w12_a_file_that_was_only_given_another_name_since_is_emptied"],
    ),
    (
        "W3", "w3-a-session-in-which-nothing-was-written-stays-behind", "src/mount/coordinated/close.rs",
        "        self.renew_others(&session);\n",
        "",
        [
            "opened::w3_a_lineage_meets_what_it_has_saved_beside_a_session_in_which_nothing_was_written",
            "opened::w3_a_descriptor_by_which_nothing_was_written_goes_on_from_what_its_lineage_saved",
            "opened::w12_counts_that_are_saved_twice_under_one_lock_on_the_data_file_are_exact",
        ],
    ),
    (
        "W3", "w3-a-whole-file-is-written-into-what-its-lineage-saved", "src/mount/coordinated/staged.rs",
        "if let Some(version) = self.emptied.clone().filter(|_| !self.changed) {",
        "if let Some(version) = self.emptied.clone().filter(|_| false) {",
        ["opened::w3_who_has_emptied_a_file_to_write_it_writes_a_whole_one_whatever_its_lineage_saved"],
    ),
    (
        "W3", "w3-who-looks-is-taken-for-one-who-has-not", "src/mount/coordinated/staged.rs",
        "        self.emptied = None;\n",
        "",
        ["opened::w3_who_reads_or_joins_what_it_has_emptied_goes_on_from_what_its_lineage_saved"],
    ),
    (
        "R1", "r1-a-session-starts-anew-below-a-mapping", "src/mount/coordinated/handles.rs",
        "        if for_mapping {",
        "        if for_mapping && false {",
        ["opened::r1_a_relatives_reader_keeps_its_version_when_the_session_that_it_read_starts_anew"],
    ),
    (
        "W5", "w5-who-ends-last-on-a-node-leaves-it-to-anybody", "src/mount/coordinated/flock.rs",
        "        session.stay_with(old);\n",
        "",
        ["opened::w5_a_node_stays_its_handles_when_one_of_two_sessions_is_given_up_and_the_other_ends"],
    ),
    (
        "W8", "w8-names-are-taken-as-they-come", "src/mount/coordinated/rounds.rs",
        "        targets.sort_by(|a, b| a.path.cmp(&b.path));\n",
        "",
        ["unlocked::w8_two_that_rename_two_files_over_each_other_come_one_after_the_other"],
    ),
    (
        "R2", "r2-a-lock-leaves-the-binding", "src/mount/coordinated/reader.rs",
        "        version.bound = None;\n",
        "",
        ["locks::r2_a_version_is_bound_at_the_first_read"],
    ),
    (
        "R2", "r2-bound-at-open", "src/mount/coordinated/reader.rs",
        "let newer = self.newer_version(reader, &version.shown, wanted);",
        "let newer = self.newer_version(reader, &version.shown, wanted).filter(|_| false);",
        ["locks::r2_a_version_is_bound_at_the_first_read"],
    ),
    (
        "R2", "r2-who-goes-by-the-size-is-moved-on", "src/mount/coordinated/reader.rs",
        "if goes_by_size && !reader.released.load(Ordering::Acquire) {",
        "if goes_by_size && !reader.released.load(Ordering::Acquire) && false {",
        ["locks::r2_who_goes_by_the_size_sees_the_whole_of_one_version"],
    ),
    (
        "R1", "r1-the-kernel-keeps-the-size-that-an-open-found", "src/mount/coordinated/reader.rs",
        "self.readers.add(&reader);\n        self.tree.attributes_changed(reader.node);",
        "self.readers.add(&reader);",
        ["sizes::r1_who_asks_at_once_where_a_quiet_file_ends_reads_so_far"],
    ),
    (
        "R1", "r1-who-asks-for-the-end-is-not-bound", "src/mount/getattr.rs",
        "Ok(Handle::Reader(reader)) => self.coordination.measured(&reader),",
        "Ok(Handle::Reader(_)) => None,",
        ["sizes::r1_who_asked_where_the_file_ends_reads_so_far_whatever_is_saved_then"],
    ),
    (
        "R1", "r1-the-end-beside-another-handle-is-the-nodes", "src/mount/getattr.rs",
        "match size.filter(|size| *size > stat.st_size) {",
        "match size.filter(|size| *size > stat.st_size && false) {",
        ["sizes::r2_who_asks_where_the_file_ends_beside_another_handle_reads_one_version_whole"],
    ),
    (
        "W12", "w12-who-does-not-get-the-lock-keeps-its-session", "src/mount/coordinated/flock.rs",
        "self.turned(Turn { crowded, ..turn });",
        "self.turned(Turn { crowded: crowded && false, ..turn });",
        ["locks::w12_who_waits_for_the_lock_does_not_hold_up_who_has_it"],
    ),
    (
        "W12", "w12-a-session-begins-again-as-who-locked-alone", "src/mount/coordinated/flock.rs",
        "        self.told_of(&session, &holders);",
        "        drop(holders);",
        ["lock_idioms::w12_who_locks_by_a_child_goes_on_with_its_own_session"],
    ),
    (
        "W12", "w12-who-waits-beside-the-holder-keeps-its-session-when-another-has-the-lock", "src/mount/coordinated/flock.rs",
        "turn.into_iter().for_each(|turn| self.turned(turn));",
        "turn.into_iter().for_each(|turn| self.turned(Turn { crowded: false, ..turn }));",
        ["lock_idioms::w12_who_waits_beside_a_handle_of_its_own_gives_way_when_another_has_the_lock"],
    ),
    (
        "W12", "w12-a-save-that-a-sibling-has-joined-waits-for-its-close", "src/mount/coordinated/flock.rs",
        "session.is_held_by(&process) && session.staged(|staged| Ok(staged.is_saved())) == Ok(true)",
        "session.is_held_by(&process) && session.staged(|staged| Ok(staged.is_saved())) == Err(Errno::IO)",
        ["locks::w12_letting_go_publishes_what_its_process_has_saved_and_closed"],
    ),
    (
        "W12", "w12-a-lock-is-the-inodes", "src/mount/coordinated/flock.rs",
        "                Whose::Name(name)\n",
        "                Whose::Inode(self.tree.identity(node)?)\n",
        ["locks::w12_a_rename_over_the_file_keeps_the_lock"],
    ),
    (
        "W12", "w12-a-closed-descriptors-lock-stays", "src/mount/coordinated/flock.rs",
        "let Some((whose, process)) = self.locks.lock().held(owner) else {",
        "let Some((whose, process)) = self.locks.lock().held(owner).filter(|_| owner.0 == 0) else {",
        ["locks::w12_a_lock_is_free_when_close_has_returned", "locks::w12_a_killed_holders_lock_is_free"],
    ),
    (
        "W12", "w12-a-lock-belongs-to-what-others-may-have-next", "src/mount/route.rs",
        "LockOwner(handle)",
        "LockOwner(handle / 4)",
        ["locks::w12_a_lock_does_not_end_with_a_handle_that_was_closed_before_it_was_taken"],
    ),
    (
        "W12", "w12-a-refused-lock-counts-as-a-refused-open", "src/mount/coordinated/wait.rs",
        "if need == Need::Lock && matches!(",
        "if need == Need::Lock && !matches!(",
        ["locks::w12_a_lock_that_is_not_had_is_no_open_that_failed"],
    ),
    (
        "W12", "w12-signals-do-not-end-the-wait-for-a-lock", "src/mount/coordinated/flock.rs",
        "if proc::ends_wait(*tid, Need::Lock.ends_by()) {",
        "if proc::ends_wait(*tid, Need::Lock.ends_by()) && *tid == 0 {",
        ["locks::w12_a_signal_ends_the_wait"],
    ),
    (
        "W12", "w12-signals-of-who-waits-for-a-lock-are-asked-for-with-the-next-wait-only", "src/mount/coordinated/flock.rs",
        "next.or((!tids.is_empty()).then_some(super::wait::SIGNALS_EVERY))",
        "next",
        ["locks::w12_a_signal_ends_the_wait"],
    ),
    (
        "W12", "w12-lock-nb-waits", "src/mount/coordinated/flock.rs",
        "until: nonblock.then(|| Instant::now() + NONBLOCK_PATIENCE),",
        "until: (nonblock && owner.0 == 0).then(|| Instant::now() + NONBLOCK_PATIENCE),",
        ["locks::w12_locks_exclude_each_other_on_ordinary_and_on_coordinated_files"],
    ),
    (
        "W12", "w12-a-handle-goes-on-with-what-it-left", "src/mount/coordinated/flock.rs",
        "Holder::Writer(writer) if writer.is_open_now() && !self.is_behind(&writer.session()) => answer(Ok(())),",
        "Holder::Writer(writer) if writer.is_open_now() || !self.is_behind(&writer.session()) => answer(Ok(())),",
        ["locks::w12_a_handle_that_lives_on_works_on_what_is_current_each_time"],
    ),
    (
        "W12", "w12-to-ask-again-is-to-let-go", "src/mount/coordinated/locks.rs",
        "held.is_some_and(|held| self.table.mode_of(held.key, owner) != mode)",
        "held.is_some_and(|held| self.table.mode_of(held.key, owner) != mode || mode.is_some())",
        ["locks::w12_who_has_the_lock_already_publishes_nothing_by_asking_again"],
    ),
    (
        "W10", "w10-the-beginning-of-a-line-is-lost", "src/mount/coordinated/append.rs",
        "held.tail.extend_from_slice(rest);",
        "held.tail.extend_from_slice(&rest[rest.len()..]);",
        ["appends::w10_a_buffered_writer_that_flushes_within_a_line_shows_whole_lines"],
    ),
    (
        "W10", "w10-a-child-appends-to-its-parents-shadow", "src/mount/coordinated/append_open.rs",
        "if is_there && self.files.lock().session_on(node).is_some() {",
        "if is_there && is_own() { return by_session(answer); } if false {",
        [
            "growing::w10_children_tear_no_line_beside_a_parent_that_rewrites_the_file",
            "growing::w10_a_childs_lines_come_after_what_its_parent_writes_and_all_others_see_them_at_once",
        ],
    ),
    (
        "W10", "w10-a-rename-between-two-looks-at-a-log-loses-it", "src/mount/coordinated/append_log.rs",
        "_ => return act(&found, &mut state),",
        "_ => { drop(state); std::thread::sleep(std::time::Duration::from_millis(5)); return act(&found, &mut found.lock()); }",
        [
            "rotating::w10_a_log_that_is_renamed_away_loses_no_line_and_refuses_nobody",
            "rotating::w10_a_log_that_is_renamed_away_and_made_anew_loses_no_line_and_refuses_nobody",
        ],
    ),
    (
        "W10", "w10-who-opens-a-log-that-is-just-removed-is-refused", "src/mount/coordinated/append_open.rs",
        "Err(Errno::NOENT | Errno::STALE) => {}",
        "Err(Errno::NOENT | Errno::STALE) if false => {}",
        [
            "rotating::w10_no_line_goes_to_a_file_that_was_removed_before_it_was_opened",
            "rotating::w10_a_log_that_is_renamed_away_loses_no_line_and_refuses_nobody",
        ],
    ),
    (
        "W10", "w10-who-creates-is-sent-round-twice", "src/mount/coordinated/lookup.rs",
        "session => match self.promised_to(caller, key) {",
        "session => match self.promised_to(caller, key).filter(|_| false) {",
        ["rotating::w10_no_line_goes_to_a_file_that_was_removed_before_it_was_opened"],
    ),
    (
        "W10", "w10-lines-go-where-the-log-thinks-that-the-file-ends", "src/mount/coordinated/append_grow.rs",
        "let write = |file: &File| append(file, data).map(|()| data.len() as u64);",
        """let at = match &state.live {
            Live::Open(current) => current.committed.load(Ordering::Acquire),
            _ => 0,
        };
        let write = |file: &File| std::os::unix::fs::FileExt::write_all_at(file, data, at).map(|()| data.len() as u64);""",
        ["rotating::w10_what_others_write_by_an_ordinary_name_is_not_written_over"],
    ),
    (
        "W6", "w6-a-name-that-only-a-former-node-knows-is-none", "src/mount/coordinated/linked.rs",
        "        infos.flat_map(|info| info.names).collect()",
        "        infos.flat_map(|info| info.names).take(0).collect()",
        [
            "lineage::w6_what_is_written_to_a_file_that_loses_a_name_shows_in_the_other_though_somebody_reads_it_by_that",
        ],
    ),
    (
        "W10", "w10-a-name-that-a-file-lost-keeps-its-appenders", "src/mount/coordinated/names.rs",
        "            self.name_changed(name, &before);\n            // A node",
        "            let _ = before;\n            // A node",
        ["rotating::w10_w11_a_name_of_several_that_goes_leaves_its_appenders_to_the_others"],
    ),
    (
        "W10", "w10-nothing-is-appended-when-the-directory-is-gone", "src/mount/coordinated/append.rs",
        "let path = self.path_of(&name).unwrap_or_else(|_| appender.path.clone());",
        "let path = self.path_of(&name)?;",
        ["rotating::w10_what_is_appended_when_file_and_directory_are_gone_is_taken_and_kept"],
    ),
    (
        "W10", "w10-an-appender-truncates-what-has-the-name-that-it-opened", "src/mount/coordinated/append_size.rs",
        "Live::Open(current) => Appended::Named(state.name.clone(),",
        "Live::Open(current) => Appended::Named(appender.name.clone(),",
        ["rotating::w10_an_appender_truncates_and_makes_room_in_the_file_that_it_appends_to"],
    ),
    (
        "W10", "w10-an-appender-is-shown-the-version-that-it-opened", "src/mount/getattr.rs",
        "session.or_else(|| coordination.stat_of_appender(caller, id))",
        "session",
        ["rotating::w10_an_appender_is_shown_the_size_of_the_file_that_its_lines_go_to"],
    ),
    (
        "W5", "w5-handles-that-outlive-their-session-go-on-alone", "src/mount/coordinated/begin.rs",
        "if let Some(session) = &*continued {",
        "if let Some(session) = (*continued).as_ref().filter(|_| false) {",
        ["growing::w5_handles_that_outlive_their_session_do_not_write_over_each_other"],
    ),
    (
        "W6", "w6-who-joins-a-session-that-just-ended-begins-one-beside-others", "src/mount/coordinated/open.rs",
        "self.admit(target, Claim { file, ..claim }, came, beginning, answer);",
        "self.admit(target, Claim { intent: if file == claim.file { claim.intent } else { Intent::Truncate }, ..claim }, came, beginning, answer);",
        ["growing::w6_what_a_child_wrote_to_the_parents_session_is_published_whoever_closes_last"],
    ),
    (
        "W6", "w6-a-rename-that-does-nothing-ends-a-session", "src/mount/coordinated/rename.rs",
        "if this.moves_nothing(&moving) {",
        "if false && this.moves_nothing(&moving) {",
        ["lineage::w6_renaming_one_name_of_a_file_over_another_leaves_what_is_being_written"],
    ),
    (
        "W9", "w9-a-lineage-may-not-create-the-name-that-it-removed", "src/mount/coordinated/open.rs",
        "&& !(exclusive && self.has_lost_name(key, &opener));",
        "&& !(false && self.has_lost_name(key, &opener));",
        ["lineage::w8_w9_the_name_that_a_lineage_has_removed_is_free_for_its_exclusive_creation"],
    ),
    (
        "W3", "w3-who-creates-a-file-has-emptied-it", "src/mount/coordinated/open.rs",
        "truncate: flags.contains(OFlags::TRUNC),",
        "truncate: true,",
        ["lineage::w3_who_has_created_a_file_or_looked_where_it_ends_goes_on_from_what_a_child_has_saved"],
    ),
    (
        "W3", "w3-who-has-looked-where-a-file-ends-has-not-looked-at-it", "src/mount/coordinated/handles.rs",
        """    pub fn measured(&self) {
        self.looked_at();""",
        """    pub fn measured(&self) {
        let _ = self.session();""",
        ["lineage::w3_who_has_created_a_file_or_looked_where_it_ends_goes_on_from_what_a_child_has_saved"],
    ),
    (
        "W9", "w9-who-creates-a-removed-name-is-not-alone", "src/mount/coordinated/open.rs",
        "!is_created && self.nearest_of(key, opener)",
        "(!is_created || true) && self.nearest_of(key, opener)",
        ["lineage::w8_w9_who_creates_the_removed_name_exclusively_is_alone"],
    ),
    (
        "W9", "w9-a-removed-file-is-promised-still", "src/mount/coordinated/session.rs",
        "            staged.unlinked = true;\n            self.creates.store(false, Ordering::Release);\n",
        "            staged.unlinked = true;\n",
        ["lineage::w8_w9_the_name_that_a_lineage_has_removed_is_free_for_its_exclusive_creation"],
    ),
    (
        "W12", "w12-a-mode-is-a-content", "src/mount/coordinated/staged.rs",
        "        if !self.changed {\n            self.take_up();",
        "        if !self.changed || true {\n            self.take_up();",
        ["lineage::w3_w12_metadata_that_a_child_changes_by_name_is_the_files_and_says_nothing_about_its_content"],
    ),
    (
        "W3", "w3-a-lineages-save-does-not-have-the-mode-that-it-gave-the-file", "src/mount/coordinated/open.rs",
        "let dressed_as = own.and_then(|own| own.touched());",
        "let dressed_as = own.and_then(|own| own.touched()).filter(|_| false);",
        ["lineage::w3_w12_metadata_that_a_child_changes_by_name_is_the_files_and_says_nothing_about_its_content"],
    ),
    (
        "W8", "w8-a-file-that-is-only-created-is-linked-before-it-is-a-version", "src/mount/coordinated/names.rs",
        "            if session.creates() {",
        "            if false && session.creates() {",
        ["lineage::w8_a_holder_links_the_version_that_the_name_leads_to"],
    ),
    (
        "W8", "w8-what-was-removed-is-linked", "src/mount/coordinated/names.rs",
        "            if session.is_unlinked() {",
        "            if false && session.is_unlinked() {",
        ["users::w8_who_does_not_own_a_file_that_was_removed_makes_no_name_of_it"],
    ),
    (
        "W8", "w8-a-file-that-lost-a-name-to-another-loses-what-is-written", "src/mount/coordinated/names.rs",
        "if !self.goes_on_elsewhere(session, name, former_names) {",
        "if true || !self.goes_on_elsewhere(session, name, former_names) {",
        ["lineage::w8_a_holder_links_the_version_that_the_name_leads_to"],
    ),
    (
        "W11", "w11-what-an-ordinary-name-leads-to-is-exchanged", "src/mount/coordinated/close.rs",
        "            in_place: is_ordinary,",
        "            in_place: false,",
        ["lineage::w8_a_holder_links_the_version_that_the_name_leads_to"],
    ),
    (
        "W8", "w8-a-removed-file-comes-back-by-what-is-written-late", "src/mount/coordinated/begin.rs",
        "staged.unlinked = matches!(self.stat(&name), Err(Errno::NOENT));",
        "staged.unlinked = false && matches!(self.stat(&name), Err(Errno::NOENT));",
        ["lineage::w8_what_is_written_to_a_file_that_was_removed_goes_with_it_also_after_a_rename"],
    ),
    (
        "W11", "w11-who-appends-changes-the-mode-of-what-was-replaced", "src/mount/route.rs",
        "_ if let Some(appender) = self.coordination.appended_by_descriptor(caller, node) => {",
        "_ if let Some(appender) = self.coordination.appended_by_descriptor(caller, node).filter(|_| false) => {",
        ["lineage::w11_who_appends_changes_the_mode_of_the_file_that_its_lines_go_to"],
    ),
    (
        "W8", "w8-a-session-s-node-keeps-a-name-that-was-removed", "src/mount/coordinated/linked.rs",
        "nodes.for_each(|node| self.tree.nodes.call_only(node, home.clone()));",
        "nodes.for_each(drop);",
        [
            "given_names::w8_a_file_that_lost_a_name_beside_a_session_is_linked_by_the_other_that_it_has",
            "model::what_went_wrong_once_goes_right",
        ],
    ),
    (
        "W2", "w2-who-was-sent-round-is-known-by-the-key-only", "src/mount/coordinated/files/reroutes.rs",
        "|reroute: &&mut Reroute| reroute.file != file && names",
        "|reroute: &&mut Reroute| false && reroute.file != file && names",
        [
            "departed::w8_w2_who_was_sent_round_by_one_name_waits_its_turn_though_the_other_is_gone",
            "lib::mount::coordinated::files::reroutes::tests::who_was_sent_round_is_known_again_by_its_name_under_whatever_key",
        ],
    ),
    (
        "W8", "w8-the-kernel-counts-the-last-link-down", "src/mount/route.rs",
        "let left = self.coordination.is_left_by_name(entry.id);",
        "let left = false && self.coordination.is_left_by_name(entry.id);",
        ["given_names::w8_a_name_that_is_there_is_linked_while_others_of_the_file_come_and_go"],
    ),
]
