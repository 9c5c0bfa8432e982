//! Numbers with a meaning: which producer, which consumer, which request.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// `producer_id` of the protocol: chosen by the client, unique on a connection, stable for a producer's life.
    ProducerId
);
id!(
    /// `consumer_id` of the protocol: chosen by the client, unique on a connection, stable for a consumer's life.
    ConsumerId
);
id!(
    /// `request_id` of the protocol: chosen by the client, echoed by the broker.
    RequestId
);
