/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Out of the tunnel: a packet is verified wholly before a byte of it is changed. */
#ifndef EPIC_DECAP_H
#define EPIC_DECAP_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "peer.h"
#include "gue.h"
#include "inner.h"
#include "maps.h"
#include "packet.h"
#include "receive.h"

/* What is known of a data packet once it is verified. */
struct verified {
	struct inner inner;
	const struct tunnel *tunnel;
	const union address *mapped; /* what the sender is called on our side; NULL: the same */
	__u32 interface;             /* where to deliver to; 0: the stack knows */
	__u8 tos;                    /* of the outer packet */
};

static __always_inline int inner4_verify(struct verified *verified, const struct received *received)
{
	const struct gue_data *gue = (const void *)received->gue;
	const struct iphdr *ip = (const void *)(gue + 1);

	if (!ipv4_header_sane(ip))
		return DROP_INNER_HEADER;
	verified->inner.length = bpf_ntohs(ip->tot_len);
	verified->inner.header_length = ip->ihl * 4;
	verified->inner.flow.source = address_v4(ip->saddr);
	verified->inner.flow.destination = address_v4(ip->daddr);
	verified->inner.flow.protocol = ip->protocol;
	return OK;
}

static __always_inline int inner6_verify(struct verified *verified, const struct received *received)
{
	const struct gue_data *gue = (const void *)received->gue;
	const struct ipv6hdr *ip = (const void *)(gue + 1);

	if ((const void *)(ip + 1) > received->readable_end || received->length < data_min(true))
		return DROP_TRUNCATED;
	if (ip->version != IPV6_VERSION)
		return DROP_INNER_HEADER;
	verified->inner.length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	verified->inner.header_length = sizeof(*ip);
	verified->inner.flow.source = address_v6(&ip->saddr);
	verified->inner.flow.destination = address_v6(&ip->daddr);
	verified->inner.flow.protocol = ip->nexthdr;
	return OK;
}

/* The headers of a data packet in order and consistent. */
static __always_inline int data_well_formed(struct verified *verified,
					    const struct received *received, const bool six)
{
	int reason = six ? inner6_verify(verified, received) : inner4_verify(verified, received);

	if (reason != OK)
		return reason;
	if (verified->inner.length + sizeof(struct gue_data) != received->length)
		return DROP_INNER_LENGTH;
	return OK;
}

/* The packet was made by the tunnel's far end, for this tunnel. */
static __always_inline int data_authentic(struct verified *verified,
					  const struct received *received,
					  struct endpoint *endpoint, const bool six)
{
	struct kept_tag *kept = endpoint ? &endpoint->received : NULL;
	const struct gue_data *gue = (const void *)received->gue;
	const struct tunnel *tunnel = verified->tunnel;
	const struct peer *peer = peer_of(tunnel);

	if (!peer)
		return DROP_TUNNEL_UNKNOWN;
	if (!is_addressed(tunnel, peer, &received->destination))
		return DROP_TUNNEL_ADDRESS;
	if (bpf_ntohl(gue->service) != tunnel->service)
		return DROP_SERVICE_WRONG;
	if (!data_tag_verified(kept, tunnel, &verified->inner.flow, tag_word(&gue->tag), six))
		return DROP_TAG_WRONG;
	if (!is_far_end(tunnel, peer, &received->source, received->port))
		return DROP_OUTER_SOURCE;
	return OK;
}

static __always_inline bool is_inside(const struct tunnel *tunnel, const union address *address,
				      const bool six)
{
	return six ? address_equal(address, &tunnel->inside6)
		   : address_ipv4(address) == tunnel->inside;
}

static __always_inline struct endpoint *pair_find(const union address *inside,
						  const union address *endpoint, const bool six)
{
	return six ? endpoint6_find(inside, endpoint)
		   : endpoint_find(address_ipv4(inside), address_ipv4(endpoint));
}

/* The endpoint of this tunnel that the workload's network calls so. */
static __always_inline const union address *mapped_find(__u32 tunnel, const union address *real)
{
	struct real_key key = {.tunnel = tunnel, .real = *real};

	return bpf_map_lookup_elem(&mapped, &key);
}

static __always_inline const union address *inside_of(const struct flow *flow, const bool gateway)
{
	return gateway ? &flow->destination : &flow->source;
}

static __always_inline const union address *far_of(const struct flow *flow, const bool gateway)
{
	return gateway ? &flow->source : &flow->destination;
}

/*
 * The tunnel that the packet says, and its endpoint. The pair of addresses leads to the tunnel
 * faster than the number; whatever it leads to must have that number.
 */
static __always_inline struct endpoint *data_find(struct verified *verified, const bool six,
						  const bool gateway)
{
	const struct flow *flow = &verified->inner.flow;
	struct endpoint *endpoint = pair_find(inside_of(flow, gateway), far_of(flow, gateway), six);

	if (endpoint && endpoint->tunnel == flow->tunnel) {
		verified->tunnel = tunnel_of(endpoint);
		return endpoint;
	}
	verified->tunnel = tunnel_find(flow->tunnel);
	return NULL;
}

/* What an authentic packet may say: between the tunnel's inside address and one of its endpoints.
 */
static __always_inline int data_permitted(struct verified *verified,
					  const struct endpoint *endpoint, const bool six,
					  const bool gateway)
{
	const struct flow *flow = &verified->inner.flow;

	if (!is_inside(verified->tunnel, inside_of(flow, gateway), six))
		return DROP_INNER_SPOOFED;
	if (endpoint && !address_known(&endpoint->real)) {
		verified->interface = gateway ? verified->tunnel->interface : endpoint->interface;
		return OK;
	}
	if (!gateway)
		return DROP_ENDPOINT_UNKNOWN;
	verified->mapped = mapped_find(flow->tunnel, far_of(flow, gateway));
	verified->interface = verified->tunnel->interface;
	return verified->mapped ? OK : DROP_ENDPOINT_UNKNOWN;
}

static __always_inline int data_verify(struct verified *verified, const struct received *received,
				       const bool six, const bool gateway)
{
	const struct gue_data *gue = (const void *)received->gue;
	struct endpoint *endpoint;
	int reason = data_well_formed(verified, received, six);

	if (reason != OK)
		return reason;
	verified->inner.flow.tunnel = bpf_ntohl(gue->tunnel);
	verified->tos = received->tos;
	endpoint = data_find(verified, six, gateway);
	if (!verified->tunnel || is_gateway(verified->tunnel) != gateway)
		return DROP_TUNNEL_UNKNOWN;
	reason = data_authentic(verified, received, endpoint, six);
	if (reason != OK)
		return reason;
	return data_permitted(verified, endpoint, six, gateway);
}

/* The inner family that a data packet says it has; another one is an error. */
static __always_inline int data_family(const struct received *received, bool *six)
{
	if ((received->gue->version_control_hlen & GUE_HLEN_MASK) != GUE_DATA_HLEN)
		return DROP_GUE_HEADER_LENGTH;
	*six = received->gue->protocol == IPPROTO_IPV6;
	return *six || received->gue->protocol == IPPROTO_IPIP ? OK : DROP_GUE_PROTOCOL;
}

/* RFC 6040: a mark that the underlay made goes on inside, or drops what cannot carry it. */
static __always_inline int congestion_carry(struct __sk_buff *skb, __u8 tos)
{
	if ((tos & ECN_MASK) != ECN_CE || bpf_skb_ecn_set_ce(skb))
		return OK;
	return DROP_CONGESTION;
}

/* Remove the outer header of a verified packet: `length` bytes, with this traffic class. */
static __always_inline int strip(struct __sk_buff *skb, const int length, __u8 tos,
				 const bool over6, const bool six)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	/* Linux before 6.3 knows neither flag and refuses; within a family none is needed. */
	if (over6 != six)
		flags |= six ? ADJ_ROOM_DECAP_L3_IPV6 : ADJ_ROOM_DECAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, -length, BPF_ADJ_ROOM_MAC, flags))
		return DROP_NO_ROOM;
	if (over6 != six && !ethertype_write(skb, six))
		return DROP_NO_ROOM;
	return congestion_carry(skb, tos);
}

#endif
