/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Where the far end of a tunnel is: learnt from its control packets on EPIC nodes. */
#ifndef EPIC_PEER_H
#define EPIC_PEER_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "consts.h"
#include "maps.h"

static __always_inline bool is_gateway(const struct tunnel *tunnel)
{
	return tunnel->interface;
}

static __always_inline struct peer *peer_of(const struct tunnel *tunnel)
{
	__u32 slot = tunnel->slot;

	return bpf_map_lookup_elem(&peers, &slot);
}

static __always_inline const struct end *lane_end(const struct lane *lane)
{
	return &lane->ends[lane->current & 1];
}

/* A NAT may have given a silent lane's port to somebody else. The coarse clock may be behind. */
static __always_inline bool lane_lives(const struct lane *lane)
{
	__s64 silent = bpf_ktime_get_coarse_ns() - lane->seen_ns;

	return lane->seen_ns && silent < (__s64)SILENCE_NS;
}

/* Where a packet of this flow goes; NULL: nowhere yet. */
static __always_inline const struct end *learnt_end(struct __sk_buff *skb,
						    const struct tunnel *tunnel)
{
	const struct peer *peer = peer_of(tunnel);
	const struct lane *lane;
	const struct end *end;

	if (!peer)
		return NULL;
	lane = &peer->lane[0];
	if (peer->lanes > 1) {
		const struct lane *spread =
			&peer->lane[bpf_get_hash_recalc(skb) % peer->lanes % LANES];

		if (lane_lives(spread))
			lane = spread;
	}
	end = lane_end(lane);
	return address_known(&end->address) ? end : NULL;
}

static __always_inline const struct end *far_end(struct __sk_buff *skb, const struct tunnel *tunnel)
{
	if (is_gateway(tunnel))
		return learnt_end(skb, tunnel);
	return address_known(&tunnel->declared.address) ? &tunnel->declared : NULL;
}

static __always_inline bool is_local(const union address *address)
{
	return bpf_map_lookup_elem(&locals, address);
}

/*
 * Whether packets of the tunnel may come to this address of ours. On EPIC nodes any address of
 * ours will do; the one that hellos come to is looked at first, for it needs no search.
 */
static __always_inline bool is_addressed(const struct tunnel *tunnel, const struct peer *peer,
					 const union address *address)
{
	if (!is_gateway(tunnel))
		return address_equal(address, &tunnel->declared.local);
	return address_equal(address, &lane_end(&peer->lane[0])->local) || is_local(address);
}

static __always_inline bool is_lane_source(const struct lane *lane, const union address *address,
					   __be16 port)
{
	const struct end *end = lane_end(lane);

	return address_equal(address, &end->address) && address_known(address) &&
	       (port == end->port || end->flags & CONTROL_SPREAD);
}

/*
 * Whether data may come from there: on EPIC nodes where the last hello of a lane came from, on
 * workload nodes the declared address. A data packet's tag does not cover the outer addresses and
 * can be repeated, so it never shows where the far end is; only a control packet does.
 */
static __always_inline bool is_far_end(const struct tunnel *tunnel, const struct peer *peer,
				       const union address *address, __be16 port)
{
	if (!is_gateway(tunnel))
		return address_equal(address, &tunnel->declared.address);
	if (is_lane_source(&peer->lane[0], address, port))
		return true;
	for (__u32 lane = 1; lane < LANES; lane++)
		if (lane < peer->lanes && is_lane_source(&peer->lane[lane], address, port))
			return true;
	return false;
}

/* The flow's lane, if the EPIC node answers hellos in it: of others it takes nothing. */
static __always_inline __u32 answered_lane(struct __sk_buff *skb, const struct tunnel *tunnel)
{
	__u32 lane = bpf_get_hash_recalc(skb) % tunnel->lanes % LANES;
	const struct peer *peer = peer_of(tunnel);

	return peer && lane_lives(&peer->lane[lane]) ? lane : 0;
}

/* The flow's UDP source port: firewalls and NATs on the way allow no spreading unless asked to. */
static __always_inline __be16 source_port(struct __sk_buff *skb, const struct tunnel *tunnel,
					  const struct end *end)
{
	if (end->flags & CONTROL_SPREAD)
		return bpf_htons(SPREAD_PORT + (bpf_get_hash_recalc(skb) & SPREAD_PORT_MASK));
	if (!is_gateway(tunnel) && tunnel->lanes > 1)
		return bpf_htons(GUE_PORT + answered_lane(skb, tunnel));
	return bpf_htons(GUE_PORT);
}

#endif
