// SPDX-License-Identifier: Apache-2.0

// Command etcd is the server that the tests of the etcd store run against.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
