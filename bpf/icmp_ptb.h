/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The answer to a packet that does not fit: RFC 1191 and RFC 8201, back to where it came from. */
#ifndef EPIC_ICMP_PTB_H
#define EPIC_ICMP_PTB_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "icmp.h"
#include "inner.h"
#include "csum.h"
#include "nat.h"

/* The quoted transport header's first bytes: the kernel wants to keep those up to the checksum. */
#define QUOTED_TRANSPORT 20

struct error4 {
	struct iphdr ip;
	struct icmp_header icmp;
};

struct error6 {
	struct ipv6hdr ip;
	struct icmp_header icmp;
};

/* No errors about errors, later fragments and, in IPv4, what may be fragmented by others. */
static __always_inline bool may_answer(struct __sk_buff *skb, const struct inner *inner,
				       const bool six)
{
	struct transport transport;
	__be16 fragment = 0;

	if (!transport_find(&transport, skb, inner, six) || quoted_offset(skb, &transport, six))
		return false;
	if (six)
		return true;
	return inner->header_length == sizeof(struct iphdr) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment,
				   sizeof(fragment)) &&
	       fragment & bpf_htons(IPV4_DONT_FRAGMENT);
}

/* Cut to what is quoted, make room for the error in front, and turn the link header round. */
static __always_inline bool error_make_room(struct __sk_buff *skb, const bool six)
{
	const __u32 kept = ETH_HLEN + ip_length(six) + QUOTED_TRANSPORT;
	const __u32 added = six ? sizeof(struct error6) : sizeof(struct error4);
	__u8 to[ETH_ALEN], from[ETH_ALEN];

	return !bpf_skb_change_tail(skb, kept, 0) &&
	       !bpf_skb_adjust_room(skb, added, BPF_ADJ_ROOM_MAC, 0) &&
	       !bpf_skb_load_bytes(skb, 0, to, sizeof(to)) &&
	       !bpf_skb_load_bytes(skb, ETH_ALEN, from, sizeof(from)) &&
	       !bpf_skb_store_bytes(skb, 0, from, sizeof(from), 0) &&
	       !bpf_skb_store_bytes(skb, ETH_ALEN, to, sizeof(to), 0);
}

static __always_inline bool error4_write(struct __sk_buff *skb, const struct inner *inner,
					 __u32 mtu)
{
	__u32 quoted[(sizeof(struct iphdr) + QUOTED_TRANSPORT) / sizeof(__u32)];
	struct error4 error = {
		.ip =
			{
				.version = IPV4_VERSION,
				.ihl = IPV4_MIN_IHL,
				.tot_len = bpf_htons(sizeof(error) + sizeof(quoted)),
				.ttl = OUTER_TTL,
				.protocol = IPPROTO_ICMP,
				.saddr = address_ipv4(&inner->flow.destination),
				.daddr = address_ipv4(&inner->flow.source),
			},
		.icmp =
			{
				.type = ICMP_DEST_UNREACH,
				.code = ICMP_FRAG_NEEDED,
				.mtu = bpf_htonl(mtu),
			},
	};

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(error), quoted, sizeof(quoted)))
		return false;
	error.ip.check = sum_finish(sum_words(&error.ip, sizeof(error.ip)));
	error.icmp.checksum = sum_finish(sum_words(&error.icmp, sizeof(error.icmp)) +
					 sum_words(quoted, sizeof(quoted)));
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &error, sizeof(error), 0);
}

static __always_inline bool error6_write(struct __sk_buff *skb, const struct inner *inner,
					 __u32 mtu)
{
	__u32 quoted[(sizeof(struct ipv6hdr) + QUOTED_TRANSPORT) / sizeof(__u32)];
	const __u32 length = sizeof(struct icmp_header) + sizeof(quoted);
	struct error6 error = {
		.ip =
			{
				.version = IPV6_VERSION,
				.payload_len = bpf_htons(length),
				.nexthdr = IPPROTO_ICMPV6,
				.hop_limit = OUTER_TTL,
			},
		.icmp =
			{
				.type = ICMPV6_PKT_TOOBIG,
				.mtu = bpf_htonl(mtu),
			},
	};

	__builtin_memcpy(&error.ip.saddr, &inner->flow.destination, sizeof(error.ip.saddr));
	__builtin_memcpy(&error.ip.daddr, &inner->flow.source, sizeof(error.ip.daddr));
	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(error), quoted, sizeof(quoted)))
		return false;
	error.icmp.checksum = sum_finish(sum_words(&error.ip.saddr, 2 * sizeof(error.ip.saddr)) +
					 bpf_htonl(length + IPPROTO_ICMPV6) +
					 sum_words(&error.icmp, sizeof(error.icmp)) +
					 sum_words(quoted, sizeof(quoted)));
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &error, sizeof(error), 0);
}

/* Only at the ingress of an interface: there the sender is on the other side. */
static __noinline int too_big(struct __sk_buff *skb, const struct inner *inner, __u32 mtu, bool six)
{
	bool written;

	drop(DROP_TOO_BIG);
	if (six ? !may_answer(skb, inner, true) || !error_make_room(skb, true)
		: !may_answer(skb, inner, false) || !error_make_room(skb, false))
		return TC_ACT_SHOT;
	written = six ? error6_write(skb, inner, mtu) : error4_write(skb, inner, mtu);
	return written ? bpf_redirect(skb->ifindex, 0) : TC_ACT_SHOT;
}

#endif
