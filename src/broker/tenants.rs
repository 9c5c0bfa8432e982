//! Tenants and clusters by name, with what administrators set for them. Which namespaces there are is in the settings
//! ([`BrokerConfig::namespaces`](super::BrokerConfig)).

use std::collections::{BTreeMap, BTreeSet};

/// Tenants of one broker; creating one more is refused.
pub(crate) const TENANTS_MAX: usize = 10_000;

/// Clusters of one broker; creating one more is refused.
pub(crate) const CLUSTERS_MAX: usize = 1_000;

/// What is set for a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) admin_roles: BTreeSet<String>,
    pub(crate) allowed_clusters: BTreeSet<String>,
}

/// The service URLs of a cluster, as they were given, by their names in JSON.
pub(crate) type ClusterUrls = BTreeMap<String, String>;

/// The tenants and clusters of one broker.
#[derive(Debug)]
pub(crate) struct Tenants {
    tenants: BTreeMap<String, Tenant>,
    clusters: BTreeMap<String, ClusterUrls>,
    /// The cluster of this broker.
    own: String,
}

impl Tenants {
    /// The tenants of these namespaces, in one cluster.
    pub(crate) fn new<'a>(cluster: &str, namespaces: impl IntoIterator<Item = &'a String>) -> Self {
        let own = cluster.to_owned();
        let clusters = BTreeMap::from([(own.clone(), ClusterUrls::new())]);
        let mut tenants = Self { tenants: BTreeMap::new(), clusters, own };
        for namespace in namespaces {
            tenants.note(namespace);
        }
        tenants
    }

    /// The tenant of a namespace is there.
    pub(crate) fn note(&mut self, namespace: &str) {
        let Some((tenant, _)) = namespace.split_once('/') else { return };
        let in_own_cluster = || Tenant { allowed_clusters: BTreeSet::from([self.own.clone()]), ..Tenant::default() };
        self.tenants.entry(tenant.to_owned()).or_insert_with(in_own_cluster);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.tenants.keys()
    }

    pub(crate) fn get(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(tenant)
    }

    /// Whether a role is one of the tenant's `adminRoles`.
    pub(crate) fn is_administered_by(&self, tenant: &str, role: &str) -> bool {
        self.tenants.get(tenant).is_some_and(|tenant| tenant.admin_roles.contains(role))
    }

    /// Sets a tenant; false if there are too many.
    pub(crate) fn set(&mut self, name: &str, tenant: Tenant) -> bool {
        let has_room = self.tenants.len() < TENANTS_MAX || self.tenants.contains_key(name);
        if has_room {
            self.tenants.insert(name.to_owned(), tenant);
        }
        has_room
    }

    pub(crate) fn remove(&mut self, tenant: &str) -> Option<Tenant> {
        self.tenants.remove(tenant)
    }

    pub(crate) fn cluster_names(&self) -> impl Iterator<Item = &String> {
        self.clusters.keys()
    }

    pub(crate) fn cluster(&self, name: &str) -> Option<&ClusterUrls> {
        self.clusters.get(name)
    }

    /// Sets a cluster; false if there are too many.
    pub(crate) fn set_cluster(&mut self, name: &str, urls: ClusterUrls) -> bool {
        let has_room = self.clusters.len() < CLUSTERS_MAX || self.clusters.contains_key(name);
        if has_room {
            self.clusters.insert(name.to_owned(), urls);
        }
        has_room
    }

    pub(crate) fn remove_cluster(&mut self, name: &str) -> Option<ClusterUrls> {
        self.clusters.remove(name)
    }
}
