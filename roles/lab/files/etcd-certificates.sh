#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make in a directory ($1) an authority and the certificates of an etcd at 127.0.0.1 and of its client. The client's
# comes last: where it is, all are.
set -eu
umask 077
mkdir -p "$1"
cd "$1"
make() {
  name=$1
  shift
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=$name" -keyout "$name.key" -out "$name.part" "$@" 2>&1
  mv "$name.part" "$name.pem"
}
make authority -addext basicConstraints=critical,CA:TRUE
make server -CA authority.pem -CAkey authority.key -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE
make client -CA authority.pem -CAkey authority.key -addext basicConstraints=CA:FALSE
