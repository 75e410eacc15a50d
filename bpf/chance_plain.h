/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Plain TCP from the router, which is nearly all, is looked up where it lies: nothing is copied and
 * no function called, for on processors that guard their returns each call takes some 10 ns.
 */
#ifndef EPIC_CHANCE_PLAIN_H
#define EPIC_CHANCE_PLAIN_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance_recent.h"
#include "chance_socket.h"
#include "maps.h"
#include "packet.h"

#define IPV4_PLAIN 0x45 /* version, and a header without options */

struct tuple4 {
	__be32 client;
	__be32 public;
	__be16 client_port;
	__be16 public_port;
};

struct tuple6 {
	struct in6_addr client;
	struct in6_addr public;
	__be16 client_port;
	__be16 public_port;
};

/* Addresses and ports stand in a packet without options as the kernel wants them. */
_Static_assert(sizeof(struct tuple4) == sizeof(((struct bpf_sock_tuple *)0)->ipv4) &&
		       sizeof(struct tuple6) == sizeof(((struct bpf_sock_tuple *)0)->ipv6) &&
		       offsetof(struct iphdr, saddr) + offsetof(struct tuple4, client_port) ==
			       sizeof(struct iphdr) &&
		       offsetof(struct ipv6hdr, saddr) + offsetof(struct tuple6, client_port) ==
			       sizeof(struct ipv6hdr),
	       "a packet has no other order than the kernel's");

/* NULL: it is something else, or not whole. */
static __always_inline const struct tcphdr *plain_tcp4(const struct view *view,
						       const struct iphdr *ip)
{
	const __u32 length = bpf_ntohs(ip->tot_len);

	if (*(const __u8 *)ip != IPV4_PLAIN || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET) ||
	    length < sizeof(*ip) || length + ETH_HLEN > view->length)
		return NULL;
	return view_at(view, ETH_HLEN + sizeof(*ip), sizeof(struct tcphdr));
}

static __always_inline const struct tcphdr *plain_tcp6(const struct view *view,
						       const struct ipv6hdr *ip)
{
	const __u32 length = bpf_ntohs(ip->payload_len);

	if (ip->version != IPV6_VERSION || ip->nexthdr != IPPROTO_TCP || !length ||
	    length + sizeof(*ip) + ETH_HLEN > view->length)
		return NULL;
	return view_at(view, ETH_HLEN + sizeof(*ip), sizeof(struct tcphdr));
}

/* `ip`: its header, right in front of `tcp`. */
static __always_inline enum chance_match plain_find(struct __sk_buff *skb,
						    const struct siblings *siblings, const void *ip,
						    const struct tcphdr *tcp, const bool six)
{
	const __be32 *flow =
		ip + (six ? offsetof(struct ipv6hdr, saddr) : offsetof(struct iphdr, saddr));
	enum chance_match match;
	struct bpf_sock *found;

	if (siblings->netns < 0)
		return CHANCE_ABSENT;
	if (recently_found(siblings, flow, tcp, six))
		return CHANCE_FITS;
	found = bpf_skc_lookup_tcp(skb, (void *)flow,
				   six ? sizeof(struct tuple6) : sizeof(struct tuple4),
				   siblings->netns, 0);
	if (!found)
		return CHANCE_ABSENT;
	switch (found->state) {
	case BPF_TCP_LISTEN:
		match = cookie_match(found, ip, ip_length(six), tcp);
		break;
	case BPF_TCP_NEW_SYN_RECV:
	case BPF_TCP_TIME_WAIT:
		match = connection_match(found, tcp, false);
		break;
	default:
		match = recent_match(siblings, flow, tcp, found, six);
		break;
	}
	bpf_sk_release(found);
	return match;
}

/* Functions, for there is little room left on the stack that they are called with. */
static __noinline enum chance_match plain_find4(struct __sk_buff *skb,
						const struct siblings *siblings,
						const struct iphdr *ip, const struct tcphdr *tcp)
{
	return plain_find(skb, siblings, ip, tcp, false);
}

static __noinline enum chance_match plain_find6(struct __sk_buff *skb,
						const struct siblings *siblings,
						const struct ipv6hdr *ip, const struct tcphdr *tcp)
{
	return plain_find(skb, siblings, ip, tcp, true);
}

#endif
