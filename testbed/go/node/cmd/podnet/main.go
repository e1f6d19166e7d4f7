// Command podnet is the pod network of the test cluster: one hostNetwork pod per node.
//
// It lists the nodes from the API server, writes a CNI configuration for its own node's pod
// range (ptp + host-local + portmap) and keeps one route per other node: that node's pod range
// by way of that node's address. There is no overlay, so a packet between two pods shows both
// pod addresses on the wire, which is what links.py classifies by. Traffic that leaves the pod
// network is masqueraded. `ip` and `nft` are the node's own: its root is mounted at /host and
// the commands run chrooted there.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	root    = "/host"
	every   = 3 * time.Second
)

type node struct {
	Metadata struct{ Name string }
	Spec     struct{ PodCIDR string }
	Status   struct {
		Addresses []struct{ Type, Address string }
	}
}

func (n node) address() string {
	for _, a := range n.Status.Addresses {
		if a.Type == "InternalIP" && !strings.Contains(a.Address, ":") {
			return a.Address
		}
	}
	return ""
}

// onNode runs a command of the node's own file system with the given standard input.
func onNode(stdin string, args ...string) error {
	command := exec.Command(args[0], args[1:]...)
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	command.Stdin = strings.NewReader(stdin)
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	command.Dir = "/"
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}

func apiClient() *http.Client {
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return &http.Client{Timeout: 5 * time.Second, Transport: transport}
}

func listNodes(client *http.Client) ([]node, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	server := os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT")
	request, err := http.NewRequest(http.MethodGet, "https://"+server+"/api/v1/nodes", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("list nodes: %s", response.Status)
	}
	var list struct{ Items []node }
	return list.Items, json.NewDecoder(response.Body).Decode(&list)
}

func masquerade(pods string) {
	rules := fmt.Sprintf(`add table ip podnet
flush table ip podnet
table ip podnet { chain post { type nat hook postrouting priority srcnat; policy accept; `+
		`ip saddr %s ip daddr != %s fib daddr type != local masquerade; }; }
`, pods, pods)
	if err := onNode(rules, "/usr/sbin/nft", "-f", "-"); err != nil {
		log.Print("no masquerade: ", err)
	}
}

func writeCNI(podRange string) error {
	conf := fmt.Sprintf(`{"cniVersion": "0.3.1", "name": "podnet", "plugins": [
 {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {"type": "host-local",
  "dataDir": "/run/cni-ipam-state", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "%s"}]]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, podRange)
	path := filepath.Join(root, "etc/cni/net.d/10-podnet.conflist")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", []byte(conf), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// network is what has been set up so far: the target of each pod range, "" for our own.
type network struct {
	self  string
	known map[string]string
}

func (n *network) apply(other node) error {
	podRange, target := other.Spec.PodCIDR, other.address()
	if podRange == "" || target == "" {
		return nil
	}
	own := other.Metadata.Name == n.self
	if own {
		target = "self"
	}
	if n.known[podRange] == target {
		return nil
	}
	var err error
	if own {
		err = writeCNI(podRange)
	} else {
		err = onNode("", "/usr/sbin/ip", "route", "replace", podRange, "via", target)
	}
	if err != nil {
		return err
	}
	n.known[podRange] = target
	log.Print(podRange, " -> ", target, " (", other.Metadata.Name, ")")
	return nil
}

func main() {
	masquerade(os.Getenv("POD_SUBNET"))
	client := apiClient()
	state := network{self: os.Getenv("NODE_NAME"), known: map[string]string{}}
	for ; ; time.Sleep(every) {
		nodes, err := listNodes(client)
		if err != nil {
			log.Print(err)
		}
		for _, other := range nodes {
			if err := state.apply(other); err != nil {
				log.Print(err)
			}
		}
	}
}
