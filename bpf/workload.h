/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What workload nodes and their pods send. */
#ifndef EPIC_WORKLOAD_H
#define EPIC_WORKLOAD_H

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
#include "translate.h"

/*
 * An error about an inside address' packet comes from whoever could not pass it on. On its way back
 * it goes for the endpoint's own, for nobody else may speak in the tunnel.
 */
static __always_inline struct endpoint *adopt_error(struct __sk_buff *skb, struct inner *inner,
						    const bool six)
{
	struct replacement change = {.from = inner->flow.source, .field = FIELD_SOURCE};
	struct endpoint *endpoint;
	struct transport transport;
	__be32 to4 = 0;
	__u32 quoted;

	if (!transport_find(&transport, skb, inner, six))
		return NULL;
	quoted = quoted_offset(skb, &transport, six);
	if (!quoted)
		return NULL;
	quoted += field_offset(FIELD_DESTINATION, six);
	if (six) {
		if (bpf_skb_load_bytes(skb, quoted, &change.to, sizeof(change.to)))
			return NULL;
	} else {
		if (bpf_skb_load_bytes(skb, quoted, &to4, sizeof(to4)))
			return NULL;
		change.to = address_v4(to4);
	}
	endpoint = pair_find(&inner->flow.destination, &change.to, six);
	if (!endpoint || !(six ? replace6(skb, inner, &change) : replace4(skb, inner, &change)))
		return NULL;
	inner->flow.source = change.to;
	return endpoint;
}

static __always_inline bool is_inside_address(const union address *address, const bool six)
{
	__be32 short_key = address_ipv4(address);

	return six ? bpf_map_lookup_elem(&insides6, address)
		   : bpf_map_lookup_elem(&insides, &short_key);
}

/*
 * Replies to an inside address go back into the tunnel they came from. On the underlay most packets
 * are others', so the destination alone is looked at first; a pod's are mostly replies.
 */
static __always_inline int reply(struct __sk_buff *skb, struct inner *inner, const bool pod,
				 const bool six)
{
	struct endpoint *endpoint = pair_find(&inner->flow.destination, &inner->flow.source, six);
	struct entrance entrance = {.answers = pod};
	struct tunnel *tunnel;

	if (!endpoint && pod && !is_inside_address(&inner->flow.destination, six))
		return NOT_OURS;
	if (!endpoint)
		endpoint = adopt_error(skb, inner, six);
	if (!endpoint)
		return drop(DROP_SOURCE_NOT_ENDPOINT);
	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	return encapsulate(skb, inner, tunnel, &entrance, six);
}

static __always_inline int workload_send4(struct __sk_buff *skb, const bool pod)
{
	union address destination;
	struct inner inner;
	struct view view;
	struct iphdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return NOT_OURS;
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return NOT_OURS;
	destination = address_v4(ip->daddr);
	if (!pod && !is_inside_address(&destination, false))
		return NOT_OURS;
	if (!inner4_read(&inner, &view, ip))
		return is_inside_address(&destination, false) ? drop(DROP_INNER_HEADER) : NOT_OURS;
	return reply(skb, &inner, pod, false);
}

static __always_inline int workload_send6(struct __sk_buff *skb, const bool pod)
{
	union address destination;
	struct inner inner;
	struct view view;
	struct ipv6hdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return NOT_OURS;
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return NOT_OURS;
	destination = address_v6(&ip->daddr);
	if (!pod && !is_inside_address(&destination, true))
		return NOT_OURS;
	if (!inner6_read(&inner, &view, ip))
		return is_inside_address(&destination, true) ? drop(DROP_INNER_HEADER) : NOT_OURS;
	return reply(skb, &inner, pod, true);
}

static __always_inline int workload_send(struct __sk_buff *skb, const bool pod)
{
	if (is_ipv4(skb))
		return workload_send4(skb, pod);
	if (is_ipv6(skb))
		return workload_send6(skb, pod);
	return NOT_OURS;
}

#endif
