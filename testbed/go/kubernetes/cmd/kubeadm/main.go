// Command kubeadm is the upstream program, built from the published Go modules.
package main

import (
	"os"

	"k8s.io/kubernetes/cmd/kubeadm/app"
)

func main() {
	if app.Run() != nil {
		os.Exit(1)
	}
}
