/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Into the tunnel. `six` is the inner packet's family, `over6` the outer one's. */
#ifndef EPIC_ENCAP_H
#define EPIC_ENCAP_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "checksum.h"
#include "counters.h"
#include "peer.h"
#include "gue.h"
#include "inner.h"
#include "maps.h"
#include "packet.h"
#include "csum.h"
#include "icmp_ptb.h"
#include "nat.h"

/* Length of a GSO packet's segment without link header; 0 when it cannot be told. */
static __always_inline __u32 segment_length(struct __sk_buff *skb, const struct inner *inner)
{
	const __u32 tcp_data_offset = ETH_HLEN + inner->header_length + 12;
	__u8 offset;

	if (inner->flow.protocol == IPPROTO_UDP)
		return inner->header_length + sizeof(struct udphdr) + skb->gso_size;
	if (inner->flow.protocol != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, tcp_data_offset, &offset, sizeof(offset)))
		return 0;
	return inner->header_length + (offset >> 4) * 4 + skb->gso_size;
}

/*
 * How to grow the packet by the outer header. The kernel would take the overhead off each segment;
 * it must not when the segments fit already. TCP segments that do not fit are made smaller, unless
 * they are cut up for their checksums; datagrams cannot be.
 */
static __always_inline int room_flags(struct __sk_buff *skb, const struct inner *inner,
				      const struct tunnel *tunnel, const struct end *end,
				      const bool over6, __u64 *flags)
{
	const int added = overhead(over6);
	__u32 length = inner->length;

	*flags = BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		 (over6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
	if (skb->gso_size) {
		length = segment_length(skb, inner);
		if (!length)
			return DROP_TOO_BIG;
	}
	if (length + added <= tunnel->underlay_mtu)
		*flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	else if (!skb->gso_size || inner->flow.protocol != IPPROTO_TCP ||
		 end->flags & CONTROL_CHECKSUM)
		return DROP_TOO_BIG;
	return OK;
}

/* The outer UDP checksum of an inner packet whose bytes sum up to inner->sum. */
static __always_inline __sum16 outer_sum(const struct tunnel_header *header,
					 const struct inner *inner, const struct end *end,
					 const bool over6)
{
	__u64 sum = sum_words(header, sizeof(*header)) + inner->sum + header->udp.len +
		    bpf_htons(IPPROTO_UDP);
	__sum16 check;

	if (over6)
		sum += sum_words(&end->local, sizeof(end->local)) +
		       sum_words(&end->address, sizeof(end->address));
	else
		sum += (__u64)address_ipv4(&end->local) + address_ipv4(&end->address);
	check = sum_finish(sum);
	return check ? check : 0xffff;
}

static __always_inline void tunnel_fill(struct tunnel_header *header, struct __sk_buff *skb,
					const struct tunnel *tunnel, const struct inner *inner,
					const struct end *end, const bool six, const bool over6)
{
	__u64 tag = data_tag_signed(inner->kept, tunnel, &inner->flow, six);

	header->udp.source = source_port(skb, tunnel, end);
	header->udp.dest = end->port;
	header->udp.len = bpf_htons(inner->length + sizeof(*header));
	header->udp.check = 0;
	header->gue.base.version_control_hlen = GUE_DATA_HLEN;
	header->gue.base.protocol = six ? IPPROTO_IPV6 : IPPROTO_IPIP;
	header->gue.base.flags = 0;
	header->gue.tunnel = bpf_htonl(inner->flow.tunnel);
	header->gue.service = bpf_htonl(tunnel->service);
	header->gue.tag.low = (__u32)tag;
	header->gue.tag.high = tag >> 32;
	if (end->flags & CONTROL_CHECKSUM)
		header->udp.check = outer_sum(header, inner, end, over6);
}

static __always_inline void outer4_fill(struct iphdr *ip, const struct inner *inner,
					const struct end *end)
{
	ip->version = IPV4_VERSION;
	ip->ihl = IPV4_MIN_IHL;
	ip->tos = inner->tos;
	ip->tot_len = bpf_htons(inner->length + sizeof(struct outer_header));
	ip->id = 0;
	ip->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip->ttl = OUTER_TTL;
	ip->protocol = IPPROTO_UDP;
	ip->check = 0;
	ip->saddr = address_ipv4(&end->local);
	ip->daddr = address_ipv4(&end->address);
	ip->check = sum_finish(sum_words(ip, sizeof(*ip)));
}

static __always_inline void outer6_fill(struct ipv6hdr *ip, const struct inner *inner,
					const struct end *end)
{
	ip->version = IPV6_VERSION;
	ip->priority = inner->tos >> 4;
	ip->flow_lbl[0] = inner->tos << 4;
	ip->flow_lbl[1] = 0;
	ip->flow_lbl[2] = 0;
	ip->payload_len = bpf_htons(inner->length + sizeof(struct tunnel_header));
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = OUTER_TTL;
	__builtin_memcpy(&ip->saddr, &end->local, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &end->address, sizeof(ip->daddr));
}

/* Several next hops, or none that the agent knows: ask the routing table, by the outer packet. */
static __noinline int leave_by_table(struct __sk_buff *skb, const struct tunnel *tunnel,
				     const struct end *end)
{
	struct bpf_fib_lookup fib = {.ifindex = 0};
	struct bpf_redir_neigh next_hop = {};
	long found;

	fib.ifindex = tunnel->underlay;
	fib.l4_protocol = IPPROTO_UDP;
	fib.dport = end->port;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + (address_is_v4(&end->address) ? 20 : 40), &fib.sport,
			       sizeof(fib.sport)))
		return drop(DROP_NO_ROOM);
	if (address_is_v4(&end->address)) {
		fib.family = ADDRESS_FAMILY_INET;
		fib.ipv4_src = address_ipv4(&end->local);
		fib.ipv4_dst = address_ipv4(&end->address);
	} else {
		fib.family = ADDRESS_FAMILY_INET6;
		__builtin_memcpy(fib.ipv6_src, &end->local, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &end->address, sizeof(fib.ipv6_dst));
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return bpf_redirect_neigh(tunnel->underlay, NULL, 0, 0);
	next_hop.nh_family = fib.family;
	__builtin_memcpy(next_hop.ipv6_nh, fib.ipv6_dst, sizeof(next_hop.ipv6_nh));
	return bpf_redirect_neigh(fib.ifindex, &next_hop, sizeof(next_hop), 0);
}

static __always_inline int leave(struct __sk_buff *skb, struct tunnel *tunnel,
				 const struct end *end)
{
	if (!address_equal(&tunnel->routed, &end->address))
		return leave_by_table(skb, tunnel, end);
	return bpf_redirect_neigh(tunnel->routed_interface, &tunnel->next_hop,
				  sizeof(tunnel->next_hop), 0);
}

/* Grow the packet and put the outer headers in; `turned`: the link header must name their family.
 */
static __always_inline int outer_write(struct __sk_buff *skb, const void *outer, const __u32 length,
				       __u64 flags, const bool turned, const bool over6)
{
	struct view view;
	void *there;

	if (bpf_skb_adjust_room(skb, length, BPF_ADJ_ROOM_MAC, flags) ||
	    (turned && !ethertype_write(skb, over6)))
		return DROP_NO_ROOM;
	view_refresh(&view, skb);
	there = view_at(&view, ETH_HLEN, length);
	if (!there)
		return DROP_NO_ROOM;
	__builtin_memcpy(there, outer, length);
	return OK;
}

static __always_inline int wrap4(struct __sk_buff *skb, const struct inner *inner,
				 const struct tunnel *tunnel, const struct end *end, __u64 flags,
				 const bool six)
{
	struct outer_header outer;

	tunnel_fill(&outer.tunnel, skb, tunnel, inner, end, six, false);
	outer4_fill(&outer.ip, inner, end);
	return outer_write(skb, &outer, sizeof(outer), flags, six, false);
}

static __always_inline int wrap6(struct __sk_buff *skb, const struct inner *inner,
				 const struct tunnel *tunnel, const struct end *end, __u64 flags,
				 const bool six)
{
	struct outer6_header outer;

	tunnel_fill(&outer.tunnel, skb, tunnel, inner, end, six, true);
	outer6_fill(&outer.ip, inner, end);
	return outer_write(skb, &outer, sizeof(outer), flags, !six, true);
}

/* From where a packet enters: what may be done with it besides wrapping it. */
struct encap_context {
	const union address *real; /* the endpoint's address in its own network; NULL: the same */
	bool answers;              /* the sender is on the other side of the interface */
	bool segmented;            /* GSO packets were cut up already */
};

/* To be cut up, and back into `segment_ingress`. */
static __always_inline int segment(const struct encap_context *context)
{
	const struct settings *settings = settings_get();

	if (context->segmented || !settings || !settings->segmenter)
		return drop(DROP_NO_SEGMENTER);
	return bpf_redirect(settings->segmenter, 0);
}

static __always_inline bool restore_real(struct __sk_buff *skb, struct inner *inner,
					 const union address *real, const bool six)
{
	struct replacement change = {
		.from = inner->flow.destination,
		.to = *real,
		.field = FIELD_DESTINATION,
	};

	inner->flow.destination = *real;
	return six ? replace6(skb, inner, &change) : replace4(skb, inner, &change);
}

static __always_inline int encapsulate_over(struct __sk_buff *skb, struct inner *inner,
					    struct tunnel *tunnel, const struct end *end,
					    const struct encap_context *context, const bool six,
					    const bool over6)
{
	const union address *real = context->real;
	__u64 flags;
	int reason;

	/* What is asked for must be what is used, for verifiers that know nothing of what made it.
	 */
	asm volatile("" : "+r"(real));
	/* No outer header can say how long it is; of its pieces it can. */
	if (skb->gso_size && inner->length + overhead(over6) > IP_MAX_LENGTH)
		return segment(context);
	reason = room_flags(skb, inner, tunnel, end, over6, &flags);
	if (reason != OK) {
		if (context->answers)
			return too_big(skb, inner, tunnel->underlay_mtu - overhead(over6), six);
		return drop(reason);
	}
	if (end->flags & CONTROL_CHECKSUM && skb->gso_size)
		return segment(context);
	if (real && !restore_real(skb, inner, real, six))
		return drop(DROP_INNER_HEADER);
	if (end->flags & CONTROL_CHECKSUM)
		inner->sum = inner_sum(skb, inner, six);
	reason = over6 ? wrap6(skb, inner, tunnel, end, flags, six)
		       : wrap4(skb, inner, tunnel, end, flags, six);
	if (reason != OK)
		return drop(reason);
	count_sent(skb, tunnel->slot, inner->length);
	return leave(skb, tunnel, end);
}

/* Wrap the packet and hand it to the underlay; every failure drops, nothing leaves in the clear. */
static __always_inline int encapsulate(struct __sk_buff *skb, struct inner *inner,
				       struct tunnel *tunnel, const struct encap_context *context,
				       const bool six)
{
	const struct end *end;

	if (!slot_valid(tunnel, tunnel->active % KEY_SLOTS))
		return drop(DROP_KEY_MISSING);
	end = far_end(skb, tunnel);
	if (!end)
		return drop(DROP_TUNNEL_UNRESOLVED);
	if (address_is_v4(&end->address))
		return encapsulate_over(skb, inner, tunnel, end, context, six, false);
	return encapsulate_over(skb, inner, tunnel, end, context, six, true);
}

#endif
