//! Commands that are larger than the broker takes. One that was written would cost the connection, which others share.

use prost::Message;

use super::error::RequestError;
use crate::pb;
use crate::wire::command::Command;
use crate::wire::frame::Limits;

/// Whether the broker takes the frame of `command`.
///
/// # Errors
/// [`RequestError::TooLarge`], with the option that most of its bytes are of.
pub(super) fn check_size(command: &Command, limits: &Limits) -> Result<(), RequestError> {
    let (bytes, max) = (command.encoded_len(), limits.frame_bytes_max);
    if bytes <= max {
        return Ok(());
    }
    let (option, option_bytes) = largest_option(command);
    Err(RequestError::TooLarge { option, option_bytes, bytes, max })
}

/// The option of the application that takes most of the command, by its name in the builders, and its bytes.
fn largest_option(command: &Command) -> (&'static str, usize) {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let schema = |schema: &Option<pb::Schema>| schema.as_ref().map_or(0, Message::encoded_len);
    let options = match command {
        Command::Producer(producer) => vec![
            ("topic", producer.topic.len()),
            ("name", text(&producer.producer_name)),
            ("producer_property", pairs(&producer.metadata)),
            ("schema", schema(&producer.schema)),
        ],
        Command::Subscribe(subscribe) => vec![
            ("topic", subscribe.topic.len()),
            ("subscription", subscribe.subscription.len()),
            ("name", text(&subscribe.consumer_name)),
            ("consumer_property", pairs(&subscribe.metadata)),
            ("subscription_property", pairs(&subscribe.subscription_properties)),
            ("key_shared_policy", subscribe.key_shared_meta.as_ref().map_or(0, Message::encoded_len)),
            ("schema", schema(&subscribe.schema)),
        ],
        Command::Lookup(lookup) => {
            vec![("topic", lookup.topic.len()), ("listener_name", text(&lookup.advertised_listener_name))]
        }
        Command::PartitionedMetadata(request) => vec![("topic", request.topic.len())],
        Command::GetOrCreateSchema(request) => {
            vec![("topic", request.topic.len()), ("schema", request.schema.encoded_len())]
        }
        _ => Vec::new(),
    };
    let largest = options.into_iter().max_by_key(|&(_, bytes)| bytes);
    largest.unwrap_or((command.name(), command.encoded_len()))
}

fn pairs(pairs: &[pb::KeyValue]) -> usize {
    pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_the_frame_and_the_largest_option_is_named() {
        let limits = Limits { frame_bytes_max: 1000 };
        let producer = |topic: usize, name: usize| {
            let (topic, name) = ("t".repeat(topic), "n".repeat(name));
            Command::Producer(pb::CommandProducer { topic, producer_name: Some(name), ..Default::default() })
        };
        let rest = producer(500, 400).encoded_len() - 900;
        assert_eq!(check_size(&producer(500, 500 - rest), &limits), Ok(()));
        let named = |topic, name| match check_size(&producer(topic, name), &limits) {
            Err(RequestError::TooLarge { option, option_bytes, .. }) => (option, option_bytes),
            other => panic!("{other:?}"),
        };
        assert_eq!(named(501 - rest, 500), ("name", 500));
        assert_eq!(named(900, 300), ("topic", 900));

        let schema = pb::Schema { name: "s".to_owned(), schema_data: vec![b'x'; 2000].into(), ..Default::default() };
        let registration = pb::CommandGetOrCreateSchema { schema: schema.clone(), ..Default::default() };
        for command in [
            pb::CommandProducer { schema: Some(schema.clone()), ..Default::default() }.into(),
            pb::CommandSubscribe { schema: Some(schema), ..Default::default() }.into(),
            Command::from(registration),
        ] {
            let refused = check_size(&command, &limits);
            assert!(matches!(refused, Err(RequestError::TooLarge { option: "schema", .. })), "{refused:?}");
        }
    }
}
