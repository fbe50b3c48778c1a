//! Numbers as users write them, the same for every option: decimal, or hexadecimal after
//! `0x`, with underscores between digits for the eye.

use thiserror::Error;

/// Why a text is no number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NumberError {
    /// Not written as a number.
    #[error("'{0}' is not a number: expected decimal, or hexadecimal after 0x")]
    Invalid(String),
    /// A number, but one of more than 64 bits.
    #[error("{0} does not fit in 64 bits")]
    TooLarge(String),
}

/// An unsigned number of at most 64 bits, for example `4096`, `0x1000` or `0x1_0000_0000`.
pub fn parse_u64(text: &str) -> Result<u64, NumberError> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let well_formed = digits.chars().all(|c| c.is_digit(radix) || c == '_')
        && digits.starts_with(|c| c != '_')
        && digits.ends_with(|c| c != '_');
    if !well_formed {
        return Err(NumberError::Invalid(text.to_owned()));
    }
    // The only error left to `from_str_radix` is the overflow.
    u64::from_str_radix(&digits.replace('_', ""), radix)
        .map_err(|_| NumberError::TooLarge(text.to_owned()))
}

/// The contents of a 64-bit register: an unsigned number, or a negative one down to -2^63,
/// which stands for its two's complement.
pub fn parse_bits64(text: &str) -> Result<u64, NumberError> {
    let Some(magnitude) = text.strip_prefix('-') else {
        return parse_u64(text);
    };
    match parse_u64(magnitude) {
        Ok(magnitude) if magnitude <= 1 << 63 => Ok(magnitude.wrapping_neg()),
        Ok(_) | Err(NumberError::TooLarge(_)) => Err(NumberError::TooLarge(text.to_owned())),
        Err(NumberError::Invalid(_)) => Err(NumberError::Invalid(text.to_owned())),
    }
}
