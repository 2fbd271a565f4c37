//! Messages as JSON, by their descriptors, as etcd's gateway has them: names as in the .proto files, 64-bit numbers as
//! text, bytes in base64, enums by name, and nothing of what has its default value.

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Map, Value, json};

use crate::wire::DESCRIPTORS;

struct Field {
    name: String,
    json_name: String,
    number: u32,
    kind: Kind,
    repeated: bool,
}

enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Text,
    Bytes,
    Enum(String),
    Message(String),
}

#[derive(Default)]
pub struct Types {
    messages: HashMap<String, Vec<Field>>,
    enums: HashMap<String, Vec<(String, i32)>>,
    /// What goes into and comes out of a method.
    methods: HashMap<String, (String, String)>,
}

/// What there is in etcd's API.
pub static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("the build script wrote descriptors");
    let mut types = Types::default();
    for file in files.file {
        let scope = format!(".{}", file.package());
        for message in &file.message_type {
            types.add(&scope, message);
        }
        for of in &file.enum_type {
            types.add_enum(&scope, of);
        }
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let of = (method.input_type().to_owned(), method.output_type().to_owned());
                types.methods.insert(path, of);
            }
        }
    }
    types
});

/// Deeper than any request that etcd's clients make; its transactions nest.
const DEPTH_MAX: usize = 100;

pub type Wrong = String;

impl Types {
    fn add(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let fields = message.field.iter().filter_map(|field| {
            let kind = match field.r#type() {
                Type::Bool => Kind::Bool,
                Type::Int32 => Kind::Int32,
                Type::Int64 => Kind::Int64,
                Type::Uint32 => Kind::Uint32,
                Type::Uint64 => Kind::Uint64,
                Type::String => Kind::Text,
                Type::Bytes => Kind::Bytes,
                Type::Enum => Kind::Enum(field.type_name().to_owned()),
                Type::Message => Kind::Message(field.type_name().to_owned()),
                // etcd's API has no other.
                _ => return None,
            };
            Some(Field {
                name: field.name().to_owned(),
                json_name: field.json_name().to_owned(),
                number: field.number() as u32,
                kind,
                repeated: field.label() == Label::Repeated,
            })
        });
        let fields = fields.collect();
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
        for of in &message.enum_type {
            self.add_enum(&name, of);
        }
        self.messages.insert(name, fields);
    }

    fn add_enum(&mut self, scope: &str, of: &prost_types::EnumDescriptorProto) {
        let values = of.value.iter().map(|value| (value.name().to_owned(), value.number()));
        self.enums.insert(format!("{scope}.{}", of.name()), values.collect());
    }

    /// The request of a method.
    pub fn request(&self, method: &str, json: &Value) -> Result<Bytes, Wrong> {
        let (input, _) = self.methods.get(method).ok_or("unknown method")?;
        let mut out = Vec::new();
        self.encode(input, json, 0, &mut out)?;
        Ok(out.into())
    }

    /// The answer of a method.
    pub fn response(&self, method: &str, message: Bytes) -> Result<Value, Wrong> {
        let (_, output) = self.methods.get(method).ok_or("unknown method")?;
        self.decode(output, message, 0)
    }

    fn encode(&self, name: &str, json: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), Wrong> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply".into());
        }
        let fields = self.messages.get(name).ok_or("unknown message")?;
        let object = match json {
            Value::Object(object) => object,
            Value::Null => return Ok(()),
            _ => return Err(format!("{name} has to be an object")),
        };
        for (key, value) in object {
            let named = |field: &&Field| field.name == *key || field.json_name == *key;
            // As etcd's gateway: a newer client may say more than is known here.
            let Some(field) = fields.iter().find(named) else {
                continue;
            };
            match value {
                Value::Null => {}
                Value::Array(values) if field.repeated => {
                    values
                        .iter()
                        .try_for_each(|value| self.encode_one(field, value, depth, out))?;
                }
                _ if field.repeated => return Err(format!("{key} has to be an array")),
                value => self.encode_one(field, value, depth, out)?,
            }
        }
        Ok(())
    }

    fn encode_one(&self, field: &Field, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), Wrong> {
        let wrong = || format!("invalid value {value} for field {}", field.name);
        let number = match &field.kind {
            Kind::Bool => u64::from(value.as_bool().ok_or_else(wrong)?),
            Kind::Int32 | Kind::Int64 => signed(value).ok_or_else(wrong)? as u64,
            Kind::Uint32 | Kind::Uint64 => unsigned(value).ok_or_else(wrong)?,
            Kind::Enum(name) => {
                let values = self.enums.get(name).map_or(&[][..], |values| values);
                let named = value
                    .as_str()
                    .and_then(|text| values.iter().find(|(name, _)| name == text));
                let number = named.map(|(_, number)| i64::from(*number)).or_else(|| value.as_i64());
                number.ok_or_else(wrong)? as u64
            }
            Kind::Text | Kind::Bytes | Kind::Message(_) => {
                let bytes = match &field.kind {
                    Kind::Text => value.as_str().ok_or_else(wrong)?.as_bytes().to_vec(),
                    Kind::Bytes => base64(value.as_str().ok_or_else(wrong)?).ok_or_else(wrong)?,
                    Kind::Message(name) => {
                        let mut bytes = Vec::new();
                        self.encode(name, value, depth + 1, &mut bytes)?;
                        bytes
                    }
                    _ => Vec::new(),
                };
                encode_key(field.number, WireType::LengthDelimited, out);
                encode_varint(bytes.len() as u64, out);
                out.extend_from_slice(&bytes);
                return Ok(());
            }
        };
        encode_key(field.number, WireType::Varint, out);
        encode_varint(number, out);
        Ok(())
    }

    fn decode(&self, name: &str, mut bytes: Bytes, depth: usize) -> Result<Value, Wrong> {
        if depth > DEPTH_MAX {
            return Err("it is nested too deeply".into());
        }
        let fields = self.messages.get(name).ok_or("unknown message")?;
        let mut object = Map::new();
        let broken = |_| "an answer is broken".to_owned();
        while bytes.has_remaining() {
            let (number, wire) = decode_key(&mut bytes).map_err(broken)?;
            let field = fields.iter().find(|field| field.number == number);
            let value = match wire {
                WireType::Varint => {
                    let number = decode_varint(&mut bytes).map_err(broken)?;
                    field.and_then(|field| self.number(&field.kind, number))
                }
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).map_err(broken)? as usize;
                    if length > bytes.len() {
                        return Err("an answer is broken".into());
                    }
                    let part = bytes.split_to(length);
                    match field.map(|field| (&field.kind, field.repeated)) {
                        Some((Kind::Text, _)) => Some(String::from_utf8_lossy(&part).into()),
                        Some((Kind::Bytes, _)) => Some(STANDARD.encode(&part).into()),
                        Some((Kind::Message(name), _)) => Some(self.decode(name, part, depth + 1)?),
                        _ => None,
                    }
                }
                _ => return Err("an answer is broken".into()),
            };
            let (Some(field), Some(value)) = (field, value) else {
                continue;
            };
            if !field.repeated {
                object.insert(field.name.clone(), value);
            } else if let Value::Array(values) = object.entry(field.name.as_str()).or_insert_with(|| json!([])) {
                values.push(value);
            }
        }
        Ok(Value::Object(object))
    }

    fn number(&self, kind: &Kind, number: u64) -> Option<Value> {
        Some(match kind {
            Kind::Bool => (number != 0).into(),
            Kind::Int32 => (number as i32).into(),
            Kind::Uint32 => (number as u32).into(),
            Kind::Int64 => (number as i64).to_string().into(),
            Kind::Uint64 => number.to_string().into(),
            Kind::Enum(name) => {
                let named = self.enums.get(name)?.iter().find(|(_, value)| *value == number as i32);
                named.map_or((number as i32).into(), |(name, _)| name.as_str().into())
            }
            Kind::Text | Kind::Bytes | Kind::Message(_) => return None,
        })
    }
}

fn signed(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn unsigned(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Of either alphabet, with or without its end.
fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::{
        alphabet,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = |alphabet| GeneralPurpose::new(alphabet, config);
    let standard = engine(&alphabet::STANDARD).decode(text);
    standard.or_else(|_| engine(&alphabet::URL_SAFE).decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        etcdserverpb::{self, RangeRequest, RangeResponse, ResponseHeader},
        mvccpb,
    };

    #[test]
    fn requests_are_read_and_answers_written() {
        let json = json!({"key": "Zm9v", "limit": "7", "sort_order": "DESCEND", "keysOnly": true});
        let bytes = TYPES.request("/etcdserverpb.KV/Range", &json).unwrap();
        let request = RangeRequest::decode(bytes).unwrap();
        assert_eq!(
            (&request.key[..], request.limit, request.sort_order, request.keys_only),
            (&b"foo"[..], 7, 2, true)
        );

        let response = RangeResponse {
            header: Some(ResponseHeader {
                cluster_id: u64::MAX,
                ..Default::default()
            }),
            kvs: vec![mvccpb::KeyValue {
                key: "foo".into(),
                lease: -1,
                ..Default::default()
            }],
            more: false,
            count: 1,
        };
        let json = TYPES
            .response("/etcdserverpb.KV/Range", response.encode_to_vec().into())
            .unwrap();
        let expected = json!({
            "header": {"cluster_id": "18446744073709551615"},
            "kvs": [{"key": "Zm9v", "lease": "-1"}],
            "count": "1",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_transaction_goes_through() {
        let json = json!({
            "compare": [{"target": "MOD", "key": "YQ==", "mod_revision": 0}],
            "success": [{"request_put": {"key": "YQ==", "value": "Yg"}}, {"requestTxn": {}}],
        });
        let bytes = TYPES.request("/etcdserverpb.KV/Txn", &json).unwrap();
        let request = etcdserverpb::TxnRequest::decode(bytes).unwrap();
        assert_eq!((request.compare.len(), request.success.len()), (1, 2));
        // A field of a newer client.
        TYPES
            .request("/etcdserverpb.KV/Txn", &json!({"comparison": []}))
            .unwrap();
        assert!(TYPES.request("/etcdserverpb.KV/Put", &json!({"key": "!"})).is_err());
    }
}
