/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Numbers of the wire and of the maps; docs/transport.md explains them. */
#ifndef EPIC_CONSTS_H
#define EPIC_CONSTS_H

#define GUE_PORT            6080
#define GUE_DATA_HLEN       4 /* 32-bit words of private data */
#define GUE_CONTROL_HLEN    0
#define GUE_CTYPE_HELLO     128 /* GUE leaves 128..255 to the user */
#define GUE_CTYPE_HELLO_ACK 129

#define OUTER_TTL            64
#define IPV4_VERSION         4
#define IPV4_MIN_IHL         5
#define IPV4_MAX_LENGTH      65535
#define IPV4_DONT_FRAGMENT   0x4000
#define IPV4_MORE_FRAGMENTS  0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define ECN_MASK             0x03
#define ECN_CE               0x03

#define KEY_SLOTS 2

#define MAX_TUNNELS   16384
#define MAX_INSIDES   16384
#define MAX_INSTANCES 16384
#define MAX_ENDPOINTS 262144
#define MAX_LOCALS    256

#define IFNAME_LENGTH 16

/* linux/bpf.h has no address families, sys/socket.h cannot be included here */
#define ADDRESS_FAMILY_INET 2

#endif
