# Shared by scripts/interop and scripts/conformance: where the official clients come from. To be sourced, with $cache set to a
# folder for what is installed.

python_client=3.13.0
venv=$cache/python-$python_client

# The Python client with Avro, and pytest, once.
make_venv() {
    if ! "$venv/bin/python" -c 'import pulsar, pytest, fastavro' 2>/dev/null; then
        python3 -m venv "$venv" || return 1
        "$venv/bin/pip" install --quiet "pulsar-client[avro]==$python_client" 'pytest>=8' || return 1
    fi
}
