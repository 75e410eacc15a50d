/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* One's complement sums (RFC 1071) over whole 16-bit words. */
#ifndef EPIC_CSUM_H
#define EPIC_CSUM_H

#include <linux/types.h>

#include "address.h"

static __always_inline __u16 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* `length` must be a constant multiple of 4; the address a multiple of 4. */
static __always_inline __u64 sum_words(const void *from, __u32 length)
{
	const __u32 *words = from;
	__u64 sum = 0;

#pragma unroll
	for (unsigned int i = 0; i < length / sizeof(*words); i++)
		sum += words[i];
	return sum;
}

/* What a checksum field must hold. */
static __always_inline __u16 sum_finish(__u64 sum)
{
	return ~sum_fold(sum);
}

#endif
