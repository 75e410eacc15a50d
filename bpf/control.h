/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Control packets: verified here, answered by the agent. */
#ifndef EPIC_CONTROL_H
#define EPIC_CONTROL_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "decap.h"
#include "gue.h"
#include "maps.h"

/* Take a higher counter, and with it what the packet shows; under the lock, for two may race. */
static __always_inline bool peer_advance(struct peer *peer, __u64 counter, union outer_end end)
{
	__u64 now = bpf_ktime_get_ns();
	bool higher;

	bpf_spin_lock(&peer->lock);
	higher = counter > peer->counter;
	if (higher) {
		peer->counter = counter;
		peer->seen_ns = now;
		if (end.address)
			*(volatile __u64 *)&peer->end.word = end.word;
	}
	bpf_spin_unlock(&peer->lock);
	return higher;
}

/*
 * Each end takes one type only, so that a packet turned back to its sender is nothing. `learn`
 * stores where the packet came from.
 */
static __always_inline int control_receive(const struct received *received, __u8 type, bool learn)
{
	const struct gue_control *control = (const void *)received->gue;
	union outer_end end = {};
	struct tunnel *tunnel;
	struct peer *peer;
	__u32 id = bpf_ntohl(control->tunnel);
	__u64 counter =
		(__u64)bpf_ntohl(control->counter[0]) << 32 | bpf_ntohl(control->counter[1]);

	if ((control->base.version_control_hlen & GUE_HLEN_MASK) != GUE_CONTROL_HLEN)
		return drop(DROP_GUE_HEADER_LENGTH);
	if (control->base.protocol != type)
		return drop(DROP_CONTROL_TYPE);
	if (received->udp->len != bpf_htons(sizeof(struct udphdr) + sizeof(*control)))
		return drop(DROP_CONTROL_LENGTH);
	tunnel = bpf_map_lookup_elem(&tunnels, &id);
	peer = bpf_map_lookup_elem(&peers, &id);
	if (!tunnel || !peer)
		return drop(DROP_TUNNEL_UNKNOWN);
	if (received->outer->daddr != tunnel->local)
		return drop(DROP_TUNNEL_ADDRESS);
	if (!control_tag_verified(tunnel, control))
		return drop(DROP_TAG_WRONG);
	if (learn) {
		end.address = received->outer->saddr;
		end.port = received->udp->source;
	}
	if (!peer_advance(peer, counter, end))
		return drop(DROP_CONTROL_REPLAYED);
	return NOT_OURS;
}

#endif
