//! Decoding of element lists.

use netlink_batch::attribute::{self, array};

use super::{decode::Raw, kind, userdata};

pub(super) fn elements(list: &[u8]) -> Vec<Raw> {
    let lists = attributes(list).filter(|(kind, _)| *kind == kind::ELEMENTS);
    lists.flat_map(|(_, elements)| attributes(elements)).map(|(_, element)| raw(element)).collect()
}

fn raw(element: &[u8]) -> Raw {
    let mut raw = Raw::default();
    for (kind, value) in attributes(element) {
        match kind {
            kind::KEY => raw.key = data(value),
            kind::KEY_END => raw.key_end = data(value),
            kind::DATA => raw.data = data(value),
            kind::USER_DATA => raw.comment = userdata::element_comment(value).map(str::to_owned),
            kind::FLAGS => {
                let flags = array(value).map(u32::from_be_bytes).unwrap_or_default();
                raw.is_interval_end = flags & kind::INTERVAL_END != 0;
            }
            _ => {}
        }
    }
    raw
}

fn data(nest: &[u8]) -> Vec<u8> {
    let mut values = attributes(nest).filter(|(kind, _)| *kind == kind::DATA_VALUE);
    values.next().map(|(_, value)| value.to_vec()).unwrap_or_default()
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let all = attribute::attributes(bytes);
    #[cfg(test)]
    let all = all.inspect(|_| tests::count());
    all
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use netlink_batch::attribute::{nest, put, put_with};

    use super::*;

    thread_local! {
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        READ.set(READ.get() + 1);
    }

    fn list(length: usize) -> Vec<u8> {
        let mut list = Vec::new();
        put_with(&mut list, kind::ELEMENTS, |out| {
            for _ in 0..length {
                nest(out, 1, |out| nest(out, kind::KEY, |out| put(out, kind::DATA_VALUE, [7; 12])));
            }
        });
        list
    }

    /// A datagram holds at most 2000 elements. A start with ten thousand Services reads twenty times as many.
    #[test]
    fn long_element_list_reads_each_attribute_once() {
        for length in [1, 1000, 2000] {
            let list = list(length);
            READ.set(0);
            let elements = elements(&list);
            assert_eq!(elements.len(), length);
            assert!(elements.iter().all(|element| element.key == [7; 12]));
            // The list, and for each element its nest, its key and the key's bytes.
            assert_eq!(READ.get(), 1 + 3 * length);
        }
    }
}
