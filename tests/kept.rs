//! H1, "Never": whatever becomes of the names of a file, each version that somebody saved is current under one of them, or in the history.

mod support;

use support::{Project, run, text, watchdog};

/// Cases, each in a directory of its own, and the steps of each.
const CASES: usize = 150;
const STEPS: usize = 25;

/// Does one random thing after the other to five names, and prints as JSON, for each case, what was done and what must be somewhere. Of what is saved under an ordinary name, or replaced
/// or removed as the last of a file's ordinary names, nothing is promised.
const PROGRAM: &str = r#"
import ctypes, json, os, random, sys
cases, steps = int(sys.argv[1]), int(sys.argv[2])
rename2 = ctypes.CDLL(None, use_errno=True).renameat2
names = ['a.md', 'b.md', 'c.md', 'x.txt', 'y.txt']
is_coordinated = lambda name: name.endswith('.md')
chance = random.Random(103)
for case in range(cases):
    os.mkdir(f'case{case}')
    os.chdir(f'case{case}')
    files, done, saved, excused = {}, [], [], set()
    def holders(file):
        return [name for name in files if files[name] is file]
    def lost(name):
        file = files.pop(name)
        if not holders(file) and not is_coordinated(name):
            excused.add(file['content'])
    for step in range(steps):
        what, one, other = chance.choice('ssspatlllmmmmrxk'), chance.choice(names), chance.choice(names)
        here, there = files.get(one), files.get(other)
        content = f'case {case} step {step}\n'
        if what in 'spat':
            if here and here['content'] is None:
                continue
            if what == 't' and not here:
                continue
            if what == 'p':
                # As editors do.
                with open('new', 'w') as file:
                    file.write(content)
                os.rename('new', one)
                if here:
                    lost(one)
                files[one] = here = {'content': content}
            elif what == 't':
                content = here['content'][:len(here['content']) // 2]
                if not is_coordinated(one):
                    excused.add(here['content'])
                os.truncate(one, len(content))
                here['content'] = content
            else:
                if what == 'a' and here:
                    content = here['content'] + content
                if here and not is_coordinated(one):
                    excused.add(here['content'])
                with open(one, 'r+' if what == 'a' and here else 'w') as file:
                    file.write(content)
                if here:
                    here['content'] = content
                else:
                    files[one] = here = {'content': content}
            if is_coordinated(one) and content:
                saved.append(content)
        elif what == 'l' and here and here['content'] is not None and not there:
            os.link(one, other)
            files[other] = here
        elif what == 'm' and here and one != other:
            os.rename(one, other)
            if there is here:
                continue
            if there:
                lost(other)
            files[other] = files.pop(one)
        elif what == 'r' and here:
            os.unlink(one)
            lost(one)
        elif what == 'x' and here and there and one != other:
            if rename2(-100, one.encode(), -100, other.encode(), 2) != 0:
                raise OSError(ctypes.get_errno())
            files[one], files[other] = there, here
        elif what == 'k':
            # ln -sf
            os.symlink('nowhere', 'new')
            os.rename('new', one)
            if here:
                lost(one)
            files[one] = {'content': None}
        else:
            continue
        done.append(f'{what} {one} {other}')
    for name, file in files.items():
        if file['content'] is not None:
            assert open(name).read() == file['content'], (case, done, name)
    os.chdir('..')
    print(json.dumps([case, done, [one for one in saved if one not in excused]]))
"#;

#[test]
fn h1_no_save_is_lost_whatever_becomes_of_the_names_of_its_file() {
    watchdog();
    let rules = "[[rule]]\npaths = [\"**/*.md\"]\nkeep = 1000\n";
    let mut project = Project::with(&[("concord.toml", rules)]);
    let mut program = project.python(PROGRAM);
    program.args([CASES.to_string(), STEPS.to_string()]);
    let done = run(program);
    assert!(done.status.success(), "{}", text(&done.stderr));
    project.unmount();
    let mut there = std::collections::HashSet::new();
    collect(&project.root(), &mut there);
    let mut seen = 0;
    for line in text(&done.stdout).lines() {
        let (case, done, saved): (usize, Vec<String>, Vec<String>) = serde_json::from_str(line).unwrap();
        for content in saved {
            assert!(
                there.contains(content.as_bytes()),
                "case {case}: {content:?} is nowhere after {done:?}"
            );
            seen += 1;
        }
    }
    assert!(seen > CASES, "{seen}");
}

/// The contents of all files below, those of the store among them.
fn collect(dir: &std::path::Path, there: &mut std::collections::HashSet<Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => collect(&entry.path(), there),
            kind if kind.is_file() => drop(there.insert(std::fs::read(entry.path()).unwrap())),
            _ => {}
        }
    }
}
