//! Sets of completion indexes, as a Job's status writes them: `0,2-5,7`.

use std::collections::BTreeSet;

/// Far more than upstream lets a Job have (100,000); what is written above it is not read.
const INDEX_MAX: u32 = 1_000_000;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Indexes(BTreeSet<u32>);

impl Indexes {
    /// Those below `completions`; what cannot be read is left out.
    pub fn parse(text: &str, completions: u32) -> Indexes {
        let mut indexes = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
                indexes.extend(from..=to.min(INDEX_MAX));
            }
        }
        indexes.retain(|index| *index < completions);
        Indexes(indexes)
    }

    pub fn insert(&mut self, index: u32) -> bool {
        self.0.insert(index)
    }

    pub fn contains(&self, index: u32) -> bool {
        self.0.contains(&index)
    }

    pub fn len(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX)
    }
}

impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &index in &self.0 {
            match runs.last_mut() {
                Some((_, to)) if *to + 1 == index => *to = index,
                _ => runs.push((index, index)),
            }
        }
        for (place, (from, to)) in runs.into_iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match to - from {
                0 => write!(f, "{from}")?,
                // Upstream writes two as a list.
                1 => write!(f, "{from},{to}")?,
                _ => write!(f, "{from}-{to}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        for text in ["", "0", "0,2", "0,1", "0,2-5,7", "1-3,9"] {
            assert_eq!(Indexes::parse(text, 10).to_string(), text);
        }
        assert_eq!(Indexes::parse("0-9,x,3-,12", 5).to_string(), "0-4");
    }
}
