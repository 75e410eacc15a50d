/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#ifndef EPIC_COUNTERS_H
#define EPIC_COUNTERS_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "drop_reasons.h"
#include "maps.h"

/* A verdict: what a program returns. "Not ours" leaves the packet to the filters after us. */
#define NOT_OURS TC_ACT_UNSPEC

/* What checks return when there is no reason to drop. */
#define OK -1

static __always_inline int drop(int reason)
{
	__u32 index = reason;
	__u64 *count = bpf_map_lookup_elem(&drops, &index);

	if (count)
		*count += 1;
	return TC_ACT_SHOT;
}

static __always_inline __u32 segments_of(struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

static __always_inline void count_received(struct __sk_buff *skb, __u32 slot, __u32 bytes)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return;
	t->rx_packets += segments_of(skb);
	t->rx_bytes += bytes;
}

static __always_inline void count_sent(struct __sk_buff *skb, __u32 slot, __u32 bytes)
{
	struct traffic *t = bpf_map_lookup_elem(&traffic, &slot);

	if (!t)
		return;
	t->tx_packets += segments_of(skb);
	t->tx_bytes += bytes;
}

#endif
