//! Amounts of resources: `100m`, `1.5Gi`, `2e3`; compared and added exactly, written in upstream's canonical form.

use std::{cmp::Ordering, fmt, ops, str::FromStr};

const NANO: i128 = 1_000_000_000;
/// Upstream caps amounts at the largest 64-bit integer.
const MAX: i128 = (i64::MAX as i128) * NANO;

#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::Decimal,
    };

    pub fn from_integer(value: i64) -> Quantity {
        Quantity {
            nanos: i128::from(value) * NANO,
            format: Format::Decimal,
        }
    }

    pub fn from_milli(milli: i64) -> Quantity {
        Quantity {
            nanos: i128::from(milli) * (NANO / 1000),
            format: Format::Decimal,
        }
    }

    /// An amount of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity {
            nanos: i128::from(bytes) * NANO,
            format: Format::Binary,
        }
    }

    /// The amount, rounded up.
    pub fn value(&self) -> i64 {
        clamp(ceil(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded up.
    pub fn milli(&self) -> i64 {
        clamp(ceil(self.nanos, NANO / 1000))
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Reads what JSON may hold: a string or a bare number.
    pub fn from_json(value: &serde_json::Value) -> Option<Quantity> {
        match value {
            serde_json::Value::String(text) => text.parse().ok(),
            serde_json::Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }
}

fn ceil(value: i128, unit: i128) -> i128 {
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

fn clamp(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl FromStr for Quantity {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Quantity, Malformed> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(Malformed::Format);
        }
        let (format, base, power) = suffix_of(suffix)?;
        Ok(Quantity {
            nanos: amount(whole, fraction, base, power, negative),
            format,
        })
    }
}

/// The format and the factor `base ^ power` that a suffix stands for.
fn suffix_of(suffix: &str) -> Result<(Format, u32, i32), Malformed> {
    let known = match suffix {
        "" => (Format::Decimal, 10, 0),
        "n" => (Format::Decimal, 10, -9),
        "u" => (Format::Decimal, 10, -6),
        "m" => (Format::Decimal, 10, -3),
        "k" => (Format::Decimal, 10, 3),
        "M" => (Format::Decimal, 10, 6),
        "G" => (Format::Decimal, 10, 9),
        "T" => (Format::Decimal, 10, 12),
        "P" => (Format::Decimal, 10, 15),
        "E" => (Format::Decimal, 10, 18),
        "Ki" => (Format::Binary, 2, 10),
        "Mi" => (Format::Binary, 2, 20),
        "Gi" => (Format::Binary, 2, 30),
        "Ti" => (Format::Binary, 2, 40),
        "Pi" => (Format::Binary, 2, 50),
        "Ei" => (Format::Binary, 2, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| unknown(suffix))?;
            let exponent: i32 = exponent.parse().map_err(|_| unknown(suffix))?;
            (Format::Exponent, 10, exponent)
        }
    };
    Ok(known)
}

fn unknown(suffix: &str) -> Malformed {
    let listed = |c: char| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c);
    if suffix.chars().all(listed) {
        Malformed::Suffix
    } else {
        Malformed::Format
    }
}

/// `whole.fraction * base ^ power` in billionths, rounded away from zero, capped.
fn amount(whole: &str, fraction: &str, base: u32, power: i32, negative: bool) -> i128 {
    // Digits beyond these change nothing but the rounding: a nano is the least, the cap the most.
    let kept = &fraction[..fraction.len().min(27)];
    let beyond = fraction[kept.len()..].bytes().any(|digit| digit != b'0');
    let mut digits: i128 = 0;
    for digit in whole.bytes().chain(kept.bytes()) {
        digits = digits.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    let (mut value, mut exponent) = (digits, 9 - kept.len() as i32);
    let mut rounded = beyond;
    let factor = if base == 2 {
        1i128 << power
    } else {
        exponent = exponent.saturating_add(power);
        1
    };
    if base == 2 {
        match value.checked_mul(factor) {
            Some(product) => value = product,
            // Losing digits below a nano first, where there are any.
            None => {
                while exponent < 0 && value.checked_mul(factor).is_none() {
                    rounded |= value % 10 != 0;
                    value /= 10;
                    exponent += 1;
                }
                value = value.saturating_mul(factor);
            }
        }
    }
    while exponent > 0 && value != 0 && value < MAX {
        value = value.saturating_mul(10);
        exponent -= 1;
    }
    while exponent < 0 && value != 0 {
        rounded |= value % 10 != 0;
        value /= 10;
        exponent += 1;
    }
    if rounded {
        value = value.saturating_add(1);
    }
    let value = value.min(MAX);
    if negative { -value } else { value }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANO;
        match self.format {
            Format::Binary if !small => {
                // Binary amounts are whole bytes.
                let mut value = ceil(self.nanos, NANO);
                let mut suffixes = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
                let mut suffix = "";
                while value % 1024 == 0 {
                    let Some(next) = suffixes.next() else { break };
                    value /= 1024;
                    suffix = next;
                }
                write!(f, "{value}{suffix}")
            }
            format => {
                let (mut value, mut exponent) = (self.nanos, -9);
                if value == 0 {
                    return f.write_str("0");
                }
                while value % 1000 == 0 {
                    value /= 1000;
                    exponent += 3;
                }
                if format == Format::Exponent {
                    return if exponent == 0 {
                        write!(f, "{value}")
                    } else {
                        write!(f, "{value}e{exponent}")
                    };
                }
                // The cap is below 10^19, so there is a suffix for every exponent.
                let suffix = match exponent {
                    -9 => "n",
                    -6 => "u",
                    -3 => "m",
                    0 => "",
                    3 => "k",
                    6 => "M",
                    9 => "G",
                    12 => "T",
                    15 => "P",
                    _ => "E",
                };
                write!(f, "{value}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl ops::Add for Quantity {
    type Output = Quantity;

    /// The sum, in the format of the first operand that is not zero.
    fn add(self, other: Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos + other.nanos).clamp(-MAX, MAX),
            format: if self.is_zero() { other.format } else { self.format },
        }
    }
}

impl ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos - other.nanos).clamp(-MAX, MAX),
            format: if self.is_zero() { other.format } else { self.format },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_written_in_canonical_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("100Ki", "100Ki"),
            ("512", "512"),
            ("2000", "2k"),
            ("1024", "1024"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e-3", "12e-3"),
            ("-1.5", "-1500m"),
            ("+1", "1"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.0000000001", "1n"),
            ("100000000000000000000", "9223372036854775807"),
            ("9E", "9E"),
            ("100Ei", "9223372036854775807"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        for text in ["", "m", "1.2.3", "1Zi", "a", "--1", "1 Gi", "1e", "0x1", "1ki"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_rounded_up() {
        let quantity: Quantity = "1.0001".parse().unwrap();

        assert_eq!(quantity.value(), 2);
        assert_eq!(quantity.milli(), 1001);
        assert_eq!("100m".parse::<Quantity>().unwrap().value(), 1);
    }

    proptest! {
        #[test]
        fn the_canonical_form_reads_back(value in -1_000_000_000i64..1_000_000_000, suffix in "(n|u|m|k|M|Ki|Mi|Gi)?") {
            let quantity: Quantity = format!("{value}{suffix}").parse().unwrap();
            let again: Quantity = quantity.to_string().parse().unwrap();

            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn any_text_is_answered(text in "[-+]?[0-9.]{0,60}[a-zA-Z0-9]{0,4}") {
            let _ = text.parse::<Quantity>().map(|quantity| quantity.to_string());
        }
    }
}
