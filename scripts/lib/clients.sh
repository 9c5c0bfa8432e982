# Shared by scripts/interop, scripts/conformance and scripts/tap-replay: where the official clients come from. To be sourced in the
# repository's folder, with $cache set to a folder for what is installed.

python_client=3.13.0
venv=$cache/python-$python_client

# The Python client with Avro, and pytest, once.
make_venv() {
    if ! "$venv/bin/python" -c 'import pulsar, pytest, fastavro' 2>/dev/null; then
        python3 -m venv "$venv" || return 1
        "$venv/bin/pip" install --quiet "pulsar-client[avro]==$python_client" 'pytest>=8' || return 1
    fi
}

# The command of a client behind the referee's line protocol, as the array `glue`.
referee_glue() {
    local glues=$PWD/examples/other_languages/referee made
    case $1 in
        python) make_venv && glue=("$venv/bin/python" "$glues/python/glue.py") ;;
        go) (cd "$glues/go" && go build -o "$cache/go-referee" .) && glue=("$cache/go-referee") ;;
        java)
            made=$cache/java-referee
            mkdir -p "$made" || return 1
            if [ "$glues/java/pom.xml" -nt "$made/classpath" ]; then
                mvn --batch-mode --quiet -f "$glues/java/pom.xml" dependency:build-classpath "-Dmdep.outputFile=$made/classpath" || return 1
            fi
            javac -cp "$(cat "$made/classpath")" -d "$made" "$glues/java/Glue.java" || return 1
            glue=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$made:$(cat "$made/classpath")" Glue)
            ;;
        *) return 1 ;;
    esac
}
