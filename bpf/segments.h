/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Pieces of GSO packets that needed checksums, at either end of a tunnel. */
#ifndef EPIC_SEGMENTS_H
#define EPIC_SEGMENTS_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "decap.h"
#include "encap.h"
#include "inner.h"
#include "maps.h"
#include "packet.h"

/* GSO packets that needed checksums come back in pieces, at either end of a tunnel. */
static __always_inline int segment_send(struct __sk_buff *skb, struct inner *inner, const bool six)
{
	struct encap_context context = {.segmented = true};
	struct endpoint *endpoint = pair_find(&inner->flow.source, &inner->flow.destination, six);
	struct tunnel *tunnel;

	if (!endpoint)
		endpoint = pair_find(&inner->flow.destination, &inner->flow.source, six);
	/* What the kernel itself says on its interfaces. */
	if (!endpoint)
		return TC_ACT_SHOT;
	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (address_known(&endpoint->real))
		context.real = &endpoint->real;
	return encapsulate(skb, inner, tunnel, &context, six);
}

static __always_inline int segment_take(struct __sk_buff *skb)
{
	struct inner inner;
	struct view view;
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

	if (is_ipv4(skb)) {
		if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip4)))
			return drop(DROP_TRUNCATED);
		ip4 = view_at(&view, ETH_HLEN, sizeof(*ip4));
		if (!ip4 || !inner4_read(&inner, &view, ip4))
			return drop(DROP_INNER_HEADER);
		return segment_send(skb, &inner, false);
	}
	if (!is_ipv6(skb) || !view_open(&view, skb, ETH_HLEN + sizeof(*ip6)))
		return TC_ACT_SHOT;
	ip6 = view_at(&view, ETH_HLEN, sizeof(*ip6));
	if (!ip6 || !inner6_read(&inner, &view, ip6))
		return drop(DROP_INNER_HEADER);
	return segment_send(skb, &inner, true);
}

#endif
