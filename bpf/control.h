/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Control packets: verified here, answered by the agent. */
#ifndef EPIC_CONTROL_H
#define EPIC_CONTROL_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "peer.h"
#include "gue.h"
#include "maps.h"
#include "receive.h"

static __always_inline __u64 counter_of(const struct gue_control *control)
{
	return (__u64)bpf_ntohl(control->counter[0]) << 32 | bpf_ntohl(control->counter[1]);
}

/* Each end takes one type only, so that a packet turned back to its sender is nothing. */
static __always_inline int control_well_formed(const struct received *received,
					       const struct gue_control *control, __u8 type)
{
	const __u16 known =
		type == GUE_CTYPE_HELLO ? CONTROL_SPREAD | CONTROL_CHECKSUM : CONTROL_DIRECT;

	if ((control->base.version_control_hlen & GUE_HLEN_MASK) != GUE_CONTROL_HLEN)
		return DROP_GUE_HEADER_LENGTH;
	if (control->base.protocol != type)
		return DROP_CONTROL_TYPE;
	if (received->length != sizeof(*control))
		return DROP_CONTROL_LENGTH;
	if (control->lanes > LANES || control->lane >= control->lanes ||
	    bpf_ntohs(control->flags) & ~known)
		return DROP_CONTROL_FIELD;
	return OK;
}

/* What a hello shows of its sender. Only one who is where he says he is can do without one port. */
static __always_inline struct end end_of(const struct received *received,
					 const struct tunnel *tunnel,
					 const struct gue_control *control)
{
	struct end end = {
		.address = received->source,
		.local = received->destination,
		.port = received->port,
		.flags = bpf_ntohs(control->flags),
	};

	if (!address_equal(&end.address, &tunnel->declared.address) ||
	    end.port != bpf_htons(GUE_PORT + control->lane))
		end.flags &= ~CONTROL_SPREAD;
	return end;
}

static __always_inline void tell(__u32 tunnel, __u16 kind, __u16 lane, const struct end *before,
				 const struct end *after)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return;
	event->tunnel = tunnel;
	event->kind = kind;
	event->lane = lane;
	event->at_ns = bpf_ktime_get_ns();
	event->before = *before;
	event->after = *after;
	bpf_ringbuf_submit(event, 0);
}

/*
 * A token bucket: so many hellos at once, then one as often as the interval says. The agent, which
 * answers them, is everybody's. Under the lock, and after the counter, so that nobody uses up the
 * share with what he has captured.
 */
static __always_inline bool hello_allowed(struct peer *peer, __u64 now)
{
	const __u64 from = peer->used_until > now ? peer->used_until : now;

	if (from - now > (HELLO_BURST - 1) * HELLO_INTERVAL_NS)
		return false;
	peer->used_until = from + HELLO_INTERVAL_NS;
	return true;
}

/* A hello of another generation is answered, but once only. */
static __always_inline int stray_advance(struct peer *peer, const struct gue_control *control)
{
	const __u64 counter = counter_of(control), now = bpf_ktime_get_ns();
	int reason = OK;

	bpf_spin_lock(&peer->lock);
	if (counter <= peer->stray_counter)
		reason = DROP_CONTROL_REPLAYED;
	else if (!hello_allowed(peer, now))
		reason = DROP_HELLO_LIMIT;
	else
		peer->stray_counter = counter;
	bpf_spin_unlock(&peer->lock);
	return reason;
}

/* Take a higher counter, and with it what the packet shows; under the lock, for two may race. */
static __always_inline int lane_advance(struct peer *peer, __u32 tunnel,
					const struct gue_control *control, const struct end *end,
					const bool hello)
{
	__u32 index = control->lane % LANES;
	struct lane *lane = &peer->lane[index];
	__u64 counter = counter_of(control), now = bpf_ktime_get_ns(), seen;
	__u32 lanes = control->lanes;
	struct end before = *lane_end(lane);
	bool moved = !address_equal(&before.address, &end->address) || before.port != end->port;
	bool changed =
		moved || before.flags != end->flags || !address_equal(&before.local, &end->local);

	bpf_spin_lock(&peer->lock);
	if (counter <= lane->counter) {
		bpf_spin_unlock(&peer->lock);
		return DROP_CONTROL_REPLAYED;
	}
	if (hello && !hello_allowed(peer, now)) {
		bpf_spin_unlock(&peer->lock);
		return DROP_HELLO_LIMIT;
	}
	seen = lane->seen_ns;
	lane->counter = counter;
	lane->seen_ns = now;
	peer->lanes = lanes;
	if (changed) {
		if (lane->current & 1)
			lane->ends[0] = *end;
		else
			lane->ends[1] = *end;
		lane->current = !(lane->current & 1);
	}
	bpf_spin_unlock(&peer->lock);
	if (!seen || now - seen > SILENCE_NS)
		tell(tunnel, EVENT_UP, index, &before, end);
	else if (moved)
		tell(tunnel, EVENT_MOVED, index, &before, end);
	return OK;
}

/*
 * `hello`: this is an EPIC node, which takes hellos and learns from them. One of another generation
 * teaches nothing, but the agent gets it, too, and answers.
 */
static __always_inline int control_verify(const struct received *received, const bool hello)
{
	const struct gue_control *control = (const void *)received->gue;
	struct tunnel *tunnel;
	struct peer *peer;
	struct end end;
	__u32 id;
	int reason;

	if ((const void *)(control + 1) > received->readable_end)
		return DROP_CONTROL_LENGTH;
	reason = control_well_formed(received, control,
				     hello ? GUE_CTYPE_HELLO : GUE_CTYPE_HELLO_ACK);
	if (reason != OK)
		return reason;
	id = bpf_ntohl(control->tunnel);
	tunnel = tunnel_find(id);
	if (!tunnel || is_gateway(tunnel) != hello)
		return DROP_TUNNEL_UNKNOWN;
	peer = peer_of(tunnel);
	if (!peer)
		return DROP_TUNNEL_UNKNOWN;
	if (!is_addressed(tunnel, peer, &received->destination))
		return DROP_TUNNEL_ADDRESS;
	if (!control_tag_verified(tunnel, control))
		return DROP_TAG_WRONG;
	/* A hello shows where its sender is; an answer comes from where hellos go to. */
	if (!hello && !is_far_end(tunnel, peer, &received->source, received->port))
		return DROP_OUTER_SOURCE;
	/*
	 * A hello from before the counters began anew (a reboot) would pass for a new one. Who has
	 * captured it cannot name the present generation; who has the key learns it from the
	 * answer.
	 */
	if (hello && (!peer->generation || bpf_ntohl(control->generation) != peer->generation))
		return stray_advance(peer, control);
	end = end_of(received, tunnel, control);
	return lane_advance(peer, id, control, &end, hello);
}

#endif
