//! Which start of the machine this is.

use std::sync::OnceLock;

/// The id of this boot, random(4): the same for two daemons only when the machine was not restarted in between. Empty when /proc does not tell.
pub fn id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    })
}
