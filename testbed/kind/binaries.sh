#!/bin/bash
# Build the programs of the node image that no package carries: containerd, CNI plugins, CoreDNS,
# kind, pause and our own (podnet, runcwrap, relay). Kubernetes and etcd come from $FAIRLANE_BIN_DIR.
#   binaries.sh OUT kind|node|policies      only what is missing; needs Go (and gcc for pause)
# "kind": what every cluster of ours needs; "node": what a node image of ours needs besides; "policies":
# what enforces NetworkPolicies
# The flags are those of the other Go builds here, so that all share one compile cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/versions.env"
out=$(mkdir -p "$1" && cd "$1" && pwd)
export CGO_ENABLED=0 GOBIN=$out
go=(nice -n 10 go)
plain=(-ldflags '-s -w')

step() { # FILE COMMAND...: run COMMAND unless FILE is there; ours are always brought up to date
  local file=$1 start=$SECONDS
  shift
  if [ -e "$out/$file" ]; then
    [ "$1" != own ] || "$@"
    return
  fi
  echo "building $file"
  "$@"
  echo "built $file in $((SECONDS - start)) s"
}

containerd() {
  local module=github.com/containerd/containerd/v2
  "${go[@]}" install -tags no_btrfs,no_devmapper,no_zfs,no_aufs \
    -ldflags "-s -w -X $module/version.Version=$CONTAINERD" \
    $module/cmd/{ctr,containerd-shim-runc-v2,containerd}@$CONTAINERD
}

cni() {
  local module=github.com/containernetworking/plugins/plugins
  GOBIN=$out/cni "${go[@]}" install "${plain[@]}" $module/{main/loopback,meta/portmap,ipam/host-local,main/ptp}@$CNI
}

own() { # NAME [LDFLAGS]
  (cd "$here/../go/node" && "${go[@]}" build -ldflags "-s -w ${2:-}" -o "$out/$1" ./cmd/"${1%-host}")
}

coredns() { (cd "$here/../go/coredns" && "${go[@]}" build "${plain[@]}" -o "$out/coredns" .); }
policies() { (cd "$here/../go/policies" && "${go[@]}" build "${plain[@]}" -o "$out/policies" .); }
pause() { gcc -Os -static -s -o "$out/pause" "$here/node/pause.c"; }

if [ "$2" = policies ]; then
  policies
  exit
fi
step kind "${go[@]}" install "${plain[@]}" sigs.k8s.io/kind@$KIND
step relay own relay
if runc=$(command -v runc); then step runcwrap-host own runcwrap-host "-X main.runc=$runc"; fi
[ "$2" = kind ] && exit
step podnet own podnet
step runcwrap own runcwrap
step pause pause
step cni/ptp cni
step containerd containerd
step coredns coredns
