#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Turn a fresh Debian tree ($1) into the lab's base image, with a repository of the packages that are named after it.
# Runs as a hook of mmdebstrap. Part of the image's cache key: a change builds it anew.
set -eu
root=$1
shift

# What hosts can install: these packages and what they need beyond the image. No host reaches any other archive.
repository=$root/srv/debian
mkdir -p "$repository"
if [ $# -gt 0 ]; then
  export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
  apt-get clean
  apt-get install --yes --quiet=2 --download-only --no-install-recommends "$@"
  find "$root/var/cache/apt/archives" -name '*.deb' -exec mv -t "$repository" {} +
fi
for deb in "$repository"/*.deb; do
  [ -e "$deb" ] || continue
  dpkg-deb --field "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done >"$repository/Packages"
rm -f "$root"/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/debian ./' >"$root/etc/apt/sources.list"

# A host is a container: no devices to manage, no disks, no terminals, nothing to do at night.
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
  systemd-udev-trigger.service modprobe@.service systemd-modules-load.service systemd-pstore.service \
  e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  fstrim.timer logrotate.timer systemd-tmpfiles-clean.timer getty.target console-getty.service \
  systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-journal-flush.service \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
  dev-hugepages.mount proc-sys-fs-binfmt_misc.automount; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Distribution-wide sysctls would be set in the kernel that all hosts share with the machine below.
rm -f "$root"/usr/lib/sysctl.d/*.conf "$root/etc/sysctl.d/99-sysctl.conf"

# systemd mounts this itself on a real machine; in a container it does not, and refuses a mount unit for it.
cat >"$root/etc/systemd/system/lab-bpffs.service" <<'UNIT'
[Unit]
Description=BPF file system
DefaultDependencies=no
Before=sysinit.target
ConditionPathIsMountPoint=!/sys/fs/bpf

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount -t bpf -o nosuid,nodev,noexec,mode=0700 bpf /sys/fs/bpf
UNIT
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf ../lab-bpffs.service "$root/etc/systemd/system/sysinit.target.wants/lab-bpffs.service"

mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/ssh/sshd_config.d"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
cat >"$root/etc/ssh/sshd_config.d/lab.conf" <<'CONF'
UseDNS no
PasswordAuthentication no
MaxStartups 100
MaxSessions 100
HostKey /etc/ssh/ssh_host_ed25519_key
CONF

# What belongs to one host, or to the machine that built the image.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"
