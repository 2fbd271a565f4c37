//! Kubernetes quantities (`100m`, `64Mi`, `1e3`) as whole numbers of a unit.

/// Nano-units would overflow for exbibytes; 1/1000 is what CPU needs, and what upstream's `MilliValue` gives.
/// Rounds up, as upstream does. `None` if the text is not a quantity.
pub fn milli(text: &str) -> Option<i64> {
    scaled(text, 3)
}

/// The quantity in whole units (bytes, Pods), rounded up.
pub fn whole(text: &str) -> Option<i64> {
    scaled(text, 0)
}

fn scaled(text: &str, decimals: u32) -> Option<i64> {
    let digits_end = text
        .char_indices()
        .find(|(index, c)| !(c.is_ascii_digit() || *c == '.' || (*index == 0 && (*c == '-' || *c == '+'))))
        .map_or(text.len(), |(index, _)| index);
    let (number, suffix) = text.split_at(digits_end);
    let negative = number.starts_with('-');
    let (integer, fraction) = match number.trim_start_matches(['-', '+']).split_once('.') {
        Some((integer, fraction)) => (integer, fraction),
        None => (number.trim_start_matches(['-', '+']), ""),
    };
    if integer.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut mantissa: i128 = 0;
    for digit in integer.bytes().chain(fraction.bytes()) {
        mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let (numerator, mut exponent): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    exponent = exponent
        .checked_sub(i32::try_from(fraction.len()).ok()?)?
        .checked_add(i32::try_from(decimals).ok()?)?;
    let mut value = mantissa.checked_mul(numerator)?;
    if exponent >= 0 {
        value = value.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)?;
    } else {
        // Beyond 38 digits the divisor exceeds any mantissa; what is left is a fraction, rounded up.
        let divisor = 10i128.checked_pow(exponent.unsigned_abs()).unwrap_or(i128::MAX);
        value = value / divisor + i128::from(value % divisor != 0);
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_upstream_reads_them() {
        for (text, in_milli, in_whole) in [
            ("1", Some(1000), Some(1)),
            ("100m", Some(100), Some(1)),
            ("0.5", Some(500), Some(1)),
            ("1.5Gi", Some(1610612736000), Some(1610612736)),
            ("64Mi", Some(67108864000), Some(67108864)),
            ("1e3", Some(1000000), Some(1000)),
            ("1E", None, Some(1_000_000_000_000_000_000)),
            ("12k", Some(12_000_000), Some(12_000)),
            ("1n", Some(1), Some(1)),
            (".5", Some(500), Some(1)),
            ("", None, None),
            ("m", None, None),
            ("1.2.3", None, None),
            ("1Zi", None, None),
            ("99999999999999999999999999999999999999999", None, None),
            ("1e999999999", None, None),
            ("1e-999999999", Some(1), Some(1)),
        ] {
            assert_eq!(milli(text), in_milli, "{text} in thousandths");
            assert_eq!(whole(text), in_whole, "{text} in units");
        }
    }
}
