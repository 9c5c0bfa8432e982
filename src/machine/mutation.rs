//! Ways to break the client on purpose, to see that the simulation notices. Nothing of it is compiled into a client
//! without the feature `sim`: there `is` is the constant `false`.

/// One way to break it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// A FLOW grants one permit less than came home.
    SkipPermit,
    /// A FLOW that refills grants every permit twice.
    PermitTwice,
    /// After a new attach no permits are granted.
    NoFlowAfterReattach,
    /// An entry that arrives is dropped now and then, without its permits.
    DropEntry,
    /// A batch is acknowledged with the first of its members.
    AckBatchEarly,
    /// A confirmed acknowledgement is confirmed before the broker has it.
    ConfirmUnasked,
    /// A close does not send the acknowledgements that wait.
    ForgetAcksAtClose,
    /// A re-sent frame gets another sequence id.
    RenumberOnResend,
    /// The oldest two frames change places in a re-send.
    ReorderOnResend,
    /// A new connection goes on after the last frame that the old one was given.
    NoResend,
    /// A receipt of an earlier send settles the oldest one.
    StaleReceiptIsCurrent,
    /// A send that failed is said not to be stored, whatever is known.
    SurelyNotStored,
    /// Who waits for room is not woken.
    LoseWakeUp,
    /// CLOSE_PRODUCER changes nothing.
    IgnoreCloseProducer,
    /// The broker named in CLOSE_* is used for ever.
    AssignedUrlForever,
    /// A request waits for its answer for ever.
    NeverTimeOut,
    /// There is no pause between attempts.
    NoBackoff,
}

#[cfg(any(test, feature = "sim"))]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static NOW: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Breaks everything on this thread in this way from now on; `None` mends it.
    pub fn set(mutation: Option<Mutation>) {
        NOW.set(mutation);
    }

    /// Whether it is broken in this way.
    pub(crate) fn is(mutation: Mutation) -> bool {
        NOW.get() == Some(mutation)
    }
}

#[cfg(not(any(test, feature = "sim")))]
mod switch {
    use super::Mutation;

    #[inline(always)]
    pub(crate) const fn is(_: Mutation) -> bool {
        false
    }
}

pub(crate) use switch::is;
#[cfg(feature = "sim")]
pub use switch::set;
