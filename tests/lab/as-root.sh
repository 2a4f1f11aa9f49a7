#!/usr/bin/env bash
# Runs a command with the privileges that the lab needs: as it is for root, else in namespaces of its own where this
# user is root. There the "host" of the lab is such a namespace too: nothing outside of it is touched or reachable.
set -euo pipefail
if [ "$(id -u)" -eq 0 ]; then
    exec "$@"
fi
if ! unshare --user --map-root-user --net --mount true 2>/dev/null; then
    echo "as-root: this system forbids user namespaces to users (sysctl or AppArmor): run as root" >&2
    exit 1
fi
if [ ! -w /dev/net/tun ]; then
    echo "as-root: /dev/net/tun is not writable for this user: run as root" >&2
    exit 1
fi
exec unshare --user --map-root-user --net --mount --kill-child --fork -- \
    sh -c 'ip link set lo up && mount -t tmpfs tmpfs /run && exec "$@"' sh "$@"
