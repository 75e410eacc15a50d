/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* ICMP (RFC 792, RFC 4443); the kernel's headers of it need those of a C library. */
#ifndef EPIC_ICMP_H
#define EPIC_ICMP_H

#include <linux/types.h>

#define ICMP_DEST_UNREACH  3
#define ICMP_FRAG_NEEDED   4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

#define ICMPV6_PKT_TOOBIG   2
#define ICMPV6_ECHO_REQUEST 128 /* errors have lower types */

/* Neighbour discovery (RFC 4861), as far as hosts speak it. */
#define DISCOVERY_ROUTER_SOLICITATION    133
#define DISCOVERY_NEIGHBOR_SOLICITATION  135
#define DISCOVERY_NEIGHBOR_ADVERTISEMENT 136
#define DISCOVERY_HOP_LIMIT              255

/* Of both families; errors quote the packet behind it. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu; /* ICMPv4: only the lower half */
};

#endif
