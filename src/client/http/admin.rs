//! What the REST interface says besides lookups.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::exchange::{Exchange, Failed};
pub(crate) use super::request::topic_path;
use crate::client::driver::DialConfig;
use crate::client::runtime::Runtime;
use crate::error::{Error, Result};
use crate::machine::consumer::SubscriptionView;
use crate::machine::control::{BrokerKey, Transport};
use crate::machine::supervisor::service_url::ServiceUrl;

/// The answer to one GET.
pub(crate) type AdminFuture<'a> = Pin<Box<dyn Future<Output = Result<Value>> + Send + 'a>>;

/// Asks the REST interface.
pub(crate) trait AdminApi: Send + Sync {
    /// The JSON at `path`, from the first host that can be reached.
    fn get(&self, path: String) -> AdminFuture<'_>;
}

/// The REST interface of the cluster in use.
pub(crate) struct Admin {
    new_api: NewApi,
    api: Mutex<Option<Arc<dyn AdminApi>>>,
}

/// [`admin_api`] with the runtime of the client.
type NewApi = Box<dyn Fn(DialConfig, &ServiceUrl) -> Arc<dyn AdminApi> + Send + Sync>;

impl Admin {
    /// None, until it is set.
    pub(crate) fn new<R: Runtime>(runtime: R) -> Arc<Self> {
        let new_api: NewApi = Box::new(move |config, url| admin_api(&runtime, config, url));
        Arc::new(Self { new_api, api: Mutex::new(None) })
    }

    /// It is at this URL; `None`: it is not known.
    pub(crate) fn set(&self, at: Option<(ServiceUrl, DialConfig)>) {
        let api = at.map(|(url, config)| (self.new_api)(config, &url));
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = api;
    }

    /// The REST interface, if it is known where that is.
    pub(crate) fn get(&self) -> Option<Arc<dyn AdminApi>> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Hosts<R> {
    hosts: Vec<Exchange<R>>,
}

/// The REST interface at an `http://` or `https://` URL.
fn admin_api<R: Runtime>(runtime: &R, config: DialConfig, url: &ServiceUrl) -> Arc<dyn AdminApi> {
    let config = Arc::new(config);
    let host = |host: &crate::machine::control::HostPort| {
        let key = BrokerKey { tls: url.tls(), ..BrokerKey::of_host(host.clone(), Transport::Http) };
        Exchange::new(runtime.clone(), config.clone(), key)
    };
    Arc::new(Hosts { hosts: url.hosts().iter().map(host).collect() })
}

impl<R: Runtime> AdminApi for Hosts<R> {
    fn get(&self, path: String) -> AdminFuture<'_> {
        Box::pin(async move {
            let mut unreachable = None;
            for host in &self.hosts {
                match host.read_json(&path).await {
                    Ok(value) => return Ok(value),
                    Err(Failed::Request(error)) => return Err(error.into_error("a request to the REST interface")),
                    Err(Failed::Host(reason)) => unreachable = Some(reason.to_error(&host.address())),
                }
            }
            Err(unreachable.unwrap_or_else(|| Error::network("the admin URL has no host")))
        })
    }
}

/// What the statistics of a topic say of one of its subscriptions; `None` if they cannot be had.
pub(crate) async fn subscription_view(api: &dyn AdminApi, topic: &str, subscription: &str) -> Option<SubscriptionView> {
    let topic = topic_path(topic)?;
    let stats = api.get(format!("/admin/v2/{topic}/stats")).await.ok()?;
    let mut view = read_view(stats.get("subscriptions")?.get(subscription)?);
    if let Some(limit) = view.blocked_by.map(|policy| format!("/admin/v2/{topic}/{policy}?applied=true")) {
        view.view.limit = api.get(limit).await.ok().and_then(|limit| limit.as_u64());
    }
    Some(view.view)
}

struct ReadView {
    view: SubscriptionView,
    /// The policy that blocks the subscription or one of its consumers.
    blocked_by: Option<&'static str>,
}

fn read_view(stats: &Value) -> ReadView {
    let number = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
    let flag = |stats: &Value, name: &str| stats.get(name).and_then(Value::as_bool).unwrap_or(false);
    let consumers = stats.get("consumers").and_then(Value::as_array);
    let is_blocked = flag(stats, "blockedSubscriptionOnUnackedMsgs");
    let is_consumer_blocked =
        consumers.is_some_and(|consumers| consumers.iter().any(|one| flag(one, "blockedConsumerOnUnackedMsgs")));
    let blocked_by = match (is_blocked, is_consumer_blocked) {
        (true, _) => Some("maxUnackedMessagesOnSubscription"),
        (false, true) => Some("maxUnackedMessagesOnConsumer"),
        (false, false) => None,
    };
    let active_consumer = stats.get("activeConsumerName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let view = SubscriptionView {
        active_consumer: active_consumer.map(str::to_owned),
        is_blocked,
        delayed: number("msgDelayed"),
        unacknowledged: number("unackedMessages"),
        limit: None,
    };
    ReadView { view, blocked_by }
}
