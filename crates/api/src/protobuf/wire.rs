//! Protobuf's wire format: numbered fields, one after the other.

use super::Error;

pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// Of a type that no Kubernetes message uses; skipped.
    Fixed32,
}

pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// The next field's number and value; `None` at the end.
    pub fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, Error> {
        let Some(tag) = self.next_varint()? else {
            return Ok(None);
        };
        let number = u32::try_from(tag >> 3).map_err(|_| Error::Broken)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.next_varint()?.ok_or(Error::Broken)?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| Error::Broken)?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.next_varint()?.ok_or(Error::Broken)?;
                Wire::Bytes(self.take(usize::try_from(length).map_err(|_| Error::Broken)?)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(Error::Broken),
        };
        Ok(Some((number, wire)))
    }

    /// A bare number; `None` at the end.
    pub fn next_varint(&mut self) -> Result<Option<u64>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(Error::Broken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Broken)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// What is written, front to back.
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn of(begin: &[u8]) -> Writer {
        Writer(begin.to_vec())
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }

    pub fn number(&mut self, number: u32, value: u64) {
        self.varint(u64::from(number) << 3);
        self.varint(value);
    }

    pub fn double(&mut self, number: u32, value: f64) {
        self.varint(u64::from(number) << 3 | 1);
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    pub fn bytes(&mut self, number: u32, value: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, number: u32, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    /// A message of what `write` writes. Most are short, so that their length is one byte; others are moved up.
    pub fn nested(&mut self, number: u32, write: impl FnOnce(&mut Writer) -> Result<(), Error>) -> Result<(), Error> {
        self.varint(u64::from(number) << 3 | 2);
        let at = self.0.len();
        self.0.push(0);
        write(self)?;
        let length = self.0.len() - at - 1;
        if length < 0x80 {
            self.0[at] = length as u8;
        } else {
            let mut prefix = Writer(Vec::with_capacity(10));
            prefix.varint(length as u64);
            self.0.splice(at..=at, prefix.0);
        }
        Ok(())
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
