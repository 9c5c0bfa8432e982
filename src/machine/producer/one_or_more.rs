//! A list that is never empty and mostly of one element, for which nothing is allocated.

/// One element, and perhaps more behind it.
#[derive(Debug)]
pub(super) struct OneOrMore<T> {
    first: T,
    more: Vec<T>,
}

impl<T> OneOrMore<T> {
    /// A list of one.
    pub(super) fn one(first: T) -> Self {
        Self { first, more: Vec::new() }
    }

    /// All of them, unless there are none.
    pub(super) fn all(elements: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut elements = elements.into_iter();
        Some(Self { first: elements.next()?, more: elements.collect() })
    }

    pub(super) fn len(&self) -> usize {
        1 + self.more.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        match at.checked_sub(1) {
            None => Some(&self.first),
            Some(at) => self.more.get(at),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Hands out each element, in order.
    #[inline]
    pub(super) fn for_each(self, mut take: impl FnMut(T)) {
        take(self.first);
        if !self.more.is_empty() {
            self.more.into_iter().for_each(take);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_order() {
        let list = OneOrMore::all([1, 2, 3]).expect("three");
        assert!(OneOrMore::all([0; 0]).is_none());
        assert_eq!((list.len(), OneOrMore::one(1).len()), (3, 1));
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
        let mut taken = Vec::new();
        list.for_each(|number| taken.push(number));
        assert_eq!(taken, [1, 2, 3]);
    }
}
