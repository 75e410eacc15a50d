/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What arrives by the underlay, at either end of a tunnel. */
#ifndef EPIC_UNDERLAY_H
#define EPIC_UNDERLAY_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance.h"
#include "chance_take.h"
#include "control.h"
#include "counters.h"
#include "decap.h"
#include "gue.h"
#include "packet.h"
#include "probe.h"
#include "receive.h"
#include "xdp_decap.h"
#include "nat.h"

/* What came to an address that is not ours is somebody else's, whatever it looks like. */
static __always_inline int drop_if_local(const struct received *received, int reason)
{
	return is_local(&received->destination) ? drop(reason) : NOT_OURS;
}

static __always_inline bool enter(struct __sk_buff *skb, struct verified *verified, const bool six)
{
	struct replacement change;

	if (!verified->mapped)
		return true;
	change.from = verified->inner.flow.source;
	change.to = *verified->mapped;
	change.field = FIELD_SOURCE;
	return six ? replace6(skb, &verified->inner, &change)
		   : replace4(skb, &verified->inner, &change);
}

static __always_inline int deliver(__u32 interface)
{
	return interface ? bpf_redirect_peer(interface, 0) : NOT_OURS;
}

static __always_inline int take_data(struct __sk_buff *skb, const struct received *received,
				     const bool gateway, const bool over6, const bool six)
{
	struct verified verified = {};
	int reason = data_verify(&verified, received, six, gateway);

	if (reason != OK)
		return drop_if_local(received, reason);
	reason = strip(skb, overhead(over6), verified.tos, over6, six);
	if (reason != OK)
		return drop(reason);
	if (!enter(skb, &verified, six))
		return drop(DROP_INNER_HEADER);
	count_received(skb, verified.tunnel->slot, verified.inner.length);
	return deliver(verified.interface);
}

static __always_inline int take_control(const struct received *received, const bool gateway)
{
	int reason = control_verify(received, gateway);

	return reason == OK ? NOT_OURS : drop_if_local(received, reason);
}

/* What is called from a function without much on its stack may have much on its own. */
static __noinline int gateway_take_control(const struct received *received)
{
	return take_control(received, true);
}

static __noinline int gateway_take_data44(struct __sk_buff *skb, const struct received *received)
{
	return take_data(skb, received, true, false, false);
}

static __noinline int gateway_take_data46(struct __sk_buff *skb, const struct received *received)
{
	return take_data(skb, received, true, false, true);
}

static __noinline int gateway_take_data64(struct __sk_buff *skb, const struct received *received)
{
	return take_data(skb, received, true, true, false);
}

static __noinline int gateway_take_data66(struct __sk_buff *skb, const struct received *received)
{
	return take_data(skb, received, true, true, true);
}

static __always_inline int gateway_take_data(struct __sk_buff *skb, const struct received *received,
					     const bool over6, const bool six)
{
	if (six)
		return over6 ? gateway_take_data66(skb, received)
			     : gateway_take_data46(skb, received);
	return over6 ? gateway_take_data64(skb, received) : gateway_take_data44(skb, received);
}

static __noinline int take_chance44(struct __sk_buff *skb, const struct received *received)
{
	return chance_take(skb, received, false, false);
}

static __noinline int take_chance46(struct __sk_buff *skb, const struct received *received)
{
	return chance_take(skb, received, false, true);
}

static __noinline int take_chance64(struct __sk_buff *skb, const struct received *received)
{
	return chance_take(skb, received, true, false);
}

static __noinline int take_chance66(struct __sk_buff *skb, const struct received *received)
{
	return chance_take(skb, received, true, true);
}

/* From a sibling; what came to an address that is not ours may be for somebody behind us. */
static __always_inline int take_chance(struct __sk_buff *skb, const struct received *received,
				       const bool over6)
{
	if (!is_local(&received->destination))
		return NOT_OURS;
	if (received->gue->protocol == IPPROTO_IPV6)
		return over6 ? take_chance66(skb, received) : take_chance46(skb, received);
	if (received->gue->protocol == IPPROTO_IPIP)
		return over6 ? take_chance64(skb, received) : take_chance44(skb, received);
	return drop(DROP_GUE_PROTOCOL);
}

static __always_inline int take(struct __sk_buff *skb, const struct view *view, const bool gateway,
				const bool over6)
{
	struct received received = {};
	int reason = outer_verify(&received, view, over6);
	bool six;

	if (reason != OK)
		return drop_if_local(&received, reason);
	if (gateway && is_probe(&received))
		return over6 ? take_probe6(skb, &received) : take_probe4(skb, &received);
	if (is_control(&received))
		return gateway ? gateway_take_control(&received) : take_control(&received, false);
	if (gateway && is_chance(&received))
		return take_chance(skb, &received, over6);
	reason = data_family(&received, &six);
	if (reason != OK)
		return drop_if_local(&received, reason);
	if (gateway)
		return gateway_take_data(skb, &received, over6, six);
	if (six)
		return take_data(skb, &received, gateway, over6, true);
	return take_data(skb, &received, gateway, over6, false);
}

/* EPIC nodes listen on one port, workload nodes on one for each lane. */
static __always_inline __u32 ports_of(const bool gateway)
{
	return gateway ? 1 : LANES;
}

static __always_inline bool has_options(const struct view *view)
{
	const struct iphdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));

	return ip && ip->ihl > IPV4_MIN_IHL;
}

/* IPv4 with options to our port is refused, for nobody sends it to us. */
static __noinline int drop_options_if_local(struct __sk_buff *skb, bool gateway)
{
	struct view view;
	const struct iphdr *ip;
	struct received received = {};
	__be16 port;

	view_refresh(&view, skb);
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip || ip->version != IPV4_VERSION || ip->ihl <= IPV4_MIN_IHL ||
	    ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return NOT_OURS;
	received.destination = address_v4(ip->daddr);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + ip->ihl * 4 + offsetof(struct udphdr, dest), &port,
			       sizeof(port)) ||
	    !is_our_port(port, ports_of(gateway)))
		return NOT_OURS;
	return drop_if_local(&received, DROP_OUTER_OPTIONS);
}

/* What is not the tunnel's: of an EPIC node's, a gateway's perhaps. */
static __always_inline int take_other(struct __sk_buff *skb, const struct view *view,
				      const bool gateway, const bool over6)
{
	if (!over6 && has_options(view)) {
		int verdict = drop_options_if_local(skb, gateway);

		if (verdict != NOT_OURS)
			return verdict;
	}
	return gateway ? chance_from_router(skb, view, over6) : NOT_OURS;
}

static __always_inline int underlay_ingress_over(struct __sk_buff *skb, const bool gateway,
						 const bool over6)
{
	__u32 wanted = readable_wanted(over6);
	struct view view;

	if (!view_open(&view, skb, ETH_HLEN + ip_length(over6) + sizeof(struct udphdr)))
		return NOT_OURS;
	if (!is_gue(&view, ports_of(gateway), over6))
		return take_other(skb, &view, gateway, over6);
	if (!view_open(&view, skb, skb->len < wanted ? skb->len : wanted))
		return drop(DROP_TRUNCATED);
	return take(skb, &view, gateway, over6);
}

static __always_inline int underlay_ingress(struct __sk_buff *skb, const bool gateway)
{
	struct xdp_decap out;

	if (xdp_decap_read(&out, skb))
		return xdp_decap_deliver(skb, &out);
	if (is_ipv4(skb))
		return underlay_ingress_over(skb, gateway, false);
	if (is_ipv6(skb))
		return underlay_ingress_over(skb, gateway, true);
	return NOT_OURS;
}

#endif
