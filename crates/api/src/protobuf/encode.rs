//! Objects as Go writes them: fields in the order of their numbers, those that are no pointers even when they are zero, maps
//! by key.

use serde_json::{Map, Value};

use super::{
    Error, MAGIC, special,
    table::{self, Field, Label, Message, Type},
    wire::Writer,
};

const LENGTH_BYTES: usize = 4;

/// An object with its envelope.
pub fn encode(tree: &Value) -> Result<Vec<u8>, Error> {
    let text = |field: &str| tree[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let message = table::of_kind(api_version, kind).ok_or_else(|| Error::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    let mut out = Writer::of(MAGIC);
    out.nested(1, |out| {
        out.text(1, api_version);
        out.text(2, kind);
        Ok(())
    })?;
    out.nested(2, |out| write(out, message, object(tree)?, 0))?;
    // Neither encoded further nor of a type of its own.
    out.text(3, "");
    out.text(4, "");
    Ok(out.done())
}

/// One event of a watch, as a stream of them has it: four bytes of its length, then `WatchEvent` without an envelope; the object in
/// it has one.
pub fn encode_event(kind: &str, object: &Value) -> Result<Vec<u8>, Error> {
    let object = encode(object)?;
    let mut out = Writer::of(&[0; LENGTH_BYTES]);
    out.text(1, kind);
    out.nested(2, |out| {
        out.bytes(1, &object);
        Ok(())
    })?;
    let mut frame = out.done();
    let length = u32::try_from(frame.len() - LENGTH_BYTES).map_err(|_| Error::Unlike)?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn object(tree: &Value) -> Result<&Map<String, Value>, Error> {
    tree.as_object().ok_or(Error::Unlike)
}

/// The fields of a message, without its number and length.
pub(super) fn write(
    out: &mut Writer,
    message: &'static Message,
    fields: &Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > super::DEPTH_MAX {
        return Err(Error::TooDeep);
    }
    for field in message.fields() {
        if field.inline {
            inlined(out, field, fields, depth)?;
            continue;
        }
        let found = fields.get(field.json).filter(|found| !found.is_null());
        match (field.label, found) {
            (Label::Optional, Some(found)) => value(out, field.number, field.kind, found, depth)?,
            (Label::Optional, None) if !field.pointer => zero(out, field, depth)?,
            (_, None) => {}
            (Label::Repeated, Some(found)) => {
                for one in found.as_array().ok_or(Error::Unlike)? {
                    value(out, field.number, field.kind, one, depth)?;
                }
            }
            (Label::Map, Some(found)) => {
                let mut entries: Vec<(&String, &Value)> = object(found)?.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                for (key, found) in entries {
                    out.nested(field.number, |out| {
                        out.text(1, key);
                        value(out, 2, field.kind, found, depth)
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// A message whose fields are those of the one around it.
fn inlined(out: &mut Writer, field: &Field, fields: &Map<String, Value>, depth: usize) -> Result<(), Error> {
    let Type::Message(message) = field.kind else {
        return Err(Error::Unlike);
    };
    out.nested(field.number, |out| write(out, message.get(), fields, depth + 1))
}

/// What Go writes of a field that was never set.
fn zero(out: &mut Writer, field: &Field, depth: usize) -> Result<(), Error> {
    match field.kind {
        Type::Text => out.text(field.number, ""),
        // A slice that is nil.
        Type::Bytes => {}
        Type::Bool | Type::Int32 | Type::Int64 => out.number(field.number, 0),
        Type::Double => out.double(field.number, 0.0),
        Type::Message(message) => out.nested(field.number, |out| {
            special::write(message, out, &Value::Null, depth + 1)
                .unwrap_or_else(|| write(out, message.get(), &Map::new(), depth + 1))
        })?,
    }
    Ok(())
}

fn value(out: &mut Writer, number: u32, kind: Type, found: &Value, depth: usize) -> Result<(), Error> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match kind {
        Type::Text => out.text(number, found.as_str().ok_or(Error::Unlike)?),
        Type::Bytes => {
            let bytes = STANDARD.decode(found.as_str().ok_or(Error::Unlike)?);
            out.bytes(number, &bytes.map_err(|_| Error::Unlike)?);
        }
        Type::Bool => out.number(number, u64::from(found.as_bool().ok_or(Error::Unlike)?)),
        // A negative number is written as one of 64 bits.
        Type::Int32 | Type::Int64 => out.number(number, found.as_i64().ok_or(Error::Unlike)? as u64),
        Type::Double => out.double(number, found.as_f64().ok_or(Error::Unlike)?),
        Type::Message(message) => out.nested(number, |out| match special::write(message, out, found, depth + 1) {
            Some(written) => written,
            None => write(out, message.get(), object(found)?, depth + 1),
        })?,
    }
    Ok(())
}
