//! The keys that the VMM keeps for itself when a person sits at the terminal, as a pure state
//! machine: bytes in, bytes for the guest and actions out. Reading the terminal is `input.rs`,
//! carrying out an action is the caller's.

/// Ctrl-A, as in QEMU's console: it starts a sequence.
const PREFIX: u8 = 0x01;

/// What the keys do, for a person to read.
pub const HELP: &str = "\
Ctrl-A x       end the VM
Ctrl-A h       show this help (also Ctrl-A ?)
Ctrl-A Ctrl-A  send one Ctrl-A to the guest
";

/// What a key sequence asks of the VMM. The order is that of weight: of several actions in one
/// piece of input, the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Show [`HELP`].
    Help,
    /// End the VM.
    Quit,
}

/// Takes the key sequences of [`HELP`] out of a stream of input.
///
/// Ctrl-A and a key that is not in the list both go to the guest, so that a program in the guest
/// with the same prefix (screen, another VMM) can still be used.
#[derive(Debug, Default)]
pub(super) struct EscapeParser {
    /// The last byte was a Ctrl-A whose meaning the next one decides.
    after_prefix: bool,
}

impl EscapeParser {
    /// Parses the next piece of the stream, adds to `guest` what is for the guest, and returns
    /// the greatest action found. A sequence may be split over calls anywhere; the stream goes on
    /// after an action.
    pub(super) fn feed(&mut self, input: &[u8], guest: &mut impl Extend<u8>) -> Option<Action> {
        let mut found = None;
        for &byte in input {
            if !self.after_prefix {
                match byte {
                    PREFIX => self.after_prefix = true,
                    _ => guest.extend([byte]),
                }
                continue;
            }
            self.after_prefix = false;
            match byte {
                b'x' => found = found.max(Some(Action::Quit)),
                b'h' | b'?' => found = found.max(Some(Action::Help)),
                PREFIX => guest.extend([PREFIX]),
                _ => guest.extend([PREFIX, byte]),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Feeds the pieces one by one.
    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Action>) {
        let mut parser = EscapeParser::default();
        let mut guest = Vec::new();
        let found = pieces.into_iter().map(|piece| parser.feed(piece, &mut guest)).max();
        (guest, found.flatten())
    }

    #[test]
    fn sequences() {
        let table: &[(&[u8], &[u8], Option<Action>)] = &[
            (b"", b"", None),
            (b"ls\r", b"ls\r", None),
            (b"x h ?", b"x h ?", None),
            (b"\x03\x1a\x1c", b"\x03\x1a\x1c", None),
            (b"\x01", b"", None),
            (b"\x01x", b"", Some(Action::Quit)),
            (b"\x01h", b"", Some(Action::Help)),
            (b"\x01?", b"", Some(Action::Help)),
            (b"\x01\x01", b"\x01", None),
            (b"\x01\x01x", b"\x01x", None),
            (b"\x01\x01\x01x", b"\x01", Some(Action::Quit)),
            (b"\x01a", b"\x01a", None),
            (b"\x01X", b"\x01X", None),
            (b"\x01d\x01x", b"\x01d", Some(Action::Quit)),
            (b"a\x01hb", b"ab", Some(Action::Help)),
            (b"a\x01xb\x01hc", b"abc", Some(Action::Quit)),
            (b"a\x01hb\x01xc", b"abc", Some(Action::Quit)),
        ];
        for (input, guest, action) in table {
            assert_eq!(parse([*input]), (guest.to_vec(), *action), "{input:?}");
        }
    }

    #[test]
    fn every_other_key_after_the_prefix_reaches_the_guest_with_it() {
        for key in (0..=u8::MAX).filter(|key| !b"xh?\x01".contains(key)) {
            assert_eq!(parse([&[PREFIX, key][..]]), (vec![PREFIX, key], None));
        }
    }

    #[test]
    fn help_names_every_key() {
        for key in ["Ctrl-A x", "Ctrl-A h", "Ctrl-A ?", "Ctrl-A Ctrl-A"] {
            assert!(HELP.contains(key), "{key}");
        }
    }

    /// Input in which sequences are frequent.
    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let key = prop_oneof![
            3 => Just(PREFIX),
            2 => prop::sample::select(&b"xh?"[..]),
            2 => any::<u8>(),
        ];
        vec(key, 0..64)
    }

    proptest! {
        #[test]
        fn without_the_prefix_all_passes(
            input in vec(any::<u8>().prop_filter("prefix", |b| *b != PREFIX), 0..256),
            size in 1..32_usize,
        ) {
            prop_assert_eq!(parse(input.chunks(size)), (input, None));
        }

        #[test]
        fn splitting_never_matters(input in keys(), cuts in vec(0..64_usize, 0..8)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]);
            prop_assert_eq!(parse(pieces), parse([&input[..]]));
        }
    }
}
