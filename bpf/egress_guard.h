/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What leaves without the tunnel: nothing that is from an inside address, or to one. */
#ifndef EPIC_EGRESS_GUARD_H
#define EPIC_EGRESS_GUARD_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "maps.h"
#include "packet.h"

#define VLAN_TAGS       2 /* IEEE 802.1ad: more are not looked behind */
#define VLAN_TAG_LENGTH 4

static __always_inline bool is_inside_address(const union address *address, const bool six)
{
	__be32 short_key = address_ipv4(address);

	return six ? bpf_map_lookup_elem(&insides6, address)
		   : bpf_map_lookup_elem(&insides, &short_key);
}

/*
 * What is for no inside address goes on, unless it is from one: it came out of a tunnel for an
 * endpoint that is not here any more, or somebody made it up.
 */
static __always_inline int pass_from(const union address *source, const bool six)
{
	return is_inside_address(source, six) ? drop(DROP_INSIDE_SOURCE) : NOT_OURS;
}

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline int pass_tagged4(struct __sk_buff *skb, __u32 offset)
{
	__be32 ends[2];
	union address source, destination;

	if (bpf_skb_load_bytes(skb, offset + offsetof(struct iphdr, saddr), ends, sizeof(ends)))
		return NOT_OURS;
	source = address_v4(ends[0]);
	destination = address_v4(ends[1]);
	if (is_inside_address(&destination, false))
		return drop(DROP_INSIDE_VLAN);
	return pass_from(&source, false);
}

static __always_inline int pass_tagged6(struct __sk_buff *skb, __u32 offset)
{
	union address ends[2];

	if (bpf_skb_load_bytes(skb, offset + offsetof(struct ipv6hdr, saddr), ends, sizeof(ends)))
		return NOT_OURS;
	if (is_inside_address(&ends[1], true))
		return drop(DROP_INSIDE_VLAN);
	return pass_from(&ends[0], true);
}

/* VLANs' packets leave by their parent. The tag is in the frame, or beside it for the device. */
static __always_inline int pass_tagged(struct __sk_buff *skb)
{
	__u32 offset = ETH_HLEN;
	__be16 type = skb->protocol;

#pragma unroll
	for (int i = 0; i < VLAN_TAGS; i++) {
		if (!is_vlan(type))
			break;
		if (bpf_skb_load_bytes(skb, offset + 2, &type, sizeof(type)))
			return NOT_OURS;
		offset += VLAN_TAG_LENGTH;
	}
	if (type == bpf_htons(ETH_P_IP))
		return pass_tagged4(skb, offset);
	if (type == bpf_htons(ETH_P_IPV6))
		return pass_tagged6(skb, offset);
	return NOT_OURS;
}

/* From an EPIC node: instances' packets enter the tunnel before, and leave from its own address. */
static __always_inline int gateway_send(struct __sk_buff *skb)
{
	union address source;
	struct view view;

	if (is_ipv4(skb)) {
		const struct iphdr *ip;

		if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
			return NOT_OURS;
		ip = view_at(&view, ETH_HLEN, sizeof(*ip));
		if (!ip)
			return NOT_OURS;
		source = address_v4(ip->saddr);
		return pass_from(&source, false);
	}
	if (is_ipv6(skb)) {
		const struct ipv6hdr *ip;

		if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
			return NOT_OURS;
		ip = view_at(&view, ETH_HLEN, sizeof(*ip));
		if (!ip)
			return NOT_OURS;
		source = address_v6(&ip->saddr);
		return pass_from(&source, true);
	}
	return pass_tagged(skb);
}

#endif
