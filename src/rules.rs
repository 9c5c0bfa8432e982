//! The rules of the protocol that are checked, by one vocabulary: the judge of the embedded broker, the inspector of captured traffic
//! and the referee use the same [`Rule`].
//!
//! A rule names what was broken, [`Rule::broken_by`] who can break it, and [`Rule::chapter`] where the book tells of it. What an
//! observer sees depends on where it stands: the embedded broker knows what it stored, but nothing of what another broker does wrong;
//! an observer of the wire sees both sides, but no policy of a topic.

use std::fmt;

/// One side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The side that sent CONNECT.
    Client,
    /// The side that answered it.
    Broker,
    /// Both: of a [`Rule`], either may break it.
    Either,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Broker => "broker",
            Self::Either => "either side",
        })
    }
}

macro_rules! rules {
    ($(
        $(#[$doc:meta])*
        $name:ident $side:ident $place:literal,
    )*) => {
        /// The rules that are checked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $( $(#[$doc])* $name, )*
        }

        impl Rule {
            /// All of them, in the order of the enum.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// The side that can break it.
            #[must_use]
            pub fn broken_by(self) -> Side {
                match self { $( Self::$name => Side::$side, )* }
            }

            /// The place in the book that tells of it: a path in the repository and a heading.
            #[must_use]
            pub fn chapter(self) -> &'static str {
                match self { $( Self::$name => concat!("docs/protocol/", $place), )* }
            }

            /// Its name, such as `SendWithoutProducer`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }
        }
    };
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

// The columns: name, who can break it, its place in the book.
rules! {
    /// A frame that cannot be read, an unknown command or an unknown enum value. A client skips a command of a type it does not know;
    /// a broker closes the connection (`BaseCommand.type`).
    UnreadableFrame Either "01-frames.md#rule-unreadableframe",
    /// By a client: a command other than CONNECT, PING, PONG before CONNECTED, or a second CONNECT. By a broker: a command other than
    /// CONNECTED, AUTH_CHALLENGE, ERROR, PING, PONG before CONNECTED, or a second CONNECTED (`CommandConnect`).
    Handshake Either "02-handshake.md#rule-handshake",
    /// A command that only a broker sends.
    ServerOnlyCommand Client "02-handshake.md#rule-serveronlycommand",
    /// A command of a protocol version above the negotiated one (`CommandConnected.protocol_version`).
    AboveVersion Either "02-handshake.md#rule-aboveversion",
    /// No frame at all for a keep-alive interval after a PING.
    PongMissing Either "02-handshake.md#rule-pongmissing",
    /// PRODUCER or SUBSCRIBE for a topic that no client looked up since it was created.
    LookupMissing Client "03-lookup.md#rule-lookupmissing",
    /// `epoch` of PRODUCER did not grow with a further PRODUCER of the same producer.
    EpochNotGrowing Client "09-reconnect.md#rule-epochnotgrowing",
    /// SEND for a producer that this connection does not have, or that waits or was fenced out.
    SendWithoutProducer Client "04-send.md#rule-sendwithoutproducer",
    /// SEND or FLOW before the response to PRODUCER or SUBSCRIBE was written.
    BeforeResponse Client "04-send.md#rule-beforeresponse",
    /// A command for a producer or consumer id after the client's CLOSE of it; for a consumer, but for ACK, also after UNSUBSCRIBE.
    AfterClose Client "09-reconnect.md#rule-afterclose",
    /// SEND for a producer that the broker closed longer ago than a keep-alive interval.
    AfterBrokerClose Client "09-reconnect.md#rule-afterbrokerclose",
    /// A `sequence_id` that does not grow, on a frame that is not a byte-identical re-send, where there is no deduplication.
    SequenceNotGrowing Client "04-send.md#rule-sequencenotgrowing",
    /// SEND and its `MessageMetadata` disagree about the sequence id, the producer or the number of messages.
    MetadataMismatch Client "04-send.md#rule-metadatamismatch",
    /// A checksum that does not match.
    Checksum Either "04-send.md#rule-checksum",
    /// ACK of an entry that was never delivered to this consumer, or, as an observer of the wire sees it, to its subscription.
    AckNotDelivered Client "07-acknowledgement.md#rule-acknotdelivered",
    /// A cumulative ACK on Shared or Key_Shared, or one without exactly one id.
    CumulativeAck Client "07-acknowledgement.md#rule-cumulativeack",
    /// FLOW with 0 permits or with 2^31 and more.
    FlowPermits Client "06-flow.md#rule-flowpermits",
    /// A batch with messages of several keys, sent to a consumer of a Key_Shared subscription, which is the one that is
    /// named: it gets all of them by the key of the first. Its producer needs key-based batches, or none.
    MixedBatchOnKeyShared Client "05-batching.md#rule-mixedbatchonkeyshared",
    /// A request that lacks what its command needs: SEEK without a target, AUTH_RESPONSE without data.
    IncompleteRequest Client "02-handshake.md#rule-incompleterequest",
    /// A command that only a client sends.
    ClientOnlyCommand Broker "02-handshake.md#rule-clientonlycommand",
    /// A response whose `request_id` no request has had.
    ResponseToNoRequest Broker "02-handshake.md#rule-responsetonorequest",
    /// A second response to one request. PRODUCER alone has two, where the first one says `producer_ready = false`
    /// (`CommandProducerSuccess`).
    ResponseTwice Broker "02-handshake.md#rule-responsetwice",
    /// A response of a type that does not answer the request with its id.
    WrongResponse Broker "02-handshake.md#rule-wrongresponse",
    /// A `request_id` that is used again while its request waits for a response: the two answers cannot be told apart.
    RequestIdReused Client "02-handshake.md#rule-requestidreused",
    /// SEND_RECEIPT or SEND_ERROR for what was not sent, or was answered before (`CommandSendReceipt.sequence_id`).
    ReceiptWithoutSend Broker "04-send.md#rule-receiptwithoutsend",
    /// SEND_RECEIPT before those of earlier SENDs of the same producer. Clients settle their sends from the oldest on.
    ReceiptOutOfOrder Broker "04-send.md#rule-receiptoutoforder",
    /// More MESSAGEs than the consumer has given permits. An entry of several messages may overdraw them once, so entries are
    /// compared with permits (`CommandFlow.messagePermits`).
    PermitsExceeded Broker "06-flow.md#rule-permitsexceeded",
    /// MESSAGE for a consumer id that this connection never had; or more entries than it had permits for, behind the answer to its
    /// CLOSE_CONSUMER or UNSUBSCRIBE.
    MessageWithoutConsumer Broker "06-flow.md#rule-messagewithoutconsumer",
    /// MESSAGE before the response to SUBSCRIBE was written.
    MessageBeforeResponse Broker "06-flow.md#rule-messagebeforeresponse",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_name_its_side_and_a_chapter() {
        for rule in Rule::ALL {
            assert_eq!(rule.name(), format!("{rule:?}"));
            let heading = format!(".md#rule-{}", rule.name().to_lowercase());
            assert!(rule.chapter().starts_with("docs/protocol/") && rule.chapter().ends_with(&heading));
        }
        let of = |side| Rule::ALL.iter().filter(|rule| rule.broken_by() == side).count();
        assert_eq!(of(Side::Client) + of(Side::Broker) + of(Side::Either), Rule::ALL.len());
    }
}
