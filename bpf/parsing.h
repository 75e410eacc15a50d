/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR Apache-2.0 */
/* Bounds-checked access to headers that lie in the linear part of the packet. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_OFFSET_MASK 0x1fff
#define IP_MF          0x2000
#define IP_DF          0x4000

#ifndef IPPROTO_IPIP
#define IPPROTO_IPIP 4
#define IPPROTO_TCP  6
#define IPPROTO_UDP  17
#endif

/* Have the first `length` bytes linear; false if the packet is shorter. */
static __always_inline int have(struct __sk_buff *skb, __u32 length)
{
	if ((void *)(long)skb->data + length <= (void *)(long)skb->data_end)
		return 1;
	if (bpf_skb_pull_data(skb, length))
		return 0;
	return (void *)(long)skb->data + length <= (void *)(long)skb->data_end;
}

/* `length` bytes at `offset`, or NULL if they are not linear. */
static __always_inline void *at(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	void *start = (void *)(long)skb->data + offset;

	return start + length <= (void *)(long)skb->data_end ? start : NULL;
}

static __always_inline int is_fragment(const struct iphdr *ip)
{
	return ip->frag_off & bpf_htons(IP_OFFSET_MASK | IP_MF);
}

static __always_inline __u16 ipv4_header_checksum(const struct iphdr *ip)
{
	const __u16 *word = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
