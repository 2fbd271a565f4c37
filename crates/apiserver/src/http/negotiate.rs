//! What form an answer takes (`Accept`) and how a body is to be read (`Content-Type`).

use api::{Reason, Status};
use http::{HeaderMap, header};

use crate::{
    context::{Form, TableObject},
    query::Query,
};

/// More alternatives than any client sends (client-go: four).
const CLAUSES_MAX: usize = 32;

/// An encoding that we write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Json,
    Yaml,
    /// Of built-in kinds.
    Protobuf,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => PROTOBUF,
        }
    }
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What was agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreed {
    pub encoding: Encoding,
    pub form: Form,
}

/// One alternative of an `Accept` header.
#[derive(Clone, PartialEq, Debug)]
pub struct Clause {
    /// `application/json`, in lower case.
    pub media: String,
    parameters: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Clause {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(String, String)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| {
                (
                    key.trim().to_ascii_lowercase(),
                    value.trim().trim_matches('"').to_owned(),
                )
            })
            .collect();
        let quality = parameters
            .iter()
            .find(|(key, _)| key == "q")
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(1.0);
        Clause {
            media,
            parameters,
            quality,
        }
    }

    /// Wildcards come after what is named.
    fn vagueness(&self) -> u8 {
        match self.media.as_str() {
            "*/*" => 2,
            media if media.ends_with("/*") => 1,
            _ => 0,
        }
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media.as_str() {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            PROTOBUF => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    fn form(&self, query: &Query) -> Option<Form> {
        let meta = self.parameter("g") == Some("meta.k8s.io") && self.parameter("v") == Some("v1");
        match self.parameter("as") {
            None | Some("") => Some(Form::Object),
            Some("Table") if meta => Some(Form::Table {
                include: table_object(query),
            }),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => Some(Form::Metadata),
            Some(_) => None,
        }
    }
}

/// The alternatives in the order in which the client wants them. None given means "anything".
pub fn accepted(headers: &HeaderMap) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .take(CLAUSES_MAX)
        .map(Clause::parse)
        .filter(|clause| clause.quality > 0.0)
        .collect();
    if clauses.is_empty() && !headers.contains_key(header::ACCEPT) {
        clauses.push(Clause::parse("*/*"));
    }
    clauses.sort_by(|one, other| {
        other
            .quality
            .total_cmp(&one.quality)
            .then(one.vagueness().cmp(&other.vagueness()))
    });
    clauses
}

/// Which of the things that the client takes we give it. A kind without `messages` has no protobuf, and tables have none.
pub fn agree(headers: &HeaderMap, query: &Query, watch: Streamed, messages: bool) -> Result<Agreed, Status> {
    let agreed = accepted(headers).iter().find_map(|clause| {
        let encoding = clause.encoding()?;
        let form = clause.form(query)?;
        match encoding {
            Encoding::Yaml if watch == Streamed::Yes => None,
            Encoding::Protobuf if !messages || matches!(form, Form::Table { .. }) => None,
            _ => Some(Agreed { encoding, form }),
        }
    });
    let all = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];
    agreed.ok_or_else(|| not_acceptable(if messages { &all } else { &all[..2] }))
}

/// A stream of frames can't be YAML.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streamed {
    Yes,
    No,
}

/// `encodings` are those that there are.
pub fn not_acceptable(encodings: &[Encoding]) -> Status {
    let types: Vec<&str> = encodings.iter().map(|encoding| encoding.content_type()).collect();
    Status::new(
        Reason::NotAcceptable,
        format!("only the following media types are accepted: {}", types.join(", ")),
    )
}

fn table_object(query: &Query) -> TableObject {
    match query.include_object.as_str() {
        "None" => TableObject::None,
        "Object" => TableObject::Object,
        _ => TableObject::Metadata,
    }
}

/// An encoding that we read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEncoding {
    Json,
    Yaml,
    /// What typed Go clients write, kubectl among them.
    Protobuf,
}

/// The encoding of a body that carries an object. No header is JSON, as upstream has it.
pub fn body_encoding(headers: &HeaderMap) -> Result<BodyEncoding, Status> {
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(BodyEncoding::Json),
        "application/yaml" => Ok(BodyEncoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyEncoding::Protobuf),
        other => Err(Status::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format ({other}) - accepted media types include: \
                 application/json, application/yaml, application/vnd.kubernetes.protobuf"
            ),
        )),
    }
}

/// The media type of the body without its parameters, in lower case.
pub fn content_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(accept: &str, messages: bool) -> Result<Agreed, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        agree(&headers, &Query::default(), Streamed::No, messages).map_err(|status| status.code())
    }

    fn agreed(encoding: Encoding, form: Form) -> Result<Agreed, u16> {
        Ok(Agreed { encoding, form })
    }

    #[test]
    fn clients_get_the_first_thing_they_want_that_we_have() {
        use Encoding::{Json, Protobuf, Yaml};
        let table = Form::Table {
            include: TableObject::Metadata,
        };
        for (accept, expected) in [
            ("application/json", agreed(Json, Form::Object)),
            ("*/*", agreed(Json, Form::Object)),
            (
                "application/vnd.kubernetes.protobuf, */*",
                agreed(Protobuf, Form::Object),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                agreed(Protobuf, Form::Object),
            ),
            ("application/vnd.kubernetes.protobuf", agreed(Protobuf, Form::Object)),
            ("application/cbor", Err(406)),
            ("text/html", Err(406)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                agreed(Json, table.clone()),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io",
                agreed(Json, table),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;\
                 as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                agreed(Protobuf, Form::Metadata),
            ),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", Err(406)),
            ("application/json;q=0.5, application/yaml", agreed(Yaml, Form::Object)),
            ("application/json;q=0", Err(406)),
        ] {
            assert_eq!(ask(accept, true), expected, "{accept}");
        }
    }

    #[test]
    fn what_a_definition_makes_has_no_protobuf() {
        assert_eq!(
            ask("application/vnd.kubernetes.protobuf,application/json", false),
            agreed(Encoding::Json, Form::Object)
        );
        assert_eq!(ask("application/vnd.kubernetes.protobuf", false), Err(406));
    }

    #[test]
    fn a_watch_is_never_yaml() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "application/yaml".parse().unwrap());

        assert!(agree(&headers, &Query::default(), Streamed::Yes, true).is_err());
    }

    #[test]
    fn bodies_that_nobody_reads_are_refused_clearly() {
        for media in ["application/cbor", "text/plain"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, media.parse().unwrap());

            let refused = body_encoding(&headers).unwrap_err();

            assert_eq!(refused.code(), 415);
            assert!(refused.message.contains(media));
        }
    }
}
