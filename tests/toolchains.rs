//! git, language runtimes and build tools on a mount, with the built-in rules: they leave what they leave in a plain directory.

mod support;

use support::twin::{Twin, lacks};

fn twin() -> Twin {
    Twin::with(&[
        ("README.md", "# Title\n\nfirst\n"),
        ("data.json", "{\"n\": 1}\n"),
        ("src/main.c", "int main(void) { return 0; }\n"),
    ])
}

/// The same commits on both sides: names and times are given.
const GIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
    GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z' GIT_ADVICE=0\n";

#[test]
fn git_works_on_the_mount() {
    if lacks("git") {
        return;
    }
    let twin = twin();
    let git = |script: &str| twin.same(&format!("{GIT}{script}"));
    git("git init -q -b main .; git add -A; git commit -qm first; git status --short; git rev-parse HEAD");
    git("echo second >> README.md; git commit -qam second; git diff HEAD~1; git log --oneline --stat");
    git(
        "git checkout -q -b topic HEAD~1; echo '{\"n\": 2}' > data.json; echo new > NEW.md; git add -A; git commit -qm topic; git checkout -q main; cat data.json; ls",
    );
    git("git checkout -q topic; git rebase -q main; cat README.md data.json; git rev-parse HEAD");
    git("git checkout -q main; git merge -q --no-ff -m merged topic; git rev-parse HEAD; git status --short");
    git(
        "echo stashed >> README.md; git stash -q; cat README.md; git stash pop -q; tail -n 1 README.md; git checkout -q README.md",
    );
    git(
        "git worktree add -q tree2 topic; (cd tree2; echo there >> README.md; git commit -qam there; git rev-parse HEAD); git worktree list --porcelain | grep -c ^worktree",
    );
    git(
        "git worktree remove tree2; git gc -q; git fsck --strict; git count-objects -v | grep -E 'count|packs'; git status --short",
    );
    // The clone keeps its own .git, so only its files are compared.
    git(
        "git clone -q . copy; git -C copy fsck; git -C copy log --format=%H; diff -r -x .git -x copy -x .concord . copy; rm -rf copy",
    );
    git(
        "for i in 1 2 3 4 5; do echo line $i >> README.md; git commit -qam c$i; done; git reset -q --hard HEAD~3; cat README.md; git apply <<'EOF'\n--- a/data.json\n+++ b/data.json\n@@ -1 +1 @@\n-{\"n\": 2}\n+{\"n\": 3}\nEOF\ncat data.json; git checkout -q .",
    );
    git(
        "git grep -n line; grep -rn line --include=*.md .; git clean -qfdx; git rm -q NEW.md; git mv data.json moved.json; git commit -qm moved; ls",
    );
    // Nobody has written since: git must not find its index outdated, nor files changed.
    git("git update-index -q --refresh; git diff-files --exit-code; git status --porcelain");
    twin.nothing_is_left("git");
}

#[test]
fn git_checkouts_leave_a_reader_whole_files() {
    if lacks("git") {
        return;
    }
    let twin = twin();
    // Only on the mount: in a plain directory a reader may come between git's creation of a file and its last write.
    support::succeed(twin.project.sh(&format!(
        "set -e\n{GIT}git init -q -b main .; git add -A; git commit -qm first
git checkout -q -b topic; seq 20000 > README.md; git commit -qam long; git checkout -q main
(for i in 1 2 3 4 5; do git checkout -q topic; git checkout -q main; done) & job=$!
python3 - <<'EOF'
import time
end = time.time() + 1.0
while time.time() < end:
    try: text = open('README.md').read()
    except FileNotFoundError: continue
    assert len(text) in (15, 108894), len(text)
EOF
wait $job; test -z \"$(git status --porcelain | grep -v concord)\""
    )));
    twin.nothing_is_left("git checkout");
}

#[test]
fn python_saves() {
    let twin = twin();
    let python = |times, program: &str| {
        twin.saves(
            "data.json",
            times,
            &format!("python3 - <<'EOF'\nimport json, os, pathlib, tempfile\n{program}\nEOF"),
        );
    };
    python(1, "json.dump({'n': 2}, open('data.json', 'w'))");
    python(
        1,
        "with open('data.json', 'w+') as f:\n    f.write('x' * 100000); f.seek(0); assert f.read(3) == 'xxx'; f.truncate(10)",
    );
    python(1, "with open('data.json', 'r+') as f: f.write('{}')");
    python(1, "with open('data.json', 'a') as f: f.write('appended')");
    python(
        1,
        "with open('data.json', 'a+b', buffering=0) as f: f.write(b'1'); f.write(b'2'); f.seek(0); print(f.read())",
    );
    python(
        1,
        "with open('data.json', 'rb+') as f: f.seek(5000); f.write(b'after a hole')",
    );
    python(1, "pathlib.Path('data.json').write_text('by pathlib')");
    python(
        1,
        "p = pathlib.Path('data.json'); p.with_suffix('.tmp').write_text('replaced'); p.with_suffix('.tmp').replace(p)",
    );
    python(
        1,
        "with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as f: json.dump([1], f)\nos.replace(f.name, 'data.json')",
    );
    python(
        0,
        "try: open('data.json', 'x')\nexcept FileExistsError: print('exists')\nprint(open('data.json').read())",
    );
    twin.saves("made.json", 1, "python3 -c \"open('made.json', 'x').write('{}')\"");
    // Eight threads of one process, and eight processes.
    twin.same("python3 - <<'EOF'\nimport threading\ndef save(i):\n    with open('data.json', 'w') as f: f.write(f'{i % 1}' * 5000)\nthreads = [threading.Thread(target=save, args=(i,)) for i in range(8)]\n[t.start() for t in threads]; [t.join() for t in threads]\nprint(len(open('data.json').read()))\nEOF");
    twin.same("for i in 1 2 3 4 5 6 7 8; do python3 -c \"open('data.json', 'w').write('same' * 5000)\" & done; wait; wc -c < data.json");
    twin.same("python3 - <<'EOF'\nimport shelve, dbm.dumb\nwith shelve.Shelf(dbm.dumb.open('shelf')) as s: s['a'] = 1\nwith shelve.Shelf(dbm.dumb.open('shelf')) as s: s['b'] = [s['a'], 2]; print(dict(s))\nEOF");
    twin.same("python3 - <<'EOF'\nimport mmap, os\nwith open('data.json', 'r+b') as f:\n    f.truncate(8192)\n    m = mmap.mmap(f.fileno(), 0); m[4096:4101] = b'mapped'[:5]; m.flush(); m.close()\nprint(open('data.json', 'rb').read()[4096:4101])\nEOF");
    twin.nothing_is_left("python");
}

#[test]
fn sqlite_databases_are_right_under_several_processes() {
    let twin = twin();
    for mode in ["delete", "wal"] {
        for kill in ["", "--kill"] {
            let stress = format!(
                "python3 $REPO/scripts/lib/sqlite_stress.py --dir {mode}{kill} --mode {mode} {kill} --seconds 2 --writers 3"
            );
            support::succeed({
                let mut command = twin.project.sh(&format!(
                    "mkdir ./{mode}{kill}; {}; rm -r ./{mode}{kill}",
                    stress.replace("--dir ", "--dir ./")
                ));
                command.env("REPO", env!("CARGO_MANIFEST_DIR"));
                command
            });
        }
    }
    twin.same("python3 - <<'EOF'\nimport sqlite3\nfor mode in ('delete', 'wal'):\n    c = sqlite3.connect(f'{mode}.db'); print(c.execute(f'pragma journal_mode={mode}').fetchone())\n    c.execute('create table t(x)'); c.executemany('insert into t values (?)', [(i,) for i in range(1000)]); c.commit()\n    print(c.execute('select sum(x) from t').fetchone(), c.execute('pragma integrity_check').fetchone()); c.close()\nEOF\nrm delete.db wal.db; ls *.db* 2>/dev/null || echo gone");
}

/// A rule of the user's may take databases in. A commit must then not be acknowledged that a kill of its writer, or another reader's moment, loses.
#[test]
fn a_coordinated_sqlite_database_can_be_read_and_is_refused_for_writing() {
    let everything = "[[rule]]\npaths = [\"**\"]\n";
    let mut project = support::Project::unmounted(&[("concord.toml", everything), ("notes-journal", "no database\n")]);
    let make = "import sqlite3
for mode in ('delete', 'wal'):
    c = sqlite3.connect(mode + '.db'); c.execute('pragma journal_mode=' + mode)
    c.execute('create table t(x)'); c.execute('insert into t values (7)'); c.commit(); c.close()";
    support::succeed(project.python(make));
    project.mount();
    let reads = "import sqlite3; print(sqlite3.connect('delete.db').execute('select x from t').fetchall())";
    assert_eq!(support::succeed(project.python(reads)), "[(7,)]\n");
    for mode in ["delete", "wal", "new"] {
        let writes =
            format!("import sqlite3\nc = sqlite3.connect('{mode}.db'); c.execute('create table u(x)'); c.commit()");
        let refused = support::run(project.python(&writes));
        assert!(!refused.status.success());
        let said = support::text(&refused.stderr);
        assert!(said.contains("unable to open database file"), "{said}");
    }
    support::succeed(
        project.sh("echo more >> notes-journal; echo new > other-wal; rm *.db; echo alone > delete.db-wal"),
    );
    assert_eq!(project.read("delete.db-wal"), "alone\n");
}

#[test]
fn node_saves() {
    if lacks("node") {
        return;
    }
    let twin = twin();
    let program = |text: &str| {
        format!(
            "cat > $OUT/p.mjs <<'EOF'\nimport fs from 'node:fs';\nimport {{promises as fsp}} from 'node:fs';\n{text}\nEOF\nnode $OUT/p.mjs"
        )
    };
    let node = |times, text: &str| twin.saves("data.json", times, &program(text));
    node(1, "await fsp.writeFile('data.json', JSON.stringify({n: 2}));");
    node(1, "fs.writeFileSync('data.json', 'sync'.repeat(50000));");
    node(1, "await fsp.appendFile('data.json', 'appended\\n');");
    node(1, "fs.appendFileSync('data.json', 'appended\\n');");
    node(
        1,
        "const s = fs.createWriteStream('data.json'); for (let i = 0; i < 2000; i++) s.write(`line ${i} ` + 'x'.repeat(50) + '\\n'); await new Promise(done => s.end(done)); ",
    );
    node(
        1,
        "await fsp.writeFile('data.json.tmp', 'renamed'); await fsp.rename('data.json.tmp', 'data.json');",
    );
    node(1, "await fsp.copyFile('README.md', 'data.json');");
    node(
        1,
        "const f = await fsp.open('data.json', 'r+'); await f.write('XY', 3); await f.sync(); await f.close();",
    );
    node(1, "await fsp.truncate('data.json', 4);");
    node(
        0,
        "console.log((await fsp.readFile('data.json', 'utf8')).length, (await fsp.stat('data.json')).size); fs.accessSync('data.json', fs.constants.W_OK);",
    );
    // Eight at once, as parallel tool calls do: each is whole, and the last to close wins.
    node(
        8,
        "await Promise.all([...Array(8).keys()].map(i => fsp.writeFile('data.json', 'same'.repeat(20000))));",
    );
    // Appends of one process: each is there. How many versions they are is W10's affair.
    twin.same(&program("await fsp.writeFile('data.json', '0'); await Promise.all([...Array(8).keys()].map(() => fsp.appendFile('data.json', '1'))); console.log(fs.readFileSync('data.json', 'utf8'));"));
    node(
        8,
        "await Promise.all([...Array(8).keys()].map(async i => { await fsp.writeFile(`data.json.${i}`, 'r'.repeat(9000)); await fsp.rename(`data.json.${i}`, 'data.json'); }));",
    );
    twin.nothing_is_left("node");
}

#[test]
fn make_and_cargo_build_what_changed_and_no_more() {
    let twin = twin();
    if !lacks("make") && !lacks("cc") {
        twin.same("cat > Makefile <<'EOF'\nall: main out.md out.json\nmain: src/main.c\n\tcc -o $@ $<\n%.md: README.md\n\tcat README.md > $@\nout.json: data.json out.md\n\tcat data.json > $@\nmany: $(addprefix m,$(addsuffix .md,$(shell seq 40)))\nm%.md: README.md\n\tcp README.md $@\nEOF\nmake -s -j4; ./main");
        twin.same("make -j4");
        twin.same("make -q; sleep 0.02; echo more >> README.md; make -j4; make -q; cat out.md");
        twin.same("make -s -j8 many; make -q many; cat m*.md | sort | uniq -c; rm m*.md");
    }
    if !lacks("cargo") {
        let cargo = "export CARGO_HOME=$OUT/cargo CARGO_NET_OFFLINE=true RUSTUP_HOME=${RUSTUP_HOME:-$(getent passwd $(id -u) | cut -d: -f6)/.rustup} CARGO_TERM_QUIET=true; ";
        twin.same(&format!("{cargo} mkdir c; cd c; cargo init -q --vcs none --name tiny; cargo build; ./target/debug/tiny; cat Cargo.toml Cargo.lock"));
        // Fresh: nothing is built again because of times that moved by themselves.
        let fresh = twin.same(&format!(
            "{cargo} cd c; sleep 0.1; cargo build -v 2>&1 | grep -oE 'Fresh|Dirty|Compiling'"
        ));
        assert_eq!(fresh, "Fresh\n");
        let dirty = twin.same(&format!("{cargo} cd c; sleep 0.1; sed -i 's/edition.*/edition = \"2018\"/' Cargo.toml; cargo build -v 2>&1 | grep -oE 'Fresh|Dirty' | uniq; ./target/debug/tiny"));
        assert_eq!(dirty, "Dirty\nHello, world!\n");
    }
    twin.nothing_is_left("make, cargo");
}

#[test]
fn npm_installs_a_local_package() {
    if lacks("npm") {
        return;
    }
    let twin = twin();
    twin.same(
        "mkdir dep; echo '{\"name\": \"dep\", \"version\": \"1.0.0\", \"main\": \"i.js\"}' > dep/package.json; echo 'module.exports = 42' > dep/i.js
echo '{\"name\": \"app\", \"version\": \"1.0.0\"}' > package.json
npm install --offline --silent --no-audit --no-fund --no-update-notifier ./dep; cat package.json package-lock.json; node -p 'require(\"dep\")'",
    );
    twin.same("export npm_config_update_notifier=false; npm pkg set scripts.hi='echo hi'; npm run --silent hi; npm version --silent --no-git-tag-version patch; cat package.json");
    twin.nothing_is_left("npm");
}
