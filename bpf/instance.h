/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What instances send. */
#ifndef EPIC_INSTANCE_H
#define EPIC_INSTANCE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "encap.h"
#include "icmp.h"
#include "inner.h"
#include "maps.h"
#include "packet.h"

/* What an instance sends with its inside address goes into the tunnel of its destination. */
static __always_inline int instance_send(struct __sk_buff *skb, struct inner *inner,
					 struct endpoint *endpoint, const bool six)
{
	struct encap_context context = {.answers = true};
	struct tunnel *tunnel;

	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (tunnel->interface != skb->ifindex)
		return drop(DROP_INSTANCE_SOURCE);
	if (address_known(&endpoint->real))
		context.real = &endpoint->real;
	return encapsulate(skb, inner, tunnel, &context, six);
}

/* A gateway that has no address of the family has none of its own to send from: 0 is nobody's. */
static __always_inline bool is_public(const struct inner *inner, const struct instance *instance,
				      const bool six)
{
	if (six)
		return address_known(&instance->public6) &&
		       address_equal(&inner->flow.source, &instance->public6);
	return instance->public && address_ipv4(&inner->flow.source) == instance->public;
}

/* What is not from the inside address to an endpoint: is it a public address, or a mistake? */
static __always_inline int instance_other(struct __sk_buff *skb, const struct inner *inner,
					  const bool six)
{
	__u32 ifindex = skb->ifindex;
	const struct instance *instance = bpf_map_lookup_elem(&instances, &ifindex);

	if (!instance)
		return drop(DROP_INSTANCE_UNKNOWN);
	if (six ? address_equal(&inner->flow.source, &instance->inside6)
		: address_ipv4(&inner->flow.source) == instance->inside)
		return drop(DROP_ENDPOINT_UNKNOWN);
	if (is_public(inner, instance, six))
		return NOT_OURS;
	return drop(DROP_INSTANCE_SOURCE);
}

static __always_inline int instance_ingress4(struct __sk_buff *skb)
{
	struct endpoint *endpoint;
	struct inner inner;
	struct view view;
	struct iphdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return drop(DROP_TRUNCATED);
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return drop(DROP_TRUNCATED);
	if (!inner4_read(&inner, &view, ip))
		return drop(DROP_INNER_HEADER);
	endpoint = endpoint_find(ip->saddr, ip->daddr);
	if (!endpoint)
		return instance_other(skb, &inner, false);
	return instance_send(skb, &inner, endpoint, false);
}

/* fe80::/10 and ff02::/16: no router passes these on. */
static __always_inline bool stays_on_link(const struct in6_addr *address)
{
	const __u8 *bytes = (const __u8 *)address;

	return (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80) ||
	       (bytes[0] == 0xff && bytes[1] == 0x02);
}

/* What a host has to say to its neighbours. */
static __always_inline bool is_discovery(struct __sk_buff *skb, const struct ipv6hdr *ip)
{
	__u8 type;

	return ip->nexthdr == IPPROTO_ICMPV6 && ip->hop_limit == DISCOVERY_HOP_LIMIT &&
	       stays_on_link(&ip->daddr) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(*ip), &type, sizeof(type)) &&
	       (type == DISCOVERY_ROUTER_SOLICITATION || type == DISCOVERY_NEIGHBOR_SOLICITATION ||
		type == DISCOVERY_NEIGHBOR_ADVERTISEMENT);
}

static __always_inline int instance_ingress6(struct __sk_buff *skb)
{
	struct endpoint *endpoint;
	struct inner inner;
	struct view view;
	struct ipv6hdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return drop(DROP_TRUNCATED);
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return drop(DROP_TRUNCATED);
	if (is_discovery(skb, ip))
		return NOT_OURS;
	if (stays_on_link(&ip->daddr))
		return drop(DROP_INSTANCE_PROTOCOL);
	if (!inner6_read(&inner, &view, ip))
		return drop(DROP_INNER_HEADER);
	endpoint = endpoint6_find(&inner.flow.source, &inner.flow.destination);
	if (!endpoint)
		return instance_other(skb, &inner, true);
	return instance_send(skb, &inner, endpoint, true);
}

#endif
