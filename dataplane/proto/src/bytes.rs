//! Checked reading and writing of big-endian fields. Reads past the end give `None`, writes past the end give [`Full`].

/// Reads from the front of a slice; a read that does not fit leaves the reader where it was.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// The buffer's end was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Appends to a caller's buffer; after [`Full`] nothing of the refused piece was written.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
    /// Octets that may be filled for now; never more than the buffer has.
    limit: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        let limit = buffer.len();
        Writer { buffer, length: 0, limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.length)
    }

    /// Keeps what is behind so many octets free until [`Writer::unlimit`].
    pub(crate) fn limit(&mut self, bytes: usize) {
        self.limit = bytes.min(self.buffer.len());
    }

    pub(crate) fn unlimit(&mut self) {
        self.limit = self.buffer.len();
    }

    /// Takes back what was written behind so many octets.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.length.checked_add(bytes.len()).filter(|end| *end <= self.limit).ok_or(Full)?;
        self.buffer.get_mut(self.length..end).ok_or(Full)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    pub(crate) fn zeros(&mut self, count: usize) -> Result<(), Full> {
        let end = self.length.checked_add(count).filter(|end| *end <= self.limit).ok_or(Full)?;
        self.buffer.get_mut(self.length..end).ok_or(Full)?.fill(0);
        self.length = end;
        Ok(())
    }

    /// Overwrites two bytes that were written before.
    pub(crate) fn patch_u16(&mut self, at: usize, value: u16) -> Result<(), Full> {
        let written = self.buffer.get_mut(..self.length).ok_or(Full)?;
        written.get_mut(at..at.saturating_add(2)).ok_or(Full)?.copy_from_slice(&value.to_be_bytes());
        Ok(())
    }

    pub(crate) fn written(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl core::fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.put(text.as_bytes()).map_err(|Full| core::fmt::Error)
    }
}
