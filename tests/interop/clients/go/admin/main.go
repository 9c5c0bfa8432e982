// Calls the admin API at the URL of the first argument with the official Go library, and prints a line for each call.
package main

import (
	"fmt"
	"os"

	"github.com/apache/pulsar-client-go/pulsaradmin"
	"github.com/apache/pulsar-client-go/pulsaradmin/pkg/admin/config"
	"github.com/apache/pulsar-client-go/pulsaradmin/pkg/utils"
)

var failed = false

func row(name string, err error) {
	if err != nil {
		failed = true
		fmt.Printf("FAILED %s: %v\n", name, err)
		return
	}
	fmt.Printf("ok     %s\n", name)
}

func expect(name string, err error, is bool, found any) {
	if err == nil && !is {
		err = fmt.Errorf("unexpected: %v", found)
	}
	row(name, err)
}

func main() {
	settings := &config.Config{WebServiceURL: os.Args[1]}
	if len(os.Args) > 2 {
		settings.Token = os.Args[2]
	}
	client, err := pulsaradmin.NewClient(settings)
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
	row("brokers health", client.Brokers().HealthCheck())
	clusters, err := client.Clusters().List()
	expect("clusters list", err, len(clusters) == 1, clusters)
	cluster := "standalone"
	if len(clusters) > 0 {
		cluster = clusters[0]
	}
	tenant := utils.TenantData{Name: "go", AllowedClusters: []string{cluster}}
	row("tenants create", client.Tenants().Create(tenant))
	tenants, err := client.Tenants().List()
	expect("tenants list", err, len(tenants) >= 2, tenants)
	row("namespaces create", client.Namespaces().CreateNamespace("go/one"))
	namespaces, err := client.Namespaces().GetNamespaces("go")
	expect("namespaces list", err, len(namespaces) == 1, namespaces)
	topics(client)
	policies(client)
	schemas(client)
	row("namespaces delete", client.Namespaces().DeleteNamespace("go/one"))
	row("tenants delete", client.Tenants().Delete("go"))
	if failed {
		os.Exit(1)
	}
}

func topics(client pulsaradmin.Client) {
	name, _ := utils.GetTopicName("persistent://go/one/parts")
	plain, _ := utils.GetTopicName("persistent://go/one/plain")
	row("topics create partitioned", client.Topics().Create(*name, 2))
	err := client.Topics().Create(*name, 2)
	expect("topics create partitioned twice", nil, err != nil, "no error")
	row("topics update", client.Topics().Update(*name, 3))
	metadata, err := client.Topics().GetMetadata(*name)
	expect("topics metadata", err, metadata.Partitions == 3, metadata)
	row("topics create", client.Topics().Create(*plain, 0))
	namespace, _ := utils.GetNamespaceName("go/one")
	partitioned, all, err := client.Topics().List(*namespace)
	expect("topics list", err, len(partitioned) == 1 && len(all) == 4, []any{partitioned, all})
	lookup, err := client.Topics().Lookup(*plain)
	expect("topics lookup", err, lookup.BrokerURL != "", lookup)
	row("subscriptions create", client.Subscriptions().Create(*plain, "s", utils.Latest))
	names, err := client.Subscriptions().List(*plain)
	expect("subscriptions list", err, len(names) == 1 && names[0] == "s", names)
	row("subscriptions skip all", client.Subscriptions().ClearBacklog(*plain, "s"))
	row("subscriptions reset", client.Subscriptions().ResetCursorToTimestamp(*plain, "s", 0))
	stats, err := client.Topics().GetStats(*plain)
	expect("topics stats", err, len(stats.Subscriptions) == 1, stats)
	whole, err := client.Topics().GetPartitionedStats(*name, true)
	expect("topics partitioned stats", err, len(whole.Partitions) == 3, whole)
	internal, err := client.Topics().GetInternalStats(*plain)
	expect("topics internal stats", err, internal.State == "LedgerOpened", internal)
	last, err := client.Topics().GetLastMessageID(*plain)
	expect("topics last id", err, last.EntryID == -1, last)
	row("topics unload", client.Topics().Unload(*plain))
	ended, err := client.Topics().Terminate(*plain)
	expect("topics terminate", err, ended.EntryID == -1, ended)
	row("subscriptions delete", client.Subscriptions().Delete(*plain, "s"))
	row("topics delete", client.Topics().Delete(*plain, false, true))
	row("topics delete partitioned", client.Topics().Delete(*name, true, false))
	missing, err := client.Topics().GetStats(*plain)
	expect("topics stats of none", nil, err != nil, missing)
}

func policies(client pulsaradmin.Client) {
	namespace, _ := utils.GetNamespaceName("go/one")
	row("messageTTL set", client.Namespaces().SetNamespaceMessageTTL("go/one", 60))
	ttl, err := client.Namespaces().GetNamespaceMessageTTL("go/one")
	expect("messageTTL get", err, ttl == 60, ttl)
	row("retention set", client.Namespaces().SetRetention("go/one", utils.NewRetentionPolicies(10, 20)))
	retention, err := client.Namespaces().GetRetention("go/one")
	expect("retention get", err, retention.RetentionTimeInMinutes == 10, retention)
	row("deduplication set", client.Namespaces().SetDeduplicationStatus("go/one", true))
	quota := utils.NewBacklogQuota(1000, -1, utils.ProducerException)
	row("backlogQuota set", client.Namespaces().SetBacklogQuota("go/one", quota, utils.DestinationStorage))
	quotas, err := client.Namespaces().GetBacklogQuotaMap("go/one")
	expect("backlogQuota get", err, len(quotas) == 1, quotas)
	row("maxProducersPerTopic set", client.Namespaces().SetMaxProducersPerTopic(*namespace, 5))
	producers, err := client.Namespaces().GetMaxProducersPerTopic(*namespace)
	expect("maxProducersPerTopic get", err, producers == 5, producers)
	row("publishRate set", client.Namespaces().SetPublishRate(*namespace, *utils.NewPublishRate()))
	strategy := utils.SchemaCompatibilityStrategyBackward
	row("schemaCompatibilityStrategy set", client.Namespaces().SetSchemaCompatibilityStrategy(*namespace, strategy))
	found, err := client.Namespaces().GetSchemaCompatibilityStrategy(*namespace)
	expect("schemaCompatibilityStrategy get", err, found == strategy, found)
	whole, err := client.Namespaces().GetPolicies("go/one")
	expect("policies get", err, whole != nil && whole.MessageTTLInSeconds != nil && *whole.MessageTTLInSeconds == 60, whole)
	produce, _ := utils.ParseAuthAction("produce")
	row("permission grant", client.Namespaces().GrantNamespacePermission(*namespace, "r", []utils.AuthAction{produce}))
	permissions, err := client.Namespaces().GetNamespacePermissions(*namespace)
	expect("permission list", err, len(permissions) == 1, permissions)
	row("permission revoke", client.Namespaces().RevokeNamespacePermission(*namespace, "r"))
}

func schemas(client pulsaradmin.Client) {
	topic := "persistent://go/one/typed"
	definition := `{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}`
	payload := utils.PostSchemaPayload{SchemaType: "AVRO", Schema: definition, Properties: map[string]string{}}
	row("schemas create", client.Schemas().CreateSchemaByPayload(topic, payload))
	info, err := client.Schemas().GetSchemaInfo(topic)
	expect("schemas get", err, string(info.Schema) == definition, info)
	_, err = client.Schemas().GetSchemaInfoByVersion(topic, 0)
	row("schemas get by version", err)
	row("schemas delete", client.Schemas().DeleteSchema(topic))
}
