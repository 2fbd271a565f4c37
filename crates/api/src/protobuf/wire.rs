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
