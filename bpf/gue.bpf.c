// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The tunnel between Envoy instances and the endpoints on workload nodes: GUE variant 0 with an
 * authenticated private header. One program per place it is attached to. Each copy of the code for
 * a pair of families, outer and inner, is made by the compiler from constants.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "control.h"
#include "counters.h"
#include "decap.h"
#include "encap.h"
#include "gue.h"
#include "icmp.h"
#include "inner.h"
#include "maps.h"
#include "packet.h"
#include "receive.h"
#include "takenout.h"
#include "translate.h"

/* What came to an address that is not ours is somebody else's, whatever it looks like. */
static __always_inline int refuse(const struct received *received, int reason)
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

	if (reason != FINE)
		return refuse(received, reason);
	reason = strip(skb, &verified, over6, six);
	if (reason != FINE)
		return drop(reason);
	if (!enter(skb, &verified, six))
		return drop(DROP_INNER_HEADER);
	count_received(skb, verified.tunnel->slot, verified.inner.length);
	return deliver(verified.interface);
}

static __always_inline int take(struct __sk_buff *skb, const struct view *view, const bool gateway,
				const bool over6)
{
	struct received received = {};
	int reason = outer_verify(&received, view, over6);
	bool six;

	if (reason != FINE)
		return refuse(&received, reason);
	if (is_control(&received)) {
		reason = control_verify(&received, gateway);
		return reason == FINE ? NOT_OURS : refuse(&received, reason);
	}
	reason = data_family(&received, &six);
	if (reason != FINE)
		return refuse(&received, reason);
	if (six)
		return take_data(skb, &received, gateway, over6, true);
	return take_data(skb, &received, gateway, over6, false);
}

/* EPIC nodes listen on one port, workload nodes on one for each lane. */
static __always_inline __u32 ports_of(const bool gateway)
{
	return gateway ? 1 : LANES;
}

/* IPv4 with options to our port is refused, for nobody sends it to us. */
static __always_inline int refuse_options(struct __sk_buff *skb, const struct view *view,
					  const bool gateway)
{
	const struct iphdr *ip = view_at(view, ETH_HLEN, sizeof(*ip));
	struct received received = {};
	__be16 port;

	if (!ip || ip->version != IPV4_VERSION || ip->ihl <= IPV4_MIN_IHL ||
	    ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return NOT_OURS;
	received.destination = address_v4(ip->daddr);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + ip->ihl * 4 + offsetof(struct udphdr, dest), &port,
			       sizeof(port)) ||
	    !is_our_port(port, ports_of(gateway)))
		return NOT_OURS;
	return refuse(&received, DROP_OUTER_OPTIONS);
}

static __always_inline int underlay_ingress_over(struct __sk_buff *skb, const bool gateway,
						 const bool over6)
{
	__u32 wanted = readable_wanted(over6);
	struct view view;

	if (!view_open(&view, skb, ETH_HLEN + ip_length(over6) + sizeof(struct udphdr)))
		return NOT_OURS;
	if (!is_gue(&view, ports_of(gateway), over6))
		return over6 ? NOT_OURS : refuse_options(skb, &view, gateway);
	if (!view_open(&view, skb, skb->len < wanted ? skb->len : wanted))
		return drop(DROP_TRUNCATED);
	return take(skb, &view, gateway, over6);
}

static __always_inline int underlay_ingress(struct __sk_buff *skb, const bool gateway)
{
	struct taken_out out;

	if (taken_out_read(&out, skb))
		return taken_out_deliver(skb, &out);
	if (is_ipv4(skb))
		return underlay_ingress_over(skb, gateway, false);
	if (is_ipv6(skb))
		return underlay_ingress_over(skb, gateway, true);
	return NOT_OURS;
}

/* To an EPIC node: learn from hellos where a workload node is seen; data goes into the instance. */
SEC("tc")
int gateway_underlay_ingress(struct __sk_buff *skb)
{
	return underlay_ingress(skb, true);
}

/* To a workload node: the stack delivers, as any CNI wants it, or the pod's interface does. */
SEC("tc")
int workload_underlay_ingress(struct __sk_buff *skb)
{
	return underlay_ingress(skb, false);
}

/* Before the kernel merges packets, so that it merges inner ones. */
SEC("xdp")
int gateway_underlay_xdp(struct xdp_md *ctx)
{
	return take_out(ctx, true);
}

SEC("xdp")
int workload_underlay_xdp(struct xdp_md *ctx)
{
	return take_out(ctx, false);
}

/* What an instance sends with its inside address goes into the tunnel of its destination. */
static __always_inline int instance_send(struct __sk_buff *skb, struct inner *inner,
					 struct endpoint *endpoint, const bool six)
{
	struct entrance entrance = {.answers = true};
	struct tunnel *tunnel;

	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (tunnel->interface != skb->ifindex)
		return drop(DROP_INSTANCE_SOURCE);
	if (address_known(&endpoint->real))
		entrance.real = &endpoint->real;
	return encapsulate(skb, inner, tunnel, &entrance, six);
}

/* What is not from the inside address to an endpoint: is it the public address, or a mistake? */
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
	if (!six && address_ipv4(&inner->flow.source) == instance->public)
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

/* From an instance: into the tunnel with the inside address, to the router with the public one. */
SEC("tc")
int instance_ingress(struct __sk_buff *skb)
{
	if (is_ipv4(skb))
		return instance_ingress4(skb);
	if (is_ipv6(skb))
		return instance_ingress6(skb);
	if (skb->protocol == bpf_htons(ETH_P_ARP) && !skb->vlan_present)
		return NOT_OURS;
	return drop(DROP_INSTANCE_PROTOCOL);
}

/*
 * An error about an inside address' packet comes from whoever could not pass it on. On its way back
 * it goes for the endpoint's own, for nobody else may speak in the tunnel.
 */
static __always_inline struct endpoint *adopt_error(struct __sk_buff *skb, struct inner *inner,
						    const bool six)
{
	struct replacement change = {.from = inner->flow.source, .field = FIELD_SOURCE};
	struct endpoint *endpoint;
	struct transport transport;
	__be32 to4 = 0;
	__u32 quoted;

	if (!transport_find(&transport, skb, inner, six))
		return NULL;
	quoted = quoted_offset(skb, &transport, six);
	if (!quoted)
		return NULL;
	quoted += field_offset(FIELD_DESTINATION, six);
	if (six) {
		if (bpf_skb_load_bytes(skb, quoted, &change.to, sizeof(change.to)))
			return NULL;
	} else {
		if (bpf_skb_load_bytes(skb, quoted, &to4, sizeof(to4)))
			return NULL;
		change.to = address_v4(to4);
	}
	endpoint = pair_find(&inner->flow.destination, &change.to, six);
	if (!endpoint || !(six ? replace6(skb, inner, &change) : replace4(skb, inner, &change)))
		return NULL;
	inner->flow.source = change.to;
	return endpoint;
}

static __always_inline bool is_inside_address(const union address *address, const bool six)
{
	__be32 short_key = address_ipv4(address);

	return six ? bpf_map_lookup_elem(&insides6, address)
		   : bpf_map_lookup_elem(&insides, &short_key);
}

/*
 * Replies to an inside address go back into the tunnel they came from. On the underlay most packets
 * are others', so the destination alone is looked at first; a pod's are mostly replies.
 */
static __always_inline int reply(struct __sk_buff *skb, struct inner *inner, const bool pod,
				 const bool six)
{
	struct endpoint *endpoint = pair_find(&inner->flow.destination, &inner->flow.source, six);
	struct entrance entrance = {.answers = pod};
	struct tunnel *tunnel;

	if (!endpoint && pod && !is_inside_address(&inner->flow.destination, six))
		return NOT_OURS;
	if (!endpoint)
		endpoint = adopt_error(skb, inner, six);
	if (!endpoint)
		return drop(DROP_SOURCE_NOT_ENDPOINT);
	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	return encapsulate(skb, inner, tunnel, &entrance, six);
}

static __always_inline int workload_send4(struct __sk_buff *skb, const bool pod)
{
	union address destination;
	struct inner inner;
	struct view view;
	struct iphdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return NOT_OURS;
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return NOT_OURS;
	destination = address_v4(ip->daddr);
	if (!pod && !is_inside_address(&destination, false))
		return NOT_OURS;
	if (!inner4_read(&inner, &view, ip))
		return is_inside_address(&destination, false) ? drop(DROP_INNER_HEADER) : NOT_OURS;
	return reply(skb, &inner, pod, false);
}

static __always_inline int workload_send6(struct __sk_buff *skb, const bool pod)
{
	union address destination;
	struct inner inner;
	struct view view;
	struct ipv6hdr *ip;

	if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip)))
		return NOT_OURS;
	ip = view_at(&view, ETH_HLEN, sizeof(*ip));
	if (!ip)
		return NOT_OURS;
	destination = address_v6(&ip->daddr);
	if (!pod && !is_inside_address(&destination, true))
		return NOT_OURS;
	if (!inner6_read(&inner, &view, ip))
		return is_inside_address(&destination, true) ? drop(DROP_INNER_HEADER) : NOT_OURS;
	return reply(skb, &inner, pod, true);
}

static __always_inline int workload_send(struct __sk_buff *skb, const bool pod)
{
	if (is_ipv4(skb))
		return workload_send4(skb, pod);
	if (is_ipv6(skb))
		return workload_send6(skb, pod);
	return NOT_OURS;
}

/* From a workload node, whoever on it sends. */
SEC("tc")
int workload_underlay_egress(struct __sk_buff *skb)
{
	return workload_send(skb, false);
}

/* From a pod whose packets pass the stack by in both directions. */
SEC("tc")
int pod_ingress(struct __sk_buff *skb)
{
	return workload_send(skb, true);
}

/* Superpackets that needed checksums come back in pieces, at either end of a tunnel. */
static __always_inline int segment_send(struct __sk_buff *skb, struct inner *inner, const bool six)
{
	struct entrance entrance = {.segmented = true};
	struct endpoint *endpoint = pair_find(&inner->flow.source, &inner->flow.destination, six);
	struct tunnel *tunnel;

	if (!endpoint)
		endpoint = pair_find(&inner->flow.destination, &inner->flow.source, six);
	/* What the kernel itself says on its interfaces. */
	if (!endpoint)
		return TC_ACT_SHOT;
	inner->flow.tunnel = endpoint->tunnel;
	inner->kept = &endpoint->sent;
	tunnel = tunnel_of(endpoint);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (address_known(&endpoint->real))
		entrance.real = &endpoint->real;
	return encapsulate(skb, inner, tunnel, &entrance, six);
}

SEC("tc")
int segment_ingress(struct __sk_buff *skb)
{
	struct inner inner;
	struct view view;
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

	if (is_ipv4(skb)) {
		if (!view_open(&view, skb, ETH_HLEN + sizeof(*ip4)))
			return drop(DROP_TRUNCATED);
		ip4 = view_at(&view, ETH_HLEN, sizeof(*ip4));
		if (!ip4 || !inner4_read(&inner, &view, ip4))
			return drop(DROP_INNER_HEADER);
		return segment_send(skb, &inner, false);
	}
	if (!is_ipv6(skb) || !view_open(&view, skb, ETH_HLEN + sizeof(*ip6)))
		return TC_ACT_SHOT;
	ip6 = view_at(&view, ETH_HLEN, sizeof(*ip6));
	if (!ip6 || !inner6_read(&inner, &view, ip6))
		return drop(DROP_INNER_HEADER);
	return segment_send(skb, &inner, true);
}

char LICENSE[] SEC("license") = "GPL";
