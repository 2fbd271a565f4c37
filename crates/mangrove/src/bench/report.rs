//! What a measurement prints: a table for people, the same figures as JSON for programs.

use serde_json::{Map, Value};

use crate::{cli::Output, control::print_json};

pub struct Report {
    /// How it was measured, in a sentence.
    method: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    json: Map<String, Value>,
}

impl Report {
    pub fn new(method: String, columns: &[&'static str]) -> Report {
        Report {
            method,
            columns: columns.to_vec(),
            rows: Vec::new(),
            json: Map::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.json.insert(name.to_owned(), value.into());
    }

    pub fn print(self, output: Option<Output>) -> anyhow::Result<()> {
        let Report {
            method,
            columns,
            rows,
            mut json,
        } = self;
        if output == Some(Output::Json) {
            json.insert("method".to_owned(), method.into());
            json.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
            return print_json(&Value::Object(json));
        }
        println!("{method}\n");
        let header: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(&rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        for line in lines {
            let cells = line.iter().zip(&widths).enumerate();
            let cells = cells.map(|(at, (cell, &width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        Ok(())
    }
}

/// A figure to two significant places after the point where it is small, to none where it is large.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
