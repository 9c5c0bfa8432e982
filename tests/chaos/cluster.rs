//! The cluster that `scripts/chaos` started: how its brokers are started, stopped and killed, and its admin API.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::common::admin_http;

const HTTP_TIMEOUT: Duration = Duration::from_secs(20);
const REDIRECTS_MAX: usize = 5;

pub(crate) struct Cluster {
    script: PathBuf,
    pub(crate) service_url: String,
    /// The admin addresses, which are also the brokers' ids.
    pub(crate) webs: [String; 2],
    pub(crate) token: String,
}

impl Cluster {
    /// `None` when the script does not run this test.
    pub(crate) fn from_env() -> Option<Self> {
        let get = |name: &str| std::env::var(name).ok();
        Some(Self {
            script: get("CHAOS_SCRIPT")?.into(),
            service_url: format!("pulsar://{},{}", get("CHAOS_BROKER_1")?, get("CHAOS_BROKER_2")?),
            webs: [get("CHAOS_WEB_1")?, get("CHAOS_WEB_2")?],
            token: get("CHAOS_TOKEN")?,
        })
    }

    /// Has the script `start`, `stop` or `kill` broker 0 or 1, and waits for it.
    pub(crate) async fn broker(&self, index: usize, what: &str) -> Result<(), String> {
        let number = (index + 1).to_string();
        let run = tokio::process::Command::new(&self.script).args(["broker", &number, what]).status();
        match run.await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("broker {number} {what}: {status}")),
            Err(error) => Err(format!("{}: {error}", self.script.display())),
        }
    }

    /// Asks the admin API of whichever broker answers. The body of the answer, or what is wrong.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let mut wrong = String::new();
        for web in &self.webs {
            match self.admin_at(web, method, path, body).await {
                Ok(body) => return Ok(body),
                Err(error) => wrong = error,
            }
        }
        Err(format!("{method} {path}: {wrong}"))
    }

    async fn admin_at(&self, web: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
        let (mut web, mut path) = (web.to_owned(), path.to_owned());
        for _ in 0..REDIRECTS_MAX {
            let asking = admin_http::request(&web, &self.token, method, &path, body);
            let asked = tokio::time::timeout(HTTP_TIMEOUT, asking).await;
            let answer = asked.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
            match answer.status {
                _ if answer.is_success() => return Ok(answer.body),
                307 => {
                    let location = answer.head.lines().find_map(|line| line.strip_prefix("Location: http://"));
                    let (host, rest) = location.and_then(|to| to.split_once('/')).ok_or("a redirect to nowhere")?;
                    (web, path) = (host.to_owned(), format!("/{}", rest.trim_end()));
                }
                status => return Err(format!("status {status}: {:.200}", answer.body)),
            }
        }
        Err("redirected for ever".to_owned())
    }

    /// Closes the topic at its broker, which makes everyone attach again.
    pub(crate) async fn unload(&self, part: &str) -> Result<(), String> {
        self.admin("PUT", &format!("/admin/v2/{}/unload", path_of(part)), "").await.map(drop)
    }

    /// Gives the bundle that holds the topic to broker 0 or 1.
    pub(crate) async fn transfer(&self, part: &str, to: usize) -> Result<(), String> {
        let path = path_of(part);
        let bundle = self.admin("GET", &format!("/lookup/v2/topic/{path}/bundle"), "").await?;
        let namespace = path.split('/').skip(1).take(2).collect::<Vec<_>>().join("/");
        let to = &self.webs[to];
        let path = format!("/admin/v2/namespaces/{namespace}/{}/unload?destinationBroker={to}", bundle.trim());
        self.admin("PUT", &path, "").await.map(drop)
    }

    pub(crate) async fn make_topic(&self, topic: &str, partitions: u32) -> Result<(), String> {
        let path = path_of(topic);
        match partitions {
            0 => self.admin("PUT", &format!("/admin/v2/{path}"), "").await.map(drop),
            _ => self.admin("PUT", &format!("/admin/v2/{path}/partitions"), &partitions.to_string()).await.map(drop),
        }
    }

    /// What the broker says of one subscription of a topic or partition.
    pub(crate) async fn subscription(&self, part: &str, subscription: &str) -> Result<Value, String> {
        let body = self.admin("GET", &format!("/admin/v2/{}/stats", path_of(part)), "").await?;
        let stats: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        Ok(stats["subscriptions"][subscription].clone())
    }

    /// Which broker serves the topic: 0 or 1.
    pub(crate) async fn owner(&self, part: &str) -> Result<usize, String> {
        let body = self.admin("GET", &format!("/lookup/v2/topic/{}", path_of(part)), "").await?;
        let found = self.webs.iter().position(|web| body.contains(&format!("http://{web}\"")));
        found.ok_or_else(|| format!("{part} is served by nobody known: {body}"))
    }
}

/// `persistent://tenant/namespace/topic` as the admin API has it in a path.
fn path_of(topic: &str) -> String {
    topic.replacen("://", "/", 1)
}
