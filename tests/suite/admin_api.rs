//! The admin API: paths, status codes and bodies. The statistics that clients read are in [`super::topic_stats`].

use pulsar_native::SeekTo;
use serde_json::{Value, json};

use super::*;
use crate::common::admin_http;

/// The admin API of one target, and names that no other test has.
pub(super) struct AdminApi<'a> {
    target: &'a Target,
    address: String,
    token: String,
}

impl<'a> AdminApi<'a> {
    /// `None` if the service URL is not that of the REST interface; then nothing but a connection is made.
    pub(super) async fn of(target: &'a Target) -> Option<Self> {
        let token = target.cluster().token(target::Role::Admin);
        drop(target.client().await);
        target.is_http().then(|| Self { target, address: target.address(), token })
    }

    /// A name without tenant and namespace.
    pub(super) fn name(&self, name: &str) -> String {
        self.target.topic(name).rsplit('/').next().expect("a local name").to_owned()
    }

    /// Status and body; null for none.
    async fn ask(&self, method: &str, path: &str, body: impl Into<Value>) -> (u16, Value) {
        let body = match body.into() {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let path = format!("/admin/v2/{path}");
        let answer = admin_http::request(&self.address, &self.token, method, &path, &body);
        let answer = within("an answer of the admin port", answer).await.expect("an answer of the admin port");
        let body = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
        (answer.status, if body == json!("") { Value::Null } else { body })
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, Value::Null).await
    }

    /// The status alone.
    async fn status(&self, method: &str, path: &str, body: impl Into<Value>) -> u16 {
        self.ask(method, path, body).await.0
    }

    /// A request that is expected to succeed without an answer.
    pub(super) async fn done(&self, method: &str, path: &str, body: impl Into<Value>) {
        assert_eq!(self.ask(method, path, body).await, (204, Value::Null), "{method} {path}");
    }

    /// The broker's cluster, which is the only one.
    async fn cluster(&self) -> String {
        self.get("clusters").await.1[0].as_str().expect("one cluster").to_owned()
    }

    async fn refused(&self, method: &str, path: &str, body: impl Into<Value>, status: u16, reason: &str) {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer, (status, json!({ "reason": reason })), "{method} {path}");
    }
}

/// Ledger and entry of a message.
fn place(id: &MessageId) -> (u64, u64) {
    (id.ledger_id().expect("a ledger"), id.entry_id().expect("an entry"))
}

/// Makes, counts, grows, lists and deletes topics.
pub async fn topics(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let (parts, plain) = (admin.name("parts"), admin.name("plain"));
    let topic = |name: &str| format!("persistent/public/default/{name}");
    let full = |name: &str| format!("persistent://public/default/{name}");
    let partitions = topic(&parts) + "/partitions";
    admin.refused("GET", &partitions, (), 404, &format!("Topic {} not found", full(&parts))).await;
    admin.refused("PUT", &partitions, 0, 406, "Number of partitions should be more than 0").await;
    admin.done("PUT", &partitions, 2).await;
    admin.done("PUT", &format!("{}/properties", topic(&parts)), json!({ "a": "b" })).await;
    admin.refused("PUT", &partitions, 3, 409, "This topic already exists").await;
    let known = json!({ "partitions": 2, "deleted": false, "properties": { "a": "b" } });
    assert_eq!(admin.get(&partitions).await, (200, known));
    let reason = "Desired partitions 1 can't be less than the current partitions 2.";
    admin.refused("POST", &partitions, 1, 422, reason).await;
    admin.done("POST", &partitions, 3).await;
    assert_eq!(admin.get(&partitions).await.1["partitions"], 3);
    admin.done("PUT", &topic(&plain), json!({ "k": "v" })).await;
    admin.refused("PUT", &topic(&plain), (), 409, "This topic already exists").await;
    admin.refused("PUT", &topic(&parts), (), 409, "This topic already exists").await;
    admin.done("PUT", &format!("{}/properties", topic(&plain)), json!({ "x": "y" })).await;
    let properties = admin.get(&format!("{}/properties", topic(&plain))).await;
    assert_eq!(properties, (200, json!({ "k": "v", "x": "y" })));
    admin.refused("PUT", "persistent/public/missing/t", (), 404, "Namespace not found").await;
    assert_eq!(admin.status("PUT", &topic(&format!("{plain}-partition-0")), ()).await, 412);
    let (_, list) = admin.get("persistent/public/default").await;
    let list: BTreeSet<_> = list.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for name in [&plain, &format!("{parts}-partition-0"), &format!("{parts}-partition-2")] {
        assert!(list.contains(full(name).as_str()), "{name} is not in {list:?}");
    }
    let (_, partitioned) = admin.get("persistent/public/default/partitioned").await;
    assert!(partitioned.as_array().expect("a list").contains(&json!(full(&parts))), "{partitioned}");
    admin.done("PUT", &format!("{}/unload", topic(&plain)), ()).await;
    let reason = "Termination of a partitioned topic is not allowed";
    admin.refused("POST", &format!("{}/terminate", topic(&parts)), (), 405, reason).await;
    let (status, last) = admin.ask("POST", &format!("{}/terminate", topic(&plain)), ()).await;
    assert_eq!((status, &last["entryId"], &last["partitionIndex"]), (200, &json!(-1), &json!(-1)));
    let reason = format!(
        "{} is a partitioned topic, instead of calling delete topic, please call delete-partitioned-topic.",
        full(&parts)
    );
    admin.refused("DELETE", &topic(&parts), (), 409, &reason).await;
    admin.done("DELETE", &partitions, ()).await;
    admin.refused("DELETE", &partitions, (), 404, &format!("Topic {} not found.", full(&parts))).await;
    admin.done("DELETE", &topic(&plain), ()).await;
    admin.refused("DELETE", &topic(&plain), (), 404, &format!("Topic {} not found", full(&plain))).await;
}

/// A topic that is in use is deleted by force alone.
pub async fn topics_in_use(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let name = admin.name("in-use");
    let path = format!("persistent/public/default/{name}");
    let client = target.client().await;
    let topic = format!("persistent://public/default/{name}");
    let _producer = created(client.producer(&topic)).await;
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    admin.refused("DELETE", &path, (), 412, "Topic has 2 connected producers/consumers").await;
    let subscription = format!("{path}/subscription/s");
    admin.refused("DELETE", &subscription, (), 412, "Subscription has active connected consumers").await;
    drop(consumer);
    let gone = || async { target.subscription(&topic, "s").await.consumers.len() };
    until("the consumer to be gone", gone, |consumers| *consumers == 0).await;
    admin.done("DELETE", &subscription, ()).await;
    within("the close", client.close()).await.expect("closed");
    admin.done("DELETE", &format!("{path}?force=true"), ()).await;
    assert_eq!(admin.status("GET", &format!("{path}/stats"), ()).await, 404);
}

/// Makes subscriptions, moves them, and looks at what they have before them.
pub async fn subscriptions(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let name = admin.name("subscriptions");
    let path = format!("persistent/public/default/{name}");
    let topic = format!("persistent://public/default/{name}");
    let client = target.client().await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let ids = send_all(&producer, ["m0", "m1", "m2", "m3", "m4"]).await;
    let of = |name: &str| format!("{path}/subscription/{name}");
    admin.done("PUT", &of("end"), ()).await;
    admin.refused("PUT", &of("end"), (), 409, "Subscription already exists for topic").await;
    let earliest = json!({ "ledgerId": -1, "entryId": -1, "partitionIndex": -1, "properties": { "a": "b" } });
    admin.done("PUT", &of("start"), earliest).await;
    let (_, list) = admin.get(&format!("{path}/subscriptions")).await;
    let mut list: Vec<_> = list.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    list.sort_unstable();
    assert_eq!(list, ["end", "start"]);
    assert_eq!(admin.get(&(of("start") + "/properties")).await, (200, json!({ "a": "b" })));
    let first = || async { admin.get(&(of("start") + "/position/1")).await };
    assert_eq!(first().await, (200, json!("m0")));
    assert_eq!(admin.get(&(of("start") + "/position/3")).await, (200, json!("m2")));
    admin.refused("GET", &(of("start") + "/position/99"), (), 404, "Message not found").await;
    admin.done("POST", &(of("start") + "/skip/2"), ()).await;
    assert_eq!(first().await, (200, json!("m2")));
    admin.done("POST", &(of("start") + "/skip_all"), ()).await;
    admin.refused("GET", &(of("start") + "/position/1"), (), 404, "Message not found").await;
    admin.done("POST", &(of("start") + "/resetcursor/0"), ()).await;
    assert_eq!(first().await, (200, json!("m0")));
    let (ledger, entry) = place(&ids[3]);
    let id = json!({ "ledgerId": ledger, "entryId": entry, "partitionIndex": -1 });
    admin.done("POST", &(of("start") + "/resetcursor"), id).await;
    assert_eq!(first().await, (200, json!("m3")));
    admin.done("POST", &(of("start") + "/expireMessages/3600"), ()).await;
    assert_eq!(first().await, (200, json!("m3")), "nothing is that old");
    assert_eq!(admin.status("POST", &(of("end") + "/expireMessages/3600"), ()).await, 409, "it has nothing before it");
    let (status, backlog) = admin.ask("POST", &(of("start") + "/analyzeBacklog"), ()).await;
    assert_eq!((status, &backlog["entries"], &backlog["messages"]), (200, &json!(2), &json!(2)), "{backlog}");
    let missing = format!("Subscription missing not found for topic {topic}");
    admin.refused("DELETE", &of("missing"), (), 404, &missing).await;
    admin.done("DELETE", &of("start"), ()).await;
    let missing = format!("Subscription start not found for topic {topic}");
    admin.refused("DELETE", &of("start"), (), 404, &missing).await;
}

/// Looks at stored messages.
pub async fn messages(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let name = admin.name("messages");
    let path = format!("persistent/public/default/{name}");
    let topic = format!("persistent://public/default/{name}");
    let client = target.client().await;
    admin.done("PUT", &path, ()).await;
    let examine = format!("{path}/examinemessage?initialPosition=earliest&messagePosition=1");
    let reason = "Could not examine messages due to the total message is zero";
    admin.refused("GET", &examine, (), 412, reason).await;
    let (_, last) = admin.get(&format!("{path}/lastMessageId")).await;
    assert_eq!((&last["entryId"], &last["batchIndex"]), (&json!(-1), &json!(-1)), "{last}");
    let producer = created(client.producer(&topic).batching(false)).await;
    let ids = send_all(&producer, ["one", "two"]).await;
    let ((ledger, entry), (last_ledger, last_entry)) = (place(&ids[0]), place(&ids[1]));
    assert_eq!(admin.get(&format!("{path}/ledger/{ledger}/entry/{entry}")).await, (200, json!("one")));
    assert_eq!(admin.get(&examine).await, (200, json!("one")));
    let latest = format!("{path}/examinemessage?initialPosition=latest&messagePosition=1");
    assert_eq!(admin.get(&latest).await, (200, json!("two")));
    let missing = format!("{path}/ledger/999999999/entry/0");
    admin.refused("GET", &missing, (), 404, "Message id not found").await;
    let (_, last) = admin.get(&format!("{path}/lastMessageId")).await;
    assert_eq!((&last["ledgerId"], &last["entryId"]), (&json!(last_ledger), &json!(last_entry)));
    let (_, by_time) = admin.get(&format!("{path}/messageid/0")).await;
    assert_eq!((&by_time["ledgerId"], &by_time["entryId"]), (&json!(ledger), &json!(entry)));
    let mut sizes = Vec::new();
    for (ledger, entry) in [(ledger, entry), (last_ledger, last_entry)] {
        let from = json!({ "ledgerId": ledger, "entryId": entry });
        sizes.push(admin.ask("PUT", &format!("{path}/backlogSize"), from).await.1.as_u64().expect("bytes"));
    }
    assert!(sizes[0] > sizes[1], "{sizes:?}");
    let (_, internal) = admin.get(&format!("{path}/internalStats")).await;
    let position = format!("{last_ledger}:{last_entry}");
    assert_eq!((&internal["lastConfirmedEntry"], &internal["numberOfEntries"]), (&json!(position), &json!(2)));
    assert_eq!((&internal["state"], &internal["currentLedgerEntries"]), (&json!("LedgerOpened"), &json!(2)));
}

/// What topics, subscriptions, producers and consumers say of themselves.
pub async fn statistics(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let name = admin.name("statistics");
    let path = format!("persistent/public/default/{name}");
    let topic = format!("persistent://public/default/{name}");
    admin.done("PUT", &format!("{path}/partitions"), 2).await;
    let client = target.client().await;
    let producer = created(client.producer(format!("{topic}-partition-0")).producer_property("made-by", "p")).await;
    let consumer = client.consumer(&topic, "s").name("mine").consumer_property("read-by", "c");
    let consumer = subscribed(consumer.subscription_type(SubscriptionType::Failover)).await;
    send_all(&producer, ["one", "two"]).await;
    let look = || async { admin.get(&format!("{path}/partitioned-stats")).await.1 };
    let stats = until("an active consumer", look, |stats| {
        stats["partitions"][format!("{topic}-partition-0")]["subscriptions"]["s"]["activeConsumerName"] == "mine"
    });
    let stats = stats.await;
    assert_eq!((&stats["metadata"]["partitions"], &stats["msgInCounter"]), (&json!(2), &json!(2)), "{stats}");
    let one = &stats["partitions"][format!("{topic}-partition-0")];
    let other = &stats["partitions"][format!("{topic}-partition-1")];
    let average = |stats: &Value| stats["averageMsgSize"].as_f64().expect("a size");
    assert!((average(&stats) - average(one).midpoint(average(other))).abs() < 0.001, "{stats}");
    let publisher = &one["publishers"][0];
    assert_eq!((&publisher["producerName"], &publisher["accessMode"]), (&json!(producer.name()), &json!("Shared")));
    assert_eq!(publisher["metadata"], json!({ "made-by": "p" }));
    let sub = &one["subscriptions"]["s"];
    assert_eq!((&sub["type"], &sub["isDurable"]), (&json!("Failover"), &json!(true)), "{sub}");
    let mine = &sub["consumers"][0];
    assert_eq!((&mine["consumerName"], &mine["metadata"]), (&json!("mine"), &json!({ "read-by": "c" })), "{mine}");
    for place in [sub, mine] {
        assert!(place["lastConsumedFlowTimestamp"].as_u64() > Some(0), "{place}");
    }
    for place in [publisher, mine] {
        assert!(place["address"].as_str().is_some_and(|address| address.starts_with("/127.0.0.1:")), "{place}");
        assert!(place["clientVersion"].as_str().is_some_and(|version| version.starts_with("Pulsar-Rust")), "{place}");
        assert!(place["connectedSince"].as_str().is_some_and(|since| since.ends_with('Z')), "{place}");
    }
    let reason = "Partitioned Topic Name should not contain '-partition-'";
    admin.refused("GET", &format!("{path}-partition-0/partitioned-stats"), (), 412, reason).await;
    let missing = format!("Partitioned Topic {topic}-other not found");
    admin.refused("GET", &format!("{path}-other/partitioned-stats"), (), 404, &missing).await;
    let (_, whole) = admin.get(&format!("{path}/partitioned-stats?perPartition=false")).await;
    assert_eq!(whole["partitions"], json!({}));
    drop(consumer);
}

/// The same of a reader.
pub async fn statistics_of_a_reader(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let path = format!("persistent/public/default/{}", admin.name("reads"));
    admin.done("PUT", &path, ()).await;
    let client = target.client().await;
    let builder = client.reader(path.replacen('/', "://", 1), SeekTo::Earliest).reader_name("mine");
    let builder = builder.subscription_name("s").consumer_property("read-by", "r").consumer_property("since", "today");
    let _reader = within("a reader", builder.create()).await.expect("a reader");
    let (_, stats) = admin.get(&format!("{path}/stats")).await;
    let (sub, mine) = (&stats["subscriptions"]["s"], &stats["subscriptions"]["s"]["consumers"][0]);
    assert_eq!((&sub["type"], &sub["isDurable"]), (&json!("Exclusive"), &json!(false)), "{sub}");
    let properties = json!({ "read-by": "r", "since": "today" });
    assert_eq!((&mine["consumerName"], &mine["metadata"]), (&json!("mine"), &properties), "{mine}");
}

/// Makes and deletes clusters, tenants and namespaces.
pub async fn tenants_and_namespaces(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let (tenant, cluster) = (admin.name("tenant"), admin.name("cluster"));
    let own = admin.cluster().await;
    let info = json!({ "adminRoles": ["r"], "allowedClusters": [own] });
    let path = format!("tenants/{tenant}");
    admin.refused("GET", &path, (), 404, "Tenant does not exist").await;
    admin.done("PUT", &path, info.clone()).await;
    admin.refused("PUT", &path, info.clone(), 409, "Tenant already exist").await;
    assert_eq!(admin.get(&path).await, (200, info));
    let nowhere = json!({ "adminRoles": [], "allowedClusters": ["nowhere"] });
    admin.refused("PUT", &format!("{path}-2"), nowhere, 412, "Clusters do not exist").await;
    admin.refused("PUT", "tenants/a%20b", json!({}), 412, "Tenant name is not valid").await;
    let namespace = format!("namespaces/{tenant}/one");
    admin.refused("GET", &namespace, (), 404, "Namespace does not exist").await;
    admin.done("PUT", &namespace, ()).await;
    admin.refused("PUT", &namespace, (), 409, "Namespace already exists").await;
    admin.refused("PUT", &format!("namespaces/{tenant}-2/one"), (), 404, "Tenant does not exist").await;
    assert_eq!(admin.get(&format!("namespaces/{tenant}")).await, (200, json!([format!("{tenant}/one")])));
    assert_eq!(admin.get(&namespace).await.1["replication_clusters"], json!([own]));
    admin.refused("DELETE", &path, (), 409, "The tenant still has active namespaces").await;
    let topic = format!("persistent/{tenant}/one/t");
    admin.done("PUT", &topic, ()).await;
    admin.refused("DELETE", &namespace, (), 409, "Cannot delete non empty namespace").await;
    admin.done("DELETE", &topic, ()).await;
    admin.done("DELETE", &namespace, ()).await;
    admin.refused("DELETE", &namespace, (), 404, &format!("Namespace {tenant}/one does not exist.")).await;
    admin.done("DELETE", &path, ()).await;
    admin.refused("DELETE", &path, (), 404, "Tenant doesn't exist").await;
    let path = format!("clusters/{cluster}");
    let urls = json!({ "serviceUrl": "http://127.0.0.1:1", "brokerServiceUrl": "pulsar://127.0.0.1:2" });
    assert_eq!(admin.ask("PUT", &path, urls.clone()).await, (200, Value::Null));
    admin.refused("PUT", &path, urls, 409, "Cluster already exists").await;
    assert_eq!(admin.get(&path).await.1["brokerServiceUrl"], "pulsar://127.0.0.1:2");
    admin.done("DELETE", &path, ()).await;
    admin.refused("GET", &path, (), 404, "Cluster does not exist").await;
    let (_, clusters) = admin.get("clusters").await;
    assert_eq!(clusters, json!([own]));
}

/// Registers, reads and deletes schemas.
pub async fn schemas(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let path = format!("schemas/public/default/{}", admin.name("schemas"));
    let one = format!("{path}/schema");
    admin.refused("GET", &one, (), 404, "Schema not found").await;
    let definition = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    let avro = json!({ "type": "AVRO", "schema": definition, "properties": { "p": "q" } });
    assert_eq!(admin.ask("POST", &one, avro.clone()).await, (200, json!({ "version": { "version": 0 } })));
    assert_eq!(admin.ask("POST", &one, avro.clone()).await, (200, json!({ "version": { "version": 0 } })));
    let (_, known) = admin.get(&one).await;
    assert_eq!((&known["type"], &known["data"], &known["version"]), (&json!("AVRO"), &json!(definition), &json!(0)));
    assert_eq!(known["properties"], json!({ "p": "q" }));
    assert_eq!(admin.get(&format!("{one}/0")).await, (200, known.clone()));
    admin.refused("GET", &format!("{one}/9"), (), 404, "Schema not found").await;
    assert_eq!(admin.get(&format!("{path}/schemas")).await, (200, json!({ "getSchemaResponses": [known] })));
    let compatible = json!({ "compatibility": true, "schemaCompatibilityStrategy": "FULL" });
    assert_eq!(admin.ask("POST", &format!("{path}/compatibility"), avro.clone()).await, (202, compatible));
    assert_eq!(admin.ask("POST", &format!("{path}/version"), avro).await, (200, json!({ "version": 0 })));
    let text = json!({ "type": "STRING", "schema": "", "properties": {} });
    assert_eq!(admin.status("POST", &one, text.clone()).await, 409, "a schema of another type");
    assert_eq!(admin.ask("DELETE", &one, ()).await, (200, json!({ "version": 1 })));
    assert_eq!(admin.ask("DELETE", &one, ()).await, (200, json!({ "version": 2 })));
    assert_eq!(admin.ask("POST", &one, text.clone()).await, (200, json!({ "version": { "version": 3 } })));
    assert_eq!(admin.get(&format!("{one}/3")).await.1["type"], json!("STRING"));
    for deleted in 0..3 {
        admin.refused("GET", &format!("{one}/{deleted}"), (), 404, "Schema not found").await;
    }
    assert_eq!(admin.ask("DELETE", &format!("{one}?force=true"), ()).await, (200, json!({ "version": -1 })));
    admin.refused("GET", &one, (), 404, "Schema not found").await;
    assert_eq!(admin.ask("POST", &one, text).await, (200, json!({ "version": { "version": 0 } })));
    let pair = format!("schemas/public/default/{}/schema", admin.name("pairs"));
    let properties =
        json!({ "key.schema.type": "STRING", "value.schema.type": "STRING", "kv.encoding.type": "INLINE" });
    let definition = r#"{"key":"","value":""}"#;
    let pairs = json!({ "type": "KEY_VALUE", "schema": definition, "properties": properties });
    assert_eq!(admin.status("POST", &pair, pairs).await, 200);
    assert_eq!(admin.get(&pair).await.1["data"], json!(definition));
}

/// What the broker says of itself, and who may ask what.
pub async fn rights(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    assert_eq!(admin.get("brokers/health").await, (200, json!("ok")));
    assert_eq!(admin.status("GET", "brokers/version", ()).await, 200);
    let nobody =
        AdminApi { token: target.cluster().token(target::Role::Nobody), address: admin.address.clone(), ..admin };
    for (method, path, status) in [
        ("GET", "clusters", 200),
        ("GET", "brokers/ready", 200),
        ("GET", "brokers/health", 401),
        ("GET", "tenants", 401),
        ("PUT", "tenants/never", 401),
        ("GET", "namespaces/public", 401),
        ("PUT", "namespaces/public/never", 401),
        ("GET", "namespaces/public/default", 403),
        ("GET", "persistent/public/default", 403),
        ("PUT", "persistent/public/default/never", 403),
        ("DELETE", "persistent/public/default/never", 403),
        ("GET", "schemas/public/default/never/schema", 401),
        ("GET", "persistent/public/default/never/partitions", 401),
        ("GET", "persistent/public/default/never/messageTTL", 403),
        ("GET", "persistent/public/default/never/permissions", 401),
        ("PUT", "namespaces/public/default/unload", 401),
        ("GET", "namespaces/nowhere/at-all", 404),
        ("GET", "persistent/nowhere/at-all/never/partitions", 404),
    ] {
        let (found, body) = nobody.ask(method, path, ()).await;
        assert_eq!(found, status, "{method} {path}: {body}");
    }
    let stranger = AdminApi { token: "no-token".to_owned(), ..nobody };
    assert_eq!(stranger.status("GET", "clusters", ()).await, 401);
    assert_eq!(stranger.status("PUT", "persistent/public/default/never", ()).await, 401);
}

/// A role that administers a tenant does there what a super user does, but for what is the broker's.
pub async fn a_tenants_administrator(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let (tenant, cluster) = (admin.name("owned"), admin.cluster().await);
    let role = target::Role::Nobody;
    let owner = AdminApi { target, token: target.cluster().token(role), address: admin.address.clone() };
    let tenants = format!("tenants/{tenant}");
    admin.done("PUT", &tenants, json!({ "adminRoles": [], "allowedClusters": [&cluster] })).await;
    let namespace = format!("namespaces/{tenant}/inside");
    assert_eq!(owner.status("PUT", &namespace, ()).await, 401, "not yet");
    let owned = json!({ "adminRoles": ["nobody"], "allowedClusters": [&cluster] });
    admin.done("POST", &tenants, owned.clone()).await;
    assert_eq!(owner.get(&tenants).await, (200, owned));
    owner.done("PUT", &namespace, ()).await;
    owner.done("POST", &format!("{namespace}/messageTTL"), 60).await;
    owner.done("POST", &format!("{namespace}/permissions/someone"), json!(["consume"])).await;
    let topic = format!("persistent/{tenant}/inside/orders");
    owner.done("PUT", &topic, ()).await;
    for path in [format!("{topic}/stats"), format!("{topic}/permissions"), format!("persistent/{tenant}/inside")] {
        assert_eq!(owner.get(&path).await.0, 200, "{path}");
    }
    for (method, path, status) in [
        ("PUT", format!("{namespace}/unload"), 401),
        ("GET", format!("clusters/{cluster}"), 401),
        ("GET", "namespaces/public/default".to_owned(), 403),
        ("PUT", "persistent/public/default/never".to_owned(), 403),
    ] {
        assert_eq!(owner.status(method, &path, ()).await, status, "{method} {path}");
    }
    let client = target.builder_without_token().authentication(Token::new(target.cluster().token(role)));
    let client = within("a client", client.connect()).await.expect("a client");
    let name = format!("persistent://{tenant}/inside/orders");
    let mut consumer = subscribed(client.consumer(&name, "s")).await;
    send(&created(client.producer(&name)).await, "mine").await;
    assert_eq!(receive(&mut consumer).await.payload(), b"mine");
}

/// A subscription that has roles of its own is for these alone.
pub async fn roles_of_a_subscription(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let namespace = admin.name("subscriptions");
    let of_namespace = |path: &str| format!("namespaces/public/{namespace}{path}");
    admin.done("PUT", &of_namespace(""), ()).await;
    admin.done("POST", &of_namespace("/permissions/nobody"), json!(["consume"])).await;
    assert_eq!(admin.get(&of_namespace("/permissions/subscription")).await, (200, json!({})));
    admin.done("POST", &of_namespace("/permissions/subscription/theirs"), json!(["others", "more"])).await;
    assert_eq!(admin.get(&of_namespace("/permissions/subscription")).await.1, json!({ "theirs": ["more", "others"] }));
    let topic = format!("persistent://public/{namespace}/orders");
    drop(created(target.client().await.producer(&topic)).await);
    let nobody = Token::new(target.cluster().token(target::Role::Nobody));
    let client = within("a client", target.builder_without_token().authentication(nobody).connect()).await;
    let client = client.expect("a client");
    drop(subscribed(client.consumer(&topic, "free")).await);
    let refused = within("the refusal", client.consumer(&topic, "theirs").subscribe()).await.expect_err("not its own");
    assert_eq!(refused.kind(), ErrorKind::Authorization, "{refused}");
    admin.done("DELETE", &of_namespace("/permissions/theirs/others"), ()).await;
    assert_eq!(admin.get(&of_namespace("/permissions/subscription")).await.1, json!({ "theirs": ["more"] }));
    admin.done("DELETE", &of_namespace("/permissions/theirs/more"), ()).await;
    drop(subscribed(client.consumer(&topic, "theirs")).await);
}

/// Settings that can be changed while a broker runs.
pub async fn configuration(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let path = |name: &str| format!("brokers/configuration/{name}");
    let names = admin.get("brokers/configuration").await.1;
    assert!(names.as_array().is_some_and(|names| names.contains(&json!("clientLibraryVersionCheckEnabled"))));
    assert_eq!(admin.status("POST", &path("clientLibraryVersionCheckEnabled/false"), ()).await, 200);
    let values = admin.get(&path("values")).await.1;
    assert_eq!(values["clientLibraryVersionCheckEnabled"], "false", "{values}");
    assert_eq!(admin.status("DELETE", &path("clientLibraryVersionCheckEnabled"), ()).await, 200);
    let reason = "Can't update non-dynamic configuration";
    admin.refused("POST", &path("nothing/1"), (), 412, reason).await;
    admin.refused("DELETE", &path("nothing"), (), 412, "Can't delete non-dynamic configuration").await;
}

/// Sets policies of a namespace and of a topic, and takes them away again.
pub async fn policies(target: &Target) {
    let Some(admin) = AdminApi::of(target).await else { return };
    let namespace = admin.name("policies");
    admin.done("PUT", &format!("namespaces/public/{namespace}"), ()).await;
    let of_namespace = |name: &str| format!("namespaces/public/{namespace}/{name}");
    let rate = json!({
        "dispatchThrottlingRateInMsg": 10, "dispatchThrottlingRateInByte": 20,
        "relativeToPublishRate": false, "ratePeriodInSecond": 1,
    });
    let delayed = json!({ "active": false, "tickTime": 1000, "maxDeliveryDelayInMillis": 0 });
    let inactive = json!({
        "inactiveTopicDeleteMode": "delete_when_no_subscriptions", "maxInactiveDurationSeconds": 10,
        "deleteWhileInactive": true,
    });
    let bookies = json!({
        "bookkeeperEnsemble": 1, "bookkeeperWriteQuorum": 1, "bookkeeperAckQuorum": 1,
        "managedLedgerMaxMarkDeleteRate": 0.0,
    });
    for (name, value) in [
        ("messageTTL", json!(60)),
        ("retention", json!({ "retentionTimeInMinutes": 10, "retentionSizeInMB": 20 })),
        ("deduplication", json!(true)),
        ("publishRate", json!({ "publishThrottlingRateInMsg": 10, "publishThrottlingRateInByte": 20 })),
        ("dispatchRate", rate.clone()),
        ("subscriptionDispatchRate", rate),
        ("maxUnackedMessagesPerConsumer", json!(10)),
        ("maxUnackedMessagesPerSubscription", json!(10)),
        ("maxProducersPerTopic", json!(10)),
        ("maxConsumersPerTopic", json!(10)),
        ("maxConsumersPerSubscription", json!(10)),
        ("maxSubscriptionsPerTopic", json!(10)),
        ("delayedDelivery", delayed),
        ("autoTopicCreation", json!({ "allowAutoTopicCreation": false, "topicType": "non-partitioned" })),
        ("inactiveTopicPolicies", inactive),
        ("persistence", bookies),
    ] {
        let path = of_namespace(name);
        assert_eq!(admin.get(&path).await, (200, Value::Null), "{name} is not set");
        admin.done("POST", &path, value.clone()).await;
        assert_eq!(admin.get(&path).await, (200, value), "{name} is set");
        admin.done("DELETE", &path, ()).await;
        assert_eq!(admin.get(&path).await, (200, Value::Null), "{name} is set no more");
    }
    let made = format!("namespaces/public/{namespace}-made");
    let rates = json!({ admin.cluster().await: { "publishThrottlingRateInMsg": 5, "publishThrottlingRateInByte": 6 } });
    let whole = json!({
        "message_ttl_in_seconds": 33,
        "retention_policies": { "retentionTimeInMinutes": 5, "retentionSizeInMB": 6 },
        "publishMaxMessageRate": rates,
        "auth_policies": {
            "namespace_auth": { "reader": ["consume"] }, "destination_auth": {}, "subscription_auth_roles": {},
        },
        "backlog_quota_map": {
            "message_age": { "limit": -1, "limitSize": -1, "limitTime": 9, "policy": "producer_exception" },
        },
    });
    admin.done("PUT", &made, whole.clone()).await;
    let (_, shown) = admin.get(&made).await;
    for (name, value) in whole.as_object().expect("policies") {
        assert_eq!(shown[name], *value, "{name} of a new namespace");
    }
    let never = json!({ "message_ttl_in_seconds": -1 });
    assert_eq!(admin.status("PUT", &format!("{made}-never"), never).await, 412);
    let strategy = of_namespace("schemaCompatibilityStrategy");
    assert_eq!(admin.get(&strategy).await, (200, json!("UNDEFINED")));
    admin.done("PUT", &strategy, json!("BACKWARD")).await;
    assert_eq!(admin.get(&strategy).await, (200, json!("BACKWARD")));
    let reason = "Invalid value for message TTL, message TTL must >= 0";
    admin.refused("POST", &of_namespace("messageTTL"), -1, 412, reason).await;
    let quota = json!({ "limitSize": 1000, "limitTime": -1, "policy": "producer_exception" });
    admin.done("POST", &of_namespace("backlogQuota?backlogQuotaType=destination_storage"), quota).await;
    let quotas = json!({
        "destination_storage": { "limit": 1000, "limitSize": 1000, "limitTime": -1, "policy": "producer_exception" }
    });
    assert_eq!(admin.get(&of_namespace("backlogQuotaMap")).await, (200, quotas.clone()));
    assert_eq!(admin.get(&format!("namespaces/public/{namespace}")).await.1["backlog_quota_map"], quotas);
    admin.done("DELETE", &of_namespace("backlogQuota?backlogQuotaType=destination_storage"), ()).await;
    assert_eq!(admin.get(&of_namespace("backlogQuotaMap")).await, (200, json!({})));
    admin.done("POST", &of_namespace("permissions/reader"), json!(["consume"])).await;
    assert_eq!(admin.get(&of_namespace("permissions")).await, (200, json!({ "reader": ["consume"] })));
    admin.done("DELETE", &of_namespace("permissions/reader"), ()).await;
    assert_eq!(admin.get(&of_namespace("permissions")).await, (200, json!({})));
    let topic = format!("persistent/public/default/{}", admin.name("policies"));
    admin.done("PUT", &topic, ()).await;
    admin.done("POST", &format!("{topic}/messageTTL?messageTTL=60"), ()).await;
    let look = || async { admin.get(&format!("{topic}/messageTTL")).await };
    until("the time to live", look, |answer| *answer == (200, json!(60))).await;
    admin.done("DELETE", &format!("{topic}/messageTTL"), ()).await;
    until("no time to live", look, |answer| *answer == (200, Value::Null)).await;
    admin.done("POST", &format!("{topic}/maxUnackedMessagesOnConsumer"), 10).await;
    let applied = || async { admin.get(&format!("{topic}/maxUnackedMessagesOnConsumer?applied=true")).await };
    until("the limit", applied, |answer| *answer == (200, json!(10))).await;
}
