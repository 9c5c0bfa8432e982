//! End-to-end encryption: what is encrypted comes back, and what cannot be decrypted goes the way that was asked for.

use std::sync::atomic::AtomicBool;

use pulsar_native::{
    Compression, ConsumerCryptoFailureAction, ConsumerEvent, ConsumerEvents, CryptoKeyReader, DeadLetterPolicy,
    EncryptionKeyInfo, Error, PemKey, PemKeyReader, ProducerCryptoFailureAction, ReadUntil, SeekTo, UnreadableMessage,
    UnreadableMessagePolicy, UnreadableReason,
};

use super::unreadable::unreadable;
use super::*;

pub const FIRST: &str = include_str!("../keys/first.public.pem");
pub const FIRST_PRIVATE: &str = include_str!("../keys/first.pkcs1.pem");
const SECOND: &str = include_str!("../keys/second.public.pem");
const SECOND_PRIVATE: &str = include_str!("../keys/second.pkcs8.pem");

const NACK_DELAY: Duration = Duration::from_millis(100);

/// Not found in any encrypted payload.
const SECRET: &str = "the secret of this message";

fn public() -> PemKeyReader {
    PemKeyReader::new().with_public_key("first", PemKey::text(FIRST)).with_public_key("second", PemKey::text(SECOND))
}

fn private(name: &str, pem: &str) -> PemKeyReader {
    PemKeyReader::new().with_private_key(name, PemKey::text(pem))
}

fn producer(client: &Client, topic: &str) -> ProducerBuilder {
    client.producer(topic).encryption_key("first").crypto_key_reader(public())
}

fn consumer(client: &Client, topic: &str, name: &str) -> ConsumerBuilder {
    let builder = client.consumer(topic, name).subscription_type(SubscriptionType::Shared);
    builder.initial_position(InitialPosition::Earliest).negative_ack_redelivery_delay(NACK_DELAY)
}

fn numbered(number: usize, bytes: usize) -> Message {
    let payload = format!("{number} {SECRET} ").into_bytes().into_iter().cycle().take(bytes).collect::<Vec<_>>();
    Message::new(payload).with_key("the key").with_property("number", number.to_string())
}

fn shows_the_secret(message: &ReceivedMessage) -> bool {
    message.payload().windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}

/// The next event, before any message.
async fn next_unreadable(consumer: &mut Consumer, events: &mut ConsumerEvents) -> UnreadableMessage {
    tokio::select! {
        message = unreadable(events) => message,
        message = consumer.receive() => panic!("not an event: {message:?}"),
    }
}

/// Single, in a batch and in chunks, each compressed or not: all of it comes back, and none of it is to be seen in what the
/// broker stores.
pub async fn all_forms_come_back(target: &Target) {
    let client = target.client().await;
    for (batching, chunk_bytes) in [(false, 0), (true, 0), (false, 1000)] {
        for codec in [Compression::None, Compression::Lz4] {
            let topic = target.topic("forms");
            let builder = producer(&client, &topic).compression(codec).compress_min_msg_body_size(0);
            let builder = builder.batching(batching).chunking(chunk_bytes > 0).chunk_max_message_size(chunk_bytes);
            let sender = created(builder.batching_max_publish_delay(Duration::from_millis(20))).await;
            let mut reader =
                subscribed(consumer(&client, &topic, "reads").crypto_key_reader(private("first", FIRST_PRIVATE))).await;
            let action = ConsumerCryptoFailureAction::Consume;
            let mut stored = subscribed(consumer(&client, &topic, "stored").crypto_failure_action(action)).await;
            let sizes = [5000, 1, 0, 5000, 300];
            send_all(&sender, (0..sizes.len()).map(|at| numbered(at, sizes[at]))).await;
            for (at, bytes) in sizes.into_iter().enumerate() {
                let message = receive(&mut reader).await;
                assert_eq!(message.payload(), numbered(at, bytes).payload(), "{batching} {chunk_bytes} {codec:?}");
                assert_eq!((message.key(), message.property("number")), (Some("the key"), Some(&*at.to_string())));
                let context = message.encryption_context().expect("encrypted");
                assert!(context.is_decrypted() && context.keys().map(|key| key.name()).eq(["first"]));
                reader.ack(&message).expect("acknowledged");
            }
            drained(target, &topic, "reads").await;
            let mut members = 0;
            while members < sizes.len() {
                let message = receive(&mut stored).await;
                assert!(!shows_the_secret(&message), "{message:?}");
                let context = message.encryption_context().expect("encrypted");
                members += match context.chunk() {
                    Some(chunk) => usize::from(chunk.index + 1 == chunk.count),
                    None => context.batch_size().unwrap_or(1) as usize,
                };
                stored.ack(&message).expect("acknowledged");
            }
            drained(target, &topic, "stored").await;
        }
    }
}

/// With any of several keys a message can be read, and a consumer reads what several producers encrypt.
pub async fn several_keys(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("keys");
    let both = created(producer(&client, &topic).encryption_key("second")).await;
    let second = client.producer(&topic).encryption_key("second").crypto_key_reader(public());
    let second = created(second).await;
    let plain = created(client.producer(&topic)).await;
    let holds = [("a", private("first", FIRST_PRIVATE), 2), ("b", private("second", SECOND_PRIVATE), 3)];
    send(&both, "for both").await;
    send(&plain, "for all").await;
    send(&second, "for the second").await;
    for (name, keys, reads) in holds {
        let mut reader = subscribed(consumer(&client, &topic, name).crypto_key_reader(keys)).await;
        let mut events = reader.events();
        let texts = texts(&mut reader, reads).await;
        assert_eq!(texts, ["for both", "for all", "for the second"][..reads]);
        if reads == 2 {
            let message = next_unreadable(&mut reader, &mut events).await;
            let error = message.decryption_error().expect("it says why").to_string();
            assert!(error.contains("\"second\"") && error.contains("no private key of that name"), "{error}");
        }
    }
}

/// Has no private key until it is given one, and falls over when it is asked for another than the first.
#[derive(Clone, Default)]
struct Late(Arc<AtomicBool>);

impl CryptoKeyReader for Late {
    fn public_key(&self, _: &str, _: &[(String, String)]) -> Result<EncryptionKeyInfo, Error> {
        Ok(EncryptionKeyInfo::new(FIRST).with_metadata("version", "7"))
    }

    fn private_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo, Error> {
        assert_eq!((name, metadata), ("first", &[("version".to_owned(), "7".to_owned())][..]));
        match self.0.load(Ordering::Relaxed) {
            true => Ok(EncryptionKeyInfo::new(FIRST_PRIVATE)),
            false => Err(Error::crypto("it is not here yet")),
        }
    }
}

/// By default a message that cannot be decrypted is reported, does not stop others, and comes again: also once its key is
/// there. A key reader that panics is an error of that message.
pub async fn what_fails_comes_again(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("again");
    let keys = Late::default();
    let sender = created(client.producer(&topic).encryption_key("first").crypto_key_reader(keys.clone())).await;
    let other = created(client.producer(&topic).encryption_key("other").crypto_key_reader(keys.clone())).await;
    let plain = created(client.producer(&topic)).await;
    let mut reader = subscribed(consumer(&client, &topic, "s").crypto_key_reader(keys.clone())).await;
    let mut events = reader.events();
    let ids = [send(&sender, "secret").await, send(&other, "of another").await];
    send(&plain, "open").await;
    let message = receive(&mut reader).await;
    assert_eq!(message.to_string_lossy(), "open");
    reader.ack(&message).expect("acknowledged");
    for (id, why) in ids.iter().zip(["it is not here yet", "the crypto_key_reader panicked"]) {
        let message = unreadable(&mut events).await;
        let error = message.decryption_error().expect("it says why");
        assert_eq!((message.id(), message.reason()), (id.clone(), UnreadableReason::DecryptionFailed));
        assert!(error.kind() == ErrorKind::Crypto && error.to_string().contains(why), "{error}");
        assert!(!message.is_acknowledged());
    }
    let look = || target.subscription(&topic, "s");
    until("the acknowledgement", look, |seen| seen.unacked == 2).await;
    keys.0.store(true, Ordering::Relaxed);
    reader.nack_id(&ids[0]).expect("noted");
    let message = receive(&mut reader).await;
    assert_eq!((message.to_string_lossy().as_ref(), message.id()), ("secret", ids[0].clone()));
    let context = message.encryption_context().expect("encrypted");
    let key = context.keys().next().expect("a key");
    assert_eq!(key.metadata().collect::<Vec<_>>(), [("version", "7")]);
    reader.ack(&message).expect("acknowledged");
    reader.ack_id(&ids[1]).expect("acknowledged");
    drained(target, &topic, "s").await;
}

/// It comes again by itself where messages have to be acknowledged in time.
pub async fn what_fails_comes_again_in_time(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("in-time");
    let keys = Late::default();
    let sender = created(client.producer(&topic).encryption_key("first").crypto_key_reader(keys.clone())).await;
    let builder = consumer(&client, &topic, "s").crypto_key_reader(keys.clone());
    let mut reader = subscribed(builder.ack_timeout(Duration::from_secs(1))).await;
    let mut events = reader.events();
    send(&sender, "secret").await;
    next_unreadable(&mut reader, &mut events).await;
    keys.0.store(true, Ordering::Relaxed);
    let message = receive(&mut reader).await;
    assert_eq!(message.to_string_lossy(), "secret");
    reader.ack(&message).expect("acknowledged");
    drained(target, &topic, "s").await;
}

/// With another key: acknowledged and reported; a single message, a batch and each chunk.
pub async fn a_table_view_opens_them(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("encrypted-view");
    let producer = created(producer(&client, &topic)).await;
    send(&producer, numbered(1, 100)).await;
    let reader = private("first", FIRST_PRIVATE);
    let open = within("a view", client.table_view(&topic).crypto_key_reader(reader).create()).await.expect("a view");
    let value = open.get("the key").expect("a value");
    assert!(String::from_utf8_lossy(&value).contains(SECRET));

    // One that cannot: what it does not see is told, and its refresh does not wait for that.
    let closed = within("a view", client.table_view(&topic).create()).await.expect("a view");
    let mut events = closed.events();
    assert!(closed.is_empty());
    let event = within("the event", events.recv()).await;
    assert!(matches!(event, Some(ConsumerEvent::Unreadable(_))), "{event:?}");
    let consume = ConsumerCryptoFailureAction::Consume;
    let raw =
        within("a view", client.table_view(&topic).crypto_failure_action(consume).create()).await.expect("a view");
    assert!(raw.get("the key").is_some_and(|value| !String::from_utf8_lossy(&value).contains(SECRET)));
}

/// With the key, without it, and as it is stored. What a reader cannot open counts as read.
pub async fn a_reader_opens_them(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("encrypted-reader");
    send_in_each_form(&client, &topic).await;
    send(&created(client.producer(&topic)).await, "open").await;
    let builder = || client.reader(&topic, SeekTo::Earliest);
    let opened = builder().crypto_key_reader(private("first", FIRST_PRIVATE));
    let stored = builder().crypto_failure_action(ConsumerCryptoFailureAction::Consume);
    let discarded = builder().crypto_failure_action(ConsumerCryptoFailureAction::Discard);
    for (case, builder, secret, expected) in [
        ("opened", opened, 5, 6),
        ("stored", stored, 0, 5),
        ("discarded", discarded, 0, 1),
        ("failed", builder(), 0, 1),
    ] {
        let mut reader = within("a reader", builder.create()).await.expect("created");
        let mut events = reader.events();
        let mut messages = within("the end to be known", reader.until(ReadUntil::Now)).await.expect("a stream");
        let mut read = Vec::new();
        while let Some(message) = within("a message, or the end", messages.next()).await {
            read.push(message.expect("a message"));
        }
        drop(messages);
        let shown = read.iter().filter(|message| shows_the_secret(message)).count();
        assert_eq!((shown, read.len()), (secret, expected), "{case}");
        assert_eq!(read[expected - 1].to_string_lossy(), "open");
        for _ in 0..if expected == 1 { 4 } else { 0 } {
            unreadable(&mut events).await;
        }
        assert!(events.try_recv().is_none(), "{case}");
        assert!(!within("an answer", reader.has_next()).await.expect("an answer"), "{case}");
        let end = reader.checkpoint();
        let mut next = within("a reader", client.reader(&topic, end).create()).await.expect("created");
        assert!(!within("an answer", next.has_next()).await.expect("an answer"), "{case}: all of it counts as read");
    }
}

pub async fn discarded_where_that_is_asked_for(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("discarded");
    let action = ConsumerCryptoFailureAction::Discard;
    let wrong = private("first", SECOND_PRIVATE);
    let builder = consumer(&client, &topic, "s").crypto_key_reader(wrong).crypto_failure_action(action);
    let mut reader = subscribed(builder).await;
    let mut events = reader.events();
    send_in_each_form(&client, &topic).await;
    send(&created(client.producer(&topic)).await, "open").await;
    assert_eq!(texts(&mut reader, 1).await, ["open"]);
    for _ in 0..4 {
        let message = unreadable(&mut events).await;
        assert!(message.is_acknowledged() && message.reason() == UnreadableReason::DecryptionFailed, "{message:?}");
        let error = message.decryption_error().expect("it says why").to_string();
        assert!(error.contains("not encrypted for this key"), "{error}");
    }
    let look = || target.subscription(&topic, "s");
    until("the acknowledgements", look, |seen| seen.unacked == 1).await;
    assert_eq!(reader.stats().damaged_entries, 4);
}

/// A single message, a batch of three and a message of two chunks.
async fn send_in_each_form(client: &Client, topic: &str) {
    let single = created(producer(client, topic).batching(false).chunking(true).chunk_max_message_size(1000)).await;
    send(&single, numbered(0, 100)).await;
    let batching = producer(client, topic).batching_max_publish_delay(Duration::from_secs(1)).batching_max_messages(3);
    send_all(&created(batching).await, (0..3).map(|at| numbered(at, 100))).await;
    send(&single, numbered(0, 1900)).await;
}

/// Without any key: each entry is one message, with what it takes to open it.
pub async fn consumed_where_that_is_asked_for(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("consumed");
    let action = ConsumerCryptoFailureAction::Consume;
    let mut reader = subscribed(consumer(&client, &topic, "s").crypto_failure_action(action)).await;
    send_in_each_form(&client, &topic).await;
    let tag_bytes = 16;
    let mut forms = Vec::new();
    for message in receive_all(&mut reader, 4).await {
        let context = message.encryption_context().expect("encrypted");
        assert!(!context.is_decrypted() && !shows_the_secret(&message) && message.payload().len() >= 100 + tag_bytes);
        assert_eq!((context.param().len(), context.algorithm(), context.codec()), (12, None, 0));
        let key = context.keys().next().expect("a key");
        assert_eq!((key.name(), key.value().len(), key.metadata().count()), ("first", 256, 0));
        assert_eq!((message.key(), message.id().batch_index()), (Some("the key"), None));
        forms.push((context.batch_size(), context.chunk().map(|chunk| (chunk.index, chunk.count))));
        target.confirm(&reader, &message).await;
    }
    assert_eq!(forms, [(None, None), (Some(3), None), (None, Some((0, 2))), (None, Some((1, 2)))]);
    drained(target, &topic, "s").await;
    assert!(reader.events().try_recv().is_none(), "what is delivered is not reported");
}

/// The policies for all that cannot be read hold for this too.
pub async fn unreadable_policies_hold(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("policies");
    let wrong = || private("first", SECOND_PRIVATE);
    let acknowledging = consumer(&client, &topic, "acknowledges").crypto_key_reader(wrong());
    let policy = UnreadableMessagePolicy::Acknowledge;
    let mut acknowledging = subscribed(acknowledging.unreadable_message_policy(policy)).await;
    let policy = DeadLetterPolicy::new(1).with_unreadable(true).with_initial_subscription("operators");
    let giving_up = consumer(&client, &topic, "s").crypto_key_reader(wrong()).dead_letter_policy(policy);
    let giving_up = giving_up.crypto_failure_action(ConsumerCryptoFailureAction::Discard);
    let mut giving_up = subscribed(giving_up).await;
    let (mut events, mut given_up) = (acknowledging.events(), giving_up.events());
    send(&created(producer(&client, &topic)).await, numbered(7, 100)).await;
    assert!(next_unreadable(&mut acknowledging, &mut events).await.is_acknowledged());
    drained(target, &topic, "acknowledges").await;
    assert!(next_unreadable(&mut giving_up, &mut given_up).await.is_dead_letter());
    drained(target, &topic, "s").await;
    let letters = client.consumer(format!("{topic}-s-DLQ"), "operators").initial_position(InitialPosition::Earliest);
    let letter = receive(&mut subscribed(letters).await).await;
    assert!(!shows_the_secret(&letter) && letter.payload().len() == 116, "as it is stored");
    assert_eq!((letter.key(), letter.property("number")), (Some("the key"), Some("7")));
    let reason = letter.property("DEAD_LETTER_REASON").expect("a reason");
    assert!(reason.contains("not encrypted for this key"), "{reason}");
    assert!(letter.property("UNREADABLE_METADATA").is_some());
}

/// Dead letters are encrypted where their producer is told to.
pub async fn letters_can_be_encrypted_too(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("letters");
    let keyed = |builder: ProducerBuilder| builder.encryption_key("first").crypto_key_reader(public());
    let policy = DeadLetterPolicy::new(1).with_initial_subscription("operators").with_dead_letter_producer(keyed);
    let builder = consumer(&client, &topic, "s").crypto_key_reader(private("first", FIRST_PRIVATE));
    let mut reader = subscribed(builder.dead_letter_policy(policy)).await;
    send(&created(producer(&client, &topic)).await, numbered(7, 100)).await;
    for _ in 0..2 {
        let message = receive(&mut reader).await;
        reader.nack(&message).expect("noted");
    }
    let wait = async {
        tokio::select! {
            () = drained(target, &topic, "s") => {}
            message = reader.receive() => panic!("delivered once more: {message:?}"),
        }
    };
    wait.await;
    let letters = client.consumer(format!("{topic}-s-DLQ"), "operators").initial_position(InitialPosition::Earliest);
    let letters = letters.crypto_key_reader(private("first", FIRST_PRIVATE));
    let letter = receive(&mut subscribed(letters).await).await;
    assert_eq!(letter.payload(), numbered(7, 100).payload());
    assert!(letter.encryption_context().is_some_and(|context| context.is_decrypted()));
}

/// Sent again after a connection was lost, and chunks among them: each comes once, and opens.
pub async fn sent_again_after_an_unload(target: &Target) {
    const COUNT: usize = 60;
    let client = target.client().await;
    let topic = target.topic("unload");
    let builder = producer(&client, &topic).batching(false).chunking(true).chunk_max_message_size(1000);
    let sender = created(builder).await;
    let mut reader =
        subscribed(consumer(&client, &topic, "s").crypto_key_reader(private("first", FIRST_PRIVATE))).await;
    let mut pending = Vec::new();
    for at in 0..COUNT {
        if at == COUNT / 2 {
            target.cluster().unload(&topic).await;
        }
        let message = numbered(at, if at % 5 == 0 { 2500 } else { 100 });
        pending.push(within("capacity", sender.enqueue(message)).await.expect("accepted"));
    }
    for one in pending {
        within("a receipt", one).await.expect("stored");
    }
    let mut seen = BTreeSet::new();
    while seen.len() < COUNT {
        let message = receive(&mut reader).await;
        let at: usize = message.property("number").and_then(|number| number.parse().ok()).expect("its number");
        assert_eq!(message.payload(), numbered(at, if at % 5 == 0 { 2500 } else { 100 }).payload());
        seen.insert(at);
        reader.ack(&message).expect("acknowledged");
    }
    assert!(!matches!(reader.events().try_recv(), Some(ConsumerEvent::Unreadable(_))));
}

pub async fn options_that_cannot_work(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("options");
    let bad = [
        (
            client.producer(&topic).encryption_key("a"),
            ErrorKind::InvalidArgument,
            "encryption_key needs crypto_key_reader",
        ),
        (client.producer(&topic).crypto_key_reader(public()), ErrorKind::InvalidArgument, "needs encryption_key"),
        (
            client.producer(&topic).crypto_failure_action(ProducerCryptoFailureAction::Send),
            ErrorKind::InvalidArgument,
            "crypto_failure_action needs",
        ),
        (producer(&client, &topic).encryption_key(" "), ErrorKind::InvalidArgument, "blank"),
        (producer(&client, &topic).encryption_key("third"), ErrorKind::Crypto, "\"third\""),
        (
            client.producer(&topic).encryption_key("ec").crypto_key_reader(
                PemKeyReader::new().with_default_public_key(PemKey::file("tests/keys/ec.public.pem")),
            ),
            ErrorKind::Crypto,
            "EC key",
        ),
    ];
    for (builder, kind, why) in bad {
        let error = within("a refusal", builder.create()).await.expect_err(why);
        assert!(error.kind() == kind && error.to_string().contains(why), "{error}");
    }
}
