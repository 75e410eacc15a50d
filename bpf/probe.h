/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Probes: siblings' nodes ask each other whether they live. The agent asks, the program of the
 * other node answers, so that a node lives as long as it takes what is passed on to it. The answer
 * is the probe itself, sent back as it came.
 */
#ifndef EPIC_PROBE_H
#define EPIC_PROBE_H

#include <linux/bpf.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>

#include "chance_owner.h"
#include "chance_send.h"
#include "counters.h"
#include "gue.h"
#include "maps.h"
#include "receive.h"

struct gue_probe {
	struct gue_base base;
	__u8 asker; /* indexes of siblings */
	__u8 asked;
	__be16 reserved;
	__be32 public[4];
	__be32 nonce[2];
	struct gue_tag tag;
};

#define PROBE_TAGGED_WORDS 4 /* all before the tag, in 64-bit words */
_Static_assert(sizeof(struct gue_probe) == PROBE_TAGGED_WORDS * 8 + sizeof(struct gue_tag),
	       "the tag covers whole words");

static __always_inline bool is_probe(const struct received *received)
{
	return is_control(received) && received->gue->protocol == GUE_CTYPE_PROBE;
}

/* It covers both nodes' addresses, in the same order in a probe and in its answer. */
static __always_inline __u64 probe_tag(const struct siphash_key *key, const struct gue_probe *probe,
				       const union address *asker, const union address *asked)
{
	const __u32 *halves = (const __u32 *)probe;
	__u64 words[PROBE_TAGGED_WORDS + 4];

#pragma unroll
	for (int i = 0; i < PROBE_TAGGED_WORDS; i++)
		words[i] = word_of(halves[2 * i], halves[2 * i + 1]);
	words[PROBE_TAGGED_WORDS] = asker->halves[0];
	words[PROBE_TAGGED_WORDS + 1] = asker->halves[1];
	words[PROBE_TAGGED_WORDS + 2] = asked->halves[0];
	words[PROBE_TAGGED_WORDS + 3] = asked->halves[1];
	return siphash(key, words, PROBE_TAGGED_WORDS + 4, 0, 0);
}

static __always_inline bool probe_tag_verified(const struct siblings *siblings,
					       const struct gue_probe *probe)
{
	const union address *asker = sibling_address(siblings, probe->asker);
	const union address *asked = sibling_address(siblings, probe->asked);
	__u64 tag = tag_word(&probe->tag);

	for (__u32 slot = 0; slot < KEY_SLOTS; slot++)
		if (siblings->valid & 1 << slot &&
		    probe_tag(&siblings->keys[slot], probe, asker, asked) == tag)
			return true;
	return false;
}

/* Whose sibling we are; `other` is the far one, who asks us or answers us. */
static __always_inline int probe_verify(const struct received *received,
					const struct siblings **gateway, __u32 *other, bool *answer)
{
	const struct gue_probe *probe = (const void *)received->gue;
	const struct siblings *found;
	union address public;

	if ((const void *)(probe + 1) > received->readable_end ||
	    received->length != sizeof(*probe))
		return DROP_CONTROL_LENGTH;
	if (probe->base.version_control_hlen & GUE_HLEN_MASK)
		return DROP_GUE_HEADER_LENGTH;
	if (probe->reserved || probe->asker >= MAX_SIBLINGS || probe->asked >= MAX_SIBLINGS)
		return DROP_CONTROL_FIELD;
	__builtin_memcpy(&public, probe->public, sizeof(public));
	found = bpf_map_lookup_elem(&siblings, &public);
	if (!found)
		return DROP_CHANCE_GATEWAY;
	*gateway = found;
	*answer = probe->asker == found->own;
	*other = *answer ? probe->asked : probe->asker;
	if (probe->asker == probe->asked || (!*answer && probe->asked != found->own) ||
	    !is_listed(found, *other) ||
	    !address_equal(sibling_address(found, *other), &received->source) ||
	    !address_equal(sibling_address(found, found->own), &received->destination))
		return DROP_CHANCE_SIBLING;
	return probe_tag_verified(found, probe) ? OK : DROP_CHANCE_TAG;
}

/* No checksum changes by what changes places. */
static __always_inline int probe_return(struct __sk_buff *skb, const struct received *received,
					const struct siblings *gateway, __u32 asker,
					const bool over6)
{
	const __be16 ports[] = {bpf_htons(GUE_PORT), received->port};
	struct chance_way way = {};
	union address swapped[] = {received->destination, received->source};
	__be32 swapped4[] = {address_ipv4(&swapped[0]), address_ipv4(&swapped[1])};
	long failed;

	if (over6)
		failed = bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr),
					     swapped, sizeof(swapped), 0);
	else
		failed = bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr),
					     swapped4, sizeof(swapped4), 0);
	if (failed ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + ip_length(over6), ports, sizeof(ports), 0))
		return drop(DROP_NO_ROOM);
	if (find_way(skb, gateway, asker, 0, &way) != OK)
		return drop(DROP_CHANCE_ROUTE);
	return go(&way);
}

/* An answer is the agent's. */
static __always_inline int probe_take(struct __sk_buff *skb, const struct received *received,
				      const bool over6)
{
	const struct siblings *gateway = NULL;
	bool answer = false;
	__u32 other = 0;
	int reason = probe_verify(received, &gateway, &other, &answer);

	if (reason != OK)
		return is_local(&received->destination) ? drop(reason) : NOT_OURS;
	if (answer || !gateway)
		return NOT_OURS;
	return probe_return(skb, received, gateway, other, over6);
}

static __noinline int take_probe4(struct __sk_buff *skb, const struct received *received)
{
	return probe_take(skb, received, false);
}

static __noinline int take_probe6(struct __sk_buff *skb, const struct received *received)
{
	return probe_take(skb, received, true);
}

#endif
