//! A small map with a bound: addresses and interrupt lines to what is counted of them.

/// At most `limit` keys with a value each, in the order in which they came. A search is one of a
/// few dozen bytes as a rule, and of 2 KiB at most, so that hashing would cost more.
#[derive(Clone, Debug)]
pub struct Table<V> {
    keys: Vec<u64>,
    values: Vec<V>,
    limit: usize,
    /// Where the last key was: most exits are to the address of the one before.
    last: usize,
}

impl<V> Table<V> {
    /// An empty one, which takes `limit` keys.
    pub fn new(limit: usize) -> Self {
        Self { keys: Vec::new(), values: Vec::new(), limit, last: 0 }
    }

    /// Whether it has the key.
    pub fn contains(&self, key: u64) -> bool {
        self.keys.get(self.last) == Some(&key) || self.keys.contains(&key)
    }

    /// The key's value, which `make` makes if the key is new. `None` if it is new and there is no
    /// room.
    pub fn entry(&mut self, key: u64, make: impl FnOnce() -> V) -> Option<&mut V> {
        if self.keys.get(self.last) != Some(&key) {
            match self.keys.iter().position(|other| *other == key) {
                Some(found) => self.last = found,
                None if self.keys.len() >= self.limit => return None,
                None => {
                    self.last = self.keys.len();
                    self.keys.push(key);
                    self.values.push(make());
                }
            }
        }
        self.values.get_mut(self.last)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.keys.iter().copied().zip(&self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_its_limit_and_no_more() {
        let mut table = Table::new(2);
        for key in [7, 9, 7, 8, 9, 7] {
            if let Some(count) = table.entry(key, || 0) {
                *count += 1;
            }
        }
        assert_eq!(table.iter().collect::<Vec<_>>(), [(7, &3), (9, &2)]);
        assert!(table.contains(7) && !table.contains(8));
    }
}
