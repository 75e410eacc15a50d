/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The header of a packet that one sibling passes on to another, drawn in
 * docs/second-chance-packets.md. */
#ifndef EPIC_CHANCE_WIRE_H
#define EPIC_CHANCE_WIRE_H

#include <linux/types.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>

#include "address.h"
#include "consts.h"
#include "gue.h"
#include "maps.h"
#include "siphash.h"

enum chance_kind {
	CHANCE_KIND_ASK,    /* whether the socket is there; if not, ask the next one */
	CHANCE_KIND_RETURN, /* nobody had it: back to where the packet came in */
	CHANCE_KIND_GIVE,   /* to be delivered there whatever its sockets are */
	CHANCE_KIND_FOUND,  /* the answer: the flow is here */
};

#define CHANCE_KIND_MASK 3
#define CHANCE_SLOT      4 /* of the key that signed */
#define CHANCE_ANSWER    8 /* whoever has the socket says so to where the packet came in */

struct chance_header {
	struct gue_base base;
	__be16 visited;    /* bit n: the sibling of index n was asked */
	__u8 origin_spare; /* indexes: where it came in, and who takes it if nobody's fits */
	__u8 sender_flags; /* index of who sends this, and the flags above */
	struct gue_tag tag;
};

struct chance_outer {
	struct iphdr ip;
	struct udphdr udp;
	struct chance_header chance;
};

struct chance_outer6 {
	struct ipv6hdr ip;
	struct udphdr udp;
	struct chance_header chance;
};

_Static_assert(sizeof(struct chance_header) == 4 + 4 * GUE_CHANCE_HLEN, "it says its length");
_Static_assert(sizeof(struct chance_outer) <= sizeof(struct outer_header) &&
		       sizeof(struct chance_outer6) <= sizeof(struct outer6_header),
	       "what fits a tunnel from an instance fits the way to a sibling");

/* What passing on adds to a packet over IPv4 or IPv6. */
static __always_inline int chance_overhead(const bool over6)
{
	return over6 ? sizeof(struct chance_outer6) : sizeof(struct chance_outer);
}

/* A TCP connection as its client's packets show it. */
struct chance_flow {
	union address client;
	union address public;
	__be16 client_port;
	__be16 public_port;
	__u8 protocol; /* that says so: TCP, or an ICMP error about it */
};

/* A header as it is read and written. */
struct passage {
	__u32 visited;
	__u32 origin;
	__u32 spare;
	__u32 sender;
	__u32 kind;
	__u32 slot;
	bool answer;
};

static __always_inline void passage_read(struct passage *passage,
					 const struct chance_header *header)
{
	passage->visited = bpf_ntohs(header->visited);
	passage->origin = header->origin_spare >> 4;
	passage->spare = header->origin_spare & 0xf;
	passage->sender = header->sender_flags >> 4;
	passage->kind = header->sender_flags & CHANCE_KIND_MASK;
	passage->slot = !!(header->sender_flags & CHANCE_SLOT);
	passage->answer = header->sender_flags & CHANCE_ANSWER;
}

static __always_inline __u64 ports_word(const struct chance_flow *flow)
{
	return flow->client_port | (__u64)flow->public_port << 16;
}

/*
 * It covers only what all segments of a GSO packet share, for one header is copied to all of them:
 * the header, the flow, and to whom it goes, whose address its index stands for.
 */
static __always_inline __u64 chance_tag(const struct siphash_key *key,
					const struct chance_header *header,
					const struct chance_flow *flow, __u32 receiver,
					const bool six)
{
	const __u32 *halves = (const __u32 *)header;
	const __u64 first = word_of(halves[0], halves[1]);
	const __u64 last = ports_word(flow) | (__u64)flow->protocol << 32 | (__u64)receiver << 40;

	if (six) {
		const __u64 words[] = {
			first,
			flow->client.halves[0],
			flow->client.halves[1],
			flow->public.halves[0],
			flow->public.halves[1],
		};

		return siphash(key, words, 5, last, 6);
	} else {
		const __u64 words[] = {
			first,
			word_of(address_ipv4(&flow->client), address_ipv4(&flow->public)),
		};

		return siphash(key, words, 2, last, 6);
	}
}

static __always_inline void passage_write(struct chance_header *header,
					  const struct passage *passage,
					  const struct siblings *siblings,
					  const struct chance_flow *flow, __u32 receiver,
					  const bool six)
{
	const __u32 slot = siblings->active % KEY_SLOTS;
	__u64 tag;

	header->base.version_control_hlen = GUE_CHANCE_HLEN;
	header->base.protocol = six ? IPPROTO_IPV6 : IPPROTO_IPIP;
	header->base.flags = 0;
	header->visited = bpf_htons(passage->visited);
	header->origin_spare = passage->origin << 4 | passage->spare;
	header->sender_flags = passage->sender << 4 | passage->kind | (slot ? CHANCE_SLOT : 0) |
			       (passage->answer ? CHANCE_ANSWER : 0);
	tag = chance_tag(&siblings->keys[slot], header, flow, receiver, six);
	header->tag.low = (__u32)tag;
	header->tag.high = tag >> 32;
}

#endif
