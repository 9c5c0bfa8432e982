//! Commands that an older broker does not know, or reads without what it does not know: such a request would wait for an
//! answer that never comes, or mean something else there.

use super::error::RequestError;
use crate::pb::ProducerAccessMode;
use crate::pb::schema::Type;
use crate::wire::command::Command;

/// `ProtocolVersion.v17`, of Pulsar 2.8.
const ACK_RECEIPTS_AND_ACCESS_MODES: i32 = 17;
/// `ProtocolVersion.v19`, of Pulsar 2.9.
const COORDINATOR_CONNECT: i32 = 19;
/// `ProtocolVersion.v21`, of Pulsar 3.0.
const AUTO_CONSUME: i32 = 21;

/// Makes of `command` what a broker of this protocol version understands.
///
/// | command | needs | without it |
/// | --- | --- | --- |
/// | ACK with a request id | 17 | refused: there would be no answer |
/// | PRODUCER with an access mode other than Shared | 17 | refused: it would be a shared one |
/// | TC_CLIENT_CONNECT_REQUEST | 19 | refused: the broker would close the connection |
/// | SUBSCRIBE with the schema AutoConsume | 21 | sent without: it says only that any schema fits |
///
/// # Errors
/// [`RequestError::Unsupported`]: it is not to be sent.
pub(super) fn fit(command: &mut Command, protocol_version: i32) -> Result<(), RequestError> {
    let refused = match command {
        Command::Ack(ack) if ack.request_id.is_some() && protocol_version < ACK_RECEIPTS_AND_ACCESS_MODES => {
            "confirmed acknowledgements (Pulsar 2.8 and later do)"
        }
        Command::Producer(producer)
            if producer.producer_access_mode() != ProducerAccessMode::Shared
                && protocol_version < ACK_RECEIPTS_AND_ACCESS_MODES =>
        {
            "access_mode (Pulsar 2.8 and later do)"
        }
        Command::TcClientConnectRequest(_) if protocol_version < COORDINATOR_CONNECT => {
            "sessions with coordinators of transactions (Pulsar 2.9 and later do)"
        }
        Command::Subscribe(subscribe) if protocol_version < AUTO_CONSUME => {
            let is_auto_consume = |schema: &crate::pb::Schema| schema.r#type() == Type::AutoConsume;
            subscribe.schema = subscribe.schema.take().filter(|schema| !is_auto_consume(schema));
            return Ok(());
        }
        _ => return Ok(()),
    };
    Err(RequestError::Unsupported(refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    fn ack(request_id: Option<u64>) -> Command {
        pb::CommandAck { request_id, ..Default::default() }.into()
    }

    fn producer(mode: ProducerAccessMode) -> Command {
        pb::CommandProducer { producer_access_mode: Some(mode.into()), ..Default::default() }.into()
    }

    #[test]
    fn what_an_older_broker_would_not_answer_is_refused_from_its_version_down() {
        let coordinator: Command = pb::CommandTcClientConnectRequest::default().into();
        let fencing = producer(ProducerAccessMode::ExclusiveWithFencing);
        for (command, since) in
            [(ack(Some(0)), 17), (producer(ProducerAccessMode::Exclusive), 17), (fencing, 17), (coordinator, 19)]
        {
            assert_eq!(fit(&mut command.clone(), since), Ok(()), "{}", command.name());
            let refused = fit(&mut command.clone(), since - 1);
            assert!(matches!(refused, Err(RequestError::Unsupported(_))), "{}: {refused:?}", command.name());
        }
        for mut command in [ack(None), producer(ProducerAccessMode::Shared)] {
            assert_eq!(fit(&mut command, 12), Ok(()), "{}", command.name());
        }
    }

    #[test]
    fn the_schema_that_takes_any_is_left_out_for_older_brokers_and_no_other() {
        let sent = |kind: Type, version| {
            let schema = Some(pb::Schema { r#type: kind.into(), ..Default::default() });
            let mut command = pb::CommandSubscribe { schema, ..Default::default() }.into();
            assert_eq!(fit(&mut command, version), Ok(()));
            let Command::Subscribe(subscribe) = command else { panic!("another command") };
            subscribe.schema.is_some()
        };
        assert_eq!(
            [sent(Type::AutoConsume, 21), sent(Type::AutoConsume, 20), sent(Type::Json, 15)],
            [true, false, true]
        );
    }
}
