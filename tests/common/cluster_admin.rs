//! The admin API of two real brokers of one cluster.

use std::time::Duration;

use serde_json::Value;

use super::admin_http;

const HTTP_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(crate) struct ClusterAdmin {
    /// The admin addresses, which are also the brokers' ids.
    pub(crate) webs: [String; 2],
    pub(crate) token: String,
}

impl ClusterAdmin {
    /// Asks whichever broker answers. The body of the answer, or what is wrong.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let mut wrong = String::new();
        for web in &self.webs {
            match self.ask_at(web, method, path, body).await {
                Ok(body) => return Ok(body),
                Err(error) => wrong = error,
            }
        }
        Err(format!("{method} {path}: {wrong}"))
    }

    async fn ask_at(&self, web: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
        let asking = admin_http::request(web, &self.token, method, path, body);
        let asked = tokio::time::timeout(HTTP_TIMEOUT, asking).await;
        let answer = asked.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        match answer.is_success() {
            true => Ok(answer.body),
            false => Err(format!("status {}: {:.200}", answer.status, answer.body)),
        }
    }

    /// Closes the topic at its broker, which makes everyone attach again.
    pub(crate) async fn unload(&self, part: &str) -> Result<(), String> {
        self.ask("PUT", &format!("/admin/v2/{}/unload", path_of(part)), "").await.map(drop)
    }

    /// Gives the bundle that holds the topic to broker 0 or 1.
    pub(crate) async fn transfer(&self, part: &str, to: usize) -> Result<(), String> {
        let path = path_of(part);
        let bundle = self.ask("GET", &format!("/lookup/v2/topic/{path}/bundle"), "").await?;
        let namespace = path.split('/').skip(1).take(2).collect::<Vec<_>>().join("/");
        let to = &self.webs[to];
        let path = format!("/admin/v2/namespaces/{namespace}/{}/unload?destinationBroker={to}", bundle.trim());
        self.ask("PUT", &path, "").await.map(drop)
    }

    pub(crate) async fn make_topic(&self, topic: &str, partitions: u32) -> Result<(), String> {
        let path = path_of(topic);
        match partitions {
            0 => self.ask("PUT", &format!("/admin/v2/{path}"), "").await.map(drop),
            _ => self.ask("PUT", &format!("/admin/v2/{path}/partitions"), &partitions.to_string()).await.map(drop),
        }
    }

    /// What the broker says of one subscription of a topic or partition.
    pub(crate) async fn subscription(&self, part: &str, subscription: &str) -> Result<Value, String> {
        let body = self.ask("GET", &format!("/admin/v2/{}/stats", path_of(part)), "").await?;
        let stats: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        Ok(stats["subscriptions"][subscription].clone())
    }

    /// Which broker serves the topic: 0 or 1.
    pub(crate) async fn owner(&self, part: &str) -> Result<usize, String> {
        let body = self.ask("GET", &format!("/lookup/v2/topic/{}", path_of(part)), "").await?;
        let found = self.webs.iter().position(|web| body.contains(&format!("http://{web}\"")));
        found.ok_or_else(|| format!("{part} is served by nobody known: {body}"))
    }
}

/// `persistent://tenant/namespace/topic` as the admin API has it in a path.
fn path_of(topic: &str) -> String {
    topic.replacen("://", "/", 1)
}
