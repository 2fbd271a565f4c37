//! Messages whose JSON is not the object of their fields.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Error, MAGIC, encode, envelope, read as plain,
    table::{Ref, named},
    text_of,
    wire::{Reader, Wire, Writer},
};

/// `None` if the message is an ordinary one.
pub fn read(message: Ref, bytes: &[u8], depth: usize) -> Option<Result<Value, Error>> {
    Some(match message.get().name {
        "meta.v1.Time" | "meta.v1.Timestamp" => time(bytes, Precision::Seconds),
        "meta.v1.MicroTime" => time(bytes, Precision::Micros),
        "meta.v1.Duration" => duration(bytes),
        "quantity.Quantity" | "quantity.QuantityValue" => quantity(bytes),
        "intstr.IntOrString" => int_or_string(bytes),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => raw(bytes, depth),
        name if name == "meta.v1.Verbs" || name.ends_with(".ExtraValue") => strings(bytes),
        "apiextensions.v1.JSONSchemaPropsOrBool" => schema_or(bytes, depth, Other::Bool),
        "apiextensions.v1.JSONSchemaPropsOrArray" => schema_or(bytes, depth, Other::Schemas),
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => schema_or(bytes, depth, Other::Strings),
        _ => return None,
    })
}

/// The other way; `None` if the message is an ordinary one.
pub fn write(message: Ref, out: &mut Writer, found: &Value, depth: usize) -> Option<Result<(), Error>> {
    Some(match message.get().name {
        "meta.v1.Time" | "meta.v1.Timestamp" => write_time(out, found, Precision::Seconds),
        "meta.v1.MicroTime" => write_time(out, found, Precision::Micros),
        "meta.v1.Duration" => write_duration(out, found),
        "quantity.Quantity" | "quantity.QuantityValue" => write_quantity(out, found),
        "intstr.IntOrString" => write_int_or_string(out, found),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => write_raw(out, found),
        name if name == "meta.v1.Verbs" || name.ends_with(".ExtraValue") => write_strings(out, 1, found),
        "apiextensions.v1.JSONSchemaPropsOrBool" => write_schema_or(out, found, depth, Other::Bool),
        "apiextensions.v1.JSONSchemaPropsOrArray" => write_schema_or(out, found, depth, Other::Schemas),
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => write_schema_or(out, found, depth, Other::Strings),
        _ => return None,
    })
}

/// Of one that was never set; `None` if the message is an ordinary one.
pub fn write_zero(message: Ref, out: &mut Writer) -> Option<Result<(), Error>> {
    match message.get().name {
        "intstr.IntOrString" => Some(write_int_or_string(out, &Value::from(0))),
        "quantity.Quantity" | "quantity.QuantityValue" => Some(write_quantity(out, &Value::from("0"))),
        "meta.v1.Duration" => {
            out.number(1, 0);
            Some(Ok(()))
        }
        // A zero time has no fields, and nothing else is made of its own fields.
        _ => write(message, &mut Writer::of(&[]), &Value::Null, 0).map(|_| Ok(())),
    }
}

fn write_time(out: &mut Writer, found: &Value, precision: Precision) -> Result<(), Error> {
    const SECOND: i128 = 1_000_000_000;
    if found.is_null() {
        return Ok(());
    }
    let at: Timestamp = text(found)?.parse().map_err(|_| Error::Unlike)?;
    let nanos = at.as_nanosecond();
    // The fraction is counted up from the second before it, also before 1970.
    let (seconds, rest) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    let rest = match precision {
        Precision::Seconds => 0,
        Precision::Micros => rest / 1_000 * 1_000,
    };
    out.number(1, seconds as i64 as u64);
    out.number(2, rest as u64);
    Ok(())
}

/// Go's `time.ParseDuration`, for what [`duration`] gives.
fn write_duration(out: &mut Writer, found: &Value) -> Result<(), Error> {
    let text = text(found)?;
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut nanos = 0_f64;
    while !rest.is_empty() && rest != "0" {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(Error::Unlike)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit {
            "h" => 3.6e12,
            "m" => 6e10,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return Err(Error::Unlike),
        };
        nanos += number.parse::<f64>().map_err(|_| Error::Unlike)? * factor;
        rest = after;
    }
    let nanos = if negative { -nanos } else { nanos };
    out.number(1, nanos.round() as i64 as u64);
    Ok(())
}

fn write_quantity(out: &mut Writer, found: &Value) -> Result<(), Error> {
    match found {
        Value::Number(number) => out.text(1, &number.to_string()),
        found => out.text(1, text(found)?),
    }
    Ok(())
}

fn write_int_or_string(out: &mut Writer, found: &Value) -> Result<(), Error> {
    let (is_text, number, text) = match found {
        Value::String(text) => (1, 0, text.as_str()),
        found => (0, found.as_i64().ok_or(Error::Unlike)?, ""),
    };
    out.number(1, is_text);
    out.number(2, number as u64);
    out.text(3, text);
    Ok(())
}

fn write_raw(out: &mut Writer, found: &Value) -> Result<(), Error> {
    let json = serde_json::to_vec(found).map_err(|_| Error::Unlike)?;
    out.bytes(1, &json);
    Ok(())
}

fn write_strings(out: &mut Writer, number: u32, found: &Value) -> Result<(), Error> {
    for one in found.as_array().ok_or(Error::Unlike)? {
        out.text(number, text(one)?);
    }
    Ok(())
}

fn write_schema_or(out: &mut Writer, found: &Value, depth: usize, other: Other) -> Result<(), Error> {
    let message = named("apiextensions.v1.JSONSchemaProps").ok_or(Error::Unlike)?;
    let schema = |out: &mut Writer, number: u32, found: &Value| {
        let fields = found.as_object().ok_or(Error::Unlike)?;
        out.nested(number, |out| encode::write(out, message, fields, depth + 1))
    };
    match (found, other) {
        (Value::Bool(allows), Other::Bool) => out.number(1, u64::from(*allows)),
        (found, Other::Bool) => {
            out.number(1, 1);
            schema(out, 2, found)?;
        }
        (Value::Array(list), Other::Schemas) => {
            for one in list {
                schema(out, 2, one)?;
            }
        }
        (found @ Value::Array(_), Other::Strings) => write_strings(out, 2, found)?,
        (found, Other::Schemas | Other::Strings) => schema(out, 1, found)?,
    }
    Ok(())
}

fn text(found: &Value) -> Result<&str, Error> {
    found.as_str().ok_or(Error::Unlike)
}

#[derive(PartialEq)]
enum Precision {
    Seconds,
    Micros,
}

/// An empty one is Go's zero time: null.
fn time(bytes: &[u8], precision: Precision) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(number)) => seconds = number as i64,
            (2, Wire::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    if precision == Precision::Seconds {
        nanos = 0;
    }
    let at = Timestamp::new(seconds, nanos).map_err(|_| Error::Broken)?;
    let text = match precision {
        Precision::Seconds => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Precision::Micros => at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    };
    Ok(text.into())
}

/// Go's `time.Duration.String`, for whole seconds and what is left of them.
fn duration(bytes: &[u8]) -> Result<Value, Error> {
    let mut nanos = 0_i64;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Varint(number)) = (number, wire) {
            nanos = number as i64;
        }
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = format!(".{rest:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let text = if hours > 0 {
        format!("{sign}{hours}h{minutes}m{seconds}{fraction}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{seconds}{fraction}s")
    } else {
        format!("{sign}{seconds}{fraction}s")
    };
    Ok(text.into())
}

fn quantity(bytes: &[u8]) -> Result<Value, Error> {
    let mut text = "0";
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            text = text_of(bytes)?;
        }
    }
    Ok(text.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number_value, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(number)) => is_text = number == 1,
            (2, Wire::Varint(number)) => number_value = number as i64 as i32,
            (3, Wire::Bytes(bytes)) => text = text_of(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number_value.into() })
}

/// JSON as bytes, or an object in protobuf.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut found = &[][..];
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            found = bytes;
        }
    }
    if found.is_empty() {
        return Ok(Value::Null);
    }
    match found.strip_prefix(MAGIC) {
        Some(body) if depth <= super::DEPTH_MAX => envelope(body, depth + 1),
        Some(_) => Err(Error::TooDeep),
        None => serde_json::from_slice(found).map_err(|_| Error::Broken),
    }
}

fn strings(bytes: &[u8]) -> Result<Value, Error> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            list.push(Value::from(text_of(bytes)?));
        }
    }
    Ok(list.into())
}

#[derive(PartialEq)]
enum Other {
    Bool,
    Schemas,
    Strings,
}

fn schema_or(bytes: &[u8], depth: usize, other: Other) -> Result<Value, Error> {
    let message = named("apiextensions.v1.JSONSchemaProps").ok_or(Error::Broken)?;
    let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire, &other) {
            (1, Wire::Varint(number), Other::Bool) => allows = number != 0,
            (2, Wire::Bytes(bytes), Other::Bool) | (1, Wire::Bytes(bytes), Other::Schemas | Other::Strings) => {
                schema = Some(plain(message, bytes, depth + 1)?);
            }
            (2, Wire::Bytes(bytes), Other::Schemas) => list.push(plain(message, bytes, depth + 1)?),
            (2, Wire::Bytes(bytes), Other::Strings) => list.push(text_of(bytes)?.into()),
            _ => {}
        }
    }
    Ok(match (schema, other) {
        (Some(schema), _) => schema,
        (None, Other::Bool) => allows.into(),
        (None, _) => list.into(),
    })
}
