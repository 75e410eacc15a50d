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

#include "egress_guard.h"
#include "instance.h"
#include "packet.h"
#include "segments.h"
#include "xdp_decap.h"
#include "underlay.h"
#include "workload.h"

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
	return xdp_decap(ctx, true);
}

SEC("xdp")
int workload_underlay_xdp(struct xdp_md *ctx)
{
	return xdp_decap(ctx, false);
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

/* From an EPIC node, whoever on it sends. */
SEC("tc")
int gateway_underlay_egress(struct __sk_buff *skb)
{
	return gateway_send(skb);
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

/* GSO packets that needed checksums come back in pieces. */
SEC("tc")
int segment_ingress(struct __sk_buff *skb)
{
	return segment_take(skb);
}

char LICENSE[] SEC("license") = "GPL";
