//! The suite through a tap before the real broker: no rule is broken, a recording shows the same, and the embedded broker's
//! machine, given the clients' frames of the recording, answers as the real broker did.

use crate::broker::Real;
use crate::common::tapped::Tapped;
use crate::runner::Test;
use crate::suite;

pub const TESTS: &[Test] =
    &[("tapped::the_machine_answers_as_the_broker_did", |real| Box::pin(the_machine_answers_as_the_broker_did(real)))];

macro_rules! bodies {
    ($target:ident; $($theme:ident::$name:ident)*) => { $(suite::$theme::$name(&$target).await;)* };
}

async fn the_machine_answers_as_the_broker_did(real: Real) {
    let tapped = Tapped::before(&real.url).await;
    let mut through = real.clone();
    through.url = tapped.url();
    let target = through.target();
    bodies! { target;
        produce::order_of_enqueue produce::unbatched produce::batches_share_an_entry produce::producer_names
        access::exclusive_keeps_others_out consume::exclusive_refuses_a_second consume::unsubscribe_deletes_it
        consume::last_message_id acks::confirmed acks::cumulative acks::members_of_a_batch redelivery::nack_shared
        seek::to_a_message schemas::incompatible_types_are_refused schemas::versions_go_with_messages
        partitioned::merged_and_acknowledged readers::starts chunks::those_of_several_producers_interleave
        keys::batches_by_key failover::second_takes_over lifecycle::dropped_handles_are_gone_at_the_broker
    }
    let seen = tapped.finish().await;
    assert_eq!(seen.violations, Vec::<String>::new());
    assert_eq!(seen.differences, Vec::<String>::new());
    assert!(seen.summary.compared > 100 && seen.summary.uncompared == 0, "{}", seen.summary);
}
