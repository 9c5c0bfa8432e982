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
impl<T> OneOrMore<T> {
    pub(super) fn push(&mut self, element: T) {
        self.more.push(element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_order() {
        let mut list = OneOrMore::one(1);
        list.push(2);
        list.push(3);
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [1, 2, 3]);
        let mut taken = Vec::new();
        list.for_each(|number| taken.push(number));
        assert_eq!(taken, [1, 2, 3]);
    }
}
