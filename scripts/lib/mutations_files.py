"""Mutations of names, of what a file stays, of history, faults and ordinary files: W8 and on. See mutations.py."""

FILES = [
    (
        "W8", "w8-a-late-write-takes-back-the-file-that-replaced-its-own", "src/mount/coordinated/close.rs",
        "if session.is_late() && staged.base.as_deref().is_some_and(is_anothers) {",
        "if session.is_late() && staged.base.as_deref().is_some_and(|_: &std::fs::File| false) {",
        ["renames::w8_what_is_written_late_goes_with_a_file_that_was_replaced_or_removed_meanwhile"],
    ),
    (
        "W11", "w11-sessions-stay-with-a-name-that-is-gone", "src/mount/coordinated/linked.rs",
        """            if self.is_coordinated(&other) {
                // Who opens""",
        """            if false {
                // Who opens""",
        [
            "given_names::w11_who_opens_a_name_that_is_left_waits_for_who_has_removed_the_one_that_stood_for_all",
            "model::what_went_wrong_once_goes_right",
        ],
    ),
    (
        "W11", "w11-who-removes-the-name-that-he-came-by-finds-his-file-nowhere", "src/mount/coordinated/names.rs",
        "Some(info) if info.names == [name.clone()] && session.name() != *name => {",
        "Some(info) if info.names.is_empty() && session.name() != *name => {",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-a-truncate-that-waited-does-not-look-for-the-name-that-is-left", "src/mount/coordinated/truncate.rs",
        "let elsewhere = cut.own_node.then(",
        "let elsewhere = false.then(",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W8", "w8-renames-do-not-wait", "src/mount/coordinated/rename.rs",
        "let targets = moving.source.iter().chain(&moving.target).cloned().collect();",
        "let targets = moving.source.iter().chain(&moving.target).cloned().take(0).collect();",
        ["names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces"],
    ),
    (
        "W8", "w8-unlink-does-not-wait", "src/mount/coordinated/names.rs",
        "..Errand::new(vec![target.clone()], name.parent)",
        "..Errand::new(Vec::new(), name.parent)",
        ["names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces"],
    ),
    (
        "W8", "w8-truncate-by-path-goes-to-anybodys-session", "src/mount/coordinated/truncate.rs",
        """if let Some(own) = self.nearest_of(key, &opener).filter(|own| own.shown().is_some()) {
            let this""",
        """if let Some(own) = self.files.lock().sessions(key).last().cloned() {
            let this""",
        ["names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces"],
    ),
    (
        "W8", "w8-truncate-by-a-coordinated-name-beside-an-ordinary-one-is-ordinary", "src/mount/route.rs",
        "if let by @ (Opened::Coordinated(_) | Opened::Unknown) =",
        "if let by @ Opened::Coordinated(_) =",
        ["links::w8_truncate_by_a_coordinated_name_beside_an_ordinary_one_waits_and_is_a_version"],
    ),
    (
        "W8", "w8-an-ordinary-name-stands-for-all", "src/mount/coordinated/linked.rs",
        """                if self.is_coordinated(&known)
                    && self.stat_backing(&known).is_ok_and(|other| other.st_ino == stat.st_ino) =>
            {
                known
            }
            _ if !is_file(&stat) => name.clone(),
            outdated if stat.st_nlink > 1 => {
                if !self.is_coordinated(name) {""",
        """                if self.stat_backing(&known).is_ok_and(|other| other.st_ino == stat.st_ino) =>
            {
                known
            }
            _ if !is_file(&stat) => name.clone(),
            outdated if stat.st_nlink > 1 => {
                if !is_file(&stat) {""",
        [
            "given_names::w8_w11_no_ordinary_name_stands_for_a_file_that_has_a_coordinated_one",
        ],
    ),
    (
        "W8", "w8-what-a-linked-file-replaces-is-not-kept", "src/mount/coordinated/rename.rs",
        "(moves || replaces) &&",
        "moves &&",
        [
            "kept::h1_no_save_is_lost_whatever_becomes_of_the_names_of_its_file",
            "replaced::w8_whatever_takes_a_files_place_the_versions_of_that_stay",
            "replaced::w8_what_was_replaced_by_a_link_is_restored",
            "replaced::w8_a_linked_file_takes_the_place_of_one_that_is_written_when_that_is_closed",
        ],
    ),
    (
        "W10", "w10-who-appends-stays-with-what-a-linked-file-replaced", "src/mount/coordinated/rename.rs",
        "                Some(_) => self.replaced(&mut locked.1),",
        "                Some(_) => {}",
        ["replaced::w10_who_appends_to_a_file_whose_place_a_linked_one_takes_goes_on_there"],
    ),
    (
        "W10", "w10-who-appends-to-a-linked-file-loses-it-with-the-name", "src/mount/coordinated/rename.rs",
        "            self.name_changed(old, &found.live);\n        }\n        self.nodes",
        "        }\n        self.nodes",
        ["replaced::w10_who_appends_to_a_linked_file_goes_on_when_its_name_takes_the_place_of_another"],
    ),
    (
        "W12", "w12-a-lock-stays-with-the-name-that-a-linked-file-takes", "src/mount/coordinated/rename.rs",
        "Some(_) if !found.can_move => drop(self.locks.lock().removed(&to)),",
        "Some(_) if !found.can_move => drop(&to),",
        ["replaced::w12_the_lock_of_a_file_whose_place_a_linked_one_takes_is_not_that_ones"],
    ),
    (
        "W8", "w8-who-opens-what-has-just-left-gets-the-ordinary-file", "src/mount/coordinated/opened.rs",
        "nodes.for_each(|node| self.tree.nodes.will_depart(node, name, now));",
        "nodes.for_each(|node| self.tree.nodes.will_depart(node, name, now - std::time::Duration::from_secs(60)));",
        ["departed::w8_who_opens_a_file_that_is_just_leaving_for_an_ordinary_name_gets_what_the_coordinated_one_leads_to"],
    ),
    (
        "O1", "o1-a-number-that-comes-back-has-departed", "src/mount/nodes.rs",
        "            if node.lookups == 0 {",
        "            if node.lookups == u32::MAX {",
        ["lib::mount::nodes::tests::a_file_that_gets_the_number_of_one_that_departed_has_not_departed"],
    ),
    (
        "O1", "o1-only-ordinary-opens-pass-by-what-others-pass-by", "src/mount/modes.rs",
        "            (Some(passing), _) => Mode::Passing(Arc::clone(passing)),",
        "            (Some(passing), Mode::Passing(_)) => Mode::Passing(Arc::clone(passing)),\n            (Some(_), wish) => wish,",
        [
            "names::w8_a_file_that_its_writer_still_has_open_is_read_by_its_new_name",
            "openers::o1_a_file_that_somebody_has_open_past_the_daemon_when_it_gets_a_coordinated_name_is_opened_in_every_way",
            "lib::mount::modes::tests::the_kernel_refuses_no_open_in_whatever_order_it_hears_of_the_answers",
        ],
    ),
    (
        "O1", "o1-an-open-passes-by-beside-others-that-do-not", "src/mount/modes.rs",
        "(None, Mode::Passing(_)) if of_node.others > 0 => Mode::Cached,",
        "(None, Mode::Passing(_)) if of_node.others > usize::MAX - 1 => Mode::Cached,",
        ["lib::mount::modes::tests::the_kernel_refuses_no_open_in_whatever_order_it_hears_of_the_answers"],
    ),
    (
        "O1", "o1-what-was-forgotten-while-an-answer-was-under-way-stays", "src/mount/nodes.rs",
        "            inner.lingering.push(id);",
        "            inner.lingering.clear();",
        ["lib::mount::nodes::tests::a_removed_file_is_held_no_longer_than_who_answered_its_open"],
    ),
    (
        "O1", "o1-what-nobody-has-found-departs", "src/mount/nodes.rs",
        "if inner.nodes.get(&id).is_some_and(|node| node.lookups > 0) {",
        "if inner.nodes.contains_key(&id) {",
        ["lib::mount::nodes::tests::a_file_that_gets_the_number_of_one_that_departed_has_not_departed"],
    ),
    (
        "O1", "o1-what-has-just-left-is-not-opened-by-its-ordinary-name", "src/mount/coordinated/opened.rs",
        "Some(Finds::Own(None)) => CameBy::Ordinary,",
        "Some(Finds::Own(None)) => CameBy::Unknown,",
        ["departed::o1_who_opens_a_file_by_the_ordinary_name_that_it_has_just_got_has_that_file"],
    ),
    (
        "W10", "w10-who-appends-to-what-has-just-left-writes-to-the-ordinary-file", "src/mount/coordinated/rename.rs",
        "if moving.source.is_some() {",
        "if moving.source.is_none() {",
        ["rotating::w10_a_log_that_is_renamed_away_loses_no_line_and_refuses_nobody"],
    ),
    (
        "H1", "h1-an-exchange-keeps-no-version-of-a-file-with-other-names", "src/mount/coordinated/rename.rs",
        "let moves = self.can_move &&",
        "let moves = !(moving.exchanges() && self.replaced.is_some_and(|stat| stat.st_nlink > 1)) && self.can_move &&",
        ["links::h1_an_exchange_keeps_the_version_of_a_file_with_other_names"],
    ),
    (
        "R3", "r3-an-image-is-not-found-while-it-is-put-back", "src/store/images.rs",
        "for name in [known.text(), known.settled().text()] {",
        "for name in [known.text()] {",
        ["lib::store::tests_faults::an_image_is_found_before_and_after_it_changes_its_name"],
    ),
    (
        "W11", "w11-an-ordinary-name-shows-a-link-that-is-gone", "src/mount/coordinated/linked.rs",
        "Identity { ino: inode, ..image }",
        "Identity { ino: 0, ..image }",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-an-ordinary-name-shows-the-mode-of-before", "src/mount/coordinated/linked.rs",
        "if !images.is_empty() {\n            self.live_changed(",
        "if images.is_empty() {\n            self.live_changed(",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W8", "w8-truncate-by-path-goes-to-what-was-replaced", "src/mount/coordinated/truncate.rs",
        ".filter(|own| own.shown().is_some())",
        "",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W8", "w8-what-is-written-late-goes-to-the-name-before-the-last-rename", "src/mount/coordinated/begin.rs",
        "self.name_of(&content).unwrap_or_else(|| ended.name()),",
        "ended.name(),",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "Notices", "notices-a-publish-is-not-told-of", "src/mount/coordinated/close.rs",
        "self.tree.tell_watchers(path, News::Modified);",
        "drop(path);",
        ["notices::who_listens_to_changes_only_is_told_once_more_when_the_version_is_there"],
    ),
    (
        "Notices", "notices-the-watch-on-what-was-replaced-goes-silent", "src/mount/coordinated/close.rs",
        "self.tell_formers(name, news);",
        "",
        [
            "notices::a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open",
            "unprivileged::watchers_on_a_users_own_mount_are_told_of_each_version",
        ],
    ),
    (
        "Notices", "notices-the-watch-on-what-was-replaced-hears-of-no-appended-line", "src/mount/coordinated/append_close.rs",
        "self.tell_formers(&held.log.name(), News::Saved);",
        "",
        ["notices::a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open"],
    ),
    (
        "Notices", "notices-a-former-node-is-taken-for-an-unlinked-file", "src/mount/nodes.rs",
        "Some(node) if node.former => 1,",
        "Some(node) if node.former => 0,",
        [
            "notices::a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open",
            "notices::a_reader_that_has_an_older_version_open_sees_a_link_until_another_file_has_the_name",
        ],
    ),
    (
        "Notices", "notices-a-former-node-outlives-the-name", "src/mount/entry.rs",
        "self.end(self.nodes.end_formers(name));",
        "let _ = name;",
        [
            "notices::a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open",
            "notices::a_reader_that_has_an_older_version_open_sees_a_link_until_another_file_has_the_name",
        ],
    ),
    (
        "Notices", "notices-the-link-in-the-history-is-seen", "src/mount/nodes/node.rs",
        "if self.kept_aside && counted > 1 {",
        "if self.kept_aside && counted > 2 {",
        ["notices::a_watch_on_the_file_itself_ends_with_each_rename_over_it_whoever_looks_meanwhile"],
    ),
    (
        "Notices", "notices-what-is-told-of-is-never-forgotten", "src/cli/tell.rs",
        "let _ = rustix::fs::unlinkat(&root, path, AtFlags::empty());",
        "",
        [
            "notices::a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open",
            "notices::what_nobody_watches_or_has_open_any_more_is_forgotten",
        ],
    ),
    (
        "Notices", "notices-the-plain-tree-is-touched", "src/cli/tell.rs",
        ".err() != Some(notices::MOUNTED)",
        ".is_ok()",
        ["notices::a_file_of_the_plain_tree_is_not_touched"],
    ),
    (
        "Notices", "notices-a-publish-is-told-of-with-the-one-before", "src/mount/notices.rs",
        "self.0.partition_point(|(published, _)| *published + TOLD_AFTER <= now)",
        "if self.for_how_long(now).is_zero() { self.0.len() } else { 0 }",
        ["lib::mount::notices::tests::each_publish_is_told_of_at_its_own_time_and_together_with_others_of_that_time_once"],
    ),
    (
        "Notices", "notices-every-node-is-taken-for-forgotten", "src/mount/mod.rs",
        "of.upgrade().is_some_and(|tree| tree.nodes.identity(node).is_some())",
        "of.upgrade().is_some_and(|tree| tree.nodes.identity(node).is_none())",
        ["notices::a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open"],
    ),
    (
        "Notices", "notices-a-name-is-taken-for-a-forgotten-node", "src/mount/notices.rs",
        "node_at(path).is_none_or(&known)",
        "node_at(path).is_some_and(&known)",
        [
            "notices::who_listens_to_changes_only_is_told_once_more_when_the_version_is_there",
            "lib::mount::notices::tests::of_a_node_that_the_kernel_has_forgotten_nothing_is_told",
        ],
    ),
    (
        "Notices", "notices-a-forgotten-node-is-told-of", "src/mount/notices.rs",
        "node_at(path).is_none_or(&known)",
        "node_at(path).is_none_or(|node| known(node) || true)",
        ["lib::mount::notices::tests::of_a_node_that_the_kernel_has_forgotten_nothing_is_told"],
    ),
    (
        "Notices", "notices-a-node-that-one-thread-was-given-is-told-of", "src/mount/nodes.rs",
        "let ended = if found { inner.add_former(id) } else { Vec::new() };",
        "let ended = inner.add_former(id);",
        ["lib::mount::nodes::tests::a_node_that_only_one_thread_was_given_is_no_former_one_when_another_version_comes"],
    ),
    (
        "Notices", "notices-a-node-that-is-given-back-goes-silent", "src/mount/entry.rs",
        "self.end(self.nodes.stand_aside(id));",
        "",
        ["notices::a_watch_on_the_file_itself_outlives_a_session_that_changed_nothing"],
    ),
    (
        "Notices", "notices-who-tells-is-not-started-again", "src/mount/notices.rs",
        """            self.end();
            sent = self.try_send(notices);""",
        "            sent = self.try_send(notices);",
        ["notices::a_publish_is_told_of_after_the_process_that_tells_was_killed"],
    ),
    (
        "Notices", "notices-who-was-not-told-once-is-never-told", "src/mount/notices.rs",
        "            self.is_missing = sent.is_err();",
        "            self.is_missing = sent.is_err();\n            if self.is_missing { break; }",
        ["lib::mount::notices::tests::what_could_not_be_told_does_not_silence_what_comes_after"],
    ),
    (
        "Notices", "notices-who-tells-makes-a-change", "src/mount/fs.rs",
        """        if self.tree.is_teller(request.pid()) {
            return self.attributes""",
        """        if self.tree.is_teller(request.pid()) && false {
            return self.attributes""",
        ["notices::what_is_told_changes_no_time_and_makes_no_version"],
    ),
    (
        "W8", "w8-savers-wait-with-the-directory-locked", "src/mount/coordinated/taking.rs",
        "None if is_back || caller.tid == 0 => {",
        "None if is_back || caller.tid != 1 => {",
        [
            "unlocked::w8_a_holder_creates_looks_up_and_removes_names_beside_a_saver_that_waits_for_it",
            "unlocked::r3_others_use_the_directory_of_a_saver_that_waits",
        ],
    ),
    (
        "R3", "r3-the-kernel-keeps-the-directory-where-a-saver-is-to-wait", "src/mount/tree.rs",
        "if attr::has_set_id(stat) || self.unkept.has_directory(&attr::identity(stat, private)) {",
        "if attr::has_set_id(stat) {",
        ["unlocked::r3_others_use_the_directory_of_a_saver_that_waits"],
    ),
    (
        "W8", "w8-who-is-killed-on-its-way-keeps-the-name", "src/mount/coordinated/rounds.rs",
        "Doing::Other => true,",
        "Doing::Other => for_long >= REMEMBERED,",
        ["lib::mount::coordinated::rounds::tests::who_does_not_come_loses_its_names_and_is_forgotten_when_it_is_known_to_do_something_else"],
    ),
    (
        "W8", "w8-who-is-on-its-way-stops-who-has-the-directory", "src/mount/coordinated/rounds.rs",
        "let loses = in_the_way || doing",
        "let loses = doing",
        ["containers::w8_savers_that_are_known_and_others_that_are_not_do_not_stop_each_other"],
    ),
    (
        "W8", "w8-link-takes-the-node-that-the-kernel-found", "src/mount/coordinated/names.rs",
        "match self.stands_for(node, &name) {",
        "match self.stands_for(node, &name) || name.parent.0 > 0 {",
        ["unlocked::w8_a_link_never_shows_what_somebody_else_is_staging"],
    ),
    (
        "W9", "w9-who-would-create-a-name-that-a-saver-has-finds-nothing", "src/mount/coordinated/lookup.rs",
        """session => match self.promised_to(caller, key) {
                        None if session.is_none() && !self.waits_to_create(caller, key) => return Ok(None),""",
        """session => match self.promised_to(caller, key).filter(|_| false) {
                        None if session.is_none() => return Ok(None),""",
        ["unlocked::w9_who_would_create_a_name_that_a_saver_has_waits_for_it"],
    ),
    (
        "W9", "w9-a-stranger-that-would-create-a-name-that-a-saver-has-finds-nothing", "src/mount/coordinated/lookup.rs",
        "None if session.is_none() && !self.waits_to_create(caller, key) => return Ok(None),",
        "None if session.is_none() => return Ok(None),",
        ["containers::w9_who_would_create_a_name_that_a_saver_has_waits_for_it_though_it_is_not_known"],
    ),
    (
        "R4", "r4-the-kernel-keeps-the-entry-of-a-renamed-name", "src/mount/coordinated/rename.rs",
        "leaving: moving.leaving().filter(|_| caller.tid != 0).cloned().collect(),",
        "leaving: moving.leaving().take(0).cloned().collect(),",
        ["names::r4_after_a_save_by_rename_others_are_shown_the_current_version"],
    ),
    (
        "W9", "w9-an-open-for-reading-with-o-creat-does-not-wait", "src/mount/route.rs",
        "if self.coordination.is_awaited(caller, &target) {",
        "if self.coordination.is_awaited(caller, &target) && false {",
        ["names::w9_an_open_for_reading_that_may_create_waits_for_the_creator", "model::what_went_wrong_once_goes_right"],
    ),
    (
        "W8", "w8-link-does-not-wait", "src/mount/coordinated/names.rs",
        "..Errand::new(vec![target], name.parent)",
        "..Errand::new(vec![target].into_iter().take(0).collect(), name.parent)",
        ["names::w8_a_link_to_a_name_that_is_being_created_waits_for_it"],
    ),
    (
        "W8", "w8-renames-are-plain-ones", "src/mount/coordinated/rename.rs",
        "if !found.is_the_stores(moving) {",
        "if found.is_the_stores(moving) {",
        [
            "names::w8_renames_and_truncations_by_many_processes_are_versions_in_one_order",
            "history::h2_each_way_by_which_a_version_comes_is_recorded",
        ],
    ),
    (
        "W8", "w8-what-leaves-for-an-ordinary-name-leaves-no-version", "src/mount/coordinated/rename.rs",
        "self.can_move && (source.is_some() || target.is_some())",
        "self.can_move && target.is_some()",
        ["names::w8_a_file_that_leaves_for_an_ordinary_name_stays_restorable"],
    ),
    (
        "W8", "w8-a-renamed-session-keeps-its-old-name", "src/mount/coordinated/rename.rs",
        "own.iter().for_each(|own| own.set_name(moving.new.clone()));",
        "own.iter().for_each(|own| own.set_name(moving.old.clone()));",
        ["names::w8_what_is_written_after_a_rename_goes_to_the_new_name_also_when_that_was_saved_since"],
    ),
    (
        "W11", "w11-what-was-held-back-keeps-set-id-bits", "src/mount/coordinated/append.rs",
        "        held.clears = clears.or(held.clears);\n",
        "        let _ = clears;\n",
        ["names::w11_set_id_bits_go_when_a_user_appends_whatever_he_appends"],
    ),
    (
        "W10", "w10-what-was-cut-off-is-appended-at-the-close", "src/mount/coordinated/append_close.rs",
        "if bytes > 0 && held.kept_bytes == bytes {",
        "if bytes > 0 && held.kept_bytes != bytes {",
        ["rotating::w10_what_an_appender_has_held_back_is_cut_off_by_its_ftruncate_as_in_a_plain_file"],
    ),
    (
        "H3", "h3-a-rename-leaves-the-history-behind", "src/store/names.rs",
        "continues: live.is_none(),",
        "continues: false,",
        ["renames::h3_a_files_history_follows_it_to_a_free_name"],
    ),
    (
        "W8", "w8-a-temporary-names-history-replaces-the-files", "src/store/names.rs",
        "continues: live.is_none(),",
        "continues: true,",
        ["renames::w8_a_saver_with_a_coordinated_temporary_name_makes_versions_of_the_file_and_of_nothing_else"],
    ),
    (
        "H3", "h3-a-number-means-two-versions", "src/store/arrival.rs",
        "match shift.saturating_add(from.version) < SHIFTED_MAX {",
        "match shift.saturating_add(from.version) > SHIFTED_MAX {",
        ["renames::h3_a_name_that_another_file_had_before_lists_the_versions_of_both"],
    ),
    (
        "H3", "h3-a-renamed-files-history-has-no-beginning", "src/store/lineage.rs",
        "let began = before.find(|(_, record)| record.is_tombstone()).map_or(0, |(v, _)| *v);",
        "let began = before.find(|(_, record)| record.is_tombstone()).map_or(0, |_| 0);",
        ["renames::w8_a_saver_with_a_coordinated_temporary_name_makes_versions_of_the_file_and_of_nothing_else"],
    ),
    (
        "H3", "h3-what-a-name-knows-is-told-again-when-it-comes-back", "src/store/lineage.rs",
        "self.record(at).filter(|record| record.is_arrival());",
        "self.record(at).filter(|_| false);",
        [
            "lib::store::tests_lineage::a_file_whose_directory_is_renamed_forth_and_back_lists_each_save_once",
            "renames::h2_h3_saves_at_the_places_of_a_directory_that_is_renamed_forth_and_back_are_each_listed_once",
        ],
    ),
    (
        "H3", "h3-a-file-that-came-back-as-it-had-left-is-another", "src/store/files.rs",
        "Ok(current.filter(|current| !h.contents.contains_key(current)))",
        "Ok(current.filter(|_| false))",
        ["lib::store::tests_lineage::a_file_whose_directory_goes_anywhere_while_others_use_its_names_lists_each_save_once"],
    ),
    (
        "H2", "h2-a-version-is-known-by-its-number-alone", "src/store/seen.rs",
        "if seen.path == place.path {",
        "if seen.version > 0 {",
        [
            "lib::store::tests_lineage::a_file_whose_directory_goes_anywhere_while_others_use_its_names_lists_each_save_once",
            "renames::h2_what_is_written_late_to_a_file_that_was_renamed_is_based_on_the_version_that_it_had_then",
        ],
    ),
    (
        "H3", "h3-a-renamed-directory-leaves-histories-behind", "src/mount/coordinated/directories.rs",
        "ways.push((&from, &to));",
        "let _ = (&from, &to);",
        ["renames::h3_histories_follow_a_renamed_directory"],
    ),
    (
        "H3", "h3-what-left-with-a-directory-is-forgotten", "src/store/files.rs",
        "left.is_some_and(|left| record.time <= left)",
        "left.is_some_and(|left| record.time > left)",
        ["renames::h3_a_new_directory_of_an_old_name_has_nothing_to_do_with_the_renamed_one"],
    ),
    (
        "H3", "h3-an-exchange-of-directories-is-one-move", "src/mount/coordinated/directories.rs",
        "ways.push((&to, &from));",
        "let _ = (&to, &from);",
        ["renames::h3_histories_follow_two_directories_that_are_exchanged"],
    ),
    (
        "W8", "w8-appenders-below-a-renamed-directory-stay-written-down-under-the-old-path", "src/mount/coordinated/directories.rs",
        "self.end_stay(state);",
        "let _ = &state;",
        ["renames::w8_sessions_and_appenders_go_on_when_a_directory_above_them_is_renamed"],
    ),
    (
        "H3", "h3-a-failed-rename-of-a-directory-is-believed", "src/store/moves.rs",
        "Err(_) => self.take_back(number),",
        "Err(_) => {}",
        ["renames::h3_a_rename_of_a_directory_that_fails_leaves_histories_where_they_are"],
    ),
    (
        "W8", "w8-an-exchanged-session-keeps-its-old-name", "src/mount/coordinated/rename.rs",
        "exchanged.into_iter().for_each(|own| own.set_name(moving.old.clone()));",
        "exchanged.into_iter().for_each(|own| drop(own.name()));",
        ["names::w8_what_is_written_after_a_rename_goes_to_the_new_name_also_when_that_was_saved_since"],
    ),
    (
        "W8", "w8-a-rename-over-ones-own-open-file-is-undone-at-its-close", "src/mount/coordinated/rename.rs",
        "let _ = this.lose_name(replaced);",
        "let _ = replaced.name();",
        ["openers::w8_a_holder_may_rename_over_its_own_open_file"],
    ),
    (
        "W8", "w8-a-failed-rename-takes-the-session-along", "src/mount/coordinated/rename.rs",
        "own.iter().for_each(|own| own.set_name(moving.old.clone()));",
        "own.iter().for_each(|own| drop(own.name()));",
        ["openers::w8_a_failed_rename_leaves_the_holders_session_where_it_was"],
    ),
    (
        "W9", "w9-a-directory-is-renamed-over-one-with-an-unborn-file", "src/mount/coordinated/directories.rs",
        ".rename(from, to, flags, |directory| self.creates_in(directory))",
        ".rename(from, to, flags, |_| false)",
        ["openers::w9_a_directory_in_which_somebody_creates_a_file_is_not_empty"],
    ),
    (
        "W9", "w9-a-directory-goes-while-who-has-waited-begins-to-create", "src/mount/coordinated/begin.rs",
        "let making = makes.then(",
        "let making = (makes && false).then(",
        ["openers::w9_a_directory_goes_with_nothing_in_it_or_stays_for_who_waited_to_create"],
    ),
    (
        "W8", "w8-unlink-answers-before-the-name-is-free", "src/mount/coordinated/taking.rs",
        """            let wakes = this.let_go(held);
            drop(hold);
            answer(result);""",
        """            answer(result);
            std::thread::sleep(std::time::Duration::from_millis(1));
            let wakes = this.let_go(held);""",
        ["handover::w8_a_name_that_was_unlinked_is_free_at_once"],
    ),
    (
        "W9", "w9-a-new-file-appears-at-its-open", "src/mount/coordinated/begin.rs",
        "let unnamed = self.make_unnamed(beginning.caller, &dir, creation)?;",
        """let unnamed = self.make_unnamed(beginning.caller, &dir, creation)?;
                let early = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(rustix::fs::openat(&dir, &*target.name.name, early, Mode::RWXU));""",
        ["names::w9_a_new_file_appears_at_its_close"],
    ),
    (
        "W9", "w9-o-excl-is-told-ebusy", "src/mount/coordinated/open.rs",
        "return answer(Err(Errno::EXIST));",
        "return answer(Err(Errno::BUSY));",
        ["names::w9_a_new_file_appears_at_its_close"],
    ),
    (
        "W9", "w9-mkdir-does-not-see-what-is-being-created", "src/mount/route.rs",
        "if self.coordination.is_promised(&Name::new(parent, name)) {",
        'if self.coordination.is_promised(&Name::new(parent, std::ffi::OsStr::new(""))) {',
        ["names::w9_a_new_file_appears_at_its_close"],
    ),
    (
        "W9", "w9-rmdir-does-not-see-what-is-being-created", "src/mount/coordinated/names.rs",
        ".remove_directory(parent, name, |directory| self.creates_in(directory))",
        ".remove_directory(parent, name, |_| false)",
        ["names::w9_a_killed_creators_file_never_appears_and_a_waiting_creator_goes_on"],
    ),
    (
        "W9", "w9-new-files-are-the-daemons", "src/mount/coordinated/begin.rs",
        "let _caller = caller.assume(creation.mode, creation.umask)?;",
        'log::trace!("not as {caller:?}");',
        ["names::w9_owner_mode_and_default_acl_of_a_new_file_are_as_anywhere"],
    ),
    (
        "W9", "w9-who-waits-for-another-users-file-is-asked-for-its-permissions-before-it-is-there", "src/mount/coordinated/lookup.rs",
        "match waiting.filter(|_| !is_of_lineage(caller, &session)) {",
        "match waiting.filter(|_| caller.tid == 1) {",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W9", "w9-who-was-shown-a-promise-is-taken-for-who-was-let-in", "src/mount/coordinated/lookup.rs",
        "Some(session) if stranger || is_of_lineage(caller, &session) => {",
        "Some(session) if caller.tid != 1 => {",
        ["users::w9_who_waited_for_a_creator_gets_no_more_than_the_new_file_allows"],
    ),
    (
        "W9", "w9-what-its-creator-unlinks-appears-all-the-same", "src/mount/coordinated/names.rs",
        "let lost = self.lose_name(own);",
        "let lost = own.is_open().then_some(()).ok_or(Errno::STALE);",
        ["names::w9_a_new_file_that_its_creator_unlinks_never_appears"],
    ),
    (
        "W9", "w9-a-new-name-is-not-told-to-the-kernel", "src/mount/coordinated/close.rs",
        """        if appears {
""",
        """        if appears && name.name.is_empty() {
""",
        ["sessions::w9_a_new_file_is_listed_after_its_close_also_in_a_directory_that_was_listed_before"],
    ),
    (
        "W11", "w11-who-was-let-in-is-let-in-by-what-his-file-is-now", "src/mount/coordinated/reader.rs",
        "|| reader.rights.as_ref().is_some_and(|rights| rights.cover(asked))",
        "|| Rights::of(shown.fd()).is_some_and(|now| now.cover(asked))",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-a-reader-goes-by-the-permissions-of-an-image", "src/mount/coordinated/reader.rs",
        "let live = self.live_behind_image(&reader.name).ok()?;",
        "let live: Option<std::fs::File> = None;",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-the-shadow-is-the-daemons", "src/store/shadow.rs",
        "self.disk().copy_meta(current, file, None)?;",
        'log::trace!("as it is made");',
        ["names::w11_publishing_in_place_keeps_mode_owner_acl_and_attributes"],
    ),
    (
        "W11", "w11-the-owner-is-not-kept", "src/store/real.rs",
        "if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {",
        "if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) && old.st_nlink > 1 {",
        ["names::w11_publishing_in_place_keeps_mode_owner_acl_and_attributes"],
    ),
    (
        "W11", "w11-acls-and-attributes-are-not-kept", "src/store/real.rs",
        """        copy_xattrs(from, to, writer.is_none())
""",
        """        copy_xattrs(from, from, writer.is_none())
""",
        ["names::w11_publishing_in_place_keeps_mode_owner_acl_and_attributes", "model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-set-id-bits-stay-for-everybody", "src/mount/coordinated/begin.rs",
        "let who = self.descriptions.of(process, caller.uid);",
        "let who = self.descriptions.of(process, 0);",
        ["names::w11_set_id_bits_stay_for_root_only"],
    ),
    (
        "W11", "w11-who-waited-for-a-file-that-is-gone-makes-one-anywhere", "src/mount/coordinated/begin.rs",
        "(None, _) if beginning.node.is_some() && creates.is_some() => {",
        "(None, _) if beginning.node.is_some() && creates.is_some() && false => {",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-set-id-bits-go-by-the-daemons-group", "src/os/creds.rs",
        "let _in_groups = is_set_group_only(mode).then(|| Assumed::groups(gid, tid));",
        "let _in_groups = is_set_group_only(mode).then(|| (gid, tid));",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-a-set-group-id-bit-goes-although-the-writer-is-in-the-group", "src/store/real.rs",
        "creds::is_in_group(writer.pid, old.st_gid)",
        "creds::is_in_group(0, old.st_gid)",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-who-gives-a-file-away-keeps-set-id-bits", "src/mount/setattr.rs",
        'caller.changes(fd, || rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH))',
        'Some(caller).map_or(Ok(()), |_| rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH))',
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-who-opens-a-file-for-writing-is-shown-it-without-set-id-bits", "src/store/shadow.rs",
        "self.disk().copy_meta(current, file, None)?;",
        "self.disk().copy_meta(current, file, Some(who))?;",
        ["model::what_went_wrong_once_goes_right"],
    ),
    (
        "W11", "w11-a-chmod-beside-a-session-is-lost", "src/store/publish.rs",
        "live.filter(|live| !shadow.meta_touched && shadow.meta_from != Some((live.ino, live.ctime_ns)))",
        "live.filter(|live| !shadow.meta_touched && shadow.meta_from == Some((live.ino, live.ctime_ns)))",
        ["names::w11_attributes_changed_during_and_outside_a_session_stay"],
    ),
    (
        "W11", "w11-a-chmod-by-descriptor-is-lost", "src/mount/coordinated/session/shadow.rs",
        "staged.shadow.meta_touched = true;",
        "staged.shadow.meta_touched = false;",
        ["names::w11_what_a_session_changes_by_descriptor_wins"],
    ),
    (
        "W11", "w11-a-file-with-two-names-is-exchanged", "src/store/publish.rs",
        "forbidden || live.nlink > 1",
        "forbidden",
        ["links::w11_each_publish_shows_under_all_names_whichever_way_it_was_written"],
    ),
    (
        "W11", "w11-a-name-that-is-given-beside-a-session-has-a-queue-of-its-own", "src/mount/coordinated/linked.rs",
        "            self.remember(stat.st_ino, None, target.name);",
        "            let _ = (stat.st_ino, target.name);",
        ["given_names::w11_a_name_that_was_given_beside_a_session_is_in_its_queue_though_the_kernel_has_forgotten_the_other"],
    ),
    (
        "W6", "w6-a-node-keeps-an-inode-number-that-comes-back", "src/mount/nodes.rs",
        "                inner.detach(stale);\n",
        "",
        ["lib::mount::nodes::tests::an_inode_that_was_just_made_is_nobodys_that_had_its_number"],
    ),
    (
        "W11", "w11-who-waited-saves-by-the-name-that-stood-for-all", "src/mount/coordinated/open.rs",
        "match came.own.and_then(|node| this.led_elsewhere(node, &joined)) {",
        "match came.own.and_then(|node| this.led_elsewhere(node, &joined)).filter(|_| false) {",
        ["given_names::w11_who_waited_by_one_name_saves_that_though_the_other_leads_elsewhere_when_its_turn_comes"],
    ),
    (
        "W11", "w11-nobody-hears-of-the-end-of-an-image", "src/store/images.rs",
        "told(held);",
        "drop((held, told));",
        ["notices::a_watch_on_the_file_itself_hears_of_what_comes_when_its_other_name_is_gone"],
    ),
    (
        "W11", "w11-readers-of-the-inode-stay-there", "src/mount/coordinated/linked.rs",
        "Ok(own) => pin.freeze(own),",
        "Ok(own) => drop((own, &pin)),",
        ["links::w11_readers_by_any_name_keep_their_version_and_so_do_mappings"],
    ),
    (
        "W11", "w11-each-name-has-its-own-queue", "src/mount/coordinated/mod.rs",
        "let canonical = self.canonical(&target.name);",
        "let canonical = target.name.clone();",
        [
            "links::w11_writers_by_different_names_wait_for_each_other",
            "links::w11_the_history_of_a_file_with_two_names_is_one_and_is_restored_under_both",
        ],
    ),
    (
        "W11", "w11-what-was-begun-in-place-is-not-redone", "src/store/redo.rs",
        "self.write_into(&image, &target, Durability::Full)?;",
        "let _ = &target;",
        ["lib::store::tests_faults::every_stop_of_the_machine_leaves_one_whole_version_whatever_was_lost"],
    ),
    (
        "W11", "w11-an-inode-is-written-before-the-image-is-on-disk", "src/store/in_place.rs",
        "_ => disk.sync_dir(&images.dir).map_err(at(Stage::Sync)),",
        "_ => Ok(()),",
        ["lib::store::tests_faults::every_stop_of_the_machine_leaves_one_whole_version_whatever_was_lost"],
    ),
    (
        "W11", "w11-a-failed-write-in-place-is-not-taken-back", "src/store/in_place.rs",
        ".and_then(|image| self.write_into(&image, target, durability));",
        ".map(drop);",
        ["lib::store::tests_faults::every_operation_that_fails_once_or_for_good_leaves_one_whole_version_and_loses_nothing"],
    ),
    (
        "W11", "w11-a-mount-point-cannot-be-published-to", "src/store/in_place.rs",
        "is_some_and(|errno| FORBIDDEN.contains(&errno));",
        "is_some_and(|errno| FORBIDDEN.is_empty() && errno > 0);",
        ["links::w11_a_file_that_is_a_mount_point_is_written_in_place"],
    ),
    (
        "W11", "w11-symbolic-links-are-files", "src/mount/attr.rs",
        "rustix::fs::FileType::Symlink => FileType::Symlink,",
        "rustix::fs::FileType::Symlink => FileType::RegularFile,",
        ["names::w11_a_symbolic_link_is_followed_and_stays_one"],
    ),
    (
        "H1", "h1-the-replaced-version-is-not-kept", "src/store/publish.rs",
        "self.disk().rename(from, (&history.dir, &name))?;",
        "self.disk().unlink(from.0, from.1)?;",
        [
            "names::w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces",
            "history::h3_history_show_and_diff_say_the_same_mounted_and_unmounted",
        ],
    ),
    (
        "H1", "h1-keep-is-ignored", "src/store/prune.rs",
        "let goes = count >= retain.keep || too_old",
        "let goes = count >= retain.keep.max(1000) || too_old",
        ["retention::h1_the_newest_versions_are_kept_as_many_as_the_rule_says"],
    ),
    (
        "H1", "h1-max-age-is-ignored", "src/store/prune.rs",
        "|| too_old ||",
        "|| (too_old && count > 1000) ||",
        ["retention::h1_versions_older_than_the_rule_allows_go_at_the_next_publish"],
    ),
    (
        "H1", "h1-max-bytes-is-ignored", "src/store/prune.rs",
        "retain.max_bytes.is_some_and(|max| bytes > max)",
        "retain.max_bytes.is_some_and(|max| bytes > max << 10)",
        ["retention::h1_versions_are_kept_within_the_bytes_that_the_rule_allows"],
    ),
    (
        "H1", "h1-one-large-version-takes-all-before-it-along", "src/store/prune.rs",
        "        if is_too_large(version) {",
        "        if is_too_large(version) && count > 1000 {",
        ["retention::h1_versions_are_kept_within_the_bytes_that_the_rule_allows"],
    ),
    (
        "H1", "h1-only-saves-prune", "src/store/prune.rs",
        "if lacks_stone || lies.has_remains(left) ||",
        "if lacks_stone &&",
        [
            "retention::h1_a_change_of_the_rules_and_a_recovery_prune_all_files",
            "full_disks::f3_lowering_what_is_kept_frees_a_disk_that_the_history_filled",
            "full_disks::f3_recovering_frees_a_full_disk_by_rules_that_keep_less",
        ],
    ),
    (
        "H1", "h1-histories-of-deleted-files-stay", "src/store/prune.rs",
        "if live.is_none() && !self",
        "if live.is_none() && now == 0 && !self",
        ["retention::h1_the_histories_of_deleted_files_go_when_they_are_as_old_as_the_rule_allows"],
    ),
    (
        "O2", "o2-a-fresh-mount-by-a-user-claims-passthrough", "src/mount/init.rs",
        "contains(InitFlags::FUSE_PASSTHROUGH) && creds::is_admin();",
        "contains(InitFlags::FUSE_PASSTHROUGH);",
        ["unprivileged::o1_a_users_own_mount_does_what_his_plain_directory_does"],
    ),
    (
        "W6", "w6-what-was-never-published-keeps-its-inode-number", "src/mount/coordinated/close.rs",
        "Err(_) => self.tree.nodes.supersede(node, None),",
        "Err(_) => {}",
        ["small_disks::w6_a_file_with_the_inode_number_of_what_was_never_published_is_itself"],
    ),
    (
        "R4", "r4-hashing-a-file-is-an-access", "src/mount/coordinated/begin.rs",
        "OFlags::TMPFILE | OFlags::RDWR | OFlags::NOATIME | OFlags::CLOEXEC",
        "OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC",
        ["sessions::r4_the_times_that_a_program_sets_before_it_closes_stay"],
    ),
    (
        "F5", "f5-a-fifo-is-taken-for-the-log", "src/cli/mount/daemon.rs",
        "OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC",
        "OFlags::NOFOLLOW | OFlags::CLOEXEC",
        ["bad_input::f5_what_is_planted_in_the_place_of_the_log_keeps_nobody_waiting"],
    ),
    (
        "W11", "w11-who-reads-a-file-with-an-ordinary-name-sees-another-inode", "src/mount/coordinated/opened.rs",
        "true => files.send_round_to_read(caller.tid, (key, names)),",
        "true => files.send_round(caller.tid, (key, names), Finds::Own(None), None),",
        ["links::w11_programs_find_and_open_a_file_with_an_ordinary_name_as_one_and_the_same"],
    ),
    (
        "W5", "w5-a-node-is-known-by-the-number-that-it-is-shown-by", "src/mount/coordinated/tables.rs",
        "node: self.tells_nodes().then_some(node.0),",
        "node: None,",
        [
            "readers::w5_a_close_is_the_last_although_another_file_of_the_process_is_shown_by_the_same_number",
            "readers::r4_who_writes_beside_readers_is_shown_the_number_that_he_has_found_until_he_has_saved",
        ],
    ),
    (
        "W5", "w5-among-many-descriptors-a-node-is-known-by-the-number-that-it-is-shown-by", "src/mount/coordinated/tables.rs",
        "self.table.node(number).unwrap_or(open.ino)",
        "open.ino",
        ["readers::w5_a_close_is_the_last_although_another_file_of_the_process_is_shown_by_the_same_number"],
    ),
    (
        "R4", "r4-who-writes-beside-readers-is-shown-another-number-at-once", "src/mount/coordinated/begin.rs",
        "beside.or_else(current).map(",
        "beside.or_else(current).filter(|_| false).map(",
        [
            "readers::r4_who_writes_beside_readers_is_shown_the_number_that_he_has_found_until_he_has_saved",
            "programs::editors_save",
        ],
    ),
    (
        "R4", "r4-a-new-version-is-shown-by-the-number-of-the-one-before", "src/mount/coordinated/close.rs",
        "        self.tree.nodes.shows_itself(session.about.node);\n",
        "",
        [
            "readers::r4_who_writes_beside_readers_is_shown_the_number_that_he_has_found_until_he_has_saved",
            "readers::r4_what_an_unlock_has_published_has_a_number_of_its_own_by_name_and_by_descriptor",
        ],
    ),
    (
        "F3", "f3-a-change-of-names-that-was-made-and-failed-is-forgotten", "src/mount/coordinated/names.rs",
        "Err(error) if error.published => Ok",
        "Err(error) if error.published && error.source.kind() == std::io::ErrorKind::NotFound => Ok",
        ["durability::f3_w8_w10_a_rename_that_fails_when_it_has_been_made_is_known_to_who_appends"],
    ),
    (
        "F3", "f3-open-histories-leave-no-descriptors", "src/store/files.rs",
        "usize::try_from(limit / 8)",
        "usize::try_from(limit)",
        ["faults::f3_a_daemon_of_few_descriptors_saves_many_files_one_after_the_other"],
    ),
    (
        "H1", "h1-histories-of-temporary-files-stay", "src/store/prune.rs",
        "newest.moved_to.is_some() && newest.version == 2",
        "newest.moved_to.is_some() && newest.version == 0",
        ["lib::store::tests_moves::the_history_of_a_temporary_file_goes_soon_after_it_became_a_version_of_another"],
    ),
    (
        "H1", "h1-what-a-file-was-before-it-was-renamed-goes-soon", "src/store/prune.rs",
        "newest.moved_to.is_some() && newest.version == 2",
        "newest.moved_to.is_some()",
        ["lib::store::tests_moves::the_history_of_a_temporary_file_goes_soon_after_it_became_a_version_of_another"],
    ),
    (
        "H3", "h3-a-former-names-numbers-come-back", "src/store/prune.rs",
        "sweep.continued.mark(staying.cloned(), &mut needed);",
        "drop(staying);",
        ["retention::h3_a_file_keeps_the_versions_of_its_former_name_although_that_was_left_long_ago"],
    ),
    (
        "H1", "h1-histories-that-left-with-a-directory-stay", "src/store/prune.rs",
        "false => left(),",
        "false => left().filter(|_| false),",
        ["retention::h1_the_histories_of_files_whose_directory_was_renamed_before_they_were_deleted_go_too"],
    ),
    (
        "H3", "h3-a-history-goes-although-its-file-is-elsewhere", "src/store/prune.rs",
        "Ok(!lies.records.values().all(known) && self",
        "Ok(lies.records.is_empty() && !lies.records.values().all(known) && self",
        ["retention::h1_the_histories_of_files_whose_directory_was_renamed_before_they_were_deleted_go_too"],
    ),
    (
        "H4", "h4-what-root-makes-in-a-users-store-stays-roots", "src/store/real.rs",
        "owner(&dir).filter(|(user, _)| *user != 0)",
        "owner(&dir).filter(|(user, _)| *user == 0)",
        ["unprivileged::h4_what_roots_daemon_makes_in_a_users_store_is_the_users"],
    ),
    (
        "H4", "h4-any-file-by-the-name-of-a-record-is-given-away", "src/store/owners.rs",
        "if bytes.is_ok_and(|bytes| is_record(&entry.name, &bytes)) {",
        "if bytes.is_ok() {",
        ["unprivileged::h4_what_an_earlier_daemon_of_roots_kept_is_named_and_given_back_by_the_next"],
    ),
    (
        "H4", "h4-a-record-that-may-not-be-read-counts-as-none", "src/store/history.rs",
        "matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EACCES | EPERM))",
        "matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM)) && EACCES != EPERM",
        ["unprivileged::h4_what_an_earlier_daemon_of_roots_kept_is_named_and_given_back_by_the_next"],
    ),
    (
        "H3", "h3-a-version-is-shown-with-lines-of-a-later-one", "src/store/lineage.rs",
        "let bytes = bytes.unwrap_or(stat.size);",
        "let bytes = bytes.unwrap_or(stat.size.max(u64::MAX));",
        ["lib::store::append::tests::a_version_is_as_long_as_when_its_record_was_read_although_lines_were_appended_since"],
    ),
    (
        "F3", "f3-close-says-nothing-of-a-first-change-that-did-not-fit", "src/mount/coordinated/staged.rs",
        "(self.changed || !self.refused.is_empty()) && !self.unlinked",
        "self.changed && !self.unlinked",
        [
            "small_disks::f3_a_first_change_that_did_not_fit_is_an_error_of_close_until_it_is_made_good",
            "small_disks::f3_what_was_stored_through_a_mapping_and_did_not_fit_is_told_by_the_last_close_too",
        ],
    ),
    (
        "F3", "f3-a-failed-copy-is-final", "src/mount/coordinated/session/shadow.rs",
        "|staged, copied| staged.filled = copied.is_ok(),",
        "|staged, copied| (staged.filled, staged.failed) = (copied.is_ok(), staged.failed.or(copied.err())),",
        ["small_disks::f3_a_first_change_that_did_not_fit_and_is_made_again_is_published"],
    ),
    (
        "F3", "f3-a-limit-of-file-sizes-ends-the-daemon", "src/cli/mount/limits.rs",
        "signal_hook::flag::register(libc::SIGXFSZ,",
        "signal_hook::flag::register(libc::SIGUSR2,",
        ["mounting::f3_a_limit_of_file_sizes_of_who_mounts_does_not_end_the_daemon"],
    ),
    (
        "F3", "f3-a-mount-that-can-open-nothing-says-nothing", "src/cli/mount/limits.rs",
        "const DESCRIPTORS_MIN: u64 = 256;",
        "const DESCRIPTORS_MIN: u64 = 16;",
        ["mounting::f3_a_mount_with_hardly_any_descriptors_is_refused_with_what_to_do"],
    ),
    (
        "O1", "o1-poll-fills-the-log", "src/mount/fs.rs",
        """        reply: ReplyPoll,
    ) {
        reply.error(reply_errno(Errno::NOSYS));""",
        """        reply: ReplyPoll,
    ) {
        log::warn!("poll");
        reply.error(reply_errno(Errno::NOSYS));""",
        ["openers::o1_poll_says_at_once_that_a_file_is_ready_and_the_log_has_nothing_of_it"],
    ),
    (
        "F3", "f3-a-full-disk-refuses-removals", "src/store/names.rs",
        "Err(failed) if failed.is_for_room() => self.try_remove(",
        "Err(failed) if failed.is_for_room() && info.now == 0 => self.try_remove(",
        ["full_disks::f3_removing_works_on_a_full_disk_when_there_is_no_room_for_records_either"],
    ),
    (
        "F3", "f3-no-room-is-lent", "src/store/room.rs",
        "|| !self.lend(spare) {",
        "|| spare == Spare::No || self.is_short() {",
        ["full_disks::f3_files_are_removed_and_emptied_on_a_full_disk"],
    ),
    (
        "F3", "f3-a-file-without-a-history-is-not-removed", "src/store/names.rs",
        "Err(failed) if failed.is_for_room() => self.remove_unkept(",
        "Err(failed) if failed.is_for_room() && info.now == 0 => self.remove_unkept(",
        ["full_disks::f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk"],
    ),
    (
        "F3", "f3-a-file-without-a-history-is-not-emptied", "src/store/publish.rs",
        "if failed.is_for_room() && !published && self.is_empty(&shadow) =>",
        "if failed.is_for_room() && published && self.is_empty(&shadow) =>",
        ["full_disks::f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk"],
    ),
    (
        "F3", "f3-a-file-without-a-history-is-not-renamed-away", "src/store/away.rs",
        "Err(failed) if failed.is_for_room() =>",
        "Err(failed) if failed.is_for_room() && info.now == 0 =>",
        ["full_disks::f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk"],
    ),
    (
        "F3", "f3-removals-use-the-configurations-room", "src/store/room.rs",
        "Spare::Records => RULES_BYTES,",
        "Spare::Records => RULES_BYTES * 0,",
        ["full_disks::f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk"],
    ),
    (
        "F3", "f3-what-was-not-kept-is-not-told", "src/mount/coordinated/incidents.rs",
        "if published.unkept {",
        "if published.unkept && published.version == 0 {",
        ["full_disks::f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk"],
    ),
    (
        "F3", "f3-what-failed-is-not-told", "src/mount/coordinated/names.rs",
        "            self.note_failed(error);\n",
        "",
        ["full_disks::f3_what_fails_on_a_full_disk_is_told_with_its_reason"],
    ),
    (
        "F3", "f3-a-daemon-without-daemon-json-is-not-found", "src/control/beacon.rs",
        "return Self::unwritten(pid, number, backing).ok_or(BeaconError::None),",
        "return Self::unwritten(0, number, backing).ok_or(BeaconError::None),",
        ["full_disks::f3_a_mount_without_room_for_daemon_json_is_found_and_writes_it_when_there_is_room"],
    ),
    (
        "F3", "f3-daemon-json-is-not-written-later", "src/cli/mount/daemon.rs",
        "Err(error) if beacon::is_full(&error) => {}",
        "Err(error) if beacon::is_full(&error) => return,",
        ["full_disks::f3_a_mount_without_room_for_daemon_json_is_found_and_writes_it_when_there_is_room"],
    ),
    (
        "H3", "h3-a-damaged-version-is-shown", "src/cli/wiring.rs",
        "History::open_intact(self, file, version).map_err(|error| self.explain(error))??;",
        "History::open_version(self, file, version)?;",
        ["history::h3_a_damaged_version_is_neither_shown_nor_compared_nor_restored"],
    ),
    (
        "H3", "h3-a-damaged-version-is-restored", "src/cli/mount/service.rs",
        "if let Ok(Err(damaged)) =",
        "if version == 0 && let Ok(Err(damaged)) =",
        ["history::h3_a_damaged_version_is_neither_shown_nor_compared_nor_restored"],
    ),
    (
        "H3", "h3-only-the-length-of-a-version-is-compared", "src/store/intact.rs",
        "let same = self.hash_of(kept)? == hash;",
        "let same = self.hash_of(kept)? == hash || published == found;",
        ["history::h3_a_damaged_version_is_neither_shown_nor_compared_nor_restored"],
    ),
    (
        "F5", "f5-a-mount-that-fails-leaves-its-store", "src/cli/mount/service.rs",
        "        let mount = Mount::new(options, coordinated).inspect_err(|_| {\n            if report.made {",
        "        let mount = Mount::new(options, coordinated).inspect_err(|_| {\n            if report.made && !report.items.is_empty() {",
        ["bad_input::f5_a_mount_that_fails_leaves_no_store_that_it_has_made"],
    ),
    (
        "F3", "f3-the-configuration-has-no-room", "src/mount/coordinated/pruning.rs",
        "return self.store.lend_spare();",
        "return false;",
        ["full_disks::f3_the_rules_are_changed_through_a_mount_whose_disk_is_full"],
    ),
    (
        "F3", "f3-no-inode-is-kept-for-the-socket", "src/control/beacon.rs",
        "Err(error) if is_full(&error) => {\n            rustix::fs::unlinkat(&store, SPARE",
        "Err(error) if is_full(&error) && store.as_raw_fd() < 0 => {\n            rustix::fs::unlinkat(&store, SPARE",
        ["full_disks::f3_a_disk_without_inodes_is_mounted_found_and_unmounted_whether_its_daemon_had_died_or_not"],
    ),
    (
        "F5", "f5-a-mount-that-has-just-gone-is-a-containers", "src/cli/reach.rs",
        "&& !now.at(root).is_some_and(|there| there.is(mount))",
        "&& now.at(root).is_some_and(|there| !there.is(mount))",
        ["lib::cli::reach::tests::a_mount_that_has_gone_since_the_table_was_read_is_no_container_s"],
    ),
    (
        "F5", "f5-a-daemon-json-that-cannot-be-read-hides-the-daemon", "src/control/beacon.rs",
        "Ok(beacon) if beacon.pid == pid || beacon.is_alive() => {}",
        "Ok(beacon) if beacon.pid == pid || beacon.is_alive() => {}\n                Err(BeaconError::Read(_)) => {}",
        ["durability::f5_a_mount_whose_disk_fails_is_unmounted_although_daemon_json_cannot_be_read"],
    ),
    (
        "H2", "h2-a-record-that-cannot-be-read-is-passed-over", "src/cli/history.rs",
        "if let Some(first) = unreadable.first() {",
        "if let Some(first) = unreadable.get(1000) {",
        ["durability::h2_a_history_whose_records_the_disk_does_not_give_says_so_and_fails"],
    ),
    (
        "F3", "f3-a-full-disk-is-not-mounted", "src/control/beacon.rs",
        "again.or_else(|_| write_into_spare(&store, &bytes)).map_err(|_| error)",
        "again.map_err(|_| error)",
        ["full_disks::f3_a_full_disk_is_mounted_and_freed_by_rules_that_keep_less"],
    ),
    (
        "H1", "h1-copies-go-through-memory", "src/store/real.rs",
        """        copy_extents(from, to)
""",
        """        let _ = copy_extents;
        let mut all = vec![0; from.metadata()?.len() as usize];
        from.read_exact_at(&mut all, 0)?;
        to.write_all_at(&all, 0)
""",
        ["closing::h1_a_small_change_to_a_big_file_costs_the_daemon_no_memory"],
    ),
    (
        "H2", "h2-the-agents-variable-is-not-read", "src/mount/coordinated/caller.rs",
        "match proc::environment(own.pid, AGENT_VARIABLE) {",
        "match proc::environment(own.pid, AGENT_VARIABLE).filter(Vec::is_empty) {",
        ["history::h2_a_version_records_who_wrote_it_what_it_is_and_what_it_was_based_on"],
    ),
    (
        "H2", "h2-ancestors-name-no-agent", "src/mount/coordinated/caller.rs",
        "let ancestors = proc::ancestors(&own).into_iter();",
        "let ancestors = proc::ancestors(&own).into_iter().take(0);",
        ["history::h2_a_process_that_runs_under_a_known_agent_is_recorded_as_that_agents"],
    ),
    (
        "H2", "h2-renames-are-recorded-as-closes", "src/mount/coordinated/rename.rs",
        "let info = publish_info(How::Rename, &target.policy);",
        "let info = publish_info(How::Close, &target.policy);",
        ["history::h2_each_way_by_which_a_version_comes_is_recorded"],
    ),
    (
        "H2", "h2-based-on-is-forgotten", "src/store/publish.rs",
        "            based_on,\n",
        "            based_on: based_on.filter(|_| false),\n",
        ["history::h2_a_version_records_who_wrote_it_what_it_is_and_what_it_was_based_on"],
    ),
    (
        "H2", "h2-what-changed-behind-the-mount-is-taken-for-the-last-version", "src/store/history.rs",
        "if record.is_held_by(live) {",
        "if record.is_held_by(live) || live.size > 0 {",
        ["history::h2_a_change_made_while_nothing_was_mounted_becomes_a_found_version"],
    ),
    (
        "F5", "f5-an-option-without-its-value-is-none", "scripts/lib/common.sh",
        "usage >&2\n        exit 2",
        "usage >&2\n        return 1",
        ["scripts::f5_the_scripts_act_on_nothing_when_an_option_lacks_its_value"],
    ),
    (
        "F5", "f5-a-digit-after-a-blank-counts-as-octal", "scripts/lib/common.sh",
        """printf -v point '%b' "${point//\\\\/\\\\0}\"""",
        """printf -v point '%b' "$point\"""",
        ["scripts::f5_a_mount_whose_path_has_blanks_and_digits_is_listed_and_unmounted_by_the_scripts"],
    ),
    (
        "F5", "f5-a-stopped-daemon-that-was-cut-off-keeps-the-store", "scripts/lib/common.sh",
        """[ -z "$daemon" ] || end_daemon "$daemon" "$tree\"""",
        "return 0",
        ["scripts::f5_the_scripts_do_not_wait_for_a_stopped_daemon_and_by_force_the_project_is_recovered"],
    ),
    (
        "F5", "f5-root-does-not-ask-as-the-mounts-owner", "src/cli/reach.rs",
        "*user != 0 && rustix",
        "*user == 0 && rustix",
        ["unprivileged::f5_root_clears_the_dead_mount_of_a_user_and_others_are_told_who_may"],
    ),
    (
        "F5", "f5-who-may-not-clear-a-dead-mount-tries", "src/cli/unmount.rs",
        "if !reach::may_ask(mount) {",
        "if reach::may_ask(mount) && false {",
        ["unprivileged::f5_root_clears_the_dead_mount_of_a_user_and_others_are_told_who_may"],
    ),
    (
        "H3", "h3-root-does-not-look-past-a-users-mount", "src/cli/project.rs",
        "(Err(Errno::ACCESS), Some(mount)) =>",
        "(Err(Errno::ACCESS), Some(mount)) if mount.id == 0 =>",
        ["unprivileged::h3_root_reads_and_restores_what_a_user_has_mounted"],
    ),
    (
        "F5", "f5-what-is-mounted-in-the-mount-is-not-seen", "src/os/mountinfo.rs",
        "line.parent == id && line.id != id",
        "line.parent == id && line.id == id",
        ["unmount::f5_an_unmount_names_what_is_mounted_in_the_mount_and_by_force_takes_it_along"],
    ),
    (
        "F5", "f5-a-second-recovery-does-not-wait", "src/cli/wiring.rs",
        "started.elapsed() < OTHER_RECOVERY_TIME_MAX && !has_daemon()",
        "started.elapsed() > OTHER_RECOVERY_TIME_MAX && !has_daemon()",
        ["unmount::f5_recoveries_of_one_dead_mount_at_once_all_go_through"],
    ),
    (
        "F5", "f5-a-copy-in-another-namespace-keeps-the-daemon", "src/cli/mount/service.rs",
        "if stays.is_empty() {",
        "if stays.is_empty() || how == Unmounting::Wait {",
        ["elsewhere::f5_a_mount_that_another_namespace_has_a_copy_of_is_not_unmounted_half"],
    ),
    (
        "F5", "f5-what-goes-along-counts-as-a-copy", "src/os/mountinfo.rs",
        "let stays = others.filter(|line| !goes_along(table, line));",
        "let stays = others.filter(|line| !goes_along(table, line) || line.id > 0);",
        ["elsewhere::f5_a_copy_that_goes_with_the_mount_keeps_nobody_from_unmounting"],
    ),
    (
        "F5", "f5-a-bound-place-stands-for-the-mount", "src/cli/unmount.rs",
        "first != mount.id && (",
        "first == mount.id && (",
        ["elsewhere::f5_a_mount_that_is_bound_elsewhere_is_taken_off_where_it_is_named"],
    ),
    (
        "F5", "f5-a-mount-is-looked-for-where-it-was", "src/mount/mod.rs",
        "own.map(|mount| mount.mountpoint.clone())",
        "own.map(|_| self.mountpoint.clone())",
        ["elsewhere::f5_a_mount_is_unmounted_where_it_is_when_a_directory_above_was_renamed"],
    ),
    (
        "H3", "h3-what-is-in-the-way-of-a-restore-is-not-said", "src/cli/mount/service.rs",
        "FileType::Directory if path != file => return None,",
        "_ if path != file => return None,",
        ["history::h3_a_restore_says_what_has_the_files_name"],
    ),
    (
        "H3", "h3-a-restore-that-cannot-be-told-of-is-a-failure", "src/cli/restore.rs",
        "but that could not be printed: {error}",
        "or not: {error}",
        ["history::h3_a_restore_that_cannot_be_told_of_says_that_it_is_done"],
    ),
    (
        "H3", "h3-a-deleted-file-comes-back-as-the-restorers", "src/mount/coordinated/begin.rs",
        "let like = beginning.like.as_deref();",
        "let like = beginning.like.as_deref().filter(|_| false);",
        ["history::h3_a_deleted_file_comes_back_as_what_it_was"],
    ),
    (
        "H3", "h3-another-version-is-restored", "src/mount/coordinated/restore.rs",
        ".open_version(path, version)",
        ".open_version(path, version.min(1))",
        ["history::h3_a_restore_is_itself_a_publish_that_can_be_taken_back"],
    ),
    (
        "H3", "h3-a-restore-says-io-error-for-what-is-not-kept", "src/mount/coordinated/restore.rs",
        "ErrorKind::NotFound => Errno::NOENT,",
        "ErrorKind::NotFound => from_io(&error),",
        ["history::h3_a_restore_is_itself_a_publish_that_can_be_taken_back"],
    ),
    (
        "H3", "h3-a-restore-does-not-see-what-is-in-the-way", "src/mount/coordinated/restore.rs",
        "(kind != FileType::RegularFile).then_some(kind)",
        "(kind == FileType::Unknown).then_some(kind)",
        ["history::h3_a_restore_opens_no_fifo_that_has_the_files_name"],
    ),
    (
        "F3", "f3-a-restore-that-did-not-fit-is-a-killed-writers", "src/mount/coordinated/restore.rs",
        "let ended = that.end_now(&session, Ending::Closed);",
        "let ended = that.end_now(&session, if filled.is_ok() { Ending::Closed } else { Ending::Killed });",
        ["small_disks::f3_a_restore_that_does_not_fit_says_so_and_leaves_the_version_before"],
    ),
    (
        "H3", "h3-a-deleted-file-cannot-be-restored", "src/mount/coordinated/restore.rs",
        "like: Some(Arc::clone(&kept)),",
        "like: Some(Arc::clone(&kept)).filter(|_| false),",
        ["history::h3_a_deleted_file_is_listed_and_restored_by_any_path"],
    ),
    (
        "H4", "h4-kept-versions-change-hands", "src/store/publish.rs",
        "self.disk().rename(from, (&history.dir, &name))?;",
        """let old = self.disk().open(from.0, from.1)?;
            let copy = self.disk().create(&history.dir, &name)?;
            self.disk().copy_content(&old, &copy)?;
            self.disk().unlink(from.0, from.1)?;""",
        ["store_access::h4_a_kept_version_has_the_mode_and_the_owner_that_it_had"],
    ),
    (
        "H4", "h4-a-store-open-to-all-stays-so", "src/store/real.rs",
        "if mode.intersects(Mode::RWXG | Mode::RWXO) {",
        "if mode.is_empty() {",
        ["store_access::h4_a_store_that_was_open_to_others_is_closed_by_the_next_mount"],
    ),
    (
        "H4", "h4-everybody-finds-the-store", "src/mount/tree.rs",
        "caller.uid == 0 || caller.uid == self.owner",
        "caller.uid == 0 || caller.uid >= self.owner",
        ["ordinary::o1_the_store_is_hidden_and_read_only", "store_access::h4_another_user_reads_nothing_through_history"],
    ),
    (
        "F1", "f1-what-was-staged-is-deleted-at-the-next-start", "src/store/recover.rs",
        "} else if stat.size == 0 {",
        "} else if stat.size < 1000 {",
        ["faults::f1_what_a_session_had_staged_when_the_daemon_died_is_kept_with_a_record"],
    ),
    (
        "F1", "f1-what-finds-no-room-keeps-all-from-being-recovered", "src/store/recover.rs",
        "Err(error) if is_full(&error) => self.items.push(left()),",
        "Err(error) if is_full(&error) && self.items.len() > 1000 => self.items.push(left()),",
        [
            "full_disks::f1_a_daemon_that_died_on_a_full_disk_is_mounted_again_and_what_finds_no_room_waits_for_the_next",
            "lib::store::tests_room::a_recovery_without_room_does_what_needs_none_and_leaves_the_rest_for_the_next",
        ],
    ),
    (
        "F1", "f1-whose-it-is-what-is-left-is-forgotten", "src/store/recover.rs",
        "line_of(lines, name).filter(|_| is_left)",
        "line_of(lines, name).filter(|_| is_left && lines.is_empty())",
        [
            "full_disks::f1_a_daemon_that_died_on_a_full_disk_is_mounted_again_and_what_finds_no_room_waits_for_the_next",
            "lib::store::tests_room::a_recovery_without_room_does_what_needs_none_and_leaves_the_rest_for_the_next",
        ],
    ),
    (
        "F1", "f1-what-a-disk-lost-that-was-mounted-again-counts-as-there", "src/store/append.rs",
        "progress.mounting == self.mounting",
        "progress.mounting <= self.mounting",
        ["lib::store::append::tests::wherever_an_append_stops_the_file_holds_whole_lines_and_no_acknowledged_one_is_lost"],
    ),
    (
        "F2", "f2-atomic-lines-are-not-synced-when-their-entry-goes", "src/mount/coordinated/append_close.rs",
        "held.unsynced && appender.policy.durability != Durability::Fast;",
        "held.unsynced && appender.policy.durability == Durability::Full;",
        ["durability::f2_w10_lines_are_on_disk_before_what_says_that_they_are_being_appended_goes"],
    ),
    (
        "F1", "f1-the-end-of-a-log-is-not-moved-in-pieces", "src/store/append.rs",
        "let lacks_room = copied.as_ref().is_err_and(is_full);",
        "let lacks_room = copied.as_ref().is_err_and(is_full) && size == end;",
        ["full_disks::f1_the_end_of_a_log_is_cut_off_and_kept_where_there_is_no_room_for_both"],
    ),
    (
        "F1", "f1-recovery-may-not-shorten-the-log-that-it-cuts", "src/store/append.rs",
        "let live = disk.open_writable(dir, file)?;",
        "let live = disk.open(dir, file)?;",
        [
            "appends::w10_f1_what_was_being_appended_when_the_daemon_died_is_cut_off_and_the_log_goes_on",
            "lib::store::append::tests::what_was_cut_short_is_cut_off_and_kept",
        ],
    ),
    (
        "F2", "f2-content-is-not-synced", "src/store/publish.rs",
        "self.disk().sync_file(&shadow.file).map_err(at(Stage::Sync))?;",
        'log::trace!("{:?}", Stage::Sync);',
        ["durability::f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing"],
    ),
    (
        "F2", "f2-the-name-is-not-synced", "src/store/publish.rs",
        "if info.durability == Durability::Full {",
        "if info.durability == Durability::Full && history.next == 0 {",
        ["durability::f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing"],
    ),
    (
        "F2", "f2-fast-waits-for-content", "src/store/publish.rs",
        "if info.durability != Durability::Fast {",
        "if info.durability != Durability::Fast || info.now > 0 {",
        ["durability::f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing"],
    ),
    (
        "F3", "f3-whatever-the-disk-says-is-told-as-eio", "src/mount/coordinated/begin.rs",
        "shadow.map_err(|error| from_io(&error))",
        "shadow.map_err(|_| Errno::IO)",
        ["durability::f3_what_the_disk_says_to_a_new_shadow_is_said_to_the_writer"],
    ),
    (
        "F3", "f3-an-open-without-descriptors-leaves-its-shadow", "src/mount/coordinated/begin.rs",
        "let _ = self.store.drop_unwritten(shadow);",
        "drop(shadow);",
        ["faults::f3_an_open_that_the_daemon_has_no_descriptors_for_is_refused_and_leaves_nothing_behind"],
    ),
    (
        "F3", "f3-opens-take-the-last-descriptors", "src/mount/descriptors.rs",
        "fd.as_raw_fd() as u64 + RESERVED >= limit",
        "fd.as_raw_fd() as u64 >= limit.saturating_add(RESERVED)",
        ["faults::f3_an_open_that_the_daemon_has_no_descriptors_for_is_refused_and_leaves_nothing_behind"],
    ),
    (
        "F3", "f3-a-refused-write-is-published", "src/mount/coordinated/staged.rs",
        "            self.refuse(offset + written as u64, stopped);\n",
        "",
        ["small_disks::f3_what_was_torn_is_not_published_although_there_is_room_again"],
    ),
    (
        "F3", "f3-a-write-made-good-is-not-published", "src/mount/coordinated/staged.rs",
        "self.refused.retain(|at, _| !(offset..end).contains(at));",
        "self.refused.retain(|at, _| !(offset..offset).contains(at) || end == 0);",
        ["small_disks::f3_a_writer_that_makes_room_and_writes_again_is_published"],
    ),
    (
        "F3", "f3-a-failed-sync-is-forgotten", "src/mount/coordinated/session/shadow.rs",
        "|staged, synced| staged.failed = synced.err(),",
        "|_, _| (),",
        ["durability::f3_after_a_failed_sync_the_session_is_not_published"],
    ),
    (
        "R3", "r3-who-looks-waits-for-the-disk", "src/mount/coordinated/session.rs",
        "        act(self.stage.lock().open()?)",
        "        act(self.lock_idle().open()?)",
        ["durability::r3_a_disk_that_takes_long_over_one_session_holds_up_nobody_else"],
    ),
    (
        "F3", "f3-a-record-finds-no-room", "src/store/recovered.rs",
        "let written = self.write_into_spare(&json, &bytes);",
        "let written = match json.is_empty() {\n                        true => self.write_into_spare(&json, &bytes),\n                        false => Err(io::ErrorKind::NotFound.into()),\n                    };",
        ["small_disks::f3_a_save_that_did_not_fit_leaves_the_version_before"],
    ),
    (
        "F3", "f3-what-could-not-be-synced-is-published", "src/store/publish.rs",
        "self.disk().sync_file(&shadow.file).map_err(at(Stage::Sync))?;",
        "let _ = self.disk().sync_file(&shadow.file);",
        ["durability::f3_a_publish_that_cannot_be_synced_is_an_error_of_close"],
    ),
    (
        "F5", "f5-a-forced-unmount-publishes", "src/mount/coordinated/status.rs",
        "super::close::Ending::Unmounted",
        "super::close::Ending::Closed",
        ["unmount::f5_a_forced_unmount_keeps_what_was_staged", "unmount::f5_sigterm_forces_after_grace"],
    ),
    (
        "F5", "f5-an-unmount-does-not-wait", "src/cli/mount/service.rs",
        """        while !self.coordination.drain() {
            if self.forced""",
        """        while !self.coordination.drain() && how == Unmounting::Force {
            if self.forced""",
        ["unmount::f5_an_unmount_waits_for_an_open_session"],
    ),
    (
        "F5", "f5-who-is-passing-is-in-the-way", "src/cli/holders.rs",
        ".any(|holder| before.iter().any(|other| other.pid == holder.pid))",
        ".any(|holder| before.iter().all(|other| other.pid == holder.pid))",
        ["lib::cli::holders::tests::who_was_there_before_stays_and_others_may_be_passing"],
    ),
    (
        "F5", "f5-sessions-begin-while-an-unmount-waits", "src/mount/coordinated/wait.rs",
        "if self.is_closing() {\n            return resume(Err(Errno::BUSY));",
        "if self.is_closing() && claim.caller.tid == 0 {\n            return resume(Err(Errno::BUSY));",
        ["unmount::f5_while_an_unmount_waits_no_session_begins"],
    ),
    (
        "F5", "f5-sigterm-does-not-wait", "src/cli/mount/daemon.rs",
        "let grace = if asked { Duration::ZERO } else { service.grace() };",
        "let grace = if asked { service.grace() } else { Duration::ZERO };",
        ["unmount::f5_sigterm_waits_for_sessions_within_grace"],
    ),
    (
        "F5", "f5-a-second-sigterm-waits-too", "src/cli/mount/daemon.rs",
        "let grace = if asked { Duration::ZERO } else { service.grace() };",
        "let grace = if asked { service.grace() * 2 } else { service.grace() };",
        ["unmount::f5_a_second_sigterm_does_not_wait"],
    ),
    (
        "F5", "f5-grace-does-not-end", "src/cli/mount/daemon.rs",
        "match (patient, ended.recv_timeout(grace)) {",
        "match (patient, ended.recv_timeout(grace + Duration::from_secs(20))) {",
        ["unmount::f5_sigterm_forces_after_grace"],
    ),
    (
        "F5", "f5-a-dead-mount-is-left", "src/cli/unmount.rs",
        "&& matches!(reach::liveness(mount), Liveness::Dead)",
        "&& !matches!(reach::liveness(mount), Liveness::Dead)",
        ["unmount::f5_a_dead_mount_is_cleared_by_unmount_or_by_recover"],
    ),
    (
        "F5", "f5-two-daemons-share-a-tree", "src/store/real.rs",
        "Err(Errno::WOULDBLOCK) => Ok(false),",
        "Err(Errno::WOULDBLOCK) => Ok(true),",
        ["lib::store::tests_garbage::two_daemons_cannot_own_one_tree"],
    ),
    (
        "W1", "w1-an-acl-is-asked-of-a-replaced-version", "src/mount/xattr.rs",
        "Err(Errno::STALE) if name == ACL || name == CAPABILITY => self.coordination.anchor_of_name(id),",
        "Err(Errno::STALE) => Err(Errno::STALE),",
        ["users::w1_who_does_not_own_the_file_waits_his_turn_like_its_owner"],
    ),
    (
        "F5", "f5-the-next-mount-with-the-numbers-of-ours-is-taken-for-ours", "src/os/mountinfo.rs",
        "self.daemon == Some(proc::own_pid().unwrap_or_default())",
        "self.daemon.is_some()",
        ["lib::os::mountinfo::tests::a_mount_that_another_daemon_serves_is_not_own_whatever_its_numbers"],
    ),
    (
        "F5", "f5-trees-that-overlap-are-mounted", "src/cli/mount/overlap.rs",
        "if one_filesystem && mount.backing.starts_with(backing) {",
        "if one_filesystem && mount.backing == backing {",
        ["mounting::f5_a_mount_that_would_share_files_with_another_is_refused_and_nothing_is_changed"],
    ),
    (
        "F5", "f5-others-working-directories-are-left", "src/cli/holders.rs",
        ".all(|holder| holder.idle && ancestors.contains(&holder.pid))",
        ".all(|holder| holder.idle || ancestors.contains(&holder.pid))",
        ["unmount::f5_an_unmount_that_is_refused_says_who_works_in_the_mount"],
    ),
    (
        "F5", "f5-who-asks-from-within-is-refused", "src/cli/mount/service.rs",
        "let leave = how == Unmounting::LeaveDirectories &&",
        "let leave = how == Unmounting::Force &&",
        ["unmount::f5_the_example_of_the_readme_works_as_it_is_written"],
    ),
    (
        "cli", "cli-a-stopped-daemon-is-waited-for", "src/control/client.rs",
        "if self.beacon.is_stopped() {\n            return",
        "if false {\n            return",
        ["lib::control::client::tests::a_daemon_that_a_signal_has_stopped_is_told_at_once"],
    ),
    (
        "cli", "cli-a-failure-is-no-document", "src/cli/mod.rs",
        "    if out.json {\n        let error",
        "    if out.json && what == \"usage\" {\n        let error",
        ["cli::with_json_a_failure_is_one_document_too"],
    ),
    (
        "cli", "cli-a-newer-store-is-read", "src/store/history.rs",
        "super::layout::refuse_newer(&disk, &store).map_err(io::Error::other)?;",
        "",
        ["cli::doctor_knows_what_is_mounted_and_what_a_newer_version_has_left"],
    ),
    (
        "cli", "cli-an-ended-wait-is-an-error-in-the-log", "src/cli/mount/daemon.rs",
        "target == \"fuser::reply\" && message",
        "target == \"fuser::session\" && message",
        ["cli::a_wait_that_a_signal_has_ended_is_no_error_in_the_log"],
    ),
    (
        "cli", "cli-a-fifo-is-read", "src/cli/show.rs",
        "if found != FileType::RegularFile {",
        "if false {",
        ["bad_input::r6_what_is_no_regular_file_is_not_compared_and_hangs_nobody"],
    ),
    (
        "Never", "never-trees-of-tools-are-coordinated", "src/rules/builtin.rs",
        """    "**/node_modules/**",
""",
        "",
        ["config::never_is_what_the_built_in_rules_leave_alone_coordinated"],
    ),
    (
        "Never", "never-git-is-coordinated", "src/rules/builtin.rs",
        """    "**/.git/**",
""",
        "",
        ["config::never_is_what_the_built_in_rules_leave_alone_coordinated"],
    ),
    (
        "O1", "o1-what-the-rules-name-is-renamed-out-of-the-store", "src/mount/coordinated/rename.rs",
        "if let Some(errno) = private.into_iter().find_map(Result::err) {",
        "if let Some(errno) = private.into_iter().take(0).find_map(Result::err) {",
        ["store_access::every_way_to_write_to_the_store_through_the_mount_is_refused_with_erofs"],
    ),
    (
        "O1", "o1-directories-that-a-rule-names-are-asked-for-at-each-walk", "src/mount/route.rs",
        "Ok(entry) if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory => {",
        "Ok(entry) if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Socket => {",
        ["config::directories_that_a_rule_matches_are_looked_up_once"],
    ),
    (
        "O1", "o1-new-files-are-the-daemons", "src/mount/file.rs",
        "let _caller = caller.assume(mode, umask)?;",
        'log::trace!("not as {caller:?} {umask}");',
        ["ordinary::o1_new_files_belong_to_the_caller_with_umask_and_set_group_id_directories"],
    ),
    (
        "O1", "o1-a-deleted-file-is-found-by-its-name", "src/mount/entry.rs",
        """        self.gone(victim, &Name::new(parent, name));
        Ok(())""",
        """        drop(victim);
        Ok(())""",
        ["ordinary::o1_a_deleted_file_lives_on_for_who_has_it_open_or_by_path_descriptor"],
    ),
    (
        "O1", "o1-truncation-leaves-set-id-bits", "src/mount/file.rs",
        "caller.changes(writer, || rustix::fs::ftruncate(writer, 0))?;",
        'rustix::fs::ftruncate(writer, 0)?;',
        ["ordinary::o1_new_files_belong_to_the_caller_with_umask_and_set_group_id_directories"],
    ),
    (
        "O2", "o2-no-passthrough", "src/mount/file.rs",
        "if !self.passthrough.load(Ordering::Relaxed) {",
        "if self.passthrough.load(Ordering::Relaxed) {",
        ["ordinary::o2_what_is_read_and_written_does_not_go_through_the_daemon"],
    ),
    (
        "config", "config-a-good-save-changes-nothing", "src/cli/mount/service.rs",
        "watched.coordination.set_rules(rules);",
        "drop(rules);",
        ["config::a_good_save_holds_at_once_for_files_opened_after"],
    ),
    (
        "R6", "r6-links-in-the-store-are-followed", "src/store/real.rs",
        """const FILE_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)""",
        """const FILE_FLAGS: OFlags = OFlags::empty()
    .union(OFlags::CLOEXEC)""",
        ["bad_input::r6_a_link_in_place_of_anything_in_the_store_is_not_followed"],
    ),
    (
        "F1", "f1-a-record-that-was-being-written-over-is-garbage", "src/store/history.rs",
        "Ok((record.version == version).then_some(record))",
        """match record.version == version {
                true => Ok(Some(record)),
                false => Err(io::Error::other("it belongs to another version")),
            }""",
        ["lib::store::tests_faults::a_record_that_was_being_written_over_is_removed"],
    ),
    (
        "R4", "r4-a-truncated-file-is-as-old-as-its-inode", "src/store/shadow.rs",
        "Some(file) => self.disk().touch(&file).map(|()| file),",
        "Some(file) => Ok(file),",
        ["readers::r4_a_file_that_was_only_truncated_has_the_time_of_that"],
    ),
    (
        "F1", "f1-a-journal-beside-a-session-grows", "src/store/prune.rs",
        "        self.shorten_journal();\n",
        "",
        ["lib::store::tests_journal::f1_the_journal_stays_short_while_one_session_is_open"],
    ),
    (
        "F1", "f1-a-shorter-journal-is-not-on-disk-when-it-takes-the-olds-place", "src/store/journal.rs",
        "disk.sync_file(&file)?;",
        "",
        ["lib::store::tests_journal::f1_wherever_the_shortening_of_the_journal_stops_what_was_staged_keeps_its_record"],
    ),
    (
        "F1", "f1-what-begins-while-the-journal-is-shortened-is-lost", "src/store/journal.rs",
        "filter(|(_, line)| line.at >= until)",
        "filter(|(_, line)| line.at >= until).take(0)",
        ["lib::store::tests_journal::f1_what_begins_while_the_journal_is_shortened_is_in_the_new_one_and_what_is_under_way_too"],
    ),
    (
        "F1", "f1-a-journal-that-could-not-be-shortened-is-never-again", "src/store/journal.rs",
        "        journal.shortening = false;\n",
        "        journal.shortening = done.is_err();\n",
        ["lib::store::tests_journal::f1_where_the_journal_cannot_be_shortened_it_is_still_kept"],
    ),
]
