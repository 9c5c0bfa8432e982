//! What the admin API of the real broker is needed for.

use serde_json::Value;

use crate::common::admin_http::{self, Answer};
use crate::ours::variable;

/// Creates a topic with partitions.
pub async fn create_partitioned(topic: &str, partitions: u32) -> Result<(), String> {
    request("PUT", topic, "partitions", &partitions.to_string()).await.map(drop)
}

/// Adds partitions, so that there are so many.
pub async fn grow(topic: &str, partitions: u32) -> Result<(), String> {
    request("POST", topic, "partitions", &partitions.to_string()).await.map(drop)
}

/// The statistics of a topic.
pub async fn stats(topic: &str) -> Result<Value, String> {
    read(topic, "stats").await
}

/// Begins a compaction.
pub async fn compact(topic: &str) -> Result<(), String> {
    request("PUT", topic, "compaction", "").await.map(drop)
}

/// How the last compaction goes.
pub async fn compaction(topic: &str) -> Result<Value, String> {
    read(topic, "compaction").await
}

async fn read(topic: &str, action: &str) -> Result<Value, String> {
    let answer = request("GET", topic, action, "").await?;
    serde_json::from_str(&answer.body).map_err(|error| format!("the {action} of {topic}: {error}"))
}

async fn request(method: &str, topic: &str, action: &str, body: &str) -> Result<Answer, String> {
    let (url, token) = (variable("PULSAR_ADMIN_URL")?, variable("PULSAR_TOKEN")?);
    let path = format!("/admin/v2/{}/{action}", topic.replace("://", "/"));
    let answer = admin_http::request(admin_http::address_of(&url), &token, method, &path, body).await;
    let answer = answer.map_err(|error| format!("the admin API: {error}"))?;
    let refused = || format!("the admin API answered {} to {method} {path}: {}", answer.status, answer.body);
    if answer.is_success() { Ok(answer) } else { Err(refused()) }
}
