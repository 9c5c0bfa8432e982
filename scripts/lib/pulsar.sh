# shellcheck shell=bash
# What the scripts that run a real Apache Pulsar have in common. To be sourced, after
# `set -euo pipefail`, by a script that has set
#
#   program           its own name, in front of what it says
#   repo              the repository
#   stop_seconds_max  how long a process may take to end before it is killed
#
# and that sets, before it starts anything,
#
#   home        the directory of what it runs
#   web         HOST:PORT of the admin API
#   pulsar_env  an array of VARIABLE=VALUE for the launcher of the distribution
#
# The superuser's token is in $home/admin.token, the key that signs tokens in
# $home/token.key.

version=4.0.8
cache=${PULSAR_HOME_CACHE:-$repo/.pulsar}
dist=
pulsar_env=()
authentication_providers=org.apache.pulsar.broker.authentication.AuthenticationProviderToken

die() { echo "$program: $*" >&2; exit 1; }
say() { echo "$program: $*" >&2; }

# The comment at the top of the script FILE is its help.
help_of() { sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p;}' "$1"; }

open_cache() {
    mkdir -p "$cache/logs"
    cache=$(cd "$cache" && pwd)
    dist=$cache/apache-pulsar-$version
}

find_java() {
    if [ -n "${JAVA_HOME:-}" ]; then
        java=$JAVA_HOME/bin/java
        [ -x "$java" ] || die "JAVA_HOME is '$JAVA_HOME', which has no bin/java; set it to a Java 17 or newer"
    else
        java=$(command -v java) || die "no java found; install a Java 17 or newer, or set JAVA_HOME"
    fi
    local major
    major=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${major:-0}" -ge 17 ] || die "$java is Java ${major:-of an unknown version}; Pulsar $version needs 17 or newer"
}

# Maven knows which registry to ask and keeps the archive in its own repository, so
# that a second unpacking needs no network.
get_distribution() {
    [ ! -x "$dist/bin/pulsar" ] || return 0
    command -v mvn >/dev/null || die "no mvn found; install Maven, which downloads Pulsar $version"
    say "getting Pulsar $version through Maven"
    local work=$cache/unpack.$$
    mkdir -p "$work"
    local artifact=org.apache.pulsar:pulsar-server-distribution:$version:tar.gz:bin
    if ! (cd "$work" \
        && mvn -q -B dependency:get -Dartifact="$artifact" -Dtransitive=false \
        && mvn -q -B dependency:copy -Dartifact="$artifact" -DoutputDirectory="$work") >"$cache/logs/maven.log" 2>&1; then
        rm -rf "$work"
        die "Maven could not download $artifact; check its network and settings.xml (its output: $cache/logs/maven.log)"
    fi
    tar -xzf "$work"/*.tar.gz -C "$work" || { rm -rf "$work"; die "cannot unpack the archive into $cache; is the disk full?"; }
    # Another instance may have unpacked it meanwhile: then that one stays.
    [ -e "$dist" ] || mv "$work/apache-pulsar-$version" "$dist"
    rm -rf "$work"
}

# Below the range that systems hand out for outgoing connections, so that none of
# those takes the port later.
free_port() {
    local port
    while :; do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# Becomes the launcher of the distribution, without what the caller's environment
# would add to it. Only for a subshell, whose process it takes over.
pulsar() {
    exec env -u OPTS -u PULSAR_CLASSPATH -u PULSAR_EXTRA_CLASSPATH -u PULSAR_LOG_CONF \
        -u PULSAR_STANDALONE_USE_ZOOKEEPER -u BOOKIE_MEM -u BOOKIE_GC -u BOOKIE_GC_LOG -u BOOKIE_EXTRA_OPTS \
        PULSAR_LOG_DIR="$home/tmp" \
        PULSAR_GC="-XX:+UseG1GC -XX:+PerfDisableSharedMem" PULSAR_GC_LOG="-Xlog:gc=off" \
        PULSAR_EXTRA_OPTS="-Djava.io.tmpdir=$home/tmp -Dpulsar.allocator.exit_on_oom=true" \
        ${pulsar_env[@]+"${pulsar_env[@]}"} "$dist/bin/pulsar" "$@"
}

# Starts the launcher with ARGUMENTS, its output in LOG and its process id in
# PID_FILE. Job control gives it a process group of its own: a Ctrl-C at the terminal
# reaches the script, which then stops it in order.
launch() {
    local pid_file=$1 log=$2
    shift 2
    rm -f "$pid_file"
    set -m
    # The process names itself before it is what has to be stopped: there is no
    # moment in which it runs and nobody knows.
    { echo "$BASHPID" >"$pid_file"; pulsar "$@"; } >>"$log" 2>&1 </dev/null &
    disown "$!"
    set +m
    while [ ! -s "$pid_file" ]; do sleep 0.05; done
}

# Whether the process of PID_FILE is ours, which its command line tells by one of
# WORDS: the number alone may belong to someone else by now.
runs() {
    local pid_file=$1 args word
    shift
    [ -s "$pid_file" ] || return 1
    args=$(ps -ww -o args= -p "$(cat "$pid_file")" 2>/dev/null) || return 1
    for word in "$@"; do
        case $args in *"$word"*) return 0 ;; esac
    done
    return 1
}

# Sends SIGNAL to the process of PID_FILE, if it is ours (see `runs`), and waits for
# its end for SECONDS.
end_process() {
    local signal=$1 seconds=$2 until
    shift 2
    runs "$@" || return 0
    kill "-$signal" "$(cat "$1")" 2>/dev/null || true
    until=$((SECONDS + seconds))
    while runs "$@" && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
    ! runs "$@"
}

make_token() ( pulsar tokens create --secret-key "file://$home/token.key" --subject "$@" )

find_keytool() {
    keytool=${java%/java}/keytool
    [ -x "$keytool" ] || keytool=$(command -v keytool) || die "no keytool beside $java; install a complete Java 17 or newer"
}

key_options=(-genkeypair -keyalg EC -groupname secp256r1 -validity 30)
store_options=(-storetype PKCS12 -storepass changeit)

# An authority, for the certificates of `make_certificate` and in $home/ca.pem for clients.
make_authority() {
    local store=(-keystore "$home/authority.p12" "${store_options[@]}")
    {
        "$keytool" "${key_options[@]}" "${store[@]}" -alias ca -dname "CN=$program-ca" \
            -ext bc:critical=ca:true -ext ku:critical=keyCertSign,cRLSign
        "$keytool" -exportcert -rfc "${store[@]}" -alias ca -file "$home/ca.pem"
        "$keytool" -importcert -noprompt -keystore "$home/trust.p12" "${store_options[@]}" -alias ca -file "$home/ca.pem"
    } >"$home/keytool.log" 2>&1 || { cat "$home/keytool.log" >&2; return 1; }
}

# Has the servers take certificates of the authority NAME, whose own is in FILE, from clients.
trust_authority() {
    "$keytool" -importcert -noprompt -keystore "$home/trust.p12" "${store_options[@]}" -alias "$1" -file "$2" \
        >"$home/keytool.log" 2>&1 || { cat "$home/keytool.log" >&2; return 1; }
}

# A certificate for NAMES (`dns:NAME,ip:ADDRESS`) in the store $home/SERVER.p12. A server
# reads the PKCS #12 store itself, so no key has to leave it.
make_certificate() {
    local server=$1 names=$2
    local store=(-keystore "$home/$server.p12" "${store_options[@]}")
    {
        cp "$home/authority.p12" "$home/$server.p12"
        "$keytool" "${key_options[@]}" "${store[@]}" -alias "$server" -signer ca -dname "CN=$server" \
            -ext "san=$names" -ext ku:critical=digitalSignature -ext eku=serverAuth
        # The server presents the first key of its store, so only one may be left.
        "$keytool" -delete "${store[@]}" -alias ca
    } >"$home/keytool.log" 2>&1 || { cat "$home/keytool.log" >&2; return 1; }
}

# The settings of a server, broker or proxy, that shows the certificate of SERVER.
tls_settings() {
    cat <<END
tlsEnabledWithKeyStore=true
tlsKeyStoreType=PKCS12
tlsKeyStore=$home/$1.p12
tlsKeyStorePassword=changeit
tlsTrustStoreType=PKCS12
tlsTrustStore=$home/trust.p12
tlsTrustStorePassword=changeit
END
}

# The settings of a server that checks tokens, and shows TOKEN to the others.
token_settings() {
    cat <<END
authenticationEnabled=true
authenticationProviders=$authentication_providers
tokenSecretKey=file://$home/token.key
brokerClientAuthenticationPlugin=org.apache.pulsar.client.impl.auth.AuthenticationToken
brokerClientAuthenticationParameters=token:$1
END
}

# Writes DISTRIBUTED (a file of the distribution's conf) to FILE with the settings of
# OVERRIDES in place of its own. A key may stand in a file once only: a broker takes
# the last of two lines, a bookie the first.
configure() {
    local distributed=$1 file=$2 overrides=$3 key
    cp "$dist/conf/$distributed" "$file"
    while IFS='=' read -r key _; do
        remove_setting "$file" "$key"
    done <"$overrides"
    cat "$overrides" >>"$file"
}

remove_setting() {
    local file=$1 key=$2
    awk -v key="$key=" 'index($0, key) != 1' "$file" >"$file.new"
    mv "$file.new" "$file"
}

admin() {
    local status
    status=$(http "$@")
    case $status in
        2??) ;;
        *) die "$1 /admin/v2/$2 answered ${status:-nothing}" ;;
    esac
}

# Prints the status of METHOD PATH [JSON], asked of the admin API with the superuser's
# token; nothing if there was no answer. HTTP/1.0 ends with the connection, which is
# all that is needed to do without another tool.
http() {
    local method=$1 path=$2 body=${3:-} status=
    (
        exec 3<>"/dev/tcp/${web%:*}/${web##*:}" || exit 0
        printf '%s /admin/v2/%s HTTP/1.0\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
            "$method" "$path" "$(cat "$home/admin.token")" "${#body}" "$body" >&3
        read -r -t 20 _ status _ <&3 || true
        printf '%s' "$status"
    ) 2>/dev/null
}

export_line() { printf 'export %s=%q\n' "$1" "$2"; }

# From here on whatever ends this shell ends the command of `run_child` and calls
# CLEAN_UP, even if the shell is killed without a chance to do so itself.
child=
guard=
guarded() {
    guard_shell $$ "$1" </dev/null >/dev/null 2>&1 &
    guard=$!
    disown "$guard"
    # shellcheck disable=SC2064 # the name is to be put in now
    trap "kill \"\$guard\" 2>/dev/null || true; $1" EXIT
    trap 'end_child "$child"; exit 130' INT
    trap 'end_child "$child"; exit 143' TERM
}

guard_shell() {
    # A Ctrl-C at the terminal is the shell's business.
    trap '' INT
    while kill -0 "$1" 2>/dev/null; do sleep 1; done
    end_child "$(cat "$home/child.pid" 2>/dev/null)"
    "$2"
}

# Runs a command in a process group of its own, so that its end is also the end of
# what it started, and exits with its code.
run_child() {
    local code=0
    set -m
    "$@" <&0 &
    child=$!
    set +m
    echo "$child" >"$home/child.pid"
    wait "$child" || code=$?
    exit "$code"
}

end_child() {
    [ -n "$1" ] || return 0
    kill -TERM -- "-$1" 2>/dev/null || return 0
    local until=$((SECONDS + stop_seconds_max))
    while kill -0 -- "-$1" 2>/dev/null && [ "$SECONDS" -lt "$until" ]; do sleep 0.1; done
    kill -KILL -- "-$1" 2>/dev/null || true
}
