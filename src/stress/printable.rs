//! Text from guests and files, for terminals.

use std::fmt::{self, Write};

/// Text that shows as one line and does nothing else: what is not to be printed is escaped, such
/// as `\n` or `\u{1b}`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printable<'a>(pub(super) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            // Only inside quotes they would have to be.
            '\'' | '"' | '\\' => f.write_char(character),
            _ => character.escape_debug().fmt(f),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_acts_is_escaped() {
        let text = "it's \"ä\" \\ \u{1b}[2J\r\n\u{202e}";
        assert_eq!(Printable(text).to_string(), "it's \"ä\" \\ \\u{1b}[2J\\r\\n\\u{202e}");
    }
}
