//! The text form of label selectors, read by upstream's grammar token by token, so that refusals name the same token.

use serde_json::Value;

use super::{Operator, Requirement};
use crate::{
    field::{self, Path},
    names,
    status::Cause,
};

pub fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    Parser::new(text).parse()
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Symbol(symbol) => symbol,
            Token::End => "",
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Parser {
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let Some(first) = rest.chars().next() else { break };
            if is_symbol(first) {
                // The longest symbol that the text starts with.
                let symbol = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"]
                    .into_iter()
                    .find(|symbol| rest.starts_with(symbol))
                    .expect("every symbol character is a symbol");
                tokens.push(Token::Symbol(symbol));
                rest = &rest[symbol.len()..];
            } else {
                let end = rest
                    .find(|c: char| is_symbol(c) || matches!(c, ' ' | '\t' | '\r' | '\n'))
                    .unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
        Parser { tokens, at: 0 }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement = self
                        .requirement()
                        .map_err(|problem| format!("unable to parse requirement: {problem}"))?;
                    requirements.push(requirement);
                    match self.next() {
                        Token::End => return Ok(requirements),
                        Token::Symbol(",") => match self.peek() {
                            Token::Word(_) | Token::Symbol("!") => {}
                            other => return Err(format!("found '{}', expected: identifier after ','", other.text())),
                        },
                        other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
                    }
                }
                Token::End => return Ok(requirements),
                other => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.text()
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = *self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if let Some(problem) = names::qualified_name(&key).first() {
            return Err(shown(&field::invalid(&Path::ROOT.field("key"), key, problem)));
        }
        if negated {
            return Ok(requirement(key, Operator::DoesNotExist, Vec::new()));
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(requirement(key, Operator::Exists, Vec::new()));
        }
        let (operator, values) = match self.next() {
            Token::Word(word) if word == "in" => (Operator::In, self.values()?),
            Token::Word(word) if word == "notin" => (Operator::NotIn, self.values()?),
            Token::Symbol("=" | "==") => (Operator::In, vec![self.value()?]),
            Token::Symbol("!=") => (Operator::NotIn, vec![self.value()?]),
            Token::Symbol(">") => (Operator::GreaterThan, vec![self.value()?]),
            Token::Symbol("<") => (Operator::LessThan, vec![self.value()?]),
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        };
        check_values(&key, operator, &values)?;
        Ok(requirement(key, operator, values))
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(_) => Ok(self.next().text().to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let opening = self.next();
        if opening != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", opening.text()));
        }
        let mut values = Vec::new();
        match self.peek() {
            Token::Symbol(")") => {
                self.next();
                return Ok(values);
            }
            Token::Word(_) | Token::Symbol(",") => {}
            other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
        }
        // Between two commas, and between a comma and a parenthesis, stands the empty value.
        let mut expects_value = true;
        loop {
            match self.next() {
                Token::Word(word) if expects_value => {
                    values.push(word);
                    expects_value = false;
                }
                Token::Symbol(",") => {
                    if expects_value {
                        values.push(String::new());
                    }
                    expects_value = true;
                }
                Token::Symbol(")") => {
                    if expects_value {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                other if expects_value => {
                    return Err(format!("found '{}', expected: ',', or identifier", other.text()));
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn requirement(key: String, operator: Operator, mut values: Vec<String>) -> Requirement {
    values.sort();
    values.dedup();
    Requirement { key, operator, values }
}

fn check_values(key: &str, operator: Operator, values: &[String]) -> Result<(), String> {
    let path = Path::ROOT.field("values");
    if matches!(operator, Operator::In | Operator::NotIn) && values.is_empty() {
        let detail = "for 'in', 'notin' operators, values set can't be empty";
        return Err(shown(&field::invalid(&path, Value::Array(Vec::new()), detail)));
    }
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) && values[0].parse::<i64>().is_err() {
        let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
        return Err(shown(&field::invalid(&path.index(0), values[0].as_str(), detail)));
    }
    for (at, value) in values.iter().enumerate() {
        if let Some(problem) = names::label_value(value).first() {
            let path = path.index(at);
            return Err(shown(&field::invalid(&path.key(key), value.as_str(), problem)));
        }
    }
    Ok(())
}

fn shown(cause: &Cause) -> String {
    format!("{}: {}", cause.field, cause.message)
}
