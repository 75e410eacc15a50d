/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Outer headers, for both kinds of packet and for tc and XDP alike. */
#ifndef EPIC_RECEIVE_H
#define EPIC_RECEIVE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>

#include "address.h"
#include "counters.h"
#include "gue.h"
#include "packet.h"

/* A packet to our port. */
struct received {
	union address source;
	union address destination;
	const struct gue_base *gue;
	const void *readable_end;
	__u32 length; /* of the UDP payload */
	__be16 port;  /* source */
	__u8 tos;
};

/* Data packets must have so much behind the UDP header, inner header included. */
static __always_inline __u32 data_min(const bool six)
{
	return sizeof(struct gue_data) + ip_length(six);
}

/* As much as the checks of either kind may read. */
static __always_inline __u32 readable_wanted(const bool over6)
{
	return ETH_HLEN + overhead(over6) + sizeof(struct ipv6hdr);
}

static __always_inline bool is_our_port(__be16 port, const __u32 ports)
{
	return bpf_ntohs(port) - GUE_PORT < ports;
}

/* UDP to one of our `ports`; later fragments have no port and are not. IPv4 with options is not
 * looked into here. */
static __always_inline bool is_gue4(const struct view *view, const __u32 ports)
{
	const struct iphdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));
	const struct udphdr *udp = view_at(view, ETH_HLEN + sizeof(*ip), sizeof(*udp));

	return ip && udp && ip->version == IPV4_VERSION && ip->ihl == IPV4_MIN_IHL &&
	       ip->protocol == IPPROTO_UDP && !(ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) &&
	       is_our_port(udp->dest, ports);
}

static __always_inline bool is_gue6(const struct view *view, const __u32 ports)
{
	const struct ipv6hdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));
	const struct udphdr *udp = view_at(view, ETH_HLEN + sizeof(*ip), sizeof(*udp));

	return ip && udp && ip->version == IPV6_VERSION && ip->nexthdr == IPPROTO_UDP &&
	       is_our_port(udp->dest, ports);
}

static __always_inline bool is_gue(const struct view *view, const __u32 ports, const bool over6)
{
	return over6 ? is_gue6(view, ports) : is_gue4(view, ports);
}

static __always_inline int outer4_verify(struct received *received, const struct view *view)
{
	const struct iphdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));
	const struct udphdr *udp = view_at(view, ETH_HLEN + sizeof(*ip), sizeof(*udp));
	__u32 length;

	if (!ip || !udp)
		return DROP_TRUNCATED;
	received->source = address_v4(ip->saddr);
	received->destination = address_v4(ip->daddr);
	received->tos = ip->tos;
	received->port = udp->source;
	received->length = bpf_ntohs(udp->len) - sizeof(*udp);
	length = bpf_ntohs(ip->tot_len);
	if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS))
		return DROP_OUTER_FRAGMENT;
	if (length + ETH_HLEN > view->length || bpf_ntohs(udp->len) + sizeof(*ip) != length)
		return DROP_OUTER_LENGTH;
	return OK;
}

static __always_inline int outer6_verify(struct received *received, const struct view *view)
{
	const struct ipv6hdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));
	const struct udphdr *udp = view_at(view, ETH_HLEN + sizeof(*ip), sizeof(*udp));
	__u32 length;

	if (!ip || !udp)
		return DROP_TRUNCATED;
	received->source = address_v6(&ip->saddr);
	received->destination = address_v6(&ip->daddr);
	received->tos = ipv6_traffic_class(ip);
	received->port = udp->source;
	received->length = bpf_ntohs(udp->len) - sizeof(*udp);
	length = bpf_ntohs(ip->payload_len);
	if (length + ETH_HLEN + sizeof(*ip) > view->length || bpf_ntohs(udp->len) != length)
		return DROP_OUTER_LENGTH;
	return OK;
}

/* The checks that need no map; received->destination is set unless the packet is truncated. */
static __always_inline int outer_verify(struct received *received, const struct view *view,
					const bool over6)
{
	int reason = over6 ? outer6_verify(received, view) : outer4_verify(received, view);

	if (reason != OK)
		return reason;
	received->readable_end = view->end;
	received->gue =
		view_at(view, ETH_HLEN + ip_length(over6) + sizeof(struct udphdr), data_min(false));
	if (!received->gue || received->length < data_min(false))
		return DROP_TRUNCATED;
	if (received->gue->version_control_hlen & GUE_VERSION_MASK)
		return DROP_GUE_VERSION;
	if (received->gue->flags)
		return DROP_GUE_FLAGS;
	return OK;
}

static __always_inline bool is_control(const struct received *received)
{
	return received->gue->version_control_hlen & GUE_CONTROL_BIT;
}

#endif
