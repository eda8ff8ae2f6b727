# Shared by the scripts here: where things are, what is installed, the registry they use.
# shellcheck shell=bash

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PROJECT=$PWD
CACHE=${SLIPWAY_TEST_CACHE:-$PROJECT/.cache}
REGISTRY=${REGISTRY:-127.0.0.1:5000}
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$CACHE"

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "\`$*\` needs root: run it as root, then run this again"
    fi
}

# Installs the Debian packages that are missing.
need_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "Installing ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# Starts a registry on $REGISTRY unless one answers there.
start_registry() {
    registry_answers && return
    local config=$CACHE/registry.yml
    cat > "$config" <<YML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $CACHE/registry}, delete: {enabled: true}}
http: {addr: $REGISTRY}
YML
    say "Starting a registry on $REGISTRY"
    setsid docker-registry serve "$config" > "$CACHE/registry.log" 2>&1 < /dev/null &
    echo $! > "$CACHE/registry.pid"
    for _ in $(seq 100); do registry_answers && return; sleep 0.1; done
    die "the registry did not start; see $CACHE/registry.log"
}

registry_answers() { curl -sf -o /dev/null "http://$REGISTRY/v2/"; }

stop_registry() {
    [ -f "$CACHE/registry.pid" ] && kill "$(cat "$CACHE/registry.pid")" 2>/dev/null
    rm -f "$CACHE/registry.pid"
}
