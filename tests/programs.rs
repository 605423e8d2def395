//! Shells, utilities, editors and the write patterns of the coding agents, run as their users run them: on a mount they leave what they
//! leave in a plain directory, and each save is one version.

mod support;

use support::twin::{Twin, lacks};

fn twin() -> Twin {
    Twin::with(&[
        ("STATE.md", "one\ntwo\nthree\n"),
        ("data.json", "{\"n\": 1}\n"),
        ("notes.txt", "ordinary\n"),
    ])
}

#[test]
fn shells_redirect_to_coordinated_files() {
    for shell in ["bash", "dash"] {
        if lacks(shell) {
            continue;
        }
        let twin = twin();
        for script in [
            "echo one > STATE.md",
            "echo two >> STATE.md",
            "cat > STATE.md <<EOF\nfrom a here-document\n$((6 * 7))\nEOF",
            "set -C; echo forced >| STATE.md",
            "printf abc 1<> STATE.md",
            "exec 3> STATE.md; echo a >&3; /bin/echo b >&3; exec 3>&-; cat STATE.md",
            "for i in 1 2 3; do echo $i; done > STATE.md",
            "{ cat notes.txt; (echo sub); } > STATE.md 2>&1",
            "while read -r line; do echo \"<$line>\"; done < notes.txt > STATE.md",
            "cat < STATE.md > notes.txt; sort -r notes.txt > STATE.md",
        ] {
            twin.saves_by(shell, "STATE.md", 1, script);
        }
        twin.saves_by(shell, "STATE.md", 2, "echo one > STATE.md; echo two >> STATE.md");
        twin.saves_by(
            shell,
            "NEW.md",
            1,
            "set -C; echo new > NEW.md; if (echo other > NEW.md) 2> /dev/null; then exit 1; fi",
        );
        twin.saves_by(
            shell,
            "STATE.md",
            0,
            "cat STATE.md; wc -l < STATE.md; test -s STATE.md; [ STATE.md -nt notes.txt ] || true",
        );
    }
}

#[test]
fn filters_write_in_place_and_by_a_temporary_file() {
    let twin = twin();
    for script in [
        "sed -i s/two/2/ STATE.md",
        "perl -pi -e 's/three/3/' STATE.md",
        "sort -r -o STATE.md STATE.md",
        "echo teed | tee STATE.md",
        "echo more | tee -a STATE.md > /dev/null",
        "dd if=/dev/zero of=STATE.md bs=1 count=2 seek=3 conv=notrunc status=none",
        "truncate -s 100000 STATE.md",
        "truncate -s 5 STATE.md",
        "head -c 300000 /dev/zero | tr '\\0' x > STATE.md",
        "fallocate -p -o 4096 -l 8192 STATE.md",
        "printf '%s\\n' b a c | sort > STATE.md",
    ] {
        twin.saves("STATE.md", 1, script);
    }
    // It renames the file away first, which is a version without content.
    twin.saves("STATE.md", 2, "sed -i.bak 's/$/!/' STATE.md; rm STATE.md.bak");
    if !lacks("sponge") {
        twin.saves("STATE.md", 1, "sort -r STATE.md | sponge STATE.md");
    }
    if !lacks("patch") {
        twin.saves("STATE.md", 1, "printf '%s\\n' '--- STATE.md' '+++ STATE.md' '@@ -1,3 +1,3 @@' '-c!' '+patched' ' b!' ' a!' | patch -s STATE.md; cat STATE.md");
    }
    if !lacks("jq") {
        twin.saves(
            "data.json",
            1,
            "jq .n=2 data.json > data.json.tmp && mv data.json.tmp data.json",
        );
        // The classic mistake: jq finds the file empty, on a mount as anywhere.
        twin.saves("data.json", 1, "jq .n=3 data.json > data.json");
        twin.saves("data.json", 1, "echo '{\"n\": 4}' > data.json; jq .n data.json");
    }
    if !lacks("sponge") && !lacks("jq") {
        twin.saves("data.json", 1, "jq .n=5 data.json | sponge data.json");
    }
}

#[test]
fn cp_mv_and_install_save() {
    let twin = twin();
    for script in [
        "cp notes.txt STATE.md",
        "echo other > $OUT/x; cp -p $OUT/x STATE.md",
        "echo by cp -f > $OUT/x; chmod 600 $OUT/x; cp -f --preserve=mode $OUT/x STATE.md",
        "cp --reflink=auto notes.txt STATE.md",
        "echo moved > STATE.md.new; mv STATE.md.new STATE.md",
        "echo swapped > x.tmp; mv -T -f x.tmp STATE.md",
        "touch -d '2020-02-02 UTC' STATE.md; date -u -r STATE.md +%F; echo kept times > x; touch -r STATE.md x; mv x STATE.md; date -u -r STATE.md +%F",
    ] {
        twin.saves("STATE.md", 1, script);
    }
    // These remove it first, as in a plain directory. That is a version too, without content.
    twin.saves("STATE.md", 2, "echo from another place > $OUT/x; mv $OUT/x STATE.md");
    twin.saves("STATE.md", 2, "echo installed > $OUT/x; install -m 640 $OUT/x STATE.md");
    twin.saves(
        "STATE.md",
        0,
        "cp -p STATE.md $OUT/x; install -m 640 -C $OUT/x STATE.md",
    );
    twin.same("cp --remove-destination notes.txt STATE.md");
    twin.same("install -m 600 notes.txt STATE.md; install -D -m 644 STATE.md deep/er/COPY.md");
    twin.same(
        "cp -a deep deep2; mv deep2 deep3; ls -R deep3; mv STATE.md MOVED.md; mv MOVED.md STATE.md; rm -r deep deep3",
    );
    twin.same("ln -s STATE.md LINK.md; echo through the link > LINK.md; cat STATE.md; cp -d LINK.md LINK2.md; rm LINK.md LINK2.md");
    twin.same("mv -n notes.txt STATE.md || true; mv -b --suffix=.old notes.txt STATE.md; mv STATE.md.old notes.txt");
    twin.nothing_is_left("cp, mv, install");
}

#[test]
fn rsync_and_tar_save() {
    let twin = twin();
    let source = "mkdir $OUT/s; printf 'line %s\\n' $(seq 2000) > $OUT/s/STATE.md; touch -d 2021-01-01 $OUT/s/STATE.md; chmod 640 $OUT/s/STATE.md";
    if !lacks("rsync") {
        for transfer in [
            "-a",
            "-a --inplace",
            "--checksum --whole-file -p",
            "-a --delay-updates",
            "-a --inplace --no-whole-file",
        ] {
            let other = format!("echo {} >> $OUT/s/STATE.md", transfer.replace(' ', ""));
            twin.saves(
                "STATE.md",
                1,
                &format!("{source}; {other}; rsync {transfer} $OUT/s/STATE.md STATE.md; md5sum < STATE.md"),
            );
        }
        twin.saves("STATE.md", 0, "rsync -a --itemize-changes . $OUT/copy/ > /dev/null; rsync -anc --itemize-changes --exclude=.concord $OUT/copy/ .");
    }
    twin.same(&format!(
        "{source}; tar -C $OUT/s -cf $OUT/a.tar STATE.md; tar -xf $OUT/a.tar; tar -df $OUT/a.tar; md5sum < STATE.md"
    ));
    twin.same("tar -cf $OUT/b.tar --exclude=.concord .; mkdir x; tar -C x -xf $OUT/b.tar; cat x/notes.txt; rm -r x");
    twin.saves(
        "STATE.md",
        1,
        "gzip -c STATE.md > $OUT/s.gz; gzip -dc $OUT/s.gz | head -n 3 > STATE.md",
    );
    twin.nothing_is_left("rsync, tar");
}

#[test]
fn editors_save() {
    let twin = twin();
    if !lacks("vim") {
        let vim = "vim -es -u NONE -i NONE -N --not-a-term";
        for (backup, edit) in [
            ("set nobackup nowritebackup", "1s/^/a/"),
            ("set writebackup backupcopy=yes", "1s/^/b/"),
            ("set writebackup backupcopy=no", "1s/^/c/"),
            ("set writebackup backupcopy=auto swapfile", "$s/$/d/"),
            ("set noswapfile undofile undodir=$OUT", "normal ggdd"),
        ] {
            // Where it renames the file away first, the name is free for a moment: that is a version without content.
            let script = format!("{vim} -c '{backup}' -c '{edit}' -c wq STATE.md < /dev/null; cat STATE.md");
            twin.same(&script);
            twin.nothing_is_left(&script);
        }
        twin.saves(
            "STATE.md",
            1,
            &format!("{vim} -c 'set nowritebackup' -c '%s/$/ end/' -c wq STATE.md"),
        );
        // It compares what it found with what it has opened, and would say E949.
        for backup in ["set nowritebackup", "set writebackup backupcopy=yes backupskip="] {
            twin.saves(
                "STATE.md",
                1,
                &format!("exec 7< STATE.md; read -r -u 7 line; {vim} -c '{backup}' -c '1s/^/r/' -c wq STATE.md"),
            );
        }
        twin.saves(
            "STATE.md",
            0,
            &format!("{vim} -c 'normal Gox' -c q! STATE.md; cat STATE.md"),
        );
    }
    if !lacks("nano") && !lacks("script") {
        // Ctrl-O, Enter, Ctrl-X on a terminal of its own.
        twin.saves(
            "STATE.md",
            1,
            "(sleep 0.5; printf 'typed '; sleep 0.3; printf '\\017\\r'; sleep 0.3; printf '\\030') | TERM=xterm script -qec 'nano -I STATE.md' /dev/null > /dev/null; head -n 1 STATE.md",
        );
    }
    twin.nothing_is_left("editors");
}

#[test]
fn emacs_saves() {
    if lacks("emacs") {
        return;
    }
    let twin = twin();
    let emacs = |forms: &str| {
        // It would keep no backup of what lies below /tmp, of which it asks when it visits the file.
        let forms =
            format!("(progn (setq backup-enable-predicate (lambda (name) t)) (find-file \"STATE.md\") {forms})");
        format!("emacs -Q --batch --eval '{forms}' 2> $OUT/said || {{ cat $OUT/said; exit 1; }}; cat STATE.md")
    };
    // The first renames the file away, which is a version without content; the second writes in place.
    for backup in ["(setq backup-by-copying nil)", "(setq backup-by-copying t)"] {
        let script = emacs(&format!("{backup} (insert \"backed up \") (save-buffer)"));
        twin.same(&format!("{script}; cat STATE.md~; rm STATE.md~"));
        twin.nothing_is_left(&script);
    }
    let no_backup = "(setq make-backup-files nil)";
    for (times, forms) in [
        (1, "(insert \"in place \") (save-buffer)"),
        (
            2,
            "(insert \"first \") (save-buffer) (insert \"second \") (save-buffer)",
        ),
        (1, "(setq create-lockfiles t) (insert \"locked \") (save-buffer)"),
        // By a temporary file that is renamed over it.
        (1, "(setq file-precious-flag t) (insert \"precious \") (save-buffer)"),
        (1, "(append-to-file \"appended\\n\" nil \"STATE.md\")"),
        (1, "(write-region \"all of it\\n\" nil \"STATE.md\")"),
        (
            0,
            "(insert \"never saved\") (do-auto-save) (set-buffer-modified-p nil) (delete-auto-save-file-if-necessary t)",
        ),
    ] {
        twin.saves("STATE.md", times, &emacs(&format!("{no_backup} {forms}")));
    }
    // It asks before it overwrites what others have changed meanwhile, and in batch mode that is an error.
    let overtaken = "(insert \"mine\") (call-process \"sh\" nil nil nil \"-c\" \"echo theirs, longer > STATE.md\") \
        (condition-case problem (save-buffer) (error (princ \"refused\")))";
    let said = twin.same(&format!("{} < /dev/null", emacs(&format!("{no_backup} {overtaken}"))));
    assert!(said.ends_with("refusedtheirs, longer\n"), "{said}");
    twin.nothing_is_left("emacs");
}

#[test]
fn yq_saves() {
    if lacks("yq") {
        return;
    }
    let twin = Twin::with(&[("data.yaml", "n: 1\nname: plan\n")]);
    // Two programs have this name; Python's writes JSON unless it is told otherwise.
    let yq = "yq() { if command yq --version | grep -q mikefarah; then command yq \"$@\"; else command yq -y \"$@\"; fi; }\n";
    for script in [
        "yq '.n = 2' data.yaml > data.yaml.tmp && mv data.yaml.tmp data.yaml; cat data.yaml",
        "yq -i '.n = 3' data.yaml; cat data.yaml",
        "echo 'n: 4' > data.yaml; yq .n data.yaml",
        "cp data.yaml $OUT/old; yq '.n = 5' $OUT/old > data.yaml; yq -i '.list = [1, 2]' $OUT/old; cat data.yaml $OUT/old",
    ] {
        twin.saves("data.yaml", 1, &format!("{yq}{script}"));
    }
    twin.saves("data.yaml", 0, &format!("{yq}yq . data.yaml; yq .n < data.yaml"));
}

#[test]
fn ripgrep_finds_what_it_finds_in_a_plain_directory() {
    if lacks("rg") {
        return;
    }
    let twin = twin();
    for script in [
        "rg --sort path -n o",
        "rg --files --sort path; rg --files --hidden --glob '!.concord' --sort path",
        "rg --sort path -c '' ; rg -l --sort path two; rg --mmap two STATE.md; rg --no-mmap two STATE.md; rg two < STATE.md",
        "rg --sort modified -l . > /dev/null; rg --multiline 'one\\ntwo' STATE.md; if rg never; then exit 1; fi",
        "printf 'notes.txt\\n' > .ignore; rg --files --sort path; rm .ignore",
        "mkdir -p a/b; echo two > a/b/PLAN.md; rg --sort path two; rg -j 4 -l two | sort; rm -r a",
    ] {
        twin.saves("STATE.md", 0, script);
    }
    twin.saves(
        "STATE.md",
        1,
        "rg --passthru -N two -r 2 STATE.md > $OUT/new; cat $OUT/new > STATE.md; rg 2 STATE.md",
    );
    // As anywhere, the redirection has emptied the file before rg reads it; the writer's own child sees that.
    twin.saves(
        "STATE.md",
        1,
        "{ rg one STATE.md || echo nothing; } > STATE.md; cat STATE.md",
    );
}

/// What others have staged is not found, however rg reads.
#[test]
fn ripgrep_finds_versions_only() {
    if lacks("rg") {
        return;
    }
    let twin = twin();
    let mut writer = support::Running::start(
        twin.project
            .python("import sys; f = open('STATE.md', 'w'); f.write('staged\\n'); f.flush(); print('open', flush=True); sys.stdin.read()"),
    );
    assert_eq!(writer.hear(), "open");
    for way in ["--mmap", "--no-mmap", "-j 1", "--sort path"] {
        let found = support::succeed(twin.project.sh(&format!("rg {way} -N --no-filename 'staged|three'")));
        assert_eq!(found, "three\n", "{way}");
    }
    assert!(writer.finish().success());
    let found = support::succeed(twin.project.sh("rg -N --no-filename 'staged|three'"));
    assert_eq!(found, "staged\n");
}

/// shared/spec/writers.md's table, in Python.
const AGENTS: &str = r#"
import os, shutil, stat, tempfile, time
def temp_rename_mode(target, text):            # Claude Code
    real = os.readlink(target) if os.path.islink(target) else target
    temp = f"{real}.tmp.{os.getpid()}.{int(time.time() * 1000)}"
    with open(temp, "w") as f: f.write(text)
    os.chmod(temp, stat.S_IMODE(os.stat(real).st_mode))
    os.rename(temp, real)
def truncate(target, text):                    # Codex CLI, Gemini CLI, opencode, goose, Cline, aider
    with open(target, "w") as f: f.write(text)
def truncate_then_write(target, text):         # VS Code
    os.truncate(target, 0)
    fd = os.open(target, os.O_RDWR)
    os.write(fd, text.encode()); os.close(fd)
def temp_fsync_rename(target, text):           # Qwen Code
    mode = stat.S_IMODE(os.stat(target).st_mode)
    fd, temp = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(target)))
    os.write(fd, text.encode()); os.fchmod(fd, mode); os.fsync(fd); os.close(fd)
    os.replace(temp, target)
def fsync_in_place(target, text):
    with open(target, "r+") as f: f.seek(0); f.write(text); f.truncate(); f.flush(); os.fsync(f.fileno())
def temp_elsewhere(target, text):              # EXDEV: rename fails, so it copies
    fd, temp = tempfile.mkstemp(dir=os.environ["OUT"])
    os.write(fd, text.encode()); os.close(fd)
    try: os.rename(temp, target)
    except OSError: shutil.copyfile(temp, target); os.unlink(temp)
    os.chmod(target, 0o640)
"#;

#[test]
fn coding_agents_save() {
    let twin = twin();
    let agent = |calls: &str| format!("cat > $OUT/agent.py <<'EOF'\n{AGENTS}\n{calls}\nEOF\npython3 $OUT/agent.py");
    for (number, way) in ["temp_rename_mode", "truncate", "temp_fsync_rename", "fsync_in_place"]
        .iter()
        .enumerate()
    {
        twin.saves("STATE.md", 1, &agent(&format!("{way}('STATE.md', 'save {number}\\n')")));
        twin.saves("NEW.md", 1, &agent(&format!("truncate('NEW.md', 'new {number}\\n')")));
    }
    // Two calls that change it are two versions, the first of them empty.
    twin.saves("STATE.md", 2, &agent("truncate_then_write('STATE.md', 'vscode\\n')"));
    // To a plain directory of the same filesystem the rename works.
    twin.same(&agent("temp_elsewhere('STATE.md', 'exdev\\n')"));
    twin.same("ln -s STATE.md AGENTS.md");
    twin.saves(
        "STATE.md",
        1,
        &agent("temp_rename_mode('AGENTS.md', 'through the link\\n')"),
    );
    twin.same("test -L AGENTS.md; stat -c %a STATE.md; cat AGENTS.md");
}

#[test]
fn agents_of_all_kinds_save_one_file_at_once() {
    let twin = twin();
    let every = "[temp_rename_mode, truncate, temp_fsync_rename, fsync_in_place, temp_elsewhere]";
    let script = format!(
        "cat > $OUT/agent.py <<'EOF'\n{AGENTS}\nimport sys\nway = {every}[int(sys.argv[1])]\nfor i in range(12): way('STATE.md', (f'{{sys.argv[1]}} ' * 4000) + 'end\\n')\nEOF
jobs=; for way in 0 1 2 3 4; do python3 $OUT/agent.py $way & jobs=\"$jobs $!\"; done; for job in $jobs; do wait $job; done
python3 - <<'EOF'\nwords = open('STATE.md').read().split(' ')\nassert len(set(words[:-1])) == 1 and words[-1] == 'end\\n' and len(words) == 4001, words[-3:]\nEOF"
    );
    let mut command = twin.project.sh(&format!("OUT=$(mktemp -d \"$OUT\"/XXXXXX)\n{script}"));
    command.env("OUT", twin.project.outside());
    support::succeed(command);
    // The kept versions are whole too; `keep` is 20, and what is more goes a moment after the save.
    support::eventually("the oldest are gone", || twin.project.history("STATE.md").len() <= 21);
    for version in twin.project.history("STATE.md") {
        let content = twin.project.show("STATE.md", version["version"].as_u64().unwrap());
        let words: std::collections::BTreeSet<_> = content.split(|byte| *byte == b' ').collect();
        assert!(words.len() == 2 || content == b"one\ntwo\nthree\n", "version {version}");
    }
    let names = support::succeed(twin.project.sh("ls"));
    assert_eq!(names, "STATE.md\ndata.json\nnotes.txt\n");
    assert!(twin.project.recovered().is_empty());
}
