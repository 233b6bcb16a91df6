use std::hash::Hash;

use foldhash::HashMap;

/// Lists of values by key. Nearly every list has one value, for which a tree would take several times the memory.
#[derive(Debug)]
pub(super) struct Index<K, V> {
    // Invariant: no list is empty, and each is sorted.
    lists: HashMap<K, Vec<V>>,
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self { lists: HashMap::default() }
    }
}

impl<K: Eq + Hash, V: Ord> Index<K, V> {
    pub(super) fn add(&mut self, key: K, value: V) {
        let list = self.lists.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if let Err(place) = list.binary_search(&value) {
            list.insert(place, value);
        }
    }

    pub(super) fn remove(&mut self, key: &K, value: &V) {
        let Some(list) = self.lists.get_mut(key) else { return };
        if let Ok(place) = list.binary_search(value) {
            list.remove(place);
        }
        if list.is_empty() {
            self.lists.remove(key);
        }
    }

    pub(super) fn get(&self, key: &K) -> &[V] {
        self.lists.get(key).map_or(&[], Vec::as_slice)
    }
}
