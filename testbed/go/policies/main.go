// Command policies enforces NetworkPolicies between the pods of the node it runs on. It is the network policy
// controller of kube-router alone: pods already have a network here, and its router and proxy would be in the way.
package main

import (
	"context"
	"log"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
	"github.com/coreos/go-iptables/iptables"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func main() {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := enforce(stopped); err != nil {
		log.Fatal(err)
	}
	// rules without their owner would go stale: pods to come would not be let through
	(&netpol.NetworkPolicyController{}).Cleanup()
}

func enforce(stopped context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	factory.Start(stopped.Done())
	factory.WaitForCacheSync(stopped.Done())
	controller, err := over(client, pods, policies, namespaces)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, namespaces: controller.NamespaceEventHandler, policies: controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	beats := make(chan *healthcheck.ControllerHeartbeat, 1)
	go func() {
		for range beats { // nobody asks whether it is healthy: whoever depends on it tries a connection
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	controller.Run(beats, stopped.Done(), &running)
	running.Wait()
	return nil
}

func over(client kubernetes.Interface, pods, policies, namespaces cache.SharedIndexInformer) (*netpol.NetworkPolicyController, error) {
	chains, err := iptables.NewWithProtocol(iptables.ProtocolIPv4)
	if err != nil {
		return nil, err
	}
	sets, err := utils.NewIPSet(false)
	if err != nil {
		return nil, err
	}
	config := options.NewKubeRouterConfig()
	config.EnableIPv4 = true
	config.RunFirewall = true
	config.IPTablesSyncPeriod = time.Minute
	return netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &sync.Mutex{},
		map[v1.IPFamily]utils.IPTablesHandler{v1.IPv4Protocol: chains},
		map[v1.IPFamily]utils.IPSetHandler{v1.IPv4Protocol: sets})
}
