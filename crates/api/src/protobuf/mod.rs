//! Kubernetes' protobuf, as the JSON it stands for, and back: what typed Go clients speak.
//!
//! One decoder and one encoder for all messages, driven by [`table`]; [`special`] has the few whose JSON is not their fields.

mod encode;
mod special;
mod table;
mod wire;

use serde_json::{Map, Value};

pub use encode::{encode, encode_event};
use table::{Field, Label, Message, Type};
use wire::{Reader, Wire};

/// What every encoded object begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// As deep as any JSON that is read.
const DEPTH_MAX: usize = 128;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error("the body does not begin with the bytes of a Kubernetes protobuf object")]
    NoMagic,
    #[error("the protobuf of the body is cut short or broken")]
    Broken,
    #[error("the protobuf of the body is nested too deeply")]
    TooDeep,
    #[error("no message is known for kind {kind:?} in version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("the body's encoding {0:?} is not known")]
    Encoding(String),
    #[error("the object is not as its kind is, so that it has no protobuf")]
    Unlike,
}

/// Reads an object with its envelope; `apiVersion` and `kind` are the envelope's.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let body = bytes.strip_prefix(MAGIC).ok_or(Error::NoMagic)?;
    envelope(body, 0)
}

/// `runtime.Unknown`: what it is, and its bytes.
fn envelope(bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    let (mut raw, mut encoding) = (&[][..], String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut reader = Reader::new(meta);
                while let Some((number, wire)) = reader.field()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => api_version = text_of(text)?.to_owned(),
                        (2, Wire::Bytes(text)) => kind = text_of(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(text)) => encoding = text_of(text)?.to_owned(),
            _ => {}
        }
    }
    if !encoding.is_empty() {
        return Err(Error::Encoding(encoding));
    }
    let Some(message) = table::of_kind(&api_version, &kind) else {
        return Err(Error::UnknownKind { api_version, kind });
    };
    let mut tree = read(message, raw, depth)?;
    tree["apiVersion"] = api_version.into();
    tree["kind"] = kind.into();
    Ok(tree)
}

/// A message as the JSON object of its fields.
fn read(message: &'static Message, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep);
    }
    let mut fields = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        // A field that is not known is one of a newer client's; it is dropped, as an unknown field of JSON is.
        if let Some(field) = message.field(number) {
            set(&mut fields, field, wire, depth)?;
        }
    }
    Ok(Value::Object(fields))
}

fn set(fields: &mut Map<String, Value>, field: &'static Field, wire: Wire<'_>, depth: usize) -> Result<(), Error> {
    match field.label {
        Label::Repeated => {
            let list = fields.entry(field.json).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else {
                return Err(Error::Broken);
            };
            match (field.kind, wire) {
                // Numbers may come packed.
                (Type::Int32 | Type::Int64 | Type::Bool, Wire::Bytes(packed)) => {
                    let mut reader = Reader::new(packed);
                    while let Some(number) = reader.next_varint()? {
                        list.push(scalar(field.kind, Wire::Varint(number))?);
                    }
                }
                (_, wire) => list.push(value(field.kind, wire, depth)?),
            }
        }
        Label::Map => {
            let Wire::Bytes(entry) = wire else {
                return Err(Error::Broken);
            };
            let (mut key, mut found) = (String::new(), None);
            let mut reader = Reader::new(entry);
            while let Some((number, wire)) = reader.field()? {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => key = text_of(text)?.to_owned(),
                    (2, wire) => found = Some(value(field.kind, wire, depth)?),
                    _ => {}
                }
            }
            let found = match found {
                Some(found) => found,
                None => empty(field.kind, depth)?,
            };
            let map = fields.entry(field.json).or_insert_with(|| Value::Object(Map::new()));
            match map {
                Value::Object(map) => map.insert(key, found),
                _ => return Err(Error::Broken),
            };
        }
        Label::Optional => {
            let found = value(field.kind, wire, depth)?;
            if field.inline {
                if let Value::Object(inner) = found {
                    fields.extend(inner);
                }
            } else if field.pointer || !is_zero(&found) {
                fields.insert(field.json.to_owned(), found);
            }
        }
    }
    Ok(())
}

/// Go writes all fields that are no pointers; their zeros mean "not set", as they are left out of its JSON.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(_) => false,
    }
}

fn value(kind: Type, wire: Wire<'_>, depth: usize) -> Result<Value, Error> {
    match (kind, wire) {
        (Type::Message(message), Wire::Bytes(bytes)) => match special::read(message, bytes, depth + 1) {
            Some(read) => read,
            None => read(message.get(), bytes, depth + 1),
        },
        (kind, wire) => scalar(kind, wire),
    }
}

fn empty(kind: Type, depth: usize) -> Result<Value, Error> {
    match kind {
        Type::Int32 | Type::Int64 | Type::Bool => scalar(kind, Wire::Varint(0)),
        Type::Double => scalar(kind, Wire::Fixed64(0)),
        Type::Text | Type::Bytes | Type::Message(_) => value(kind, Wire::Bytes(&[]), depth),
    }
}

fn scalar(kind: Type, wire: Wire<'_>) -> Result<Value, Error> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match (kind, wire) {
        (Type::Text, Wire::Bytes(bytes)) => Ok(text_of(bytes)?.into()),
        (Type::Bytes, Wire::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        (Type::Bool, Wire::Varint(number)) => Ok((number != 0).into()),
        // A negative number is written as one of 64 bits.
        (Type::Int32, Wire::Varint(number)) => Ok((number as i64 as i32).into()),
        (Type::Int64, Wire::Varint(number)) => Ok((number as i64).into()),
        (Type::Double, Wire::Fixed64(bits)) => {
            let number = f64::from_bits(bits);
            // As JSON has it: a whole number has no fraction.
            if number.fract() == 0.0 && number.abs() < 1e15 {
                return Ok((number as i64).into());
            }
            serde_json::Number::from_f64(number)
                .map(Value::Number)
                .ok_or(Error::Broken)
        }
        _ => Err(Error::Broken),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Broken)
}

#[cfg(test)]
mod tests;
