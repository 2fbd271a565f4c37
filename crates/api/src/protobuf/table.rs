//! Which field number of which message is which JSON field.

use std::{collections::HashMap, io::Read, sync::OnceLock};

use flate2::read::GzDecoder;

static DATA: &[u8] = include_bytes!("../../data/protobuf.tsv.gz");

/// Packages whose names are not the group's first word.
const PACKAGES: [(&str, &str); 3] = [
    ("", "core"),
    ("internal.apiserver.k8s.io", "apiserverinternal"),
    ("apiregistration.k8s.io", "apiregistration"),
];

/// Where kinds are that every group has (`DeleteOptions`).
const COMMON: &str = "meta.v1";

#[derive(Debug)]
pub struct Message {
    /// `core.v1.Pod`
    pub name: &'static str,
    /// By number.
    fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub json: &'static str,
    pub kind: Type,
    pub label: Label,
    /// Its fields are those of the message around it.
    pub inline: bool,
    /// Its zero is not the same as its absence.
    pub pointer: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    Optional,
    Repeated,
    /// From strings; the field's type is the values'.
    Map,
}

#[derive(Clone, Copy, Debug)]
pub enum Type {
    Text,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Message(Ref),
}

/// A message, by its place in the table.
#[derive(Clone, Copy, Debug)]
pub struct Ref(usize);

impl Ref {
    pub fn get(self) -> &'static Message {
        &table().messages[self.0]
    }
}

impl Message {
    pub fn field(&self, number: u32) -> Option<&Field> {
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some(&self.fields[at])
    }

    /// By number.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

struct Table {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, usize>,
}

/// The message of a kind.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = PACKAGES
        .iter()
        .find(|(name, _)| *name == group)
        .map_or_else(|| group.split('.').next().unwrap_or_default(), |(_, package)| package);
    named(&format!("{package}.{version}.{kind}")).or_else(|| named(&format!("{COMMON}.{kind}")))
}

pub fn named(name: &str) -> Option<&'static Message> {
    let table = table();
    table.by_name.get(name).map(|at| &table.messages[*at])
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut text = String::new();
        GzDecoder::new(DATA)
            .read_to_string(&mut text)
            .expect("the embedded table is gzip of text");
        // Once a process; names are slices of it.
        let text: &'static str = String::leak(text);
        let names = text.lines().filter(|line| !line.starts_with('\t'));
        let by_name: HashMap<&str, usize> = names.enumerate().map(|(at, name)| (name, at)).collect();
        let mut messages: Vec<Message> = Vec::with_capacity(by_name.len());
        for line in text.lines() {
            match line.strip_prefix('\t') {
                None => messages.push(Message {
                    name: line,
                    fields: Vec::new(),
                }),
                Some(line) => {
                    let field = field(line, &by_name).expect("the embedded table is well formed");
                    messages
                        .last_mut()
                        .expect("a message comes before its fields")
                        .fields
                        .push(field);
                }
            }
        }
        Table { messages, by_name }
    })
}

/// `number name type flags`, separated by tabs.
fn field(line: &'static str, by_name: &HashMap<&str, usize>) -> Option<Field> {
    let mut columns = line.split('\t');
    let number = columns.next()?.parse().ok()?;
    let json = columns.next()?;
    let kind = match columns.next()? {
        "string" => Type::Text,
        "bytes" => Type::Bytes,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        message => Type::Message(Ref(*by_name.get(message)?)),
    };
    let flags = columns.next()?;
    Some(Field {
        number,
        json,
        kind,
        label: match flags.as_bytes().first()? {
            b'o' => Label::Optional,
            b'r' => Label::Repeated,
            _ => Label::Map,
        },
        inline: flags.contains('i'),
        pointer: flags.contains('p'),
    })
}
