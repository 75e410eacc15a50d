/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Numbers of the wire and of the maps; docs/transport.md explains them. */
#ifndef EPIC_CONSTS_H
#define EPIC_CONSTS_H

#define GUE_PORT            6080
#define GUE_DATA_HLEN       4 /* 32-bit words of private data */
#define GUE_CHANCE_HLEN     3 /* of packets passed on to a sibling */
#define GUE_CONTROL_HLEN    0
#define GUE_CTYPE_HELLO     128 /* GUE leaves 128..255 to the user */
#define GUE_CTYPE_HELLO_ACK 129
#define GUE_CTYPE_PROBE     130

/* Flags of control packets: what a workload node asks for, and what an EPIC node sees. */
#define CONTROL_SPREAD   1
#define CONTROL_CHECKSUM 2
#define CONTROL_DIRECT   4

#define LANES            4 /* ports GUE_PORT.. of a workload node; a power of 2 */
#define SPREAD_PORT      49152
#define SPREAD_PORT_MASK 0x3fff

#define OUTER_TTL            64
#define IPV4_VERSION         4
#define IPV4_MIN_IHL         5
#define IP_MAX_LENGTH        65535
#define IPV4_DONT_FRAGMENT   0x4000
#define IPV4_MORE_FRAGMENTS  0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_VERSION         6
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_FRAGMENT_LENGTH 8
#define ECN_MASK             0x03
#define ECN_CE               0x03

#define KEY_SLOTS 2

#define MAX_TUNNELS   16384
#define MAX_INSIDES   16384
#define MAX_INSTANCES 16384
#define MAX_ENDPOINTS 262144
#define MAX_LOCALS    1024
#define EVENTS_BYTES  65536

/* Second chance. */
#define MAX_SIBLINGS     16
#define MAX_GATEWAYS     16384
#define OWNER_SETS       65536 /* a power of 2 */
#define OWNERS_IN_SET    4
#define CHANCE_BURST     50000 /* packets of unknown flows at once */
#define CHANCE_RESERVE   10000 /* besides, of flows of which one was over the budget */
#define CHANCE_COST      4 /* of one of them, until its owner says that the flow is there: then 1 */
#define REFUSED_FLOWS    262144 /* a power of 2 */
#define CHANCE_QUIET     500000 /* ns between them from then on: 2,000 a second */
#define CHANCE_RAISED    160000 /* the same after the list has changed: 6,250 a second */
#define CHANCE_RAISED_NS 600000000000ULL
#define CHANCE_ACCOUNT   160000 /* the same for an account's gateways together: 6,250 a second */
#define CHANCE_NODE      20000  /* the same for all accounts together: 50,000 a second */
#define CHANCE_KEPT      50000  /* of these at once besides, for those that have used little */
#define CHANCE_LITTLE    6250   /* so much of their own share */
#define SEQUENCE_REACH   (1U << 24) /* how far a packet's numbers may be from its socket's */
#define RECENT_BITS      12         /* of flows whose socket each CPU remembers */
#define RECENT_FLOWS     (1 << RECENT_BITS)
#define RECENT_WORDS     9
#define RECENT_JIFFIES   25 /* so long; 25 to 250 ms */

/* Hellos that a tunnel's workload node may say at once, and how often from then on: 4 a second. */
#define HELLO_BURST       16
#define HELLO_INTERVAL_NS 250000000ULL

/* After so long without a control packet the next one is news. */
#define SILENCE_NS 16000000000ULL

/* ICMP errors of others that a tunnel passes on at once, and how often from then on. */
#define ERROR_BURST       100
#define ERROR_INTERVAL_NS 10000000ULL

#define IFNAME_LENGTH 16

/* linux/bpf.h has no address families, sys/socket.h cannot be included here */
#define ADDRESS_FAMILY_INET  2
#define ADDRESS_FAMILY_INET6 10

/* Since Linux 6.3; headers of older systems lack them. */
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

#endif
