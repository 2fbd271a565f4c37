//! Where the last lines of a file begin.

use std::io::{self, Read, Seek, SeekFrom};

/// Read backwards in pieces of this size; most tails are within one.
const PIECE_BYTES: u64 = 16 << 10;

/// The offset at which the last `lines` lines of the file begin; 0 if it has no more than that. A last line without
/// its end counts.
pub fn start_of_last<F: Read + Seek>(file: &mut F, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut seen = 0;
    let mut position = end;
    let mut piece = Vec::new();
    while position > 0 {
        let start = position.saturating_sub(PIECE_BYTES);
        file.seek(SeekFrom::Start(start))?;
        piece.resize(usize::try_from(position - start).unwrap_or(0), 0);
        file.read_exact(&mut piece)?;
        for (index, byte) in piece.iter().enumerate().rev() {
            let offset = start + index as u64;
            // The end of the last line begins no other.
            if *byte == b'\n' && offset + 1 < end {
                seen += 1;
                if seen == lines {
                    return Ok(offset + 1);
                }
            }
        }
        position = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_last_lines_are_found_at_any_length() {
        let long = "x".repeat(40_000);
        for (text, lines, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc", 1, "c"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("\n\n\n", 2, "\n\n"),
            (&format!("{long}\n{long}\n"), 1, &format!("{long}\n")),
        ] {
            let start = start_of_last(&mut Cursor::new(text), lines).unwrap();

            assert_eq!(&text[start as usize..], expected, "{lines} of {} bytes", text.len());
        }
    }
}
