/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* To a sibling: a packet from the router is wrapped, one that is wrapped already is readdressed. */
#ifndef EPIC_CHANCE_SEND_H
#define EPIC_CHANCE_SEND_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance_flow.h"
#include "chance_owner.h"
#include "chance_wire.h"
#include "counters.h"
#include "csum.h"
#include "encap.h"
#include "maps.h"
#include "packet.h"

/* By which interface and neighbour a sibling is reached. */
struct chance_way {
	__u32 interface;
	__u32 mtu;                       /* of a way that is too narrow; 0: the packet fits */
	struct bpf_redir_neigh next_hop; /* family 0: the kernel finds it */
};

/* What the lookup says where only the stack can tell the way: it forwards nothing, or wraps it. */
static __always_inline bool is_left_to_stack(long found)
{
	return found == BPF_FIB_LKUP_RET_FWD_DISABLED || found == BPF_FIB_LKUP_RET_UNSUPP_LWT;
}

/*
 * `length`: of the packet on the underlay, or of its segments; 0: it is known to fit. Rules may
 * have no route for what comes in by the interface, and one for what the node sends by it.
 */
static __noinline int find_way(struct __sk_buff *skb, const struct siblings *siblings,
			       __u32 receiver, __u32 length, struct chance_way *way)
{
	const union address *from = sibling_address(siblings, siblings->own);
	const union address *to = sibling_address(siblings, receiver);
	struct bpf_fib_lookup fib = {.ifindex = skb->ifindex};
	long found;

	fib.l4_protocol = IPPROTO_UDP;
	fib.tot_len = length;
	fib.dport = bpf_htons(GUE_PORT);
	if (address_is_v4(to)) {
		fib.family = ADDRESS_FAMILY_INET;
		fib.ipv4_src = address_ipv4(from);
		fib.ipv4_dst = address_ipv4(to);
	} else {
		fib.family = ADDRESS_FAMILY_INET6;
		__builtin_memcpy(fib.ipv6_src, from, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, to, sizeof(fib.ipv6_dst));
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	way->interface = skb->ifindex;
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		way->mtu = fib.mtu_result;
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH) {
		way->interface = fib.ifindex;
		way->next_hop.nh_family = fib.family;
		__builtin_memcpy(way->next_hop.ipv6_nh, fib.ipv6_dst,
				 sizeof(way->next_hop.ipv6_nh));
		return OK;
	}
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED || is_left_to_stack(found))
		return OK;
	fib.ifindex = skb->ifindex;
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT);
	return found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH
		       ? OK
		       : DROP_CHANCE_ROUTE;
}

static __always_inline int drop_without_route(struct __sk_buff *skb,
					      const struct chance_packet *packet)
{
	count_chance(&packet->flow.public, CHANCE_NO_ROUTE, segments_of(skb));
	return drop(DROP_CHANCE_ROUTE);
}

static __always_inline int go(struct chance_way *way)
{
	if (!way->next_hop.nh_family)
		return bpf_redirect_neigh(way->interface, NULL, 0, 0);
	return bpf_redirect_neigh(way->interface, &way->next_hop, sizeof(way->next_hop), 0);
}

static __always_inline void chance4_fill(struct iphdr *ip, const struct siblings *siblings,
					 __u32 receiver)
{
	ip->id = 0;
	ip->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip->ttl = OUTER_TTL;
	ip->saddr = address_ipv4(sibling_address(siblings, siblings->own));
	ip->daddr = address_ipv4(sibling_address(siblings, receiver));
	ip->check = 0;
	ip->check = sum_finish(sum_words(ip, sizeof(*ip)));
}

static __always_inline void chance6_fill(struct ipv6hdr *ip, const struct siblings *siblings,
					 __u32 receiver)
{
	ip->hop_limit = OUTER_TTL;
	__builtin_memcpy(&ip->saddr, sibling_address(siblings, siblings->own), sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, sibling_address(siblings, receiver), sizeof(ip->daddr));
}

static __always_inline void chance_udp_fill(struct udphdr *udp, struct __sk_buff *skb, __u32 length)
{
	udp->source = bpf_htons(SPREAD_PORT + (bpf_get_hash_recalc(skb) & SPREAD_PORT_MASK));
	udp->dest = bpf_htons(GUE_PORT);
	udp->len = bpf_htons(length + sizeof(*udp) + sizeof(struct chance_header));
	udp->check = 0;
}

static __noinline int chance_wrap4(struct __sk_buff *skb, const struct chance_packet *packet,
				   const struct siblings *siblings, const struct passage *passage,
				   __u32 receiver)
{
	const bool six = packet->six;
	const __u64 flags = BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
			    BPF_F_ADJ_ROOM_FIXED_GSO;
	struct chance_outer outer = {};

	outer.ip.version = IPV4_VERSION;
	outer.ip.ihl = IPV4_MIN_IHL;
	outer.ip.tos = packet->tos;
	outer.ip.tot_len = bpf_htons(packet->length + sizeof(outer));
	outer.ip.protocol = IPPROTO_UDP;
	chance4_fill(&outer.ip, siblings, receiver);
	chance_udp_fill(&outer.udp, skb, packet->length);
	passage_write(&outer.chance, passage, siblings, &packet->flow, receiver, six);
	return outer_write(skb, &outer, sizeof(outer), flags, six, false);
}

static __noinline int chance_wrap6(struct __sk_buff *skb, const struct chance_packet *packet,
				   const struct siblings *siblings, const struct passage *passage,
				   __u32 receiver)
{
	const bool six = packet->six;
	const __u64 flags = BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 |
			    BPF_F_ADJ_ROOM_FIXED_GSO;
	struct chance_outer6 outer = {};

	outer.ip.version = IPV6_VERSION;
	outer.ip.priority = packet->tos >> 4;
	outer.ip.flow_lbl[0] = packet->tos << 4;
	outer.ip.payload_len = bpf_htons(packet->length + sizeof(outer) - sizeof(outer.ip));
	outer.ip.nexthdr = IPPROTO_UDP;
	chance6_fill(&outer.ip, siblings, receiver);
	chance_udp_fill(&outer.udp, skb, packet->length);
	passage_write(&outer.chance, passage, siblings, &packet->flow, receiver, six);
	return outer_write(skb, &outer, sizeof(outer), flags, !six, true);
}

/* TCP segments' length without the link header; an ICMP error is no GSO packet. */
static __always_inline __u32 chance_length(struct __sk_buff *skb,
					   const struct chance_packet *packet)
{
	return skb->gso_size ? packet->header_length + packet->tcp.doff * 4 + skb->gso_size
			     : packet->length;
}

static __always_inline int chance_too_big(struct __sk_buff *skb, const struct chance_packet *packet,
					  __u32 mtu, const bool six)
{
	struct inner inner = {
		.flow.source = packet->flow.client,
		.flow.destination = packet->flow.public,
		.flow.protocol = packet->flow.protocol,
		.header_length = packet->header_length,
	};

	return too_big(skb, &inner, mtu, six);
}

/* A packet from the router to a sibling. */
static __always_inline int pass_on(struct __sk_buff *skb, const struct chance_packet *packet,
				   const struct siblings *siblings, const struct passage *passage,
				   __u32 receiver, const bool six)
{
	const bool over6 = !address_is_v4(sibling_address(siblings, receiver));
	const __u32 added = chance_overhead(over6);
	struct chance_way way = {};
	int reason;

	/* No outer header can say how long it is; the client sends it again, and other packets with
	 * it. */
	if (packet->length + added > IP_MAX_LENGTH)
		return drop(DROP_TOO_BIG);
	if (find_way(skb, siblings, receiver, chance_length(skb, packet) + added, &way) != OK)
		return drop_without_route(skb, packet);
	if (way.mtu > added)
		return chance_too_big(skb, packet, way.mtu - added, six);
	reason = over6 ? chance_wrap6(skb, packet, siblings, passage, receiver)
		       : chance_wrap4(skb, packet, siblings, passage, receiver);
	return reason == OK ? go(&way) : drop(reason);
}

/* Write the header of a packet that is wrapped already anew. All siblings are of one family. */
static __noinline int readdress(struct __sk_buff *skb, const struct chance_packet *packet,
				const struct siblings *siblings, const struct passage *passage,
				__u32 receiver)
{
	const bool over6 = !address_is_v4(sibling_address(siblings, receiver));
	const bool six = packet->six;
	struct chance_outer6 *outer6;
	struct chance_outer *outer;
	struct view view;

	if (!view_open(&view, skb, ETH_HLEN + chance_overhead(over6)))
		return DROP_TRUNCATED;
	if (over6) {
		outer6 = view_at(&view, ETH_HLEN, sizeof(*outer6));
		if (!outer6)
			return DROP_TRUNCATED;
		chance6_fill(&outer6->ip, siblings, receiver);
		passage_write(&outer6->chance, passage, siblings, &packet->flow, receiver, six);
		outer6->udp.check = 0;
		return OK;
	}
	outer = view_at(&view, ETH_HLEN, sizeof(*outer));
	if (!outer)
		return DROP_TRUNCATED;
	chance4_fill(&outer->ip, siblings, receiver);
	passage_write(&outer->chance, passage, siblings, &packet->flow, receiver, six);
	outer->udp.check = 0;
	return OK;
}

static __always_inline int send_on(struct __sk_buff *skb, const struct chance_packet *packet,
				   const struct siblings *siblings, const struct passage *passage,
				   __u32 receiver)
{
	struct chance_way way = {};
	int reason;

	if (find_way(skb, siblings, receiver, 0, &way) != OK)
		return drop_without_route(skb, packet);
	reason = readdress(skb, packet, siblings, passage, receiver);
	return reason == OK ? go(&way) : drop(reason);
}

#endif
