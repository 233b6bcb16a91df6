//! The generation of the ruleset, a number that the kernel increments with every commit of any program.

use netlink_batch::{
    Error,
    attribute::{array, find},
};

use super::{Nft, kind};
use crate::linux::netfilter::{self, NFTABLES, message_type};

impl Nft {
    /// Remembers the current generation: the engine knows the state that belongs to it.
    pub(super) fn note_generation(&mut self) -> Result<(), Error> {
        self.generation = Some(self.current_generation()?);
        Ok(())
    }

    /// Whether another program has committed since the last [`note_generation`](Self::note_generation), to any table.
    pub(in crate::linux) fn has_foreign_commit(&mut self) -> Result<bool, Error> {
        let current = self.current_generation()?;
        let last = self.generation.replace(current);
        Ok(last != Some(current))
    }

    fn current_generation(&mut self) -> Result<u32, Error> {
        let request = message_type(NFTABLES, kind::GET_GENERATION);
        let read = |_, payload: &[u8]| generation(netfilter::attributes(payload));
        let answers = self.socket.query_with(request, &netfilter::header(0), read)?;
        answers.into_iter().flatten().next().ok_or(Error::NoReply)
    }
}

/// `NFTA_GEN_ID`.
fn generation(attributes: &[u8]) -> Option<u32> {
    const ID: u16 = 1;
    Some(u32::from_be_bytes(array(find(attributes, ID)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_is_read_from_its_attribute() {
        // As Linux 6.1 sends it: NFTA_GEN_ID 7, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME.
        let bytes = [8, 0, 1, 0, 0, 0, 0, 7, 8, 0, 2, 0, 0, 0, 1, 2, 8, 0, 3, 0, b'n', b'f', b't', 0];
        assert_eq!(generation(&bytes), Some(7));
        assert_eq!(generation(&bytes[8..]), None);
    }
}
