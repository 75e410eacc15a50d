/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Sockets that were looked up just now, for the packets that follow in their flows. */
#ifndef EPIC_CHANCE_RECENT_H
#define EPIC_CHANCE_RECENT_H

#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>

#include "chance_socket.h"
#include "maps.h"

#define RECENT_FACTOR 0x9e3779b97f4a7c15ULL /* spreads what differs a little */

/* An open socket that was looked up just now, and what it expected then. One line of the cache. */
struct recent {
	__be32 flow[RECENT_WORDS]; /* client, public address and ports, as packets have them */
	__u32 place;               /* network namespace and family */
	struct expected expected;
	__u64 until; /* jiffies */
};

_Static_assert(sizeof(struct recent) == 64, "a line of the cache");

/* By part of a hash of the flow. Each CPU has its own, so that nobody reads what is half written.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECENT_FLOWS);
	__type(key, __u32);
	__type(value, struct recent);
} recents SEC(".maps");

/* Whoever makes flows meet has their sockets looked up each time, and nothing else. */
static __always_inline struct recent *recent_of(const __be32 *flow, const bool six)
{
	__u64 hash = flow[six ? 8 : 2];
	__u32 index;

	for (int i = 0; i < (six ? 8 : 2); i++)
		hash = (hash ^ flow[i]) * RECENT_FACTOR;
	index = hash >> (64 - RECENT_BITS);
	return bpf_map_lookup_elem(&recents, &index);
}

static __always_inline __u32 place_of(const struct siblings *siblings, const bool six)
{
	return (__u32)siblings->netns << 1 | six;
}

/* Most packets are of a flow whose last one was looked up just now. */
static __always_inline bool recently_found(const struct siblings *siblings, const __be32 *flow,
					   const struct tcphdr *tcp, const bool six)
{
	const struct recent *recent = recent_of(flow, six);
	__u32 other;

	if (!recent)
		return false;
	other = recent->place ^ place_of(siblings, six);
	for (int i = 0; i < (six ? 9 : 3); i++)
		other |= recent->flow[i] ^ flow[i];
	return !other && (__s64)(recent->until - bpf_jiffies64()) > 0 &&
	       numbers_match(tcp, false, &recent->expected) == CHANCE_FITS;
}

/* An open socket's numbers; if they fit, they will do for those that follow. */
static __always_inline enum chance_match recent_match(const struct siblings *siblings,
						      const __be32 *flow, const struct tcphdr *tcp,
						      struct bpf_sock *found, const bool six)
{
	struct recent *recent = recent_of(flow, six);
	enum chance_match match;

	if (!recent)
		return CHANCE_STALE_SOCKET;
	recent->until = 0;
	if (!established_expects(found, &recent->expected))
		return CHANCE_STALE_SOCKET;
	match = numbers_match(tcp, false, &recent->expected);
	if (match != CHANCE_FITS)
		return match;
	for (int i = 0; i < (six ? 9 : 3); i++)
		recent->flow[i] = flow[i];
	recent->place = place_of(siblings, six);
	recent->until = bpf_jiffies64() + RECENT_JIFFIES;
	return match;
}

#endif
