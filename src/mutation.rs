//! Deliberate faults (mutations): they prove that the checkers of the simulation find such faults.
//!
//! They are compiled with `--cfg pulsar_mutations` in `RUSTFLAGS` and never otherwise, whatever the features; without it
//! this file is one macro that expands to `false`. A fault that is visible on the wire, in a wake-up or in a timer is
//! injected at the border of the simulation (`sim/mutations.rs`). Any other is one line in the code that it breaks, such
//! as `if mutation!(NoBackoff) { .. }`.

/// Whether the mutation of this name is active.
#[cfg(not(pulsar_mutations))]
macro_rules! mutation {
    ($name:ident) => {
        false
    };
}

#[cfg(pulsar_mutations)]
macro_rules! mutation {
    ($name:ident) => {
        $crate::mutation::is_active($crate::mutation::Mutation::$name)
    };
}

/// Whether this mutation of a parser is active: one that the fuzz targets have to find, not the simulation.
#[cfg(not(pulsar_mutations))]
macro_rules! parser_mutation {
    ($name:ident) => {
        false
    };
}

#[cfg(pulsar_mutations)]
macro_rules! parser_mutation {
    ($name:ident) => {
        $crate::mutation::parser::is_active($crate::mutation::parser::ParserMutation::$name)
    };
}

#[cfg(pulsar_mutations)]
pub use switch::{Mutation, activate};

#[cfg(pulsar_mutations)]
pub(crate) use switch::is_active;

#[cfg(pulsar_mutations)]
pub(crate) mod parser {
    use std::cell::Cell;

    /// One deliberate bug in a parser.
    #[cfg_attr(not(feature = "lz4"), allow(dead_code, reason = "two of them are planted in a codec"))]
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum ParserMutation {
        /// A frame counts as complete although its last byte is missing.
        FrameOneByteShort,
        /// A frame may have any size.
        FrameWithoutLimit,
        /// A command may be longer than its frame.
        CommandBeyondFrame,
        /// The last required field of a message need not be there.
        RequiredFieldForgotten,
        /// A varint may have more than 64 bits.
        VarintTooLong,
        /// An entry is looked through for the checksum before the metadata of the broker, which is in front of it.
        ChecksumBeforeBrokerMetadata,
        /// The checksum leaves the first byte out.
        ChecksumFromSecondByte,
        /// A key loses its last byte.
        KeyOneByteShort,
        /// A record may be longer than its batch.
        RecordBeyondBatch,
        /// A declared size is not compared with the limit.
        UncompressedSizeUnchecked,
        /// A size that was not met is not noticed.
        SizeMismatchAccepted,
        /// A chunk may come before the one in front of it.
        ChunkOutOfOrder,
        /// A chunked message may have any size.
        ChunkedWithoutLimit,
        /// Room is made for a part of an entry before its declared size is compared with what is there.
        DeclaredLengthAllocated,
    }

    thread_local! {
        static ACTIVE: Cell<Option<ParserMutation>> = const { Cell::new(None) };
    }

    /// Activates one mutation on this thread, and deactivates any other.
    #[cfg(test)]
    pub(crate) fn activate(mutation: Option<ParserMutation>) {
        ACTIVE.set(mutation);
    }

    pub(crate) fn is_active(mutation: ParserMutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }
}

#[cfg(pulsar_mutations)]
mod switch {
    use std::cell::Cell;

    /// One deliberate bug.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Mutation {
        /// A FLOW grants one permit less than were returned.
        SkipPermit,
        /// A FLOW that refills the queue grants every permit twice.
        PermitTwice,
        /// After a consumer is attached again, no permits are granted.
        NoFlowAfterReattach,
        /// Some entries are dropped on arrival, without returning their permits.
        DropEntry,
        /// A batch is acknowledged with the first of its members.
        AckBatchEarly,
        /// A confirmed acknowledgement is confirmed although the broker does not have it.
        ConfirmUnasked,
        /// The close of a consumer does not send the acknowledgements that wait.
        ForgetAcksAtClose,
        /// A frame is re-sent with another sequence id.
        RenumberOnResend,
        /// Two frames change places in a re-send.
        ReorderOnResend,
        /// A new connection continues behind the last frame that was written to the old one.
        NoResend,
        /// A receipt of an earlier send settles the oldest send that waits.
        StaleReceiptIsCurrent,
        /// A failed send reports that it is not stored, although it may be.
        SurelyNotStored,
        /// CLOSE_PRODUCER is ignored.
        IgnoreCloseProducer,
        /// The broker named in CLOSE_PRODUCER or CLOSE_CONSUMER is used forever.
        AssignedUrlForever,
        /// A request waits for its response forever.
        NeverTimeOut,
        /// A refusal that is final at the first attempt also ends what was attached.
        RefusalEndsEstablished,
        /// A refusal that is final at the first attempt is retried.
        RefusalOfNewIsRetried,
        /// A quota exception holds what is pending.
        QuotaExceptionHolds,
        /// A quota error fails what is pending.
        QuotaErrorFails,
        /// A generated name that another producer has is asked for forever.
        KeepTakenName,
        /// A generated name is given up at the first refusal.
        GiveUpNameAtOnce,
        /// A creation is refused while this client still closes the last holder of the name.
        NoWaitForPredecessor,
        /// The end of a partition ends the others too.
        PartEndsSiblings,
        /// The end of one part is the end of its consumer.
        PartEndsAll,
        /// The end of a part is reported twice.
        EndReportedTwice,
        /// After the end of a part, the others are not received from.
        EndStopsOthers,
        /// A partition that is found later is read from its end.
        NewPartitionAtLatest,
        /// A consumer of a pattern makes the topics that it attaches to.
        PatternMakesTopics,
        /// That a topic is gone is not taken from an announcement.
        RemovalIgnored,
        /// The list that comes when a watch is attached again is not looked at.
        ReattachedWithoutList,
        /// The list that is asked for adds nothing.
        ListAddsNothing,
        /// A topic of a pattern that is found again is attached again.
        TopicTakenTwice,
        /// Messages go to partitions that are found before they are attached.
        RouteBeforeAttach,
        /// The next message of a key starts before the one before is done.
        TwoOfOneKey,
        /// The newest message of a key starts first.
        NewestOfKeyFirst,
        /// A message that is tried again goes behind the others of its key.
        RetryLosesItsPlace,
        /// What is parked for a retry is forgotten.
        ParkedForever,
        /// While a message waits for work, nothing is received.
        StuckKeyStopsAll,
        /// The first host of the service URL is tried forever.
        SameHostForever,
        /// The first host may take the whole operation timeout.
        FirstHostTakesAll,
        /// The time-out of a send does not say why the producer is not attached.
        TimeOutSaysNothing,
        /// A source of credentials that panics is waited for forever.
        SupplierPanicHangs,
        /// A token that was refused is shown from then on.
        RefusedTokenForever,
        /// A source of credentials has no time limit.
        SupplierIsWaitedFor,
        /// The panic of a callback reaches the task that called it.
        CallbackPanicEscapes,
        /// The memory limit of a client has no effect.
        IgnoreMemoryLimit,
        /// A producer that waits for memory is not woken when it gets some.
        LoseMemoryWaiter,
        /// A send that has given up keeps its place in the queue for memory, and what is granted to it stays reserved.
        KeepMemoryGrant,
        /// A drain does not count acknowledgements whose connection is lost.
        DrainForgetsLostAcks,
        /// A drain closes the consumer without waiting for the work.
        DrainWithoutWork,
        /// A drain waits for the work as long as it takes.
        DrainWithoutLimit,
        /// A message that is given up is acknowledged before its letter is confirmed.
        AckBeforeLetterIsConfirmed,
        /// A letter that failed is forgotten.
        FailedLetterIsForgotten,
        /// A dead letter is counted twice.
        LetterCountedTwice,
        /// A message is given up one redelivery late.
        GivenUpLate,
        /// A letter lacks the properties that its message had.
        LetterLosesProperties,
        /// An entry whose acknowledgement timeout runs is forgotten with the first of its members that is acknowledged.
        TimeoutForgetsBatch,
        /// Of a chunked message only the last chunk is acknowledged.
        AckLastChunkOnly,
        /// Chunks that a producer has sent twice are not acknowledged.
        CopiesOfChunksStay,
        /// Key-based batching puts all keys into one batch.
        OneBatchForAllKeys,
        /// The batches of the keys go out in the order in which they were opened.
        KeyBatchesAsOpened,
        /// A consumer that is paused grants permits.
        PausedGrants,
        /// Memory of messages that are settled stays reserved.
        KeepMemoryOfSettled,
        /// A consumer whose share of the memory is below an entry has no permit.
        NoLeastPermit,
        /// There is no pause between attempts.
        NoBackoff,
        /// A stall is reported again although nothing has come.
        StallToldTwice,
        /// A stall is reported although messages wait for the application.
        StallOfSlowApplication,
        /// After a long quiet time, an arrival does not bring the next check for a stall forward.
        StallToldLate,
        /// Nothing wakes a producer when a send is overdue.
        OverdueSleeps,
        /// A deadline that an endpoint has for its owner to note wakes no owner that sleeps.
        DeadlineSleeps,
        /// The report of an overdue send is about that send alone.
        OverdueForEach,
        /// After a detach, the state is attached still.
        AttachedAfterDetach,
        /// Failed attempts do not count.
        AttemptStays,
        /// A change of a state wakes no task.
        WatcherSleeps,
        /// A connection that is lost is told to be up.
        LostConnectionIsUp,
        /// A cluster that is lost is not left.
        NeverFailOver,
        /// The primary that is back is not used again.
        NeverSwitchBack,
        /// One probe is enough to leave a cluster for another.
        SwitchAtOnce,
        /// The cluster that is named from outside is not switched to.
        IgnoreNamedCluster,
        /// Each answer that names a cluster is a switch, also one that names the cluster in use.
        SwitchOnEqualAnswer,
        /// After a switch of the cluster, what is attached to the one before stays there.
        SwitchLeavesAttached,
        /// A message of one cluster is acknowledged in the other.
        AcksCrossClusters,
        /// Acknowledgements that wait when the cluster changes are sent to the other one.
        KeepAcksOfOtherCluster,
        /// TOPIC_MIGRATED is ignored.
        IgnoreMigrated,
        /// A reader subscribes anew where it began, not where it has read to.
        ReaderStartsAnew,
        /// A reader that has read a part of a batch counts all of it as read.
        ReaderForgetsBatchIndex,
        /// A message that was found and not returned counts as read.
        CheckpointForgetsFound,
        /// The message behind an end that a reader has taken is forgotten.
        UntilForgetsTaken,
        /// A topic that was held up to an end stays held.
        HeldForEver,
        /// The message at the end lies behind it.
        UntilOneShort,
        /// A reader that has read everything says that there is more.
        HasNextAtEnd,
        /// A reader says that there is no more where the broker has not sent it yet.
        HasNextForgetsStored,
        /// A refresh of a table view does not wait until the last messages are read.
        RefreshDoesNotWait,
        /// A receiver queue that has grown stays large for a slow application.
        QueueNeverShrinks,
        /// Some wake-ups of tasks of the application are lost.
        LoseWakeUp,
        /// Some wake-ups of the drivers are lost.
        LoseDriverWakeUp,
        /// Timers are set too late.
        LateTimer,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Activates one mutation for everything that runs on this thread, and deactivates any other.
    pub fn activate(mutation: Option<Mutation>) {
        ACTIVE.set(mutation);
    }

    pub(crate) fn is_active(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }
}
