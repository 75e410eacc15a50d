/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The inner packet's bytes summed up, for the outer UDP checksum. The kernel may not have filled in
 * the inner checksum yet, but it is known what transport header and payload will sum up to then:
 * the complement of the pseudo header's sum. Only what has no checksum is read through.
 */
#ifndef EPIC_CHECKSUM_H
#define EPIC_CHECKSUM_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "inner.h"
#include "csum.h"

#define SUM_CHUNK  128
#define SUM_CHUNKS 512

/* Not static: the verifier looks at it once, not at each place that calls it. */
__noinline __u64 sum_bytes(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	__u8 chunk[SUM_CHUNK];
	__s64 sum = 0;
	__u32 last;

	for (int i = 0; i < SUM_CHUNKS && length >= SUM_CHUNK; i++) {
		if (bpf_skb_load_bytes(skb, offset, chunk, SUM_CHUNK))
			return sum;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)chunk, SUM_CHUNK, sum);
		offset += SUM_CHUNK;
		length -= SUM_CHUNK;
	}
	/* Verifiers before Linux 6.8 do not learn from "not 0", and the helper must not get 0. */
	last = length - 1;
	asm volatile("" : "+r"(last));
	if (last >= SUM_CHUNK - 1)
		return sum;
	__builtin_memset(chunk, 0, sizeof(chunk));
	if (bpf_skb_load_bytes(skb, offset, chunk, last + 1))
		return sum;
	return bpf_csum_diff(NULL, 0, (__be32 *)chunk, SUM_CHUNK, sum);
}

static __always_inline __u64 pseudo_sum(const struct inner *inner, __u32 length, __u8 protocol,
					const bool six)
{
	__u64 sum = bpf_htonl(length + protocol);

	if (six)
		return sum + sum_words(&inner->flow.source, sizeof(inner->flow.source)) +
		       sum_words(&inner->flow.destination, sizeof(inner->flow.destination));
	return sum + address_ipv4(&inner->flow.source) + address_ipv4(&inner->flow.destination);
}

/* UDP over IPv4 may do without, and may cover less than the packet (RFC 9868). */
static __always_inline bool is_summed(struct __sk_buff *skb, const struct transport *transport,
				      __u32 length)
{
	struct udphdr udp;

	if (transport->protocol == IPPROTO_TCP)
		return true;
	return transport->protocol == IPPROTO_UDP &&
	       !bpf_skb_load_bytes(skb, transport->offset, &udp, sizeof(udp)) && udp.check &&
	       bpf_ntohs(udp.len) == length;
}

static __always_inline __u64 inner_sum(struct __sk_buff *skb, const struct inner *inner,
				       const bool six)
{
	struct transport transport;
	__u32 header[sizeof(struct ipv6hdr) / sizeof(__u32)] = {};
	__u32 length = inner->length - inner->header_length;

	if (!transport_find(&transport, skb, inner, six) || !transport.whole ||
	    !is_summed(skb, &transport, length))
		return sum_bytes(skb, ETH_HLEN, inner->length);
	/* A good IPv4 header sums up to nothing. */
	if (six)
		bpf_skb_load_bytes(skb, ETH_HLEN, header, sizeof(header));
	return sum_words(header, sizeof(header)) +
	       (__u16)~sum_fold(pseudo_sum(inner, length, transport.protocol, six));
}

#endif
