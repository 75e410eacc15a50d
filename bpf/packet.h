/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A cursor over the packet: each parser checks its bounds and moves on, or returns NULL. */
#ifndef EPIC_PACKET_H
#define EPIC_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"

struct cursor {
	void *position;
	void *end;
};

/* Make the first `length` bytes readable; the packet's rest may lie in fragments of the buffer. */
static __always_inline bool cursor_open(struct cursor *cursor, struct __sk_buff *skb, __u32 length)
{
	if (skb->data_end - skb->data < length && bpf_skb_pull_data(skb, length))
		return false;
	cursor->position = (void *)(long)skb->data;
	cursor->end = (void *)(long)skb->data_end;
	return true;
}

static __always_inline void *cursor_take(struct cursor *cursor, __u32 length)
{
	void *taken = cursor->position;

	if (taken + length > cursor->end)
		return NULL;
	cursor->position = taken + length;
	return taken;
}

static __always_inline struct ethhdr *parse_ethernet(struct cursor *cursor)
{
	return cursor_take(cursor, sizeof(struct ethhdr));
}

/* The fixed part of the header; options stay ahead of the cursor. */
static __always_inline struct iphdr *parse_ipv4(struct cursor *cursor)
{
	return cursor_take(cursor, sizeof(struct iphdr));
}

static __always_inline struct udphdr *parse_udp(struct cursor *cursor)
{
	return cursor_take(cursor, sizeof(struct udphdr));
}

/* Untagged IPv4: what carries a VLAN tag here belongs to the VLAN's own interface. */
static __always_inline bool is_ipv4(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) && !skb->vlan_present;
}

static __always_inline bool ipv4_header_sane(const struct iphdr *ip)
{
	return ip->version == IPV4_VERSION && ip->ihl >= IPV4_MIN_IHL &&
	       bpf_ntohs(ip->tot_len) >= ip->ihl * 4;
}

/* The one's complement sum of a header without options, as its checksum field wants it. */
static __always_inline __sum16 ipv4_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (unsigned int i = 0; i < sizeof(*ip) / sizeof(*words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

#endif
