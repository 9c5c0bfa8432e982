package billing

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// The broker's URLs, by the names of Pulsar's ClusterData.
var broker struct {
	BrokerServiceURL string `json:"brokerServiceUrl"`
}

// TestMain runs the tests of this package with a broker of their own.
func TestMain(m *testing.M) {
	program := os.Getenv("PULSAR_NATIVE")
	if program == "" {
		program = "pulsar-native"
	}
	command := exec.Command(program, "broker", "--listen", "127.0.0.1:0", "--json", "--exit-with-parent")
	command.Stderr = os.Stderr
	announced, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err == nil {
		err = json.NewDecoder(announced).Decode(&broker)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "no broker from", program, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = command.Process.Signal(syscall.SIGTERM)
	_ = command.Wait()
	os.Exit(code)
}
