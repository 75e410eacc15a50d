/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* An address of either family: 16 bytes in network order, IPv4 as IPv4-mapped IPv6 (RFC 4291). */
#ifndef EPIC_ADDRESS_H
#define EPIC_ADDRESS_H

#include <linux/in6.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>

union address {
	__be32 words[4];
	__u64 halves[2];
};

#define ADDRESS_MAPPED_WORD bpf_htonl(0xffff)

static __always_inline union address address_v4(__be32 from)
{
	union address address = {.words = {0, 0, ADDRESS_MAPPED_WORD, from}};

	return address;
}

static __always_inline union address address_v6(const struct in6_addr *from)
{
	union address address;

	__builtin_memcpy(&address, from, sizeof(address));
	return address;
}

/* The IPv4 address of a mapped one. */
static __always_inline __be32 address_ipv4(const union address *address)
{
	return address->words[3];
}

static __always_inline bool address_is_v4(const union address *address)
{
	return !address->halves[0] && address->words[2] == ADDRESS_MAPPED_WORD;
}

static __always_inline bool address_known(const union address *address)
{
	return address->halves[0] | address->halves[1];
}

static __always_inline bool address_equal(const union address *left, const union address *right)
{
	return left->halves[0] == right->halves[0] && left->halves[1] == right->halves[1];
}

#endif
