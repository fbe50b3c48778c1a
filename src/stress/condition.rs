//! [`Condition`]: which outcomes `--expect` and `--forbid` are about.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::number::{NumberError, parse_u64};
use crate::stress::histogram::Label;

/// What a label's text is written after.
const LABEL: &str = "label=";

/// Some outcomes: those that at least one of the alternatives is about.
///
/// As text the alternatives are separated by commas: values, ranges, values under a mask, and
/// labels, for example `0x3,0x10-0x1f,0x1/0xff,label=reordered`. A label that has a comma in it
/// cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(Vec<Alternative>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Alternative {
    /// Not backwards; both ends are in it.
    Range { first: u64, last: u64 },
    /// The value has no bit that the mask has not.
    Masked { value: u64, mask: u64 },
    /// The whole label: not empty, without a comma, and not longer than labels are.
    Label(String),
}

/// Why a text is no [`Condition`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// Nothing, or nothing beside a comma.
    #[error("'{0}' is missing an outcome: expected some with commas between them")]
    Missing(String),
    /// Not one of the forms.
    #[error(
        "'{0}' is no outcome: expected a value such as 0x3, a range such as 0x10-0x1f, \
         VALUE/MASK such as 0x1/0xff, or label=TEXT"
    )]
    Form(String),
    /// A number of more than 64 bits.
    #[error(transparent)]
    Number(NumberError),
    /// A range whose end is before its start.
    #[error("the range {first:#x}-{last:#x} runs backwards")]
    Backwards {
        /// The value before the dash.
        first: u64,
        /// The value after the dash.
        last: u64,
    },
    /// A value that is never seen under its mask.
    #[error("{value:#x}/{mask:#x} matches nothing: {value:#x} has bits that the mask has not")]
    Unmaskable {
        /// The value.
        value: u64,
        /// The mask.
        mask: u64,
    },
    /// A label of no text.
    #[error("'{LABEL}' is missing the text of the label")]
    NoLabel,
    /// A label that is longer than any outcome's.
    #[error(
        "the label '{0}' is longer than {max} bytes, and no outcome's is",
        max = Label::MAX_BYTES
    )]
    LongLabel(String),
}

impl Condition {
    /// Whether an outcome with this value and label is one of them.
    pub fn matches(&self, value: u64, label: &str) -> bool {
        self.0.iter().any(|alternative| match alternative {
            Alternative::Range { first, last } => (first..=last).contains(&&value),
            Alternative::Masked { value: masked, mask } => value & mask == *masked,
            Alternative::Label(text) => text == label,
        })
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last } if first == last => write!(f, "{first:#x}"),
            Self::Range { first, last } => write!(f, "{first:#x}-{last:#x}"),
            Self::Masked { value, mask } => write!(f, "{value:#x}/{mask:#x}"),
            Self::Label(text) => write!(f, "{LABEL}{text}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, alternative) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{alternative}")?;
        }
        Ok(())
    }
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let alternative = |item: &str| match item {
            "" => Err(ConditionError::Missing(text.to_owned())),
            _ => item.parse(),
        };
        text.split(',').map(alternative).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Alternative {
    type Err = ConditionError;

    fn from_str(item: &str) -> Result<Self, ConditionError> {
        if let Some(label) = item.strip_prefix(LABEL) {
            return match label.len() {
                0 => Err(ConditionError::NoLabel),
                1..=Label::MAX_BYTES => Ok(Self::Label(label.to_owned())),
                _ => Err(ConditionError::LongLabel(label.to_owned())),
            };
        }
        // Of a form that is not one the whole says more than the part that is no number.
        let number = |text| {
            parse_u64(text).map_err(|error| match error {
                NumberError::Invalid(_) => ConditionError::Form(item.to_owned()),
                NumberError::TooLarge(_) => ConditionError::Number(error),
            })
        };
        if let Some((value, mask)) = item.split_once('/') {
            let (value, mask) = (number(value)?, number(mask)?);
            if value & !mask != 0 {
                return Err(ConditionError::Unmaskable { value, mask });
            }
            return Ok(Self::Masked { value, mask });
        }
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(ConditionError::Backwards { first, last });
        }
        Ok(Self::Range { first, last })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_matches_what_it_says() {
        for (text, matching, others) in [
            ("17", &[17][..], &[16, 18][..]),
            ("0x3,5", &[3, 5], &[4]),
            ("0x10-0x1f", &[0x10, 0x15, 0x1f], &[0xf, 0x20]),
            ("0-0xffffffffffffffff", &[0, u64::MAX], &[]),
            ("0x1/0xff", &[1, 0x101], &[0, 2, 0x102]),
            ("0/0", &[0, u64::MAX], &[]),
            ("label=x,0x0", &[0], &[1]),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert!(matching.iter().all(|value| condition.matches(*value, "")), "{text}");
            assert!(!others.iter().any(|value| condition.matches(*value, "")), "{text}");
        }
        let condition: Condition = "label=0:rax=0; 1:rbx=0;,label=b".parse().unwrap();
        let labels = ["0:rax=0; 1:rbx=0;", "b", "", "0:rax=0;", "B"];
        assert_eq!(
            labels.map(|label| condition.matches(0, label)),
            [true, true, false, false, false]
        );
    }

    #[test]
    fn what_is_no_condition_is_shown() {
        let long = "x".repeat(65);
        for (text, why) in [
            ("", "'' is missing an outcome"),
            ("1,,2", "'1,,2' is missing an outcome"),
            ("0x3,", "'0x3,' is missing an outcome"),
            ("1, 2", "' 2' is no outcome: expected a value such as 0x3"),
            ("-1", "'-1' is no outcome"),
            ("1-", "'1-' is no outcome"),
            ("1-2-3", "'1-2-3' is no outcome"),
            ("1/2/3", "'1/2/3' is no outcome"),
            ("ok", "'ok' is no outcome"),
            ("Label=ok", "'Label=ok' is no outcome"),
            ("0x10000000000000000", "0x10000000000000000 does not fit in 64 bits"),
            ("9-0x8", "the range 0x9-0x8 runs backwards"),
            ("0x1ff/0xff", "0x1ff/0xff matches nothing: 0x1ff has bits that the mask has not"),
            ("label=", "'label=' is missing the text of the label"),
            (&format!("label={long}"), &format!("the label '{long}' is longer than 64 bytes")),
        ] {
            let error = text.parse::<Condition>().unwrap_err().to_string();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    fn alternative() -> impl Strategy<Value = Alternative> {
        prop_oneof![
            any::<u64>().prop_map(|value| Alternative::Range { first: value, last: value }),
            any::<[u64; 2]>()
                .prop_map(|[a, b]| { Alternative::Range { first: a.min(b), last: a.max(b) } }),
            any::<[u64; 2]>()
                .prop_map(|[value, mask]| { Alternative::Masked { value: value & mask, mask } }),
            "[^,]{1,16}".prop_map(Alternative::Label),
        ]
    }

    proptest! {
        #[test]
        fn text_and_back(alternatives in vec(alternative(), 1..5)) {
            let condition = Condition(alternatives);
            prop_assert_eq!(condition.to_string().parse(), Ok(condition));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9a-fx,/=label-]{0,20}|.{0,20}") {
            if let Ok(condition) = text.parse::<Condition>() {
                prop_assert_eq!(condition.to_string().parse(), Ok(condition));
            }
        }
    }
}
