//! The public API, exercised against a broker: the same bodies for the embedded and for a real one.
//!
//! A body is an `async fn(&Target)`, reads as a script and leaves nothing to chance: each topic is its own, each wait
//! has a bound and says what it waited for ([`wait`]). What a broker has to offer for that is the trait
//! [`target::Cluster`]. `with_every_test!` at the bottom is the one list of them, with the theme as the module's name; each
//! runs with a service URL of the binary protocol and with one of HTTP.
//!
//! Never here: a body that asks which broker it runs on. Where the two differ, the embedded one is wrong. Bodies also run
//! on older releases: what one lacks is asked for by [`target::Offer`], and its refusal asserted; so a confirmed
//! acknowledgement is [`Target::confirm`].

pub mod access;
pub mod acks;
pub mod admin_api;
pub mod chunks;
pub mod clusters;
pub mod connect;
pub mod consume;
pub mod credentials;
pub mod dead_letters;
pub mod drain;
pub mod encryption;
pub mod failing_keys;
pub mod failover;
pub mod growth;
pub mod idle;
pub mod interceptors;
pub mod keys;
pub mod lifecycle;
pub mod memory;
pub mod metadata;
pub mod partitioned;
pub mod patterns;
pub mod produce;
pub mod rates;
pub mod raw;
pub mod reader_ends;
pub mod readers;
pub mod reconnect;
pub mod redelivery;
pub mod relay;
mod schema_pairs;
pub mod schemas;
pub mod seek;
pub mod seen;
pub mod several;
pub mod sink;
pub mod sizes;
pub mod states;
pub mod table_views;
pub mod target;
pub mod token;
pub mod topic_stats;
pub mod unreadable;
pub mod wait;
pub mod watch;

pub use std::collections::{BTreeMap, BTreeSet};
pub use std::sync::atomic::{AtomicUsize, Ordering};
pub use std::sync::{Arc, Mutex};
pub use std::time::{Duration, Instant, SystemTime};

pub use pulsar_native::{
    Client, Consumer, ConsumerBuilder, ErrorKind, InitialPosition, Message, MessageId, Producer, ProducerBuilder,
};
pub use pulsar_native::{ReceivedMessage, RedeliveryBackoff, SubscriptionType, Token};

pub use target::Target;
pub use wait::{created, drained, receive, receive_all, send, send_all, subscribed, texts, until, within};

/// Hands the list of all bodies to the macro `$run`.
macro_rules! with_every_test {
    ($run:ident) => {
        $run! {
            connect {
                wrong_token no_token expired_token role_without_rights unreachable_port http_port silent_peer
                missing_topic missing_namespace bad_url bad_topic bad_options second_host_of_the_url
                several_connections_to_one_broker an_unused_connection_is_closed
            }
            produce {
                ids_grow order_of_enqueue callbacks_come_once_and_in_order flush_waits_for_all unbatched kept_out_of_a_batch
                batches_share_an_entry linger_is_ended_by_flush each_codec metadata_alone metadata_in_a_batch
                empty_and_null_are_different oversize_fails_alone large_payloads sequence_ids producer_names
                resent_sequence_ids_are_stored_once terminated_topic full_queue_gives_the_message_back many_tasks delayed
            }
            metadata {
                clusters_to_replicate_to replicated_from_another_cluster markers_are_not_delivered
                null_keys_schema_ids_and_times
            }
            memory {
                one_limit_for_a_hundred_producers a_message_above_the_limit_is_sent_alone the_limit_gives_a_message_back
                large_entries_wait_within_the_limit the_largest_entries_wait_within_the_limit
                a_backlog_of_batches_waits_within_the_limit small_entries_get_the_whole_queue
            }
            access { exclusive_keeps_others_out waiting_ends_when_the_topic_is_free fencing_throws_the_others_out }
            consume {
                exclusive_refuses_a_second shared_gives_each_message_once position_of_a_new_subscription
                receive_many_and_try_receive stream dropped_receives_lose_nothing queue_of_zero queue_of_one
                permits_stay_within_the_queue the_queue_follows_the_application close_keeps_the_subscription unsubscribe_deletes_it
                unsubscribe_needs_force_beside_others statistics last_message_id receive_by_the_batch pause_and_resume
            }
            admin_api {
                topics topics_in_use subscriptions messages statistics statistics_of_a_reader tenants_and_namespaces schemas
                policies rights
                a_tenants_administrator roles_of_a_subscription configuration
            }
            rates { publishing delivery_from_a_topic delivery_to_a_subscription }
            acks {
                individual cumulative confirmed cumulative_is_refused_on_shared close_sends_what_waits
                drop_sends_what_waits group_of_many members_of_a_batch members_cumulative members_held_back by_id_from_other_threads
                message_of_another_consumer
            }
            redelivery {
                nack_shared nack_exclusive nack_member_of_a_batch all_unacknowledged
                unacknowledged_go_to_another_consumer nack_backoff ack_timeout nack_by_id ack_timeout_backoff
            }
            dead_letters {
                delivered_too_often timed_out_too_often a_letter_that_grows_too_large reconsumed_later
                a_retry_topic_of_the_older_name topics_of_older_names a_dead_letter_topic_that_refuses
                reconsumed_later_in_order given_up_with_a_reason options_that_cannot_work
            }
            chunks {
                larger_than_the_broker_takes compressed_before_they_are_split those_of_several_producers_interleave
                comes_again_and_is_given_up_as_one sought_by_their_first_chunk sent_again_after_a_connection_was_cut
                a_consumer_goes_in_the_midst_of_one incomplete_ones_are_dropped young_ones_with_a_gap_stay
                a_reader_begins_behind_one a_reader_passes_an_incomplete_one checkpoints_within_messages limits_of_a_reader
                options_that_cannot_work
            }
            drain {
                a_loop_ends_between_two_messages pools_finish_what_they_have a_full_pool_is_drained the_limit_holds
                a_batch_that_was_begun_is_finished a_client_relays_until_it_is_drained idle_handles_are_drained_at_once
                fifty_times_under_load a_reader_ends_behind_its_batch
            }
            encryption {
                all_forms_come_back several_keys what_fails_comes_again what_fails_comes_again_in_time
                discarded_where_that_is_asked_for consumed_where_that_is_asked_for unreadable_policies_hold
                a_table_view_opens_them a_reader_opens_them letters_can_be_encrypted_too sent_again_after_an_unload options_that_cannot_work
            }
            interceptors { messages_that_are_sent messages_that_are_received cumulative_acknowledgements }
            schemas {
                versions_go_with_messages incompatible_types_are_refused a_consumer_registers_on_an_idle_topic_only
                a_new_version_is_read_and_reads a_reader_names_the_schema_that_it_reads_by
            }
            clusters { a_web_server_names_the_cluster }
            seek { to_a_message to_the_ends each_topic_elsewhere by_an_id_of_several_topics a_pattern_wants_the_topic }
            keys { one_consumer_per_key_in_order ordering_key_goes_before_key batches_by_key }
            failing_keys { the_others_go_on }
            failover { second_takes_over }
            idle {
                nothing_to_receive the_application_does_not_receive another_consumer_is_active too_much_is_not_acknowledged
                messages_are_delayed keys_lie_with_another_consumer no_broker_has_it
            }
            partitioned {
                keys_go_where_java_sends_them round_robin one_partition_for_all merged_and_acknowledged one_partition_by_name
                nack_comes_from_its_partition routed_by_the_application attached_by_their_first_message
                a_partition_that_is_refused_is_named
            }
            growth {
                partitions_are_added_under_load a_new_partition_is_read_from_its_beginning intervals_that_are_too_short
            }
            patterns {
                topics_come_and_go announced_at_once topics_that_are_not_persistent without_a_topic_it_waits
                queues_share_their_total patterns_that_cannot_be a_reader_of_topics_that_come_and_go
                a_reader_of_topics_of_both_kinds a_table_view_of_topics_that_come_and_go
            }
            readers {
                starts seeks each_message_once_over_reconnects several_topics leaves_nothing resumed_a_hundred_times
                checkpoint_of_a_subscription a_terminated_topic until_an_end until_each_kind_of_end
                until_after_a_seek until_while_partitions_are_added
            }
            reader_ends {
                of_an_empty_topic of_a_terminated_topic of_a_truncated_topic of_a_compacted_topic
                an_interceptor_sees_each_message
            }
            lifecycle {
                dropped_handles_are_gone_at_the_broker drop_sends_what_was_accepted client_close_leaves_nothing
                many_cycles handles_outlive_the_client closed_handles_say_so stream_ends_with_its_consumer
            }
            reconnect {
                unload_in_full_flight connection_cut_in_full_flight deduplication_makes_it_exactly_once
                broker_away_for_a_while sends_are_given_up_in_time creation_is_given_up_in_time silent_connection
                deleted_topic_is_made_anew
            }
            several { topics_are_merged a_busy_topic_starves_no_other workers_at_the_same_time work_that_panics_has_failed_and_no_other a_stuck_key_stops_no_other workers_by_key a_retry_keeps_the_order_of_its_key }
            sizes {
                a_send_above_the_limit_is_refused a_batch_is_closed_before_the_limit
                above_the_limit_is_reported_and_read_with_a_higher_one a_reader_passes_what_is_above_its_limit
            }
            sink { messages_go_through_it }
            states {
                a_broker_is_away a_topic_is_unloaded a_token_expires a_quota_is_exceeded_with_an_exception
                a_quota_is_exceeded_and_holds the_active_consumer_closes the_active_consumer_is_cut a_topic_is_terminated
                a_topic_is_deleted a_partition_is_terminated a_partition_is_deleted a_consumer_is_stalled
            }
            table_views {
                the_last_value_of_each_key equals_a_map_over_reconnects partitions_that_are_added several_topics_of_one_kind
                closed_dropped_and_given_up a_topic_that_was_compacted
                a_grown_topic_that_is_compacted
            }
            token { refreshed_when_challenged }
            topic_stats { backlog_and_consumers partitions_and_topics_of_a_namespace description_of_the_application }
            unreadable {
                reported_and_left_to_the_application acknowledged_where_the_policy_says_so
                workers_go_on_after_what_they_cannot_read given_up_where_the_policy_says_so
            }
        }
    };
}
pub(crate) use with_every_test;

/// Hands the list of those that no `http://` service URL can do, or that count what one connection does, to the macro
/// `$run`.
macro_rules! with_every_test_of_the_binary_protocol {
    ($run:ident) => {
        $run! {
            watch { topics_that_come_are_reported }
            credentials { user_and_password a_clock_that_is_wrong three_expiries_under_load a_refused_refresh }
        }
    };
}
pub(crate) use with_every_test_of_the_binary_protocol;
