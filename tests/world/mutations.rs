//! Mutations, one at a time: each is found within a bounded number of seeds, by the checker that is meant to find it.
//!
//! Built with `RUSTFLAGS="--cfg pulsar_mutations"` only; `.ci/run mutations` does so.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pulsar_native::sim::{Mutation, activate_mutation};

use crate::{clusters, growth, patterns, readers, scaling, workload};

/// Seeds within which a mutation must be found.
const SEEDS_MAX: u64 = 150;

/// Seeds that must pass without a mutation.
const SEEDS_WITHOUT: u64 = 20;

/// The checker that reports first, if one does. A debug assertion of a machine counts as `assertion`.
fn first_report(seed: u64, run: fn(u64, bool) -> workload::SeedReport) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, false).violation)) {
        Ok(violation) => violation.map(|violation| violation.checker.to_owned()),
        Err(_) => Some("assertion".to_owned()),
    }
}

/// The first of the seeds: a later one for a mutation that few worlds show.
fn first_seed(mutation: Mutation) -> u64 {
    match mutation {
        Mutation::HeldForEver => 9,
        Mutation::LetterLosesProperties | Mutation::PausedGrants => 12,
        Mutation::FirstHostTakesAll | Mutation::QuotaErrorFails => 30,
        Mutation::KeepTakenName | Mutation::QuotaExceptionHolds | Mutation::AckBeforeLetterIsConfirmed => 40,
        Mutation::NoWaitForPredecessor | Mutation::OverdueForEach => 45,
        Mutation::StallToldLate | Mutation::TimeoutForgetsBatch => 50,
        Mutation::FailedLetterIsForgotten => 560,
        Mutation::ReattachedWithoutList | Mutation::RemovalIgnored => 110,
        Mutation::TimeOutSaysNothing | Mutation::RefusalOfNewIsRetried | Mutation::CopiesOfChunksStay => 65,
        Mutation::DrainForgetsLostAcks => 350,
        _ => 0,
    }
}

/// The worlds that may show it.
fn world_of(mutation: Mutation) -> fn(u64, bool) -> workload::SeedReport {
    match mutation {
        Mutation::NeverFailOver
        | Mutation::NeverSwitchBack
        | Mutation::SwitchAtOnce
        | Mutation::SwitchLeavesAttached
        | Mutation::IgnoreNamedCluster
        | Mutation::SwitchOnEqualAnswer
        | Mutation::AcksCrossClusters
        | Mutation::KeepAcksOfOtherCluster
        | Mutation::IgnoreMigrated => clusters::run,
        Mutation::NewPartitionAtLatest | Mutation::RouteBeforeAttach | Mutation::RefreshDoesNotWait => growth::run,
        Mutation::PatternMakesTopics
        | Mutation::RemovalIgnored
        | Mutation::ReattachedWithoutList
        | Mutation::ListAddsNothing
        | Mutation::TopicTakenTwice => patterns::run,
        Mutation::ReaderStartsAnew
        | Mutation::ReaderForgetsBatchIndex
        | Mutation::CheckpointForgetsFound
        | Mutation::UntilForgetsTaken
        | Mutation::HeldForEver
        | Mutation::UntilOneShort
        | Mutation::HasNextAtEnd
        | Mutation::HasNextForgetsStored => readers::run,
        Mutation::QueueNeverShrinks => scaling::run,
        _ => workload::run,
    }
}

/// Activates the mutation, and runs seeds until one of its checkers reports.
fn assert_found(mutation: Mutation) {
    let checkers = checkers_of(mutation);
    activate_mutation(Some(mutation));
    let mut others = Vec::new();
    let (first, run) = (first_seed(mutation), world_of(mutation));
    let found = (first..first + SEEDS_MAX).find(|&seed| match first_report(seed, run) {
        Some(checker) if checkers.contains(&checker.as_str()) => true,
        other => {
            others.extend(other);
            false
        }
    });
    activate_mutation(None);
    match found {
        Some(seed) => println!("{mutation:?}: found by seed {seed}, before it by {others:?}"),
        None => panic!("{mutation:?} was not found by {checkers:?} in {SEEDS_MAX} seeds, but by {others:?}"),
    }
}

#[test]
fn without_a_mutation_no_checker_reports() {
    for run in [workload::run, clusters::run, growth::run, patterns::run, readers::run, scaling::run] {
        let reports: Vec<_> = (0..SEEDS_WITHOUT).filter_map(|seed| first_report(seed, run)).collect();
        assert!(reports.is_empty(), "{reports:?}");
    }
}

/// One test for each mutation, and the checkers that must find it. A mutation that is not listed does not compile.
macro_rules! mutations {
    ($($name:ident: $mutation:ident => $($checker:literal)|+;)*) => {
        fn checkers_of(mutation: Mutation) -> &'static [&'static str] {
            match mutation {
                $(Mutation::$mutation => &[$($checker),+],)*
            }
        }

        $(#[test] fn $name() { assert_found(Mutation::$mutation); })*
    };
}

mutations! {
    a_permit_that_is_skipped_stops_delivery: SkipPermit => "settles in time";
    a_permit_that_is_returned_twice: PermitTwice => "permits within the queue";
    no_permits_after_a_reattach: NoFlowAfterReattach => "settles in time";
    an_entry_that_is_lost_on_arrival: DropEntry => "settles in time";
    a_batch_that_is_acknowledged_with_its_first_member: AckBatchEarly => "acknowledged only what the application did";
    a_confirmation_without_the_broker: ConfirmUnasked => "confirmed is acknowledged";
    acknowledgements_that_a_close_forgets: ForgetAcksAtClose => "a close sends the acknowledgements";
    a_resend_with_another_number: RenumberOnResend => "protocol conformance";
    a_resend_in_another_order: ReorderOnResend => "protocol conformance" | "log in the order of the sends";
    no_resend_at_all: NoResend => "settles in time" | "what is confirmed is stored";
    a_stale_receipt_taken_for_a_current_one: StaleReceiptIsCurrent => "an id names the message that was sent";
    a_failure_that_hides_that_it_may_be_stored: SurelyNotStored => "what surely failed is not stored";
    a_task_that_is_not_woken: LoseWakeUp => "no lost wake-up" | "settles in time";
    a_driver_that_is_not_woken: LoseDriverWakeUp => "no lost wake-up";
    a_timer_that_is_late: LateTimer => "no lost deadline";
    a_close_producer_that_is_ignored: IgnoreCloseProducer => "protocol conformance" | "settles in time";
    an_assigned_broker_that_is_used_for_ever: AssignedUrlForever => "settles in time";
    a_request_that_never_times_out: NeverTimeOut => "settles in time";
    a_refusal_that_ends_what_was_attached: RefusalEndsEstablished => "ends by a final refusal";
    a_refusal_of_what_is_new_that_is_retried: RefusalOfNewIsRetried => "a refusal of what is new is final";
    a_quota_exception_that_holds_what_is_pending: QuotaExceptionHolds => "a quota exception fails what is pending";
    a_quota_error_that_fails_what_is_pending: QuotaErrorFails => "a quota error holds what is pending";
    a_taken_name_that_is_asked_for_forever: KeepTakenName => "a taken name is given up" | "settles in time";
    a_name_that_is_given_up_at_once: GiveUpNameAtOnce => "a name is given up after six seconds";
    a_name_that_is_not_waited_for: NoWaitForPredecessor => "a name is waited for while its producer closes";
    a_partition_that_ends_the_others: PartEndsSiblings => "a part ends by its own refusal";
    a_part_that_ends_the_whole: PartEndsAll => "a consumer ends with its last part";
    an_end_that_is_reported_twice: EndReportedTwice => "the end of a part is reported once";
    an_end_that_stops_the_other_parts: EndStopsOthers => "settles in time";
    two_messages_of_one_key_at_a_time: TwoOfOneKey => "one message of a key at a time";
    the_newest_message_of_a_key_first: NewestOfKeyFirst => "a key in the order of delivery";
    a_retry_behind_others_of_its_key: RetryLosesItsPlace => "a key waits for what is tried again" | "a key in the order of delivery";
    a_retry_that_never_comes: ParkedForever => "settles in time" | "every message is acknowledged";
    a_stuck_key_that_stops_all: StuckKeyStopsAll => "settles in time";
    one_host_for_ever: SameHostForever => "a client connects past a silent host";
    a_host_that_takes_all_the_time: FirstHostTakesAll => "a client connects past a silent host";
    a_time_out_that_says_nothing: TimeOutSaysNothing => "a time-out says why";
    a_panic_of_the_token_source_that_hangs: SupplierPanicHangs => "settles in time";
    a_refused_token_that_is_shown_for_ever: RefusedTokenForever => "settles in time";
    a_token_source_that_is_waited_for: SupplierIsWaitedFor => "settles in time";
    a_panic_of_a_callback_that_escapes: CallbackPanicEscapes => "assertion";
    a_memory_limit_without_effect: IgnoreMemoryLimit => "memory stays within the limit";
    a_producer_that_is_not_woken_for_memory: LoseMemoryWaiter => "no lost wake-up" | "settles in time";
    memory_that_a_send_which_gave_up_keeps: KeepMemoryGrant => "memory is given back" | "settles in time" | "assertion";
    memory_that_settled_messages_keep: KeepMemoryOfSettled => "memory is given back" | "settles in time" | "assertion";
    a_drain_that_forgets_lost_acknowledgements: DrainForgetsLostAcks => "a complete drain has confirmed all";
    a_drain_that_does_not_wait_for_work: DrainWithoutWork => "a complete drain has waited for the work";
    a_drain_without_a_limit: DrainWithoutLimit => "a drain ends within its limit" | "settles in time";
    an_acknowledgement_before_the_letter: AckBeforeLetterIsConfirmed => "acknowledged only what the application did";
    a_failed_letter_that_is_forgotten: FailedLetterIsForgotten => "settles in time";
    a_dead_letter_that_is_counted_twice: LetterCountedTwice => "a dead letter is counted once";
    a_message_that_is_given_up_late: GivenUpLate => "given up after n redeliveries";
    a_letter_that_loses_properties: LetterLosesProperties => "a retry says where it comes from" | "settles in time";
    a_timeout_that_forgets_a_batch: TimeoutForgetsBatch => "settles in time";
    an_acknowledgement_of_the_last_chunk_alone: AckLastChunkOnly => "settles in time";
    copies_of_chunks_that_stay: CopiesOfChunksStay => "settles in time";
    one_batch_for_all_keys: OneBatchForAllKeys => "protocol conformance";
    batches_of_keys_in_the_order_of_their_first: KeyBatchesAsOpened => "protocol conformance" | "settles in time";
    a_paused_consumer_that_grants: PausedGrants => "a paused consumer asks for nothing";
    a_stall_that_is_told_twice: StallToldTwice => "a stall is told once";
    a_slow_application_that_is_told_to_be_stalled: StallOfSlowApplication => "a slow application is no stall";
    a_stall_that_is_told_late: StallToldLate => "a stall is told";
    an_overdue_send_that_is_not_told: OverdueSleeps => "an overdue send is told in time";
    a_deadline_before_which_the_owner_sleeps_on: DeadlineSleeps => "no lost deadline" | "settles in time";
    an_overdue_send_that_is_told_again: OverdueForEach => "an overdue send is told once";
    a_state_that_stays_attached: AttachedAfterDetach =>
        "what is told to be attached is attached" | "what is attached is on a connection";
    an_attempt_that_keeps_its_number: AttemptStays => "a state follows from the one before";
    a_watcher_that_is_not_woken: WatcherSleeps => "a change of a state is told";
    a_lost_connection_that_stays_up: LostConnectionIsUp => "a connection that is lost is not told of";
    a_small_share_without_a_permit: NoLeastPermit => "settles in time";
    a_lost_cluster_that_is_not_left: NeverFailOver => "a lost cluster is left in time";
    a_primary_that_is_not_used_again: NeverSwitchBack => "the primary is in use again in time";
    a_cluster_that_is_left_at_once: SwitchAtOnce => "a cluster is left after the delay";
    a_named_cluster_that_is_ignored: IgnoreNamedCluster => "the cluster that is named is in use in time";
    an_equal_answer_that_is_a_switch: SwitchOnEqualAnswer => "only a switch detaches";
    a_switch_that_leaves_what_is_attached: SwitchLeavesAttached => "attached to the cluster in use";
    an_acknowledgement_in_the_other_cluster: AcksCrossClusters =>
        "protocol conformance" | "acknowledged only what the application did";
    acknowledgements_that_wait_for_the_other_cluster: KeepAcksOfOtherCluster =>
        "protocol conformance" | "acknowledged only what the application did";
    a_migration_that_is_ignored: IgnoreMigrated => "settles in time";
    a_new_partition_that_is_read_from_its_end: NewPartitionAtLatest => "everything stored is received";
    a_route_before_its_partition_is_attached: RouteBeforeAttach =>
        "no message goes to a partition before it is attached";
    a_pattern_that_makes_topics: PatternMakesTopics => "a deleted topic is not made again";
    an_announced_deletion_that_is_ignored: RemovalIgnored => "the topics are those of the broker";
    a_watch_that_comes_back_without_its_list: ReattachedWithoutList => "the topics are those of the broker";
    a_list_that_adds_nothing: ListAddsNothing => "the topics are those of the broker";
    a_topic_that_is_taken_twice: TopicTakenTwice => "a topic of a pattern is there once";
    a_refresh_that_does_not_wait: RefreshDoesNotWait => "a refreshed view has what was stored";
    a_queue_that_never_shrinks: QueueNeverShrinks => "a slow consumer keeps no grown queue";
    a_reader_that_begins_anew: ReaderStartsAnew => "a reader reads each message once, in order";
    a_reader_that_forgets_where_in_a_batch_it_is: ReaderForgetsBatchIndex =>
        "everything stored is read" | "a reader reads each message once, in order";
    a_checkpoint_without_the_message_that_was_found: CheckpointForgetsFound =>
        "everything stored is read" | "a reader reads each message once, in order";
    a_message_behind_an_end_that_is_forgotten: UntilForgetsTaken =>
        "everything stored is read" | "a reader reads each message once, in order";
    a_topic_that_is_held_for_ever: HeldForEver => "everything stored is read";
    a_stream_that_ends_one_short: UntilOneShort => "a stream up to now has what was stored";
    a_reader_that_waits_at_its_end: HasNextAtEnd => "has_next says whether there is more";
    a_reader_that_ends_before_what_is_stored: HasNextForgetsStored => "has_next says whether there is more";
    attempts_without_a_pause: NoBackoff => "dial back-off" | "livelock";
}
