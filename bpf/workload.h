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
#include "egress_guard.h"
#include "encap.h"
#include "inner.h"
#include "maps.h"
#include "packet.h"
#include "nat.h"

/*
 * The endpoint that an ICMP error is about; NULL: it quotes nothing that the inside address sent to
 * an endpoint of a tunnel. What else it says nobody can verify, so there is a limit to them, too.
 */
static __always_inline struct endpoint *
quoted_find4(struct __sk_buff *skb, const struct inner *inner, __u32 quoted, union address *about)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, quoted, &ip, sizeof(ip)) || !ipv4_header_sane(&ip) ||
	    ip.saddr != address_ipv4(&inner->flow.destination))
		return NULL;
	*about = address_v4(ip.daddr);
	return endpoint_find(ip.saddr, ip.daddr);
}

static __always_inline struct endpoint *
quoted_find6(struct __sk_buff *skb, const struct inner *inner, __u32 quoted, union address *about)
{
	union address source;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, quoted, &ip, sizeof(ip)) || ip.version != IPV6_VERSION)
		return NULL;
	source = address_v6(&ip.saddr);
	*about = address_v6(&ip.daddr);
	if (!address_equal(&source, &inner->flow.destination))
		return NULL;
	return endpoint6_find(&source, about);
}

/* A token bucket: so many at once, then one as often as the interval says. */
static __always_inline bool error_allowed(__u32 slot)
{
	__u64 *free_ns = bpf_map_lookup_elem(&errors, &slot);
	__u64 now = bpf_ktime_get_coarse_ns(), from;

	if (!free_ns)
		return false;
	from = *free_ns > now ? *free_ns : now;
	if (from - now > (ERROR_BURST - 1) * ERROR_INTERVAL_NS)
		return false;
	*free_ns = from + ERROR_INTERVAL_NS;
	return true;
}

/*
 * An error about an inside address' packet comes from whoever could not pass it on. On its way back
 * it goes for the endpoint's own, for nobody else may speak in the tunnel.
 */
static __always_inline int adopt_error(struct __sk_buff *skb, struct inner *inner,
				       struct endpoint **endpoint, const bool six)
{
	struct replacement change = {.from = inner->flow.source, .field = FIELD_SOURCE};
	struct transport transport;
	__u32 quoted;

	if (!transport_find(&transport, skb, inner, six))
		return DROP_SOURCE_NOT_ENDPOINT;
	quoted = quoted_offset(skb, &transport, six);
	if (!quoted)
		return DROP_SOURCE_NOT_ENDPOINT;
	*endpoint = six ? quoted_find6(skb, inner, quoted, &change.to)
			: quoted_find4(skb, inner, quoted, &change.to);
	if (!*endpoint)
		return DROP_SOURCE_NOT_ENDPOINT;
	if (!error_allowed((*endpoint)->slot))
		return DROP_ERROR_LIMIT;
	if (!(six ? replace6(skb, inner, &change) : replace4(skb, inner, &change)))
		return DROP_SOURCE_NOT_ENDPOINT;
	inner->flow.source = change.to;
	return OK;
}

/*
 * Replies to an inside address go back into the tunnel they came from. On the underlay most packets
 * are others', so the destination alone is looked at first; a pod's are mostly replies.
 */
static __always_inline int reply(struct __sk_buff *skb, struct inner *inner, const bool pod,
				 const bool six)
{
	struct endpoint *endpoint = pair_find(&inner->flow.destination, &inner->flow.source, six);
	struct encap_context context = {.answers = pod};
	struct tunnel *tunnel;

	if (!endpoint && pod && !is_inside_address(&inner->flow.destination, six))
		return pass_from(&inner->flow.source, six);
	if (!endpoint) {
		int reason = adopt_error(skb, inner, &endpoint, six);

		if (reason != OK || !endpoint)
			return drop(reason);
	}
	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	return encapsulate(skb, inner, tunnel, &context, six);
}

static __always_inline int workload_send4(struct __sk_buff *skb, const bool pod)
{
	union address source, destination;
	struct inner inner;
	struct view view;
	struct iphdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return NOT_OURS;
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return NOT_OURS;
	source = address_v4(ip->saddr);
	destination = address_v4(ip->daddr);
	if (!pod && !is_inside_address(&destination, false))
		return pass_from(&source, false);
	if (!inner4_read(&inner, &view, ip))
		return is_inside_address(&destination, false) ? drop(DROP_INNER_HEADER)
							      : pass_from(&source, false);
	return reply(skb, &inner, pod, false);
}

static __always_inline int workload_send6(struct __sk_buff *skb, const bool pod)
{
	union address source, destination;
	struct inner inner;
	struct view view;
	struct ipv6hdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return NOT_OURS;
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return NOT_OURS;
	source = address_v6(&ip->saddr);
	destination = address_v6(&ip->daddr);
	if (!pod && !is_inside_address(&destination, true))
		return pass_from(&source, true);
	if (!inner6_read(&inner, &view, ip))
		return is_inside_address(&destination, true) ? drop(DROP_INNER_HEADER)
							     : pass_from(&source, true);
	return reply(skb, &inner, pod, true);
}

static __always_inline int workload_send(struct __sk_buff *skb, const bool pod)
{
	if (is_ipv4(skb))
		return workload_send4(skb, pod);
	if (is_ipv6(skb))
		return workload_send6(skb, pod);
	return pass_tagged(skb);
}

#endif
