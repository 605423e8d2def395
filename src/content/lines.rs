//! Where lines end: what of an appender's bytes others may see, and what of a file is whole after a crash.

/// A longer piece without a newline is no line: its file holds something else than lines.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Splits behind the last newline: the lines that `data` finishes, and the beginning of the next one.
pub fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let finished = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    data.split_at(finished)
}

/// Finds how far a file consists of whole lines, chunk by chunk. A filesystem that lost power leaves zeros where nothing was written, so
/// a zero is the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeLines {
    at: u64,
    end: u64,
    broken: bool,
}

impl WholeLines {
    /// Everything before `offset` is known to be right.
    pub fn from(offset: u64) -> WholeLines {
        WholeLines {
            at: offset,
            end: offset,
            broken: false,
        }
    }

    /// What follows. `false`: there is no need to go on.
    pub fn feed(&mut self, chunk: &[u8]) -> bool {
        if !self.broken {
            let zero = chunk.iter().position(|byte| *byte == 0);
            self.broken = zero.is_some();
            let (finished, _) = split(&chunk[..zero.unwrap_or(chunk.len())]);
            if !finished.is_empty() {
                self.end = self.at + finished.len() as u64;
            }
            self.at += chunk.len() as u64;
        }
        !self.broken
    }

    /// The end of the last whole line so far.
    pub fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_finished_by_its_newline() {
        for (data, finished, rest) in [
            ("", "", ""),
            ("a", "", "a"),
            ("\n", "\n", ""),
            ("a\nb", "a\n", "b"),
            ("a\n\nb\n", "a\n\nb\n", ""),
        ] {
            assert_eq!(
                split(data.as_bytes()),
                (finished.as_bytes(), rest.as_bytes()),
                "{data:?}"
            );
        }
    }

    #[test]
    fn what_a_power_failure_left_ends_before_the_first_zero() {
        let mut lines = WholeLines::from(10);
        assert!(lines.feed(b"one\ntw"));
        assert_eq!(lines.end(), 14);
        assert!(lines.feed(b"o\nthree"));
        assert_eq!(lines.end(), 18);
        assert!(!lines.feed(b"\nfour\n\0\0\n"));
        assert_eq!(lines.end(), 29);
        assert!(!lines.feed(b"five\n"));
        assert_eq!(lines.end(), 29);
    }

    proptest! {
        #[test]
        fn however_the_writes_are_cut_the_lines_are_the_same(
            text in "[ab\n]{0,40}",
            cuts in proptest::collection::vec(0usize..40, 0..8),
        ) {
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let (mut seen, mut tail, mut scan) = (Vec::new(), Vec::new(), WholeLines::from(0));
            for pair in cuts.windows(2) {
                let write = &text[pair[0]..pair[1]];
                let (finished, rest) = split(write);
                if !finished.is_empty() {
                    seen.append(&mut tail);
                    seen.extend_from_slice(finished);
                }
                tail.extend_from_slice(rest);
                prop_assert!(seen.is_empty() || seen.ends_with(b"\n"));
                prop_assert!(!tail.contains(&b'\n'));
                scan.feed(write);
            }
            prop_assert_eq!(&seen[..], split(text).0);
            prop_assert_eq!(scan.end(), seen.len() as u64);
            seen.append(&mut tail);
            prop_assert_eq!(&seen[..], text);
        }
    }
}
