#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install packages ($4 and on) from the repository of a base image ($1) into a layer over it ($2), with a scratch
# directory ($3) of the same file system. Runs in namespaces of its own, which take the mounts with them.
set -eu
image=$1 layer=$2 scratch=$3
shift 3
root=$scratch/root
mkdir -p "$layer" "$scratch/work" "$root"
mount -t overlay -o "lowerdir=$image,upperdir=$layer,workdir=$scratch/work" layer "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
# nothing starts here: there is no systemd
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get update --quiet=2
chroot "$root" apt-get install --yes --quiet=2 --no-install-recommends "$@"
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/*
# Routing daemons and firewalls run where the topology says so.
for service in frr nftables; do
  [ ! -e "$root/lib/systemd/system/$service.service" ] || systemctl --quiet --root="$root" disable "$service.service"
done
