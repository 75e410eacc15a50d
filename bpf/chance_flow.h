/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which connection a packet is of: TCP, or an ICMP error that quotes what an instance sent. */
#ifndef EPIC_CHANCE_FLOW_H
#define EPIC_CHANCE_FLOW_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance_wire.h"
#include "icmp.h"
#include "inner.h"
#include "nat.h"
#include "packet.h"

/* What is known of a packet for a gateway's address, and where its IP header is. */
struct chance_packet {
	struct chance_flow flow;
	struct tcphdr tcp; /* of an ICMP error only the ports and the sequence number quoted */
	__u32 offset;
	__u32 length;        /* without the link header */
	__u32 header_length; /* of the IP header; IPv6: the fixed one */
	__u32 shown;         /* where the bytes end that show the flow */
	__u8 tos;
	bool six;
	bool error;
};

enum chance_read {
	CHANCE_READ_FLOW,
	CHANCE_READ_NONE, /* nothing that has a socket of its own */
	CHANCE_READ_FRAGMENT,
	CHANCE_READ_UNREADABLE, /* TCP, perhaps, behind headers that are not looked behind */
};

#define QUOTED_BYTES                                                                               \
	8 /* of a transport header that every ICMP error quotes: ports and sequence                \
	   */

static __always_inline bool is_chance_protocol(__u8 protocol, const bool six)
{
	return protocol == IPPROTO_TCP || protocol == (six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* Extension headers that TCP may be behind. */
static __always_inline bool precedes_tcp(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_DSTOPTS;
}

/* Where the header behind a quoted IP header is, if that was sent from the flow's public address.
 */
static __always_inline __u32 quoted_flow4(struct __sk_buff *skb, struct chance_packet *packet,
					  __u32 offset)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || !ipv4_header_sane(&ip) ||
	    ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET) ||
	    ip.saddr != address_ipv4(&packet->flow.public))
		return 0;
	packet->flow.client = address_v4(ip.daddr);
	return offset + ip.ihl * 4;
}

static __always_inline __u32 quoted_flow6(struct __sk_buff *skb, struct chance_packet *packet,
					  __u32 offset)
{
	struct ipv6hdr ip;
	union address source;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != IPV6_VERSION ||
	    ip.nexthdr != IPPROTO_TCP)
		return 0;
	source = address_v6(&ip.saddr);
	if (!address_equal(&source, &packet->flow.public))
		return 0;
	packet->flow.client = address_v6(&ip.daddr);
	return offset + sizeof(ip);
}

/* The quoted packet went the other way: its source port is the gateway's. */
static __always_inline int read_error(struct __sk_buff *skb, struct chance_packet *packet,
				      __u32 offset, const bool six)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, offset, &type, sizeof(type)) || !is_error(type, six))
		return CHANCE_READ_NONE;
	offset += sizeof(struct icmp_header);
	offset = six ? quoted_flow6(skb, packet, offset) : quoted_flow4(skb, packet, offset);
	if (!offset || bpf_skb_load_bytes(skb, offset, &packet->tcp, QUOTED_BYTES))
		return CHANCE_READ_NONE;
	packet->error = true;
	packet->shown = offset + QUOTED_BYTES;
	packet->flow.public_port = packet->tcp.source;
	packet->flow.client_port = packet->tcp.dest;
	return CHANCE_READ_FLOW;
}

/* The IP header is read already; `tcp`: where its header is if it is TCP, NULL: to be looked for.
 */
static __always_inline int read_flow(struct __sk_buff *skb, struct chance_packet *packet,
				     const struct tcphdr *tcp, __be16 fragment, const bool six)
{
	const __u32 offset = packet->offset + packet->header_length;

	if (six && precedes_tcp(packet->flow.protocol))
		return CHANCE_READ_UNREADABLE;
	if (fragment)
		return CHANCE_READ_FRAGMENT;
	if (packet->flow.protocol != IPPROTO_TCP)
		return read_error(skb, packet, offset, six);
	if (tcp)
		packet->tcp = *tcp;
	else if (bpf_skb_load_bytes(skb, offset, &packet->tcp, sizeof(packet->tcp)))
		return CHANCE_READ_NONE;
	packet->shown = offset + sizeof(packet->tcp);
	packet->flow.client_port = packet->tcp.source;
	packet->flow.public_port = packet->tcp.dest;
	return CHANCE_READ_FLOW;
}

static __always_inline void inner_keep(struct chance_packet *packet, const struct inner *inner)
{
	packet->flow.client = inner->flow.source;
	packet->flow.public = inner->flow.destination;
	packet->flow.protocol = inner->flow.protocol;
	packet->length = inner->length;
	packet->header_length = inner->header_length;
	packet->tos = inner->tos;
}

#endif
