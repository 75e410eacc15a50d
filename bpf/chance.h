/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Second chance: a packet for a gateway whose instance here has no socket for it is passed on to
 * the sibling that has it. Replies go straight to the client. docs/second-chance.md tells the
 * whole.
 */
#ifndef EPIC_CHANCE_H
#define EPIC_CHANCE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance_flow.h"
#include "chance_owner.h"
#include "chance_plain.h"
#include "chance_send.h"
#include "chance_socket.h"
#include "chance_wire.h"
#include "counters.h"
#include "decap.h"
#include "packet.h"
#include "peer.h"
#include "receive.h"

/* Begins a connection, or answers something that no instance has sent: both are for the one here.
 */
static __always_inline bool is_for_here(const struct chance_packet *packet)
{
	return !packet->error && packet->tcp.syn;
}

/* No socket here: on to the owner, else along the chain if there is budget for it. */
static __always_inline int miss(struct __sk_buff *skb, const struct chance_packet *packet,
				const struct siblings *siblings, enum chance_match match,
				const bool six)
{
	const union address *public = &packet->flow.public;
	struct passage passage = {
		.visited = 1 << (siblings->own % MAX_SIBLINGS),
		.origin = siblings->own,
		.sender = siblings->own,
		.kind = CHANCE_KIND_ASK,
	};
	int receiver;

	if (match != CHANCE_ABSENT)
		count_chance(public, CHANCE_STALE, 1);
	receiver = siblings->candidates ? find_owner(&packet->flow, siblings) : NOBODY;
	if (receiver != NOBODY && is_candidate(siblings, receiver)) {
		count_chance(public, CHANCE_TO_OWNER, segments_of(skb));
	} else {
		receiver = next_sibling(siblings, 0);
		if (receiver == NOBODY) {
			count_chance(public, CHANCE_ALONE, segments_of(skb));
			return NOT_OURS;
		}
		if (!may_ask(siblings, &packet->flow, segments_of(skb))) {
			count_chance(public, CHANCE_OVER_BUDGET, segments_of(skb));
			return drop(DROP_CHANCE_BUDGET);
		}
		passage.answer = true;
		count_chance(public, CHANCE_PASSED_ON, segments_of(skb));
	}
	passage.spare = match == CHANCE_STALE_SOCKET ? receiver : siblings->own;
	return pass_on(skb, packet, siblings, &passage, receiver, six);
}

/* Most often it is readable without a helper's help. */
static __always_inline const struct tcphdr *tcp_at(const struct view *view, const __u32 behind)
{
	return view_at(view, ETH_HLEN + behind, sizeof(struct tcphdr));
}

static __noinline enum chance_read read_router4(struct __sk_buff *skb, struct chance_packet *packet)
{
	const struct iphdr *ip;
	struct inner inner;
	struct view view;

	view_refresh(&view, skb);
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip || !inner4_read(&inner, &view, ip))
		return CHANCE_READ_NONE;
	inner_keep(packet, &inner);
	return read_flow(skb, packet, ip->ihl == IPV4_MIN_IHL ? tcp_at(&view, sizeof(*ip)) : NULL,
			 ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET),
			 false);
}

static __noinline enum chance_read read_router6(struct __sk_buff *skb, struct chance_packet *packet)
{
	const struct ipv6hdr *ip;
	struct inner inner;
	struct view view;

	view_refresh(&view, skb);
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip || !inner6_read(&inner, &view, ip))
		return CHANCE_READ_NONE;
	inner_keep(packet, &inner);
	return read_flow(skb, packet, tcp_at(&view, sizeof(*ip)), ip->nexthdr == IPPROTO_FRAGMENT,
			 true);
}

/* From the router, for a gateway of which there are siblings; `known`: the match, perhaps. */
static __always_inline int chance_decide(struct __sk_buff *skb, const struct siblings *siblings,
					 __u32 known, const bool six)
{
	struct chance_packet packet = {.offset = ETH_HLEN, .six = six};
	enum chance_match match;

	switch (six ? read_router6(skb, &packet) : read_router4(skb, &packet)) {
	case CHANCE_READ_FRAGMENT:
		count_chance(&packet.flow.public, CHANCE_FRAGMENTS, 1);
		return NOT_OURS;
	case CHANCE_READ_UNREADABLE:
		count_chance(&packet.flow.public, CHANCE_UNREADABLE, 1);
		return NOT_OURS;
	case CHANCE_READ_NONE:
		return NOT_OURS;
	default:
		break;
	}
	if (is_for_here(&packet))
		return NOT_OURS;
	match = any_number(skb,
			   known == CHANCE_UNKNOWN ? socket_find(skb, siblings, &packet) : known);
	if (match == CHANCE_FITS) {
		count_hits(siblings, segments_of(skb));
		return NOT_OURS;
	}
	return miss(skb, &packet, siblings, match, six);
}

static __noinline int chance_from_router4(struct __sk_buff *skb, const struct siblings *siblings,
					  __u32 known)
{
	return chance_decide(skb, siblings, known, false);
}

static __noinline int chance_from_router6(struct __sk_buff *skb, const struct siblings *siblings,
					  __u32 known)
{
	return chance_decide(skb, siblings, known, true);
}

/* What else may be TCP of a gateway's? */
static __always_inline bool is_chance_protocol6(__u8 protocol)
{
	return is_chance_protocol(protocol, true) || precedes_tcp(protocol) ||
	       protocol == IPPROTO_FRAGMENT;
}

/* Most often the socket of plain TCP is here; `tcp` is NULL for what is something else. */
static __always_inline int chance_of_gateway(struct __sk_buff *skb, const struct siblings *siblings,
					     const void *ip, const struct tcphdr *tcp,
					     const bool six)
{
	__u32 known = CHANCE_UNKNOWN;

	if (tcp) {
		if (tcp->syn)
			return NOT_OURS;
		known = six ? plain_find6(skb, siblings, ip, tcp)
			    : plain_find4(skb, siblings, ip, tcp);
		if (known == CHANCE_FITS) {
			count_hits(siblings, segments_of(skb));
			return NOT_OURS;
		}
	}
	known = any_number(skb, known);
	return six ? chance_from_router6(skb, siblings, known)
		   : chance_from_router4(skb, siblings, known);
}

/* From the router, for whomever. */
static __always_inline int chance_from_router(struct __sk_buff *skb, const struct view *view,
					      const bool six)
{
	const struct siblings *siblings;
	union address destination;

	if (six) {
		const struct ipv6hdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));

		if (!ip || !is_chance_protocol6(ip->nexthdr))
			return NOT_OURS;
		destination = address_v6(&ip->daddr);
		siblings = siblings_find(&destination);
		return siblings ? chance_of_gateway(skb, siblings, ip, plain_tcp6(view, ip), true)
				: NOT_OURS;
	} else {
		const struct iphdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));

		if (!ip || !is_chance_protocol(ip->protocol, false))
			return NOT_OURS;
		destination = address_v4(ip->daddr);
		siblings = siblings_find(&destination);
		return siblings ? chance_of_gateway(skb, siblings, ip, plain_tcp4(view, ip), false)
				: NOT_OURS;
	}
}

#endif
