/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Addresses replaced in packets, checksums and the packets that ICMP errors quote included:
 * workload networks may use the same addresses as others behind the same gateway.
 */
#ifndef EPIC_NAT_H
#define EPIC_NAT_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "icmp.h"
#include "inner.h"

/* One address of a packet, and the other one of a packet that it quotes. */
enum field {
	FIELD_SOURCE,
	FIELD_DESTINATION,
};

struct replacement {
	union address from;
	union address to;
	enum field field;
};

static __always_inline __u32 field_offset(enum field field, const bool six)
{
	if (six)
		return field == FIELD_SOURCE ? offsetof(struct ipv6hdr, saddr)
					     : offsetof(struct ipv6hdr, daddr);
	return field == FIELD_SOURCE ? offsetof(struct iphdr, saddr)
				     : offsetof(struct iphdr, daddr);
}

static __always_inline enum field other_field(enum field field)
{
	return field == FIELD_SOURCE ? FIELD_DESTINATION : FIELD_SOURCE;
}

static __always_inline __u32 difference(const struct replacement *change)
{
	union address from = change->from, to = change->to;

	return bpf_csum_diff(from.words, sizeof(from), to.words, sizeof(to), 0);
}

/* Where the checksum is that the pseudo header goes into; 0: there is none. */
static __always_inline __u32 checksum_offset(const struct transport *transport, const bool six)
{
	switch (transport->protocol) {
	case IPPROTO_TCP:
		return transport->offset + offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return transport->offset + offsetof(struct udphdr, check);
	case IPPROTO_ICMPV6:
		return six ? transport->offset + offsetof(struct icmp_header, checksum) : 0;
	default:
		return 0;
	}
}

static __always_inline bool replace_pseudo(struct __sk_buff *skb, const struct transport *transport,
					   const struct replacement *change, const bool six)
{
	__u32 offset = checksum_offset(transport, six);
	__u64 flags = BPF_F_PSEUDO_HDR;

	if (!offset)
		return true;
	if (transport->protocol == IPPROTO_UDP)
		flags |= BPF_F_MARK_MANGLED_0;
	return !bpf_l4_csum_replace(skb, offset, 0, difference(change), flags);
}

static __always_inline bool is_error(__u8 type, const bool six)
{
	if (six)
		return type < ICMPV6_ECHO_REQUEST;
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETERPROB;
}

/* The header that an ICMP error quotes; 0: this is none. */
static __always_inline __u32 quoted_offset(struct __sk_buff *skb, const struct transport *transport,
					   const bool six)
{
	__u8 type;

	if (transport->protocol != (six ? IPPROTO_ICMPV6 : IPPROTO_ICMP) || !transport->whole ||
	    bpf_skb_load_bytes(skb, transport->offset, &type, sizeof(type)) || !is_error(type, six))
		return 0;
	return transport->offset + sizeof(struct icmp_header);
}

/* IPv4: the quoted header's checksum takes up the change, so the ICMP checksum stays right. */
static __always_inline bool replace_quoted4(struct __sk_buff *skb, __u32 quoted,
					    const struct replacement *change)
{
	__u32 place = quoted + field_offset(other_field(change->field), false);
	__be32 from = address_ipv4(&change->from), to = address_ipv4(&change->to), there;

	if (bpf_skb_load_bytes(skb, place, &there, sizeof(there)) || there != from)
		return true;
	return !bpf_l3_csum_replace(skb, quoted + offsetof(struct iphdr, check), from, to,
				    sizeof(to)) &&
	       !bpf_skb_store_bytes(skb, place, &to, sizeof(to), 0);
}

static __always_inline bool replace_quoted6(struct __sk_buff *skb, __u32 quoted, __u32 icmp,
					    const struct replacement *change)
{
	__u32 place = quoted + field_offset(other_field(change->field), true);
	union address there, to = change->to;

	if (bpf_skb_load_bytes(skb, place, &there, sizeof(there)) ||
	    !address_equal(&there, &change->from))
		return true;
	return !bpf_l4_csum_replace(skb, icmp + offsetof(struct icmp_header, checksum), 0,
				    difference(change), 0) &&
	       !bpf_skb_store_bytes(skb, place, &to, sizeof(to), 0);
}

static __always_inline bool replace_header(struct __sk_buff *skb, const struct replacement *change,
					   const bool six)
{
	__u32 place = ETH_HLEN + field_offset(change->field, six);
	union address to = change->to;
	__be32 from4 = address_ipv4(&change->from), to4 = address_ipv4(&change->to);

	if (six)
		return !bpf_skb_store_bytes(skb, place, &to, sizeof(to), 0);
	return !bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), from4, to4,
				    sizeof(to4)) &&
	       !bpf_skb_store_bytes(skb, place, &to4, sizeof(to4), 0);
}

/* What stands behind these is not looked for. */
static __always_inline bool is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_DSTOPTS;
}

/* False: the checksum cannot be kept right, for the packet is too short or has extension headers.
 */
static __always_inline bool replace(struct __sk_buff *skb, const struct inner *inner,
				    const struct replacement *change, const bool six)
{
	struct transport transport;
	__u32 quoted;

	if (transport_find(&transport, skb, inner, six)) {
		if (six && is_extension(transport.protocol))
			return false;
		if (!replace_pseudo(skb, &transport, change, six))
			return false;
		quoted = quoted_offset(skb, &transport, six);
		if (quoted && !(six ? replace_quoted6(skb, quoted, transport.offset, change)
				    : replace_quoted4(skb, quoted, change)))
			return false;
	}
	return replace_header(skb, change, six);
}

static __noinline bool replace4(struct __sk_buff *skb, const struct inner *inner,
				const struct replacement *change)
{
	return replace(skb, inner, change, false);
}

static __noinline bool replace6(struct __sk_buff *skb, const struct inner *inner,
				const struct replacement *change)
{
	return replace(skb, inner, change, true);
}

#endif
