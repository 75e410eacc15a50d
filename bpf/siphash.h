/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* SipHash-2-4 (Aumasson, Bernstein) of a message given as 64-bit little-endian words. */
#ifndef EPIC_SIPHASH_H
#define EPIC_SIPHASH_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read in the order of the CPU");

struct siphash_key {
	__u64 low;
	__u64 high;
};

struct siphash_state {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 rotate_left(__u64 value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static __always_inline void siphash_round(struct siphash_state *s)
{
	s->v0 += s->v1;
	s->v1 = rotate_left(s->v1, 13) ^ s->v0;
	s->v0 = rotate_left(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotate_left(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotate_left(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotate_left(s->v1, 17) ^ s->v2;
	s->v2 = rotate_left(s->v2, 32);
}

static __always_inline void siphash_block(struct siphash_state *s, __u64 block)
{
	s->v3 ^= block;
	siphash_round(s);
	siphash_round(s);
	s->v0 ^= block;
}

/*
 * The message is `count` words followed by the `rest` bytes (fewer than 8) in the low end of
 * `last`. `count` must be a constant: the loop is unrolled.
 */
static __always_inline __u64 siphash(const struct siphash_key *key, const __u64 *words, int count,
				     __u64 last, int rest)
{
	struct siphash_state s = {
		.v0 = key->low ^ 0x736f6d6570736575ULL,
		.v1 = key->high ^ 0x646f72616e646f6dULL,
		.v2 = key->low ^ 0x6c7967656e657261ULL,
		.v3 = key->high ^ 0x7465646279746573ULL,
	};

#pragma unroll
	for (int i = 0; i < count; i++)
		siphash_block(&s, words[i]);
	siphash_block(&s, last | (__u64)(count * 8 + rest) << 56);

	s.v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		siphash_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

#endif
