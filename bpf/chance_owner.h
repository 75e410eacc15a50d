/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Whom a packet is passed on to: the sibling that was learned to have its flow, or the next one. */
#ifndef EPIC_CHANCE_OWNER_H
#define EPIC_CHANCE_OWNER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "chance_wire.h"
#include "counters.h"
#include "maps.h"

#define NOBODY           (-1)
#define REFUSED          (~0ULL)
#define OWNER_INDEX_MASK 15ULL
#define OWNER_SET_SHIFT  32
#define OWNER_FLOW_MASK  (~(0xffffULL << OWNER_SET_SHIFT | OWNER_INDEX_MASK))

_Static_assert(OWNER_SETS == 1 << 16, "the bits that choose the set are free in it");

static __always_inline struct siblings *siblings_find(const union address *public)
{
	return bpf_map_lookup_elem(&siblings, public);
}

static __always_inline void count_chance(const union address *public, enum chance_counter counter,
					 __u32 packets)
{
	struct chance_counters *found = bpf_map_lookup_elem(&chances, public);

	if (found)
		found->counts[counter] += packets;
}

static __always_inline void count_hits(const struct siblings *siblings, __u32 packets)
{
	__u32 slot = siblings->slot;
	__u64 *found = bpf_map_lookup_elem(&hits, &slot);

	if (found)
		*found += packets;
}

static __always_inline bool is_listed(const struct siblings *siblings, __u32 index)
{
	return siblings->listed & 1 << index;
}

static __always_inline bool is_candidate(const struct siblings *siblings, __u32 index)
{
	return siblings->candidates & 1 << index;
}

static __always_inline const union address *sibling_address(const struct siblings *siblings,
							    __u32 index)
{
	return &siblings->addresses[index % MAX_SIBLINGS];
}

/* The first one in the order that was not asked yet. */
static __always_inline int next_sibling(const struct siblings *siblings, __u32 visited)
{
	const __u32 left = siblings->candidates & ~visited;
	__u64 order = siblings->order;

	for (int i = 0; i < MAX_SIBLINGS; i++) {
		__u32 index = order % MAX_SIBLINGS;

		if (left & 1 << index)
			return index;
		order /= MAX_SIBLINGS;
	}
	return NOBODY;
}

/* Nobody outside knows the key, so nobody can choose which flows share a set. */
static __always_inline __u64 flow_hash(const struct chance_flow *flow)
{
	const struct settings *settings = settings_get();
	const struct siphash_key key = {.low = settings ? settings->cookie : 0};
	const __u64 words[] = {
		flow->client.halves[0],
		flow->client.halves[1],
		flow->public.halves[0],
		flow->public.halves[1],
	};

	return siphash(&key, words, 4, ports_word(flow), 4);
}

static __always_inline struct owner_set *owner_set(__u64 hash)
{
	__u32 index = hash >> OWNER_SET_SHIFT & (OWNER_SETS - 1);

	return bpf_map_lookup_elem(&owners, &index);
}

static __always_inline bool is_of_flow(__u64 owner, __u64 hash)
{
	return owner && !((owner ^ hash) & OWNER_FLOW_MASK);
}

static __always_inline __u16 joined_of(const struct siblings *siblings, __u32 index)
{
	return siblings->joined[index % MAX_SIBLINGS];
}

/*
 * Who came back to the list may not have it yet and would drop what it is asked for: it is asked as
 * the newcomer that it is, not for what was learned of it before.
 */
static __noinline int find_owner(const struct chance_flow *flow, const struct siblings *siblings)
{
	const __u64 hash = flow_hash(flow);
	const struct owner_set *set = owner_set(hash);

	if (!set)
		return NOBODY;
	for (int i = 0; i < OWNERS_IN_SET; i++) {
		__u64 owner = *(const volatile __u64 *)&set->owners[i];

		if (is_of_flow(owner, hash)) {
			__u32 index = owner & OWNER_INDEX_MASK;
			__u16 joined = owner >> OWNER_SET_SHIFT;

			return joined == joined_of(siblings, index) ? (int)index : NOBODY;
		}
	}
	return NOBODY;
}

/* The newest one stands first; the oldest one of a full set goes. */
static __noinline void learn_owner(const struct chance_flow *flow, const struct siblings *siblings,
				   __u32 index)
{
	const __u64 hash = flow_hash(flow);
	struct owner_set *set = owner_set(hash);
	__u64 moved = (hash & OWNER_FLOW_MASK) |
		      (__u64)joined_of(siblings, index) << OWNER_SET_SHIFT | index;

	if (!set)
		return;
	for (int i = 0; i < OWNERS_IN_SET; i++) {
		volatile __u64 *place = (volatile __u64 *)&set->owners[i];
		__u64 owner = *place;

		*place = moved;
		if (!owner || is_of_flow(owner, hash))
			return;
		moved = owner;
	}
}

static __noinline void forget_owner(const struct chance_flow *flow)
{
	const __u64 hash = flow_hash(flow);
	struct owner_set *set = owner_set(hash);

	if (!set)
		return;
	for (int i = 0; i < OWNERS_IN_SET; i++) {
		volatile __u64 *place = (volatile __u64 *)&set->owners[i];

		if (is_of_flow(*place, hash))
			*place = 0;
	}
}

/*
 * How many packets like this there may be at once: more if an earlier one of the flow was over the
 * budget. Its client has sent it again: what strays from anywhere do not do. Without a branch, for
 * the verifier goes along both.
 */
static __always_inline __u64 most_at_once(const __u32 *last, __u64 hash)
{
	const __u32 other = *(const volatile __u32 *)last ^ (__u32)hash;

	return CHANCE_BURST + CHANCE_RESERVE * (((__u64)other - 1) >> 63);
}

static __always_inline __u32 *refused_at(__u64 hash)
{
	__u32 index = hash >> OWNER_SET_SHIFT & (REFUSED_FLOWS - 1);

	return bpf_map_lookup_elem(&refused, &index);
}

static __always_inline __u64 used_from(const __u64 *used_until, __u64 now)
{
	return *used_until > now ? *used_until : now;
}

/*
 * A token bucket: so many at once, then one as often as the interval says. How much of it was in
 * use, in ns; REFUSED: all. What is merged counts as what it goes on as.
 */
static __always_inline __u64 spend(const union address *whose, __u64 now, __u64 interval,
				   __u64 most, __u32 packets)
{
	__u64 *used_until = bpf_map_lookup_elem(&budgets, whose);
	__u64 from;

	if (!used_until)
		return REFUSED;
	from = used_from(used_until, now);
	if (from - now > (most - CHANCE_COST) * interval)
		return REFUSED;
	*used_until = from + CHANCE_COST * packets * interval;
	return from - now;
}

static __always_inline void give_back(const union address *whose, __u64 interval)
{
	__u64 *used_until = bpf_map_lookup_elem(&budgets, whose);
	const __u64 back = (CHANCE_COST - 1) * interval;
	__u64 used;

	if (!used_until)
		return;
	used = *(volatile __u64 *)used_until;
	if (used > back)
		*used_until = used - back;
}

static __always_inline __u64 interval_of(const struct siblings *siblings, __u64 now)
{
	const bool raised = (__s64)(now - siblings->changed_ns) < (__s64)CHANCE_RAISED_NS;

	return raised ? CHANCE_RAISED : CHANCE_QUIET;
}

/* Where the budget is of all gateways of the account together. */
static __always_inline union address account_of(const struct siblings *siblings)
{
	const union address account = {.halves = {siblings->account, 0}};

	return account;
}

/* How much more of what several share there is for one that has used that much of its own. */
static __always_inline __u64 kept_for(__u64 used, __u64 interval)
{
	return used < CHANCE_LITTLE * interval ? CHANCE_KEPT : 0;
}

/*
 * A gateway that is flooded uses up its own share, those of an account not more than the account's,
 * and all together not more than a node gives. Of what several share there is a part for those that
 * have used little of their own: those that are flooded leave it to the others. In a flood of
 * strays, each from another address and port, a connection waits for its second packet.
 */
static __noinline bool may_ask(const struct siblings *siblings, const struct chance_flow *flow,
			       __u32 packets)
{
	const __u64 now = bpf_ktime_get_coarse_ns(), hash = flow_hash(flow);
	const __u64 interval = interval_of(siblings, now);
	const union address account = account_of(siblings), node = {};
	__u32 *last = refused_at(hash);
	__u64 most, used;

	if (!last)
		return false;
	most = most_at_once(last, hash);
	used = spend(&flow->public, now, interval, most, packets);
	if (used != REFUSED)
		used = spend(&account, now, CHANCE_ACCOUNT, most + kept_for(used, interval),
			     packets);
	if (used != REFUSED)
		used = spend(&node, now, CHANCE_NODE, most + kept_for(used, CHANCE_ACCOUNT),
			     packets);
	if (used != REFUSED)
		return true;
	*(volatile __u32 *)last = hash;
	return false;
}

/*
 * The flow has an owner, which is asked at once from now on: one packet's share is enough. What is
 * nobody's, or is lost on its way, has cost more, for it is asked about in vain.
 */
static __noinline void give_back_share(const struct siblings *siblings,
				       const struct chance_flow *flow)
{
	const union address account = account_of(siblings), node = {};

	give_back(&flow->public, interval_of(siblings, bpf_ktime_get_coarse_ns()));
	give_back(&account, CHANCE_ACCOUNT);
	give_back(&node, CHANCE_NODE);
}

#endif
