//! Options that many handles have in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Has handles that are made with the same options share them: those of the handle that was made last are kept as long as it
/// lives. So ten thousand producers that differ in their topics alone have one copy.
pub(super) struct SameOptions<T>(Mutex<Weak<T>>);

impl<T> Default for SameOptions<T> {
    fn default() -> Self {
        Self(Mutex::new(Weak::new()))
    }
}

impl<T: PartialEq> SameOptions<T> {
    /// These options, shared with the handle made last if they are its options.
    pub(super) fn share(&self, options: T) -> Arc<T> {
        // Compared, and dropped if it is the last reference, with no lock held: options have objects of the application.
        let last = self.last().upgrade();
        if let Some(same) = last.filter(|last| **last == options) {
            return same;
        }
        let options = Arc::new(options);
        *self.last() = Arc::downgrade(&options);
        options
    }

    fn last(&self) -> MutexGuard<'_, Weak<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_options_are_one_copy_for_as_long_as_one_has_them() {
        let same = SameOptions::default();
        let first = same.share("a".to_owned());
        assert!(Arc::ptr_eq(&first, &same.share("a".to_owned())));
        let other = same.share("b".to_owned());
        assert_eq!((&*first, &*other), (&"a".to_owned(), &"b".to_owned()));
        let weak = Arc::downgrade(&other);
        drop(other);
        assert!(weak.upgrade().is_none(), "nothing is kept for itself");
        assert_eq!(*same.share("b".to_owned()), "b");
    }
}
