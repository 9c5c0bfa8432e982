//! Which cluster is used.

use super::target::Role;
use super::*;
use crate::common::web::{Web, answer, json, page};
use pulsar_native::ControlledClusterFailover;

/// The answer of a web server, which a test changes.
#[derive(Clone)]
pub struct Named(Arc<Mutex<String>>);

impl Named {
    pub fn new(answer: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(answer.into())))
    }

    pub fn set(&self, answer: impl Into<String>) {
        *self.0.lock().expect("no panic") = answer.into();
    }

    /// A server that gives it.
    pub async fn serve(&self) -> Web {
        let named = self.clone();
        Web::start(move |_| Some(named.0.lock().expect("no panic").clone())).await
    }
}

/// The failures that a provider of service URLs has told.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    /// A provider that asks this server often.
    pub fn by(&self, web: &Web) -> ControlledClusterFailover {
        let told = Arc::clone(&self.0);
        let failover = ControlledClusterFailover::new(format!("{}/clusters?key=hunter2", web.url())).expect("a URL");
        failover
            .check_interval(Duration::from_millis(20))
            .on_error(move |error| told.lock().expect("no panic").push(error.to_string()))
    }

    pub fn seen(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    /// Waits for one that says this.
    pub async fn wait_for(&self, what: &str) {
        let seen = until(what, || async { self.seen() }, |seen| seen.iter().any(|text| text.contains(what))).await;
        assert!(!seen.iter().any(|text| text.contains("hunter2") || text.contains('\n')), "{seen:?}");
    }
}

/// A cluster as the Java client's `ControlledClusterFailover` has it, with a token.
pub fn of_token(url: &str, token: &str) -> String {
    json(&format!(
        r#"{{"serviceUrl":"{url}","authPluginClassName":"org.apache.pulsar.client.impl.auth.AuthenticationToken",
            "authParamsString":"token:{token}"}}"#
    ))
}

/// The client begins with a cluster that is not there. It finds the one that is named, with its credentials, and stays with it
/// whatever the server answers later.
pub async fn a_web_server_names_the_cluster(target: &Target) {
    let (named, told) = (Named::new(page("404 Not Found")), Told::default());
    let web = named.serve().await;
    let failover = told.by(&web).header("X-Application", "billing").expect("a header");
    let client = Client::builder("pulsar://127.0.0.1:1").service_url_provider(failover).build().expect("a client");
    let topic = target.topic("named");
    let (mut consumer, producer) = {
        let both = async { tokio::join!(subscribed(client.consumer(&topic, "s")), created(client.producer(&topic))) };
        let naming = async {
            told.wait_for("status 404").await;
            named.set(of_token(&target.cluster().url(), &target.cluster().token(Role::Admin)));
        };
        tokio::join!(both, naming).0
    };
    send(&producer, "1").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "1");
    assert_eq!(web.seen()[0].header("X-Application"), Some("billing"));
    assert_eq!(web.seen()[0].path(), "/clusters?key=hunter2");

    for (unusable, said) in [
        (page("503 Service Unavailable"), "status 503"),
        (page("200 OK"), "not a JSON object"),
        (json("{}"), "no `serviceUrl`"),
        (json(r#"{"serviceUrl":"kafka://hunter2@a"}"#), "not pulsar, pulsar+ssl"),
        (json(r#"{"serviceUrl":"pulsar://a","authPluginClassName":"a.B","authParamsString":"hunter2"}"#), "is none of"),
        (answer("200 OK", "", &" ".repeat(65 * 1024)), "longer than 65536 bytes"),
    ] {
        named.set(unusable);
        told.wait_for(said).await;
    }
    send(&producer, "2").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "2");
    within("the close", client.close()).await.expect("closed");
}
