/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Looking into packets: every pointer is bounded before it is read. */
#ifndef EPIC_PACKET_H
#define EPIC_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "consts.h"

/* The readable part of a packet, and how long all of it is. */
struct view {
	void *data;
	void *end;
	__u32 length;
};

static __always_inline void view_refresh(struct view *view, struct __sk_buff *skb)
{
	view->data = (void *)(long)skb->data;
	view->end = (void *)(long)skb->data_end;
	view->length = skb->len;
}

/* Make the first `length` bytes readable; the packet's rest may lie in fragments of the buffer. */
static __always_inline bool view_open(struct view *view, struct __sk_buff *skb, __u32 length)
{
	if (skb->data_end - skb->data < length && bpf_skb_pull_data(skb, length))
		return false;
	view_refresh(view, skb);
	return true;
}

/* The bytes at `offset`, which must be a constant; NULL when they are not all readable. */
static __always_inline void *view_at(const struct view *view, __u32 offset, __u32 length)
{
	if (view->data + offset + length > view->end)
		return NULL;
	return view->data + offset;
}

/* What carries a VLAN tag here belongs to the VLAN's own interface. */
static __always_inline bool is_ipv4(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) && !skb->vlan_present;
}

static __always_inline bool is_ipv6(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IPV6) && !skb->vlan_present;
}

/*
 * The number as it is: no packet here has a VLAN tag, which the verifier does not know. So it looks
 * at what comes next once, not for each number by itself; and to those of Linux before 6.2 a
 * constant that a function is given is the only one that it is ever given, and they leave out what
 * it does with others.
 */
static __always_inline __u32 any_number(struct __sk_buff *skb, __u32 number)
{
	return number + *(volatile __u32 *)&skb->vlan_present;
}

static __always_inline bool ipv4_header_sane(const struct iphdr *ip)
{
	return ip->version == IPV4_VERSION && ip->ihl >= IPV4_MIN_IHL &&
	       bpf_ntohs(ip->tot_len) >= ip->ihl * 4;
}

static __always_inline __u8 ipv6_traffic_class(const struct ipv6hdr *ip)
{
	return ip->priority << 4 | ip->flow_lbl[0] >> 4;
}

/* The link header goes on saying what follows it. */
static __always_inline bool ethertype_write(struct __sk_buff *skb, const bool six)
{
	__be16 type = six ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);

	return !bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &type, sizeof(type), 0);
}

#endif
