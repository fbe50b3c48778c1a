//! The values in a [`Row`](super::Row), and how they are written and read.

use std::fmt::{self, Display};

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::exit::VcpuId;
use crate::trace::format::digits;
use crate::trace::record::{MarkerName, Reason, Source};

/// A number that is written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub u64);

/// A thread by its name, such as `vcpu0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread(pub Source);

/// A reason by its name, such as `io-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonName(pub Reason);

/// A marker by its name, with escapes for what is no printable text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker(pub MarkerName);

/// The value of one field, as it is written.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    /// A record of this kind has no such field.
    Empty,
    /// In decimal.
    Number(u64),
    /// In hexadecimal.
    Hex(u64),
    /// True or false.
    Flag(bool),
    /// As it is.
    Text(&'a str),
    /// As it shows itself.
    Shown(&'a dyn Display),
}

impl<'a> Cell<'a> {
    /// The cell of a number, if there is one.
    pub fn number(value: Option<impl Into<u64>>) -> Self {
        value.map_or(Self::Empty, |value| Self::Number(value.into()))
    }

    /// The cell of a number in hexadecimal, if there is one.
    pub fn hex(value: Option<Hex>) -> Self {
        value.map_or(Self::Empty, |value| Self::Hex(value.0))
    }

    /// The cell of a text, if there is one.
    pub fn text(value: Option<&'a str>) -> Self {
        value.map_or(Self::Empty, Self::Text)
    }

    /// The cell of what shows itself, if there is something.
    pub fn shown(value: Option<&'a impl Display>) -> Self {
        value.map_or(Self::Empty, |value| Self::Shown(value))
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Empty => serializer.serialize_none(),
            Self::Number(value) => serializer.serialize_u64(value),
            Self::Hex(value) => serializer.serialize_str(digits::Hex::new(value).as_str()),
            Self::Flag(value) => serializer.serialize_bool(value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Shown(value) => serializer.collect_str(value),
        }
    }
}

impl Default for Thread {
    fn default() -> Self {
        Self(Source::Supervisor)
    }
}

impl Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value that is made of a text, for serde.
struct FromText<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
}

impl<T> de::Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText { expected: "a number such as 0x3f8", read: hex })
    }
}

fn hex(text: &str) -> Option<Hex> {
    let digits = text.strip_prefix("0x")?;
    // `from_str_radix` would take a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain).map(Hex)
}

impl<'de> Deserialize<'de> for Thread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "vcpu and a number, devices or supervisor";
        deserializer.deserialize_str(FromText { expected, read: thread })
    }
}

fn thread(text: &str) -> Option<Thread> {
    let source = match text {
        "devices" => Source::Devices,
        "supervisor" => Source::Supervisor,
        _ => {
            let digits = text.strip_prefix("vcpu")?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            Source::Vcpu(digits.parse().ok().filter(|_| plain).map(VcpuId)?)
        }
    };
    Some(Thread(source))
}

impl<'de> Deserialize<'de> for ReasonName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| Reason::named(text).map(ReasonName);
        deserializer.deserialize_str(FromText { expected: "the name of an exit reason", read })
    }
}

impl<'de> Deserialize<'de> for Marker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let name = unescape(text)?;
            (name.len() <= MarkerName::MAX).then(|| Marker(MarkerName::new(&name)))
        };
        deserializer.deserialize_str(FromText { expected: "the name of a marker", read })
    }
}

/// The bytes that [`MarkerName`] shows as `text`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let mut chars = escaped.chars();
        let plain = match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (number, after) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                chars = after.chars();
                char::from_u32(u32::from_str_radix(number, 16).ok()?)?
            }
            'x' => {
                let (number, after) = chars.as_str().split_at_checked(2)?;
                chars = after.chars();
                bytes.push(u8::from_str_radix(number, 16).ok()?);
                rest = chars.as_str();
                continue;
            }
            quoted @ ('\\' | '\'' | '"') => quoted,
            _ => return None,
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
        rest = chars.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_marker_is_read_as_it_is_shown(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let name = MarkerName::new(&bytes);
            prop_assert_eq!(unescape(&name.to_string()), Some(name.as_bytes().to_vec()));
        }

        #[test]
        fn a_marker_of_text_is_read_as_it_is_shown(
            text in "\\PC{0,8}|[\\\\\"'\n\u{301}\u{7f}]{0,8}",
        ) {
            let name = MarkerName::new(text.as_bytes());
            prop_assert_eq!(unescape(&name.to_string()), Some(name.as_bytes().to_vec()));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\\\ux{}0-9é]{0,12}") {
            let _ = (unescape(&text), thread(&text), hex(&text));
        }
    }

    #[test]
    fn signs_are_no_digits() {
        assert_eq!(hex("0x3f8"), Some(Hex(0x3f8)));
        assert_eq!(hex("0x+1"), None);
        assert_eq!(hex("0x"), None);
        assert_eq!(thread("vcpu7"), Some(Thread(Source::Vcpu(VcpuId(7)))));
        assert_eq!(thread("vcpu+7"), None);
        assert_eq!(thread("vcpu4294967296"), None);
    }
}
