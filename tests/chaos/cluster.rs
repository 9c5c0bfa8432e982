//! The cluster that `scripts/chaos` started: how its brokers are started, stopped and killed, and its admin API.

use std::path::PathBuf;

use crate::common::cluster_admin::ClusterAdmin;

pub(crate) struct Cluster {
    script: PathBuf,
    pub(crate) service_url: String,
    pub(crate) admin: ClusterAdmin,
}

impl Cluster {
    /// `None` when the script does not run this test.
    pub(crate) fn from_env() -> Option<Self> {
        let get = |name: &str| std::env::var(name).ok();
        Some(Self {
            script: get("CHAOS_SCRIPT")?.into(),
            service_url: format!("pulsar://{},{}", get("CHAOS_BROKER_1")?, get("CHAOS_BROKER_2")?),
            admin: ClusterAdmin { webs: [get("CHAOS_WEB_1")?, get("CHAOS_WEB_2")?], token: get("CHAOS_TOKEN")? },
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
}
