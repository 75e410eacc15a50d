/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Out of the tunnel: a packet is verified wholly before a byte of it is changed. */
#ifndef EPIC_DECAP_H
#define EPIC_DECAP_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "gue.h"
#include "maps.h"
#include "packet.h"

/* A packet to our port: the outer header, and whichever of the two kinds it is. */
struct received {
	const struct iphdr *outer;
	const struct udphdr *udp;
	const struct gue_base *gue;
};

/* Data and control packets have the same smallest size, so one check serves both. */
#define RECEIVED_MIN (ETH_HLEN + OVERHEAD + (int)sizeof(struct iphdr))
_Static_assert(RECEIVED_MIN == ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) +
				       sizeof(struct gue_control),
	       "data and control packets have the same smallest size");

/* Whether this is UDP to our port at an address of ours; later fragments have no port and are not.
 */
static __always_inline bool is_gue(struct __sk_buff *skb)
{
	struct cursor cursor;
	struct iphdr *ip;
	struct udphdr *udp;
	__be32 destination;

	if (!is_ipv4(skb) ||
	    !cursor_open(&cursor, skb, ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr)))
		return false;
	if (!parse_ethernet(&cursor))
		return false;
	ip = parse_ipv4(&cursor);
	if (!ip || ip->protocol != IPPROTO_UDP || ip->ihl < IPV4_MIN_IHL ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return false;
	destination = ip->daddr;
	if (ip->ihl > IPV4_MIN_IHL) {
		__be16 port;
		__u32 offset = ETH_HLEN + ip->ihl * 4 + offsetof(struct udphdr, dest);

		if (bpf_skb_load_bytes(skb, offset, &port, sizeof(port)) ||
		    port != bpf_htons(GUE_PORT))
			return false;
	} else {
		udp = parse_udp(&cursor);
		if (!udp || udp->dest != bpf_htons(GUE_PORT))
			return false;
	}
	return bpf_map_lookup_elem(&locals, &destination);
}

/* The checks that need no map, of the outer headers; TC_ACT_OK or the verdict. */
static __always_inline int receive(struct __sk_buff *skb, struct received *received)
{
	struct cursor cursor;
	__u32 length;

	if (!cursor_open(&cursor, skb, RECEIVED_MIN))
		return drop(DROP_TRUNCATED);
	if (!parse_ethernet(&cursor))
		return drop(DROP_TRUNCATED);
	received->outer = parse_ipv4(&cursor);
	if (!received->outer)
		return drop(DROP_TRUNCATED);
	if (received->outer->ihl != IPV4_MIN_IHL)
		return drop(DROP_OUTER_OPTIONS);
	if (received->outer->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS))
		return drop(DROP_OUTER_FRAGMENT);
	received->udp = parse_udp(&cursor);
	received->gue = cursor_take(&cursor, sizeof(struct gue_control));
	if (!received->udp || !received->gue)
		return drop(DROP_TRUNCATED);
	length = bpf_ntohs(received->outer->tot_len);
	if (length + ETH_HLEN > skb->len || length < RECEIVED_MIN - ETH_HLEN ||
	    bpf_ntohs(received->udp->len) + sizeof(struct iphdr) != length)
		return drop(DROP_OUTER_LENGTH);
	if (received->gue->version_control_hlen & GUE_VERSION_MASK)
		return drop(DROP_GUE_VERSION);
	if (received->gue->flags)
		return drop(DROP_GUE_FLAGS);
	return TC_ACT_OK;
}

static __always_inline bool is_control(const struct received *received)
{
	return received->gue->version_control_hlen & GUE_CONTROL_BIT;
}

/* The headers of a data packet in order and consistent; TC_ACT_OK or the verdict. */
static __always_inline int data_well_formed(const struct received *received)
{
	const struct gue_data *gue = (const void *)received->gue;
	const struct iphdr *ip = (const void *)(gue + 1);

	if ((gue->base.version_control_hlen & GUE_HLEN_MASK) != GUE_DATA_HLEN)
		return drop(DROP_GUE_HEADER_LENGTH);
	if (gue->base.protocol != IPPROTO_IPIP)
		return drop(DROP_GUE_PROTOCOL);
	if (!ipv4_header_sane(ip))
		return drop(DROP_INNER_HEADER);
	if (bpf_ntohs(ip->tot_len) + OVERHEAD != bpf_ntohs(received->outer->tot_len))
		return drop(DROP_INNER_LENGTH);
	return TC_ACT_OK;
}

/* The packet was made by the tunnel's far end, for this tunnel; TC_ACT_OK or the verdict. */
static __always_inline int data_authentic(const struct received *received,
					  const struct tunnel *tunnel)
{
	const struct gue_data *gue = (const void *)received->gue;
	const struct iphdr *ip = (const void *)(gue + 1);
	struct flow flow = {
		.tunnel = bpf_ntohl(gue->tunnel),
		.service = tunnel->service,
		.source = ip->saddr,
		.destination = ip->daddr,
		.protocol = ip->protocol,
	};

	if (received->outer->daddr != tunnel->local)
		return drop(DROP_TUNNEL_ADDRESS);
	if (bpf_ntohl(gue->service) != tunnel->service)
		return drop(DROP_SERVICE_WRONG);
	if (!data_tag_verified(tunnel, &flow, tag_word(&gue->tag)))
		return drop(DROP_TAG_WRONG);
	return TC_ACT_OK;
}

/* What an authentic packet may say: between the tunnel's inside address and one of its endpoints.
 */
static __always_inline int data_permitted(const struct tunnel *tunnel, __u32 id, __be32 inside,
					  __be32 endpoint)
{
	struct endpoint_key key = {.inside = inside, .endpoint = endpoint};
	__u32 *served;

	if (inside != tunnel->inside)
		return drop(DROP_INNER_SPOOFED);
	served = bpf_map_lookup_elem(&endpoints, &key);
	if (!served || *served != id)
		return drop(DROP_ENDPOINT_UNKNOWN);
	return TC_ACT_OK;
}

/* RFC 6040: a mark that the underlay made goes on inside, or drops what cannot carry it. */
static __always_inline int congestion_carry(struct __sk_buff *skb, __u8 outer_tos)
{
	if ((outer_tos & ECN_MASK) != ECN_CE || bpf_skb_ecn_set_ce(skb))
		return TC_ACT_OK;
	return drop(DROP_CONGESTION);
}

/* Remove the outer header of a verified packet; TC_ACT_OK or the verdict. */
static __always_inline int strip(struct __sk_buff *skb, __u32 id, __u32 bytes, __u8 outer_tos)
{
	if (bpf_skb_adjust_room(skb, -OVERHEAD, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return drop(DROP_NO_ROOM);
	if (congestion_carry(skb, outer_tos) != TC_ACT_OK)
		return TC_ACT_SHOT;
	count_received(skb, id, bytes);
	return TC_ACT_OK;
}

#endif
