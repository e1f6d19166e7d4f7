#!/bin/bash
# Build one container image without an image registry: images.sh STEP TAG
# Called by images.py, which decides what is missing and sets: CACHE (scratch folder), BIN (our Go
# builds), K8S (Kubernetes' programs and etcd), PREFIX (of image names), BASE (Debian base image),
# PYTHON (interpreter that can run pip or uv).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$here/versions.env"
tag=$2
export DOCKER_BUILDKIT=0 # the classic builder is what Debian ships
mkdir -p "$CACHE/build" "$CACHE/log"

build() { # docker build that is silent unless it fails
  docker build -q "$@" >"$CACHE/log/build-$$.log" 2>&1 || { tail -n 40 "$CACHE/log/build-$$.log" >&2; return 1; }
  rm -f "$CACHE/log/build-$$.log"
}

module() { (cd "$CACHE" && go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); }

base() { # a minimal Debian from its own archive, with this machine's Debian sources
  local tree=$CACHE/build/rootfs
  [ -x "$tree/bin/bash" ] || debootstrap --variant=minbase "$SUITE" "$tree" >"$CACHE/log/debootstrap.log" 2>&1
  if [ -e /etc/apt/sources.list.d/debian.sources ]; then
    : >"$tree/etc/apt/sources.list"
    cp /etc/apt/sources.list.d/debian.sources "$tree/etc/apt/sources.list.d/"
  fi
  tar -C "$tree" --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' \
    --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' -c . | docker import -c 'CMD ["bash"]' - "$tag" >/dev/null
}

component() { # NAME:TAG FILE [BASE]: an image that runs FILE; its name is added to $list
  local context name
  context=$(mktemp -d) name=$(basename "$2")
  install -m755 "$2" "$context/$name"
  printf 'FROM %s\nCOPY %s /usr/local/bin/\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nENTRYPOINT ["/usr/local/bin/%s"]\n' \
    "${3:-scratch}" "$name" "$name" >"$context/Dockerfile"
  build -t "$PREFIX/$1" "$context"
  rm -rf "$context"
  echo "$PREFIX/$1" >>"$list"
}

components() { # the control plane's images, in the versions that kubeadm asks for
  local constants
  constants=$(module "k8s.io/kubernetes@$KUBERNETES")/cmd/kubeadm/app/constants/constants.go
  wanted() { sed -n "s/.*\b$1 = \"\(.*\)\".*/\1/p" "$constants" | head -1; }
  pause=$PREFIX/pause:$(wanted PauseVersion)
  # kube-proxy runs in nftables mode: it needs nft and its libraries beside it, and the names of the
  # protocols: without them nft lists a service's key as "6", not "tcp", and kube-proxy takes the
  # entry it has just made for a left-over and deletes it
  printf 'FROM %s AS os\nRUN mkdir -p /x/etc && printf "tcp 6 TCP\\nudp 17 UDP\\nsctp 132 SCTP\\n" >/x/etc/protocols && for f in /usr/sbin/nft $(ldd /usr/sbin/nft | grep -o "/[^ ]*"); do mkdir -p /x$(dirname $f) && cp -L $f /x$f; done\nFROM scratch\nCOPY --from=os /x /\n' \
    "$PREFIX/node-os" | build -t "$PREFIX/nft" -
  for name in kube-apiserver kube-controller-manager kube-scheduler; do component $name:$KUBERNETES "$K8S/$name"; done
  component "kube-proxy:$KUBERNETES" "$K8S/kube-proxy" "$PREFIX/nft"
  component "etcd:$(wanted DefaultEtcdVersion)" "$K8S/etcd"
  component "coredns:$(wanted CoreDNSVersion)" "$BIN/coredns"
  component "pause:$(wanted PauseVersion)" "$BIN/pause"
  component podnet:1 "$BIN/podnet"
}

node_tree() { # the node's files: kind's own, our programs over them
  local tree=$1 kind_files
  kind_files=$(module "sigs.k8s.io/kind@$KIND")/images/base/files
  mkdir -p "$tree"/{usr/local/bin,usr/local/sbin,usr/bin,opt/cni/bin,etc/kubernetes/manifests,kind/manifests}
  cp -a "$kind_files/." "$tree/"
  chmod -R u+w "$tree"
  rm -rf "$tree/LICENSES" "$tree/etc/systemd/system/containerd-fuse-overlayfs.service"
  find "$tree" -type f -exec chmod 644 {} +
  chmod 755 "$tree"/usr/local/bin/* "$tree"/kind/bin/*
  sed "s#@PAUSE@#$pause#" "$here/node/containerd.toml" >"$tree/etc/containerd/config.toml"
  sed "s#@PREFIX@#$PREFIX#" "$here/node/podnet.yaml" >"$tree/kind/manifests/default-cni.yaml"
  cp "$here/node/storage.yaml" "$tree/kind/manifests/default-storage.yaml"
  printf %s "$KUBERNETES" >"$tree/kind/version"
  install -m755 "$K8S"/{kubelet,kubeadm,kubectl} "$tree/usr/bin/"
  install -m755 "$BIN"/{containerd,ctr,containerd-shim-runc-v2} "$here/node/crictl" "$tree/usr/local/bin/"
  install -m755 "$BIN/runcwrap" "$tree/usr/local/sbin/runc"
  install -m755 "$BIN"/cni/* "$tree/opt/cni/bin/"
}

fill_store() { # BARE TAG: put the images of $list into containerd's store of the node image
  # not unpacked: overlay cannot be stacked on overlay; the kubelet's runtime unpacks at first use
  local container
  container=$(docker run -d --privileged --network none --entrypoint sleep "$1" infinity)
  trap "docker rm -f $container >/dev/null 2>&1 || true" EXIT
  docker exec -d "$container" sh -c 'containerd >/tmp/containerd.log 2>&1'
  for _ in $(seq 60); do docker exec "$container" ctr version >/dev/null 2>&1 && break; sleep 0.3; done
  xargs docker save <"$list" | docker exec -i "$container" ctr -n k8s.io images import \
    --label io.cri-containerd.pinned=pinned --all-platforms --no-unpack --digests - >"$CACHE/log/import.log"
  docker exec "$container" sh -c 'kill $(pidof containerd); sleep 1; rm -rf /run/containerd /tmp/*'
  docker commit -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$container" "$2" >/dev/null
}

node() { # the kind node image, with every image the control plane needs in its store
  local context=$CACHE/build/node
  list=$(mktemp)
  build --network host -t "$PREFIX/node-os" --build-arg BASE="$BASE" -f "$here/node/Dockerfile" "$here/node"
  components
  rm -rf "$context"
  node_tree "$context/tree"
  cat >"$context/Dockerfile" <<DOCKER
FROM $PREFIX/node-os
COPY tree/ /
RUN ctr oci spec | jq 'del(.process.rlimits)' >/etc/containerd/cri-base.json \
 && systemctl enable containerd kubelet undo-mount-hacks
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
DOCKER
  build -t "$PREFIX/node-bare" "$context"
  fill_store "$PREFIX/node-bare" "$tag"
  rm -rf "$context" "$list"
}

"$1"
