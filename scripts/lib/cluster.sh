# shellcheck shell=bash
# A real Pulsar cluster for tests: one ZooKeeper, one bookie, two brokers with tokens and
# the modular load manager, every listener on the loopback interface, every port free at
# the start. To be sourced after pulsar.sh, by a script that has set
#
#   broker_hosts       an array of the two brokers' addresses
#   servers            an array of what runs, in the order in which it is ended:
#                      broker-1, broker-2, bookie, zookeeper, and what the script adds
#   super_users        the roles with all rights, separated by commas
#
# and has the functions
#
#   broker_settings N  prints further settings of broker N
#   prepare_servers    makes what these need; the ports and $home are there
#   complete_cluster   starts and makes what comes on top; the brokers are healthy
#   write_env          writes the lines for COMMAND to $home/env
#
# The cluster's name is $program; the logs of the last run stay in the cache's
# `logs/$program`.

with_cluster() {
    find_java
    get_distribution
    enter "$cache/run/$program-$$"
    guarded stop_cluster
    start_cluster
    say "the cluster is up after $SECONDS s"
    # shellcheck source=/dev/null
    . "$home/env"
    run_child "$@"
}

enter() {
    home=$1
    # Servers that live for seconds: what counts is how soon they are up.
    pulsar_env=(
        PULSAR_GC="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+PerfDisableSharedMem"
        PULSAR_ZK_CONF="$home/zookeeper.conf"
        PULSAR_BOOKKEEPER_CONF="$home/bookie.conf"
        PULSAR_PROXY_CONF="$home/proxy.conf"
    )
}

start_cluster() {
    mkdir -p "$home/tmp" "$home/data"
    chmod 700 "$home"
    local ports=() i
    for i in 0 1 2 3 4 5; do ports[i]=$(free_port); done
    zookeeper=127.0.0.1:${ports[0]}
    bookie_port=${ports[1]}
    brokers=("${broker_hosts[0]}:${ports[2]}" "${broker_hosts[1]}:${ports[3]}")
    webs=("${broker_hosts[0]}:${ports[4]}" "${broker_hosts[1]}:${ports[5]}")

    configure_zookeeper
    start_server zookeeper 256m zookeeper
    head -c 32 /dev/urandom >"$home/token.key"
    { make_token admin >"$home/admin.token" && prepare_servers; } &
    local prepared=$!
    wait_for_port zookeeper "$zookeeper"
    make_cluster_metadata
    wait "$prepared" || die "what the servers need could not be made; see above"
    configure_bookie
    start_server bookie 384m bookie
    wait_for_port bookie "127.0.0.1:$bookie_port"
    local number
    for number in 1 2; do
        configure_broker "$number"
        start_broker "$number"
    done
    for number in 1 2; do wait_for_broker "$number"; done
    complete_cluster
    write_env
    check_loopback
}

start_server() {
    local name=$1 memory=$2
    shift 2
    pulsar_env+=(PULSAR_MEM="-Xms64m -Xmx$memory -XX:MaxDirectMemorySize=$memory")
    launch "$home/$name.pid" "$home/$name.log" "$@"
    unset 'pulsar_env[-1]'
}

# What the command line of a server holds, from its start on.
server_runs() { runs "$home/$1.pid" "scripts/$program" "$dist/bin/pulsar" "$home/$1.conf"; }

end_server() { end_process "$1" "$2" "$home/$3.pid" "scripts/$program" "$dist/bin/pulsar" "$home/$3.conf"; }

# ADDRESS is HOST:PORT.
wait_for_port() {
    local name=$1 address=$2 until=$((SECONDS + start_seconds_max))
    while ! (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null; do
        server_runs "$name" && [ "$SECONDS" -lt "$until" ] || no_server "$name"
        sleep 0.2
    done
}

no_server() {
    say "$1 did not start; the end of its log:"
    tail -n 40 "$home/$1.log" | cut -c 1-300 >&2
    die "no $1; whole log: $cache/logs/$program/$1.log"
}

configure_zookeeper() {
    cat >"$home/zookeeper.conf" <<END
tickTime=1000
dataDir=$home/data/zookeeper
clientPort=${zookeeper#*:}
clientPortAddress=127.0.0.1
admin.enableServer=false
forceSync=no
END
}

make_cluster_metadata() {
    (
        pulsar initialize-cluster-metadata --cluster "$program" \
            --metadata-store "zk:$zookeeper" --configuration-metadata-store "zk:$zookeeper" \
            --web-service-url "http://${webs[0]}" --broker-service-url "pulsar://${brokers[0]}"
    ) >"$home/metadata.log" 2>&1 || { tail -n 40 "$home/metadata.log" >&2; die "cannot write the cluster's metadata"; }
}

configure_bookie() {
    cat >"$home/overrides" <<END
bookiePort=$bookie_port
advertisedAddress=127.0.0.1
listeningInterface=lo
allowLoopback=true
metadataServiceUri=metadata-store:zk:$zookeeper
journalDirectory=$home/data/bookkeeper/journal
ledgerDirectories=$home/data/bookkeeper/ledgers
journalSyncData=false
autoRecoveryDaemonEnabled=false
httpServerEnabled=false
statsProviderClass=org.apache.bookkeeper.stats.NullStatsProvider
diskUsageThreshold=0.99
diskUsageWarnThreshold=0.98
dbStorage_writeCacheMaxSizeMb=64
dbStorage_readAheadCacheMaxSizeMb=32
dbStorage_rocksDB_blockCacheSize=16777216
END
    configure bookkeeper.conf "$home/bookie.conf" "$home/overrides"
}

# A dead broker owns its bundles until its session is over: short, so that a test does
# not consist of waiting. The load manager moves nothing by itself; the test does.
configure_broker() {
    local number=$1 host=${broker_hosts[$1 - 1]}
    cat >"$home/overrides" <<END
clusterName=$program
metadataStoreUrl=zk:$zookeeper
configurationMetadataStoreUrl=zk:$zookeeper
metadataStoreSessionTimeoutMillis=6000
bindAddress=$host
advertisedAddress=$host
brokerServicePort=${brokers[number - 1]##*:}
webServicePort=${webs[number - 1]##*:}
narExtractionDirectory=$home/tmp
managedLedgerDefaultEnsembleSize=1
managedLedgerDefaultWriteQuorum=1
managedLedgerDefaultAckQuorum=1
managedLedgerCacheSizeMB=64
loadManagerClassName=org.apache.pulsar.broker.loadbalance.impl.ModularLoadManagerImpl
loadBalancerEnabled=true
loadBalancerSheddingEnabled=false
loadBalancerAutoBundleSplitEnabled=false
brokerShutdownTimeoutMs=10000
$(token_settings "$(cat "$home/admin.token")")
authorizationEnabled=true
superUserRoles=$super_users
acknowledgmentAtBatchIndexLevelEnabled=true
allowAutoTopicCreation=true
brokerDeleteInactiveTopicsEnabled=false
numOrderedExecutorThreads=2
numCacheExecutorThreadPoolSize=2
$(broker_settings "$number")
END
    configure broker.conf "$home/broker-$number.conf" "$home/overrides"
}

start_broker() {
    ! server_runs "broker-$1" || return 0
    pulsar_env+=(PULSAR_BROKER_CONF="$home/broker-$1.conf")
    start_server "broker-$1" 640m broker
    unset 'pulsar_env[-1]'
}

# Leaves `web` at this broker.
wait_for_broker() {
    local name=broker-$1 until=$((SECONDS + start_seconds_max))
    web=$(sed -n 's/^bindAddress=//p' "$home/$name.conf"):$(sed -n 's/^webServicePort=//p' "$home/$name.conf")
    until [ "$(http GET brokers/health)" = 200 ]; do
        server_runs "$name" && [ "$SECONDS" -lt "$until" ] || no_server "$name"
        sleep 0.3
    done
}

# For a test: broker N is to `start`, `stop` or be killed (`kill`). $home is there.
with_broker() {
    local number=$1
    case $number in 1 | 2) ;; *) die "there are brokers 1 and 2" ;; esac
    case $2 in
        start) start_broker "$number"; wait_for_broker "$number" ;;
        kill) end_server KILL 10 "broker-$number" || die "broker $number does not die" ;;
        stop)
            end_server TERM "$stop_seconds_max" "broker-$number" || {
                end_server KILL 10 "broker-$number" || true
                die "broker $number did not stop within $stop_seconds_max s; it was killed"
            } ;;
        *) die "a broker can be started, stopped and killed" ;;
    esac
}

# A namespace whose topics are spread over both brokers.
make_namespace() {
    admin PUT "namespaces/$1" "{\"bundles\":{\"numBundles\":16},\"replication_clusters\":[\"$program\"]}"
}

# For bin/pulsar-client and bin/pulsar-admin.
write_client_conf() {
    cat >"$home/client.conf" <<END
webServiceUrl=http://${webs[0]}/
brokerServiceUrl=pulsar://${brokers[0]},${brokers[1]}/
authPlugin=org.apache.pulsar.client.impl.auth.AuthenticationToken
authParams=token:$(cat "$home/admin.token")
END
}

# A server with a known key of this machine's making is nobody else's business.
check_loopback() {
    command -v ss >/dev/null || { say "no ss: the listeners' addresses were not checked"; return 0; }
    local server open
    for server in "${servers[@]}"; do
        open=$(ss -Hltnp | grep ",pid=$(cat "$home/$server.pid")," | awk '{print $4}' \
            | grep -v -e '^127\.' -e '^\[::ffff:127\.' -e '^\[::1\]' || true)
        [ -z "$open" ] || die "$server listens on $open, which others can reach"
    done
}

# The data goes with the servers, so they are simply killed.
stop_cluster() {
    local server
    for server in "${servers[@]}"; do end_server KILL 10 "$server" || true; done
    mkdir -p "$cache/logs/$program"
    mv -f "$home"/*.log "$cache/logs/$program/" 2>/dev/null || true
    rm -rf "$home"
    rmdir "$cache/run" 2>/dev/null || true
}
