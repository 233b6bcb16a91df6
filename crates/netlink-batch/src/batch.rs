use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkSerializable};

/// Offsets of the flags and of the sequence number in a header (`struct nlmsghdr`).
const FLAGS: std::ops::Range<usize> = 6..8;
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// Encoded requests to send together.
///
/// A batch is plain bytes: a program can build it without a socket, and inspect, count or store it. Requests are
/// numbered from 0 in the order in which they were pushed. A [`Failure`](crate::Failure) names its request by that
/// number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each request starts in `bytes`. Invariant: ascending, each on a 4-byte boundary.
    starts: Vec<usize>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for this many requests of about `size` bytes each.
    pub fn with_capacity(requests: usize, size: usize) -> Self {
        Self { bytes: Vec::with_capacity(requests * size), starts: Vec::with_capacity(requests) }
    }

    /// Adds a request and returns its number. `flags` are the `NLM_F_*` flags beyond `NLM_F_REQUEST`, such as
    /// `NLM_F_CREATE`. [`Socket`](crate::Socket) asks for acknowledgements, not the batch.
    ///
    /// # Panics
    ///
    /// The encoders of `netlink_packet_core` panic on an attribute of 64 KiB or more, because its length field has 16
    /// bits. Split such lists over several requests.
    pub fn push<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> usize {
        self.push_with(message.message_type(), flags, |out| {
            let start = out.len();
            out.resize(start + message.buffer_len(), 0);
            message.serialize(&mut out[start..]);
        })
    }

    /// Adds a request whose payload `write` appends, for callers that encode without the traits of
    /// `netlink_packet_core`. Returns its number, as [`push`](Self::push) does.
    ///
    /// ```
    /// use netlink_batch::Batch;
    ///
    /// const RTM_GETLINK: u16 = 18;
    /// let mut batch = Batch::new();
    /// batch.push_with(RTM_GETLINK, 0, |payload| payload.extend([0; 16]));
    /// assert_eq!(batch.request(0)[..4], 32u32.to_ne_bytes());
    /// ```
    ///
    /// # Panics
    ///
    /// If the payload has 4 GiB or more.
    pub fn push_with(&mut self, message_type: u16, flags: u16, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 16]);
        write(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).expect("a request is shorter than 4 GiB");
        let header = &mut self.bytes[start..];
        header[0..4].copy_from_slice(&length.to_ne_bytes());
        header[4..6].copy_from_slice(&message_type.to_ne_bytes());
        header[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.starts.push(start);
        self.starts.len() - 1
    }

    /// The number of requests.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the batch has no requests.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The requests as they would be sent one after the other, without sequence numbers.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of one request.
    ///
    /// # Panics
    ///
    /// If no request has this number.
    pub fn request(&self, number: usize) -> &[u8] {
        &self.bytes[self.starts[number]..self.end(number)]
    }

    /// Splits the requests into ranges of at most `bytes` bytes and `requests` requests. A request that is larger than
    /// `bytes` becomes a separate range.
    pub(crate) fn chunks(&self, bytes: usize, requests: usize) -> Vec<std::ops::Range<usize>> {
        let mut chunks = Vec::new();
        let mut first = 0;
        for number in 0..self.len() {
            let size = self.end(number) - self.starts[first];
            if number > first && (size > bytes || number - first >= requests) {
                chunks.push(first..number);
                first = number;
            }
        }
        if first < self.len() {
            chunks.push(first..self.len());
        }
        chunks
    }

    /// The bytes of a range of requests, with sequence numbers from `sequence` on.
    pub(crate) fn numbered(&mut self, requests: std::ops::Range<usize>, sequence: u32) -> &[u8] {
        let (start, end) = (self.starts[requests.start], self.end(requests.end - 1));
        for (offset, &at) in self.starts[requests.clone()].iter().enumerate() {
            let number = sequence.wrapping_add(offset as u32);
            self.bytes[at..][SEQUENCE].copy_from_slice(&number.to_ne_bytes());
        }
        &self.bytes[start..end]
    }

    /// The kernel then acknowledges the request even if it succeeds.
    pub(crate) fn ask_acknowledgement(&mut self, number: usize) {
        let flags = &mut self.bytes[self.starts[number]..][FLAGS];
        let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&with_ack.to_ne_bytes());
    }

    fn end(&self, number: usize) -> usize {
        self.starts.get(number + 1).copied().unwrap_or(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Blob(usize);

    impl NetlinkSerializable for Blob {
        fn message_type(&self) -> u16 {
            0x10
        }
        fn buffer_len(&self) -> usize {
            self.0
        }
        fn serialize(&self, buffer: &mut [u8]) {
            buffer.fill(0xaa);
        }
    }

    fn batch(sizes: &[usize]) -> Batch {
        let mut batch = Batch::new();
        for (number, size) in sizes.iter().enumerate() {
            assert_eq!(batch.push(Blob(*size), 0), number);
        }
        batch
    }

    #[test]
    fn requests_start_on_four_byte_boundaries() {
        let batch = batch(&[1, 2, 3, 4]);
        assert_eq!(batch.starts, [0, 20, 40, 60]);
        assert_eq!(batch.as_bytes().len(), 80);
        assert_eq!(batch.request(0)[..4], 17u32.to_ne_bytes());
    }

    #[test]
    fn push_and_push_with_write_the_same_bytes() {
        let (mut encoded, mut appended) = (Batch::new(), Batch::new());
        for size in [5, 8] {
            encoded.push(Blob(size), NLM_F_ACK);
            appended.push_with(0x10, NLM_F_ACK, |payload| payload.extend(vec![0xaa; size]));
        }
        assert_eq!(encoded, appended);
    }

    #[test]
    fn chunks_respect_the_byte_and_the_request_limit() {
        let batch = batch(&[4; 10]);
        assert_eq!(batch.chunks(1 << 20, 4), [0..4, 4..8, 8..10]);
        assert_eq!(batch.chunks(60, 100), [0..3, 3..6, 6..9, 9..10]);
    }

    #[test]
    fn oversized_request_becomes_a_separate_chunk() {
        assert_eq!(batch(&[4, 400, 4]).chunks(60, 100), [0..1, 1..2, 2..3]);
        assert_eq!(batch(&[]).chunks(60, 100), []);
    }

    #[test]
    fn only_the_chosen_request_asks_for_an_acknowledgement() {
        let mut batch = batch(&[4; 3]);
        batch.ask_acknowledgement(1);
        let bytes = batch.numbered(0..2, u32::MAX).to_vec();
        assert_eq!(bytes[SEQUENCE], u32::MAX.to_ne_bytes());
        assert_eq!(bytes[20..][SEQUENCE], 0u32.to_ne_bytes());
        assert_eq!(bytes[FLAGS], NLM_F_REQUEST.to_ne_bytes());
        assert_eq!(bytes[20..][FLAGS], (NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    }
}
