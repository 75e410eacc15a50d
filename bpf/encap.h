/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Into the tunnel. */
#ifndef EPIC_ENCAP_H
#define EPIC_ENCAP_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "gue.h"
#include "maps.h"
#include "packet.h"

/* The inner packet, read before its place in memory moves. */
struct inner {
	struct flow flow;
	__u32 length;
	__u32 header_length;
	__u8 tos;
};

static __always_inline bool inner_read(struct inner *inner, struct __sk_buff *skb,
				       const struct iphdr *ip)
{
	if (!ipv4_header_sane(ip))
		return false;
	inner->flow.source = ip->saddr;
	inner->flow.destination = ip->daddr;
	inner->flow.protocol = ip->protocol;
	inner->length = bpf_ntohs(ip->tot_len);
	inner->header_length = ip->ihl * 4;
	inner->tos = ip->tos;
	return inner->length + ETH_HLEN <= skb->len;
}

/* Where to send: what was observed, else what was declared; a zero address says "nowhere yet". */
static __always_inline union outer_end tunnel_remote(const struct tunnel *tunnel, __u32 id)
{
	union outer_end declared = {.address = tunnel->remote, .port = tunnel->remote_port};
	struct peer *peer = bpf_map_lookup_elem(&peers, &id);
	union outer_end observed;

	if (!peer)
		return declared;
	observed.word = *(volatile __u64 *)&peer->end.word;
	return observed.address ? observed : declared;
}

/* Length of a superpacket's segment without link header; 0 when it cannot be told. */
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
 * Grow the packet by the outer header. The kernel would take the overhead off each segment; it must
 * not when the segments fit already. TCP segments that do not fit are made smaller, datagrams
 * cannot be.
 */
static __always_inline int make_room(struct __sk_buff *skb, const struct inner *inner, __u32 mtu)
{
	__u64 flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	__u32 length = inner->length;

	if (skb->gso_size) {
		length = segment_length(skb, inner);
		if (!length || inner->length + OVERHEAD > IPV4_MAX_LENGTH)
			return drop(DROP_TOO_BIG);
	}
	if (length + OVERHEAD <= mtu)
		flags |= BPF_F_ADJ_ROOM_FIXED_GSO;
	else if (!skb->gso_size || inner->flow.protocol != IPPROTO_TCP)
		return drop(DROP_TOO_BIG);
	if (bpf_skb_adjust_room(skb, OVERHEAD, BPF_ADJ_ROOM_MAC, flags))
		return drop(DROP_NO_ROOM);
	return TC_ACT_OK;
}

static __always_inline void outer_fill(struct outer_header *outer, const struct tunnel *tunnel,
				       const struct inner *inner, union outer_end remote)
{
	__u64 tag = data_tag(&tunnel->keys[tunnel->active % KEY_SLOTS], &inner->flow);

	outer->ip.version = IPV4_VERSION;
	outer->ip.ihl = IPV4_MIN_IHL;
	outer->ip.tos = inner->tos;
	outer->ip.tot_len = bpf_htons(inner->length + OVERHEAD);
	outer->ip.frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	outer->ip.ttl = OUTER_TTL;
	outer->ip.protocol = IPPROTO_UDP;
	outer->ip.saddr = tunnel->local;
	outer->ip.daddr = remote.address;
	outer->ip.check = ipv4_checksum(&outer->ip);
	outer->udp.source = bpf_htons(GUE_PORT);
	outer->udp.dest = remote.port;
	outer->udp.len = bpf_htons(inner->length + OVERHEAD - sizeof(struct iphdr));
	outer->gue.base.version_control_hlen = GUE_DATA_HLEN;
	outer->gue.base.protocol = IPPROTO_IPIP;
	outer->gue.tunnel = bpf_htonl(inner->flow.tunnel);
	outer->gue.service = bpf_htonl(inner->flow.service);
	outer->gue.tag.low = (__u32)tag;
	outer->gue.tag.high = tag >> 32;
}

/* Wrap the packet and hand it to the underlay; every failure drops, nothing leaves in the clear. */
static __always_inline int encapsulate(struct __sk_buff *skb, struct inner *inner, __u32 id)
{
	struct outer_header outer = {};
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &id);
	union outer_end remote;

	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (!slot_valid(tunnel, tunnel->active % KEY_SLOTS))
		return drop(DROP_KEY_MISSING);
	remote = tunnel_remote(tunnel, id);
	if (!remote.address)
		return drop(DROP_TUNNEL_UNRESOLVED);

	inner->flow.tunnel = id;
	inner->flow.service = tunnel->service;
	outer_fill(&outer, tunnel, inner, remote);
	if (make_room(skb, inner, tunnel->underlay_mtu) != TC_ACT_OK)
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0))
		return drop(DROP_NO_ROOM);
	count_sent(skb, id, inner->length);
	return bpf_redirect_neigh(tunnel->underlay, NULL, 0, 0);
}

#endif
