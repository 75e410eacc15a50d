// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The tunnel between Envoy instances and the endpoints on workload nodes: GUE variant 0 with an
 * authenticated private header. One program per place it is attached to.
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
#include "maps.h"
#include "packet.h"

/* From an instance: into the tunnel with the inside address, to the router with the public one. */
SEC("tc")
int instance_ingress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct instance *instance = bpf_map_lookup_elem(&instances, &ifindex);
	struct endpoint_key key;
	struct cursor cursor;
	struct inner inner = {};
	struct iphdr *ip;
	__u32 *id;

	if (!instance)
		return drop(DROP_INSTANCE_UNKNOWN);
	if (skb->protocol == bpf_htons(ETH_P_ARP) && !skb->vlan_present)
		return NOT_OURS;
	if (!is_ipv4(skb))
		return drop(DROP_INSTANCE_PROTOCOL);
	if (!cursor_open(&cursor, skb, ETH_HLEN + sizeof(struct iphdr)) || !parse_ethernet(&cursor))
		return drop(DROP_TRUNCATED);
	ip = parse_ipv4(&cursor);
	if (!ip)
		return drop(DROP_TRUNCATED);
	if (ip->saddr == instance->public)
		return NOT_OURS;
	if (ip->saddr != instance->inside)
		return drop(DROP_INSTANCE_SOURCE);
	if (!inner_read(&inner, skb, ip))
		return drop(DROP_INNER_HEADER);
	key.inside = inner.flow.source;
	key.endpoint = inner.flow.destination;
	id = bpf_map_lookup_elem(&endpoints, &key);
	if (!id)
		return drop(DROP_ENDPOINT_UNKNOWN);
	return encapsulate(skb, &inner, *id);
}

static __always_inline int deliver(const struct inside *instance, __be32 inside)
{
	struct bpf_redir_neigh next_hop = {.nh_family = ADDRESS_FAMILY_INET, .ipv4_nh = inside};

	if (instance->flags & INSIDE_REDIRECT_PEER)
		return bpf_redirect_peer(instance->ifindex, 0);
	return bpf_redirect_neigh(instance->ifindex, &next_hop, sizeof(next_hop), 0);
}

/* To an EPIC node: learn from hellos where a workload node is seen; data goes into the instance. */
SEC("tc")
int gateway_underlay_ingress(struct __sk_buff *skb)
{
	struct received received;
	const struct gue_data *gue;
	const struct iphdr *ip;
	struct tunnel *tunnel;
	struct inside *instance;
	__be32 inside;
	__u32 id;

	if (!is_gue(skb))
		return NOT_OURS;
	if (receive(skb, &received) != TC_ACT_OK)
		return TC_ACT_SHOT;
	if (is_control(&received))
		return control_receive(&received, GUE_CTYPE_HELLO, true);
	if (data_well_formed(&received) != TC_ACT_OK)
		return TC_ACT_SHOT;
	gue = (const void *)received.gue;
	ip = (const void *)(gue + 1);
	id = bpf_ntohl(gue->tunnel);
	tunnel = bpf_map_lookup_elem(&tunnels, &id);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	inside = ip->daddr;
	if (data_authentic(&received, tunnel) != TC_ACT_OK ||
	    data_permitted(tunnel, id, inside, ip->saddr) != TC_ACT_OK)
		return TC_ACT_SHOT;
	instance = bpf_map_lookup_elem(&insides, &inside);
	if (!instance || !instance->ifindex)
		return drop(DROP_INSTANCE_UNKNOWN);
	if (strip(skb, id, bpf_ntohs(ip->tot_len), received.outer->tos) != TC_ACT_OK)
		return TC_ACT_SHOT;
	return deliver(instance, inside);
}

/* To a workload node: the stack delivers, as any CNI wants it. */
SEC("tc")
int workload_underlay_ingress(struct __sk_buff *skb)
{
	struct received received;
	const struct gue_data *gue;
	const struct iphdr *ip;
	struct tunnel *tunnel;
	__u32 id;

	if (!is_gue(skb))
		return NOT_OURS;
	if (receive(skb, &received) != TC_ACT_OK)
		return TC_ACT_SHOT;
	if (is_control(&received))
		return control_receive(&received, GUE_CTYPE_HELLO_ACK, false);
	if (data_well_formed(&received) != TC_ACT_OK)
		return TC_ACT_SHOT;
	gue = (const void *)received.gue;
	ip = (const void *)(gue + 1);
	id = bpf_ntohl(gue->tunnel);
	tunnel = bpf_map_lookup_elem(&tunnels, &id);
	if (!tunnel)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (data_authentic(&received, tunnel) != TC_ACT_OK ||
	    data_permitted(tunnel, id, ip->saddr, ip->daddr) != TC_ACT_OK ||
	    strip(skb, id, bpf_ntohs(ip->tot_len), received.outer->tos) != TC_ACT_OK)
		return TC_ACT_SHOT;
	return NOT_OURS;
}

/* From a workload node: replies to an inside address go back into the tunnel they came from. */
SEC("tc")
int workload_underlay_egress(struct __sk_buff *skb)
{
	struct endpoint_key key;
	struct cursor cursor;
	struct inner inner = {};
	struct iphdr *ip;
	__be32 destination;
	__u32 *id;

	if (!is_ipv4(skb) || !cursor_open(&cursor, skb, ETH_HLEN + sizeof(struct iphdr)) ||
	    !parse_ethernet(&cursor))
		return NOT_OURS;
	ip = parse_ipv4(&cursor);
	if (!ip)
		return NOT_OURS;
	destination = ip->daddr;
	if (!bpf_map_lookup_elem(&insides, &destination))
		return NOT_OURS;
	if (!inner_read(&inner, skb, ip))
		return drop(DROP_INNER_HEADER);
	key.inside = inner.flow.destination;
	key.endpoint = inner.flow.source;
	id = bpf_map_lookup_elem(&endpoints, &key);
	if (!id)
		return drop(DROP_SOURCE_NOT_ENDPOINT);
	return encapsulate(skb, &inner, *id);
}

char LICENSE[] SEC("license") = "GPL";
