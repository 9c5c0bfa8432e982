"""A Pulsar broker for the tests: `broker` for its URLs, `client` for one that is connected to it."""

import json
import os
import subprocess

import pulsar
import pytest


@pytest.fixture(scope="session")
def broker():
    """A broker that lives as long as the session; its URLs by the names of Pulsar's ClusterData."""
    program = os.environ.get("PULSAR_NATIVE", "pulsar-native")
    command = [program, "broker", "--listen", "127.0.0.1:0", "--json", "--exit-with-parent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"{program} has ended before it listened: exit code {process.wait()}")
        yield json.loads(line)
        process.terminate()


@pytest.fixture
def client(broker):
    client = pulsar.Client(broker["brokerServiceUrl"])
    yield client
    client.close()
