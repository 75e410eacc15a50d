/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The inner packet, read before its place in memory moves. */
#ifndef EPIC_INNER_H
#define EPIC_INNER_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gue.h"
#include "packet.h"
#include "csum.h"

struct inner {
	struct flow flow;
	__u32 length;
	__u32 header_length; /* of the IP header; IPv6: the fixed one */
	__u64 sum;           /* of all bytes as they will leave; only where checksums are wanted */
	struct kept_tag *kept; /* of the pair that it is of */
	__u8 tos;
};

/* A GSO packet beyond 64 KB ("BIG TCP") says no length; nothing else is that long. */
static __always_inline bool is_jumbo(const struct view *view, __u32 said, __u32 header)
{
	return !said && view->length > ETH_HLEN + header + IP_MAX_LENGTH;
}

static __always_inline bool inner4_read(struct inner *inner, const struct view *view,
					const struct iphdr *ip)
{
	bool jumbo = is_jumbo(view, ip->tot_len, 0);

	if (jumbo ? ip->version != IPV4_VERSION || ip->ihl < IPV4_MIN_IHL : !ipv4_header_sane(ip))
		return false;
	inner->flow.source = address_v4(ip->saddr);
	inner->flow.destination = address_v4(ip->daddr);
	inner->flow.protocol = ip->protocol;
	inner->length = jumbo ? view->length - ETH_HLEN : bpf_ntohs(ip->tot_len);
	inner->header_length = ip->ihl * 4;
	inner->tos = ip->tos;
	return inner->length + ETH_HLEN <= view->length;
}

/* Extension headers count as content, so that fragments and whatever else pass as they are. */
static __always_inline bool inner6_read(struct inner *inner, const struct view *view,
					const struct ipv6hdr *ip)
{
	if (ip->version != IPV6_VERSION)
		return false;
	inner->flow.source = address_v6(&ip->saddr);
	inner->flow.destination = address_v6(&ip->daddr);
	inner->flow.protocol = ip->nexthdr;
	inner->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (is_jumbo(view, ip->payload_len, sizeof(*ip)))
		inner->length = view->length - ETH_HLEN;
	inner->header_length = sizeof(*ip);
	inner->tos = ipv6_traffic_class(ip);
	return inner->length + ETH_HLEN <= view->length;
}

/* Where the transport header is, and its protocol; false: a later fragment, which has none. */
struct transport {
	__u32 offset; /* from the link header on */
	__u8 protocol;
	bool whole; /* not a fragment */
};

static __always_inline bool transport4(struct transport *transport, struct __sk_buff *skb,
				       const struct inner *inner)
{
	__be16 fragment = 0;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment,
			       sizeof(fragment)))
		return false;
	transport->offset = ETH_HLEN + inner->header_length;
	transport->protocol = inner->flow.protocol;
	transport->whole = !(fragment & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET));
	return !(fragment & bpf_htons(IPV4_FRAGMENT_OFFSET));
}

/* Of extension headers only the fragment header is known; behind others nothing is looked for. */
static __always_inline bool transport6(struct transport *transport, struct __sk_buff *skb,
				       const struct inner *inner)
{
	struct {
		__u8 next;
		__u8 reserved;
		__be16 offset;
	} fragment = {};

	transport->offset = ETH_HLEN + inner->header_length;
	transport->protocol = inner->flow.protocol;
	transport->whole = transport->protocol != IPPROTO_FRAGMENT;
	if (transport->whole)
		return true;
	if (bpf_skb_load_bytes(skb, transport->offset, &fragment, sizeof(fragment)))
		return false;
	transport->offset += IPV6_FRAGMENT_LENGTH;
	transport->protocol = fragment.next;
	return !(fragment.offset & bpf_htons(IPV6_FRAGMENT_OFFSET));
}

static __always_inline bool transport_find(struct transport *transport, struct __sk_buff *skb,
					   const struct inner *inner, const bool six)
{
	return six ? transport6(transport, skb, inner) : transport4(transport, skb, inner);
}

#endif
