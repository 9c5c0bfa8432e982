//! Opening: names, epochs, where numbers start, and what was accepted before.

use super::*;

#[test]
fn the_first_attach_answers_and_the_request_says_what_is_known() {
    let mut harness = ProducerHarness::new(config(|config| config.properties = vec![("k".into(), "v".into())]));
    let request = harness.attach(41);
    assert_eq!((request.epoch, request.producer_name, request.producer_id), (Some(0), None, 7));
    assert_eq!((request.user_provided_producer_name, request.metadata.len()), (Some(false), 1));
    let created = poll_reply(&mut harness.created).expect("answered").expect("created");
    assert_eq!(created, ProducerCreated { name: "standalone-0-1".into(), last_sequence_id: 41 });
    harness.detach();
    let request = harness.attach(-1);
    assert_eq!((request.epoch, request.producer_name.as_deref()), (Some(1), Some("standalone-0-1")));
    assert_eq!(request.user_provided_producer_name, Some(false));
}

#[test]
fn the_schema_goes_with_each_request_and_its_version_with_each_frame() {
    let schema = SchemaInfo::new("n", SchemaType::Avro, "{}").with_property("k", "v");
    let mut harness = ProducerHarness::new(config(|config| config.schema = Some(schema)));
    let attach = |harness: &mut ProducerHarness, version: &'static str| {
        let request = harness.producer.open_request(harness.now);
        let opened = pb::CommandProducerSuccess {
            producer_name: "p".into(),
            schema_version: Some(version.into()),
            ..Default::default()
        };
        harness.producer.on_attached(&opened, &harness.peer, harness.now, &mut Deferred::new());
        request.schema.expect("a schema")
    };
    let versions = |sent: &[Sent]| sent.iter().map(|sent| sent.schema_version.clone()).collect::<Vec<_>>();
    let (first, second) = (Some(Bytes::from_static(b"1")), Some(Bytes::from_static(b"2")));

    let _ = (harness.push("a"), harness.push("b"));
    let sent = attach(&mut harness, "1");
    assert_eq!((sent.r#type(), &sent.schema_data[..]), (pb::schema::Type::Avro, &b"{}"[..]));
    assert_eq!((sent.name.as_str(), sent.properties.len()), ("n", 1));
    let _ = harness.push(Message::new("alone").with_batching(false));
    assert_eq!(versions(&harness.transmit()), [first.clone(), first.clone()]);
    harness.detach();
    assert_eq!(attach(&mut harness, "2"), sent, "the same each time");
    let _ = harness.push("c");
    assert_eq!(versions(&harness.transmit()), [first.clone(), first, second], "what was sealed goes out as it was");
    harness.detach();
    attach(&mut harness, "");
    let _ = harness.push("d");
    assert_eq!(versions(&harness.transmit()).last(), Some(&None), "an empty version is none");
}

/// The broker ignores an access mode that it does not know, and names no topic epoch.
#[test]
fn a_shared_producer_that_was_to_be_exclusive_is_refused_by_its_mode() {
    let mut harness = ProducerHarness::new(config(|config| config.access_mode = AccessMode::ExclusiveWithFencing));
    harness.attach(-1);
    let error = poll_reply(&mut harness.created).expect("answered").expect_err("it shares the topic");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("access_mode ExclusiveWithFencing"), "{error}");
    assert!(harness.producer.is_finished() && !harness.producer.is_closed_at_broker(), "it is still to be closed");

    let mut harness = ProducerHarness::new(config(|config| config.access_mode = AccessMode::Exclusive));
    harness.producer.open_request(harness.now);
    let opened = pb::CommandProducerSuccess { topic_epoch: Some(0), ..Default::default() };
    harness.producer.on_attached(&opened, &harness.peer, harness.now, &mut Deferred::new());
    poll_reply(&mut harness.created).expect("answered").expect("it has the topic alone");
    // Answered again for the same producer: no epoch, and nothing new.
    harness.detach();
    harness.attach(-1);
    assert!(harness.producer.is_attached());
}

#[test]
fn only_the_first_attach_says_where_numbers_start() {
    let mut harness = ProducerHarness::new(unbatched());
    harness.attach(41);
    let _ = harness.push("a");
    assert_eq!(ids(&harness.transmit()), [42]);
    harness.detach();
    harness.attach(-1);
    let _ = harness.push("b");
    assert_eq!(ids(&harness.transmit()), [42, 43]);

    let mut harness = ProducerHarness::new(config(|config| config.initial_sequence_id = Some(9)));
    harness.attach(41);
    let _ = harness.push("a");
    assert_eq!((ids(&harness.transmit()), harness.producer.last_sequence_id()), (vec![10], Some(9)));
}

#[test]
fn creation_ends_at_its_deadline_and_names_the_cause() {
    let mut harness = ProducerHarness::new(ProducerConfig::default());
    harness.producer.open_request(harness.now);
    harness.detach();
    harness.pass(29 * SECOND);
    assert!(poll_reply(&mut harness.created).is_none());
    harness.pass(SECOND);
    let error = poll_reply(&mut harness.created).expect("answered").expect_err("timed out");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TimedOut, Some("persistent://a/b/t")));
    assert!(harness.producer.is_finished());
}

#[test]
fn waiting_for_exclusive_access_has_no_time_limit() {
    let mut harness = ProducerHarness::new(ProducerConfig::default());
    harness.producer.open_request(harness.now);
    harness.producer.on_queued();
    harness.pass(3600 * SECOND);
    assert!(poll_reply(&mut harness.created).is_none() && !harness.producer.is_attached());
    harness.opened(-1);
    assert!(matches!(poll_reply(&mut harness.created), Some(Ok(_))));
}

#[test]
fn messages_accepted_before_the_first_attach_go_out_in_order() {
    let mut harness = ProducerHarness::new(config(|config| config.batching_max_messages = 3));
    let sends: Vec<_> = (0..5).map(|at| harness.push(format!("m{at}"))).collect();
    let _ = harness.push(Message::new("later").with_deliver_at(std::time::UNIX_EPOCH));
    let _ = harness.push("last");
    assert!(harness.transmit().is_empty());
    harness.attach(99);
    let sent = harness.transmit();
    assert_eq!((sizes(&sent), ids(&sent)), (vec![3, 2, 1, 1], (100..107).collect::<Vec<_>>()));
    let payloads: Vec<_> = sent.iter().flat_map(|sent| sent.payloads.clone()).collect();
    assert_eq!(payloads, ["m0", "m1", "m2", "m3", "m4", "later", "last"]);
    harness.confirm(100);
    assert_eq!((id_of(&sends[2]).batch_index(), is_pending(&sends[3])), (Some(2), true));
}
