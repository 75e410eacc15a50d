/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The tunnel's headers and tags, drawn in docs/transport.md. */
#ifndef EPIC_GUE_H
#define EPIC_GUE_H

#include <linux/types.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>

#include "address.h"
#include "consts.h"
#include "maps.h"
#include "siphash.h"

#define GUE_VERSION_MASK 0xc0
#define GUE_CONTROL_BIT  0x20
#define GUE_HLEN_MASK    0x1f

/* Two halves because the header is aligned to four bytes. */
struct gue_tag {
	__u32 low;
	__u32 high;
};

struct gue_base {
	__u8 version_control_hlen;
	__u8 protocol; /* or the type of a control packet */
	__be16 flags;
};

struct gue_data {
	struct gue_base base;
	__be32 tunnel;
	__be32 service;
	struct gue_tag tag;
};

struct gue_control {
	struct gue_base base;
	__be32 tunnel;
	__be32 counter[2];
	__be32 sent_ns[2];
	__be32 echo_ns[2];
	__u8 lane;
	__u8 lanes;
	__be16 flags;
	__be32 generation;
	struct gue_tag tag;
};

#define CONTROL_TAGGED_WORDS 5 /* all before the tag, in 64-bit words */
_Static_assert(sizeof(struct gue_control) == CONTROL_TAGGED_WORDS * 8 + sizeof(struct gue_tag),
	       "the control tag covers whole words");

/* What follows the outer IP header. */
struct tunnel_header {
	struct udphdr udp;
	struct gue_data gue;
};

struct outer_header {
	struct iphdr ip;
	struct tunnel_header tunnel;
};

struct outer6_header {
	struct ipv6hdr ip;
	struct tunnel_header tunnel;
};

_Static_assert(sizeof(struct outer_header) == 48 && sizeof(struct outer6_header) == 68,
	       "the instances' MTU is the underlay's minus these");

static __always_inline __u32 ip_length(const bool six)
{
	return six ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* What the tunnel adds to a packet over IPv4 or IPv6. */
static __always_inline int overhead(const bool six)
{
	return ip_length(six) + sizeof(struct tunnel_header);
}

/* What the data tag covers besides the service: equal for all packets and segments of a flow. */
struct flow {
	__u32 tunnel;
	union address source;
	union address destination;
	__u8 protocol; /* IPv6: of the fixed header */
};

static __always_inline __u64 word_of(__u32 first, __u32 second)
{
	return first | (__u64)second << 32;
}

static __always_inline __u64 tag_word(const struct gue_tag *tag)
{
	return word_of(tag->low, tag->high);
}

/* The messages of the families differ in length, so no tag of one is a tag of the other. */
static __always_inline __u64 data_tag(const struct tunnel *tunnel, __u32 slot,
				      const struct flow *flow, const bool six)
{
	const struct siphash_key *key = &tunnel->keys[slot];
	const __u64 first = word_of(bpf_htonl(flow->tunnel), bpf_htonl(tunnel->service));

	if (six) {
		const __u64 words[] = {
			first,
			flow->source.halves[0],
			flow->source.halves[1],
			flow->destination.halves[0],
			flow->destination.halves[1],
		};

		return siphash(key, words, 5, flow->protocol, 1);
	} else {
		const __u64 words[] = {
			first,
			word_of(address_ipv4(&flow->source), address_ipv4(&flow->destination)),
		};

		return siphash(key, words, 2, flow->protocol, 1);
	}
}

static __always_inline __u64 control_tag(const struct siphash_key *key,
					 const struct gue_control *control)
{
	const __u32 *halves = (const __u32 *)control;
	__u64 words[CONTROL_TAGGED_WORDS];

#pragma unroll
	for (int i = 0; i < CONTROL_TAGGED_WORDS; i++)
		words[i] = word_of(halves[2 * i], halves[2 * i + 1]);
	return siphash(key, words, CONTROL_TAGGED_WORDS, 0, 0);
}

static __always_inline bool slot_valid(const struct tunnel *tunnel, __u32 slot)
{
	return tunnel->valid & 1 << slot;
}

/* False: nothing is kept, or for something else, or it is being written. */
static __always_inline bool tag_is_kept(const struct kept_tag *kept, __u64 what, __u64 *tag)
{
	__u64 found = *(const volatile __u64 *)&kept->tag;
	__u64 check = *(const volatile __u64 *)&kept->check;

	*tag = found;
	return (found ^ check) == what;
}

/*
 * The tag under the key that signs. `kept` belongs to the flow's pair and direction; NULL: none.
 * The fingerprint is read before all that it stands for: the agent takes it away first and gives
 * another one last, so a tag that was computed meanwhile is kept for a fingerprint that never comes
 * again.
 */
static __always_inline __u64 data_tag_signed(struct kept_tag *kept, const struct tunnel *tunnel,
					     const struct flow *flow, const bool six)
{
	__u64 fingerprint = *(const volatile __u64 *)&tunnel->fingerprint;
	__u64 what = fingerprint ^ flow->protocol, tag;

	barrier();
	if (kept && fingerprint && tag_is_kept(kept, what, &tag))
		return tag;
	tag = data_tag(tunnel, tunnel->active % KEY_SLOTS, flow, six);
	if (kept && fingerprint) {
		*(volatile __u64 *)&kept->tag = tag;
		*(volatile __u64 *)&kept->check = tag ^ what;
	}
	return tag;
}

/* During a rotation the far end may still, or already, sign with the other key. */
static __always_inline bool data_tag_verified(struct kept_tag *kept, const struct tunnel *tunnel,
					      const struct flow *flow, __u64 tag, const bool six)
{
	__u32 other = !(tunnel->active % KEY_SLOTS);

	if (slot_valid(tunnel, !other) && data_tag_signed(kept, tunnel, flow, six) == tag)
		return true;
	return slot_valid(tunnel, other) && data_tag(tunnel, other, flow, six) == tag;
}

static __always_inline bool control_tag_verified(const struct tunnel *tunnel,
						 const struct gue_control *control)
{
	__u64 tag = tag_word(&control->tag);

	for (__u32 slot = 0; slot < KEY_SLOTS; slot++)
		if (slot_valid(tunnel, slot) && control_tag(&tunnel->keys[slot], control) == tag)
			return true;
	return false;
}

#endif
