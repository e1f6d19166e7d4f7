#!/usr/bin/env bash
# Makes the virtual environment VENV with everything of requirements.lock and the project itself.
#
#   tools/bootstrap.sh VENV
#
# Needs Python 3.11 or newer (PYTHON names one). What a bare Debian or Ubuntu
# lacks besides (ensurepip, the OpenMP runtime that LightGBM links against) is
# installed with apt-get where that is allowed, and otherwise taken out of the
# packages into the environment, without root.
set -euo pipefail

venv=$1
cd "$(dirname "$0")/.."

say() { echo "bootstrap: $*"; }
fail() { echo "bootstrap: $*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found: install python3, or name one, e.g. make PYTHON=/opt/python/bin/python3"
}

# Runs apt-get as root, or fails.
apt_as_root() {
  if [ "$(id -u)" = 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >/dev/null
  else
    sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >/dev/null
  fi
}

install_debian_package() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || return 1
  say "installing the Debian package $1 with apt-get"
  apt_as_root install -y --no-install-recommends "$1" 2>/dev/null ||
    { apt_as_root update && apt_as_root install -y --no-install-recommends "$1"; }
}

# Unpacks a Debian package into a folder, with apt's state there too: needs no rights.
unpack_debian_package() {
  local package=$1 folder=$2
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  say "taking the Debian package $package apart; nothing is installed"
  mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
  local private=(-o "Dir::State=$folder/state" -o "Dir::State::status=/var/lib/dpkg/status"
    -o "Dir::Cache=$folder/cache" -o "APT::Sandbox::User=")
  (cd "$folder" && apt-get -qq "${private[@]}" update && apt-get -qq "${private[@]}" download "$package")
  dpkg-deb --extract "$folder/$package"_*.deb "$folder"
}

make_venv() {
  local python=$1 folder
  if "$python" -c 'import ensurepip, venv' 2>/dev/null || install_debian_package python3-venv; then
    "$python" -m venv "$venv"
    return
  fi
  folder=$(mktemp -d)
  unpack_debian_package python3-pip-whl "$folder" ||
    fail "this Python cannot make virtual environments (no ensurepip): install python3-venv"
  "$python" -m venv --without-pip "$venv"
  "$venv/bin/python" "$(echo "$folder"/usr/share/python-wheels/pip-*.whl)/pip" install --quiet \
    --no-index "$folder"/usr/share/python-wheels/pip-*.whl
  rm -rf "$folder"
}

# With uv, which takes pip's index from it; with pip where uv cannot be had or fails.
install_packages() {
  local index
  say "installing the locked packages"
  index=${PIP_INDEX_URL:-$("${pip[@]}" config get global.index-url 2>/dev/null || true)}
  if "${pip[@]}" install --require-hashes -r tools/installer.lock &&
    env ${index:+UV_DEFAULT_INDEX="$index"} "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
      --require-hashes -r requirements.lock; then
    return
  fi
  say "uv did not work here; installing with pip, which takes longer"
  "${pip[@]}" install --require-hashes -r requirements.lock
}

# LightGBM's wheel links against the system's OpenMP runtime, which slim systems lack.
provide_openmp() {
  "$venv/bin/python" -c 'import lightgbm' 2>/dev/null && return
  if install_debian_package libgomp1; then
    "$venv/bin/python" -c 'import lightgbm'
    return
  fi
  local folder site
  folder=$(mktemp -d)
  unpack_debian_package libgomp1 "$folder" || fail "LightGBM needs the OpenMP runtime: install libgomp1"
  cp "$(find "$folder/usr/lib" -name 'libgomp.so.1' | head -1)" "$venv/lib/libgomp.so.1"
  rm -rf "$folder"
  # a library of that name that is loaded already satisfies LightGBM's
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo 'import ctypes, sys; ctypes.CDLL(sys.prefix + "/lib/libgomp.so.1", ctypes.RTLD_GLOBAL)' \
    >"$site/fairlane-openmp.pth"
  "$venv/bin/python" -c 'import lightgbm'
}

[ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || {
  rm -rf "$venv"
  python=$(find_python)
  say "making $venv with $python"
  make_venv "$python"
}
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
install_packages
"${pip[@]}" install --no-deps --no-build-isolation -e .
provide_openmp
say "done"
