//! Queries and dumps.

use std::iter;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};

use super::Socket;
use crate::{
    Batch, Error,
    reply::{Reply, read_datagram},
};

/// Maximum number of reads of a dump that is interrupted each time.
const READS: usize = 10;

impl Socket {
    /// Sends one query and returns the messages that answer it.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects the query, [`Error::Decode`] if an answer is malformed.
    pub fn query<M>(&mut self, message: M) -> Result<Vec<M>, Error>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut batch = Batch::new();
        batch.push(message, NLM_F_ACK);
        self.ask(batch, decode)
    }

    /// Sends one query, as [`query`](Self::query) does, for callers that encode without the traits of
    /// `netlink_packet_core`. `payload` follows the netlink header. `read` gets the type and the payload of each
    /// answer.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects the query.
    pub fn query_with<T>(
        &mut self,
        message_type: u16,
        payload: &[u8],
        mut read: impl FnMut(u16, &[u8]) -> T,
    ) -> Result<Vec<T>, Error> {
        let mut batch = Batch::new();
        batch.push_with(message_type, NLM_F_ACK, |out| out.extend_from_slice(payload));
        self.ask(batch, |header, payload| Ok(read(header.message_type, payload)))
    }

    fn ask<T>(
        &mut self,
        mut batch: Batch,
        mut read: impl FnMut(&NetlinkHeader, &[u8]) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let sequence = self.send(&mut batch, 0..1)?;
        let mut answers = Vec::new();
        let mut acknowledged = false;
        self.drain(|header, reply| {
            if header.sequence_number != sequence {
                return Ok(());
            }
            match reply {
                Reply::Error(error) if error.errno() == 0 => acknowledged = true,
                Reply::Error(error) => return Err(error.into()),
                Reply::Message(payload) => answers.push(read(header, payload)?),
                Reply::End => {}
            }
            Ok(())
        })?;
        if acknowledged { Ok(answers) } else { Err(Error::NoReply) }
    }

    /// Lists the kernel's objects (`NLM_F_DUMP`). If the kernel reports that the list is not one consistent state, it
    /// is read again, a few times. Not every subsystem reports that: IPVS does not.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects the request, [`Error::Decode`] if an answer is malformed,
    /// [`Error::Interrupted`] if no list was consistent.
    pub fn dump<M>(&mut self, message: M) -> Result<Vec<M>, Error>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut batch = Batch::new();
        batch.push(message, NLM_F_DUMP);
        self.list(batch, |header, payload| decode(header, payload).map(Some))
    }

    /// Lists the kernel's objects, as [`dump`](Self::dump) does, with bytes as in [`query_with`](Self::query_with). The
    /// list has the values that `read` returns.
    ///
    /// ```
    /// use netlink_batch::{Protocol, Socket, attribute::{find, text}};
    ///
    /// // Of `linux/rtnetlink.h` and `linux/if_link.h`. `struct ifinfomsg` has 16 bytes, and attributes follow.
    /// const RTM_GETLINK: u16 = 18;
    /// const IFLA_IFNAME: u16 = 3;
    ///
    /// let mut socket = Socket::open(Protocol::Route)?;
    /// let names = socket.dump_with(RTM_GETLINK, &[0; 16], |_, link| {
    ///     find(link.get(16..)?, IFLA_IFNAME).map(|name| text(name).into_owned())
    /// })?;
    /// assert!(names.contains(&"lo".to_owned()));
    /// # Ok::<(), netlink_batch::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects the request, [`Error::Interrupted`] if no list was consistent.
    pub fn dump_with<T>(
        &mut self,
        message_type: u16,
        payload: &[u8],
        mut read: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut batch = Batch::new();
        batch.push_with(message_type, NLM_F_DUMP, |out| out.extend_from_slice(payload));
        self.list(batch, |header, payload| Ok(read(header.message_type, payload)))
    }

    /// Lists the kernel's objects and hands each message to `read` as it arrives, so the list takes no memory. The
    /// bytes are as in [`query_with`](Self::query_with).
    ///
    /// The socket reads the list only once, because it cannot take back a message. If the kernel reports that the list
    /// is not one consistent state, the error comes after the last message. Even without an error, the list can have an
    /// object twice, or lack an object that was created or deleted meanwhile. While `read` runs, the list waits. `read`
    /// can send requests on another socket, even requests that delete listed objects.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects the request, [`Error::Interrupted`] if the list is not consistent.
    pub fn dump_each(
        &mut self,
        message_type: u16,
        payload: &[u8],
        mut read: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.push_with(message_type, NLM_F_DUMP, |out| out.extend_from_slice(payload));
        self.list_once(&mut batch, |header, payload| {
            read(header.message_type, payload);
            Ok(())
        })
    }

    fn list<T>(
        &mut self,
        mut batch: Batch,
        mut read: impl FnMut(&NetlinkHeader, &[u8]) -> Result<Option<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        until_consistent(|| {
            let mut list = Vec::new();
            self.list_once(&mut batch, |header, payload| {
                list.extend(read(header, payload)?);
                Ok(())
            })?;
            Ok(list)
        })
    }

    fn list_once(
        &mut self,
        batch: &mut Batch,
        mut read: impl FnMut(&NetlinkHeader, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sequence = self.send(batch, 0..1)?;
        let (mut ended, mut interrupted) = (false, false);
        let mut outcome = Ok(());
        while !ended {
            self.receive(0)?.ok_or(Error::NoReply)?;
            let read = read_datagram(&self.incoming, |header, reply| {
                if header.sequence_number != sequence {
                    return Ok(());
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match reply {
                    Reply::Message(payload) => read(header, payload)?,
                    Reply::End => ended = true,
                    Reply::Error(error) => {
                        ended = true;
                        if error.errno() != 0 {
                            return Err(error.into());
                        }
                    }
                }
                Ok(())
            });
            // Read to the end, so that the queue is empty afterwards.
            outcome = outcome.and(read);
        }
        outcome?;
        if interrupted { Err(Error::Interrupted) } else { Ok(()) }
    }
}

fn decode<M: NetlinkDeserializable>(header: &NetlinkHeader, payload: &[u8]) -> Result<M, Error> {
    let because = |error| Error::Decode(format!("a message of type {}: {error}", header.message_type));
    M::deserialize(header, payload).map_err(because)
}

fn until_consistent<T>(mut read: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut reads = iter::repeat_with(&mut read).take(READS);
    reads.find(|outcome| !matches!(outcome, Err(Error::Interrupted))).unwrap_or(Err(Error::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KernelError, Protocol};

    #[test]
    fn dump_each_hands_over_the_messages_that_dump_with_lists() {
        const RTM_GETLINK: u16 = 18;
        const UNKNOWN: u16 = 2000;
        let mut socket = Socket::open(Protocol::Route).unwrap();
        // Only the index in `struct ifinfomsg`, because counters change between the lists.
        let index = |message_type, payload: &[u8]| (message_type, payload[4..8].to_vec());
        let list = socket.dump_with(RTM_GETLINK, &[0; 16], |kind, payload| Some(index(kind, payload))).unwrap();
        let mut each = Vec::new();
        socket.dump_each(RTM_GETLINK, &[0; 16], |kind, payload| each.push(index(kind, payload))).unwrap();
        assert!(!list.is_empty(), "every namespace has lo");
        assert_eq!(each, list);
        let rejected = socket.dump_each(UNKNOWN, &[0; 16], |_, _| panic!("no list")).unwrap_err();
        assert!(rejected.kernel().is_some(), "{rejected}");
    }

    #[test]
    fn interrupted_dump_is_read_up_to_ten_times() {
        let mut reads = 0;
        let mut interrupted = |times| {
            reads = 0;
            let outcome = until_consistent(|| {
                reads += 1;
                if reads <= times { Err(Error::Interrupted) } else { Ok(()) }
            });
            (outcome.is_ok(), reads)
        };
        assert_eq!([0, 9, 10].map(&mut interrupted), [(true, 1), (true, 10), (false, 10)]);
        let refused = || Err::<(), _>(KernelError::from_errno(1).into());
        assert!(matches!(until_consistent(refused), Err(Error::Rejected(_))));
    }
}
