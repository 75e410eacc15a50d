/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Whether the instance here has the socket of a packet. The addresses and ports alone do not show
 * it: a connection that this instance believes to be half open may be another one's by now, so the
 * packet's numbers must be near the socket's.
 */
#ifndef EPIC_CHANCE_SOCKET_H
#define EPIC_CHANCE_SOCKET_H

#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance_flow.h"
#include "chance_wire.h"
#include "maps.h"
#include "packet.h"

/* The members of the kernel's own structs that are read; the loader finds where they are. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct tcp_sock {
	__u32 rcv_nxt;
	__u32 rcv_wnd;
	__u32 snd_una;
	__u32 snd_nxt;
};

struct tcp_request_sock {
	__u32 snt_isn;
	__u32 rcv_nxt;
};

struct sock_common {
	__u32 skc_tw_rcv_nxt;
	__u32 skc_tw_snd_nxt;
};

struct inet_timewait_sock {
	struct sock_common __tw_common;
};

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
};
#pragma clang attribute pop

enum chance_match {
	CHANCE_UNKNOWN, /* nobody has looked */
	CHANCE_ABSENT,
	CHANCE_STALE_SOCKET, /* of another connection */
	CHANCE_DOUBTFUL,     /* one of the numbers is near the socket's, perhaps by chance */
	CHANCE_FITS,
};

/* What a socket expects next from the client, and has sent; the ranges around are added to. */
struct expected {
	__u32 receive;
	__u32 window;
	__u32 unacknowledged;
	__u32 send;
};

static __always_inline bool near(__u32 number, __u32 first, __u32 span)
{
	return number - first + SEQUENCE_REACH < span + 2 * SEQUENCE_REACH;
}

static __always_inline enum chance_match fits(bool yes)
{
	return yes ? CHANCE_FITS : CHANCE_STALE_SOCKET;
}

/* `error`: what an ICMP error quotes, which the instance itself has sent. */
static __always_inline enum chance_match numbers_match(const struct tcphdr *tcp, const bool error,
						       const struct expected *expected)
{
	const __u32 sent = expected->send - expected->unacknowledged;
	const __u32 sequence = bpf_ntohl(tcp->seq);
	bool received, acknowledged;

	if (error)
		return fits(near(sequence, expected->unacknowledged, sent));
	received = near(sequence, expected->receive, expected->window);
	if (!tcp->ack)
		return fits(received);
	acknowledged = near(bpf_ntohl(tcp->ack_seq), expected->unacknowledged, sent);
	return received == acknowledged ? fits(received) : CHANCE_DOUBTFUL;
}

static __always_inline bool established_expects(struct bpf_sock *found, struct expected *expected)
{
	struct tcp_sock *socket = bpf_skc_to_tcp_sock(found);

	if (!socket)
		return false;
	expected->receive = socket->rcv_nxt;
	expected->window = socket->rcv_wnd;
	expected->unacknowledged = socket->snd_una;
	expected->send = socket->snd_nxt;
	return true;
}

static __always_inline enum chance_match
established_match(struct bpf_sock *found, const struct tcphdr *tcp, const bool error)
{
	struct expected expected;

	return established_expects(found, &expected) ? numbers_match(tcp, error, &expected)
						     : CHANCE_STALE_SOCKET;
}

static __always_inline enum chance_match timewait_match(struct bpf_sock *found,
							const struct tcphdr *tcp, const bool error)
{
	struct tcp_timewait_sock *socket = bpf_skc_to_tcp_timewait_sock(found);
	struct expected expected = {};

	if (!socket)
		return CHANCE_STALE_SOCKET;
	expected.receive = socket->tw_sk.__tw_common.skc_tw_rcv_nxt;
	expected.unacknowledged = socket->tw_sk.__tw_common.skc_tw_snd_nxt;
	expected.send = expected.unacknowledged;
	return numbers_match(tcp, error, &expected);
}

/* Two nodes may both have one when the SYN was sent again; who sent the SYN-ACK is answered. */
static __always_inline bool request_fits(struct bpf_sock *found, const struct tcphdr *tcp,
					 const bool error)
{
	struct tcp_request_sock *request = bpf_skc_to_tcp_request_sock(found);

	if (!request)
		return false;
	if (error)
		return bpf_ntohl(tcp->seq) == request->snt_isn;
	if (!tcp->ack)
		return near(bpf_ntohl(tcp->seq), request->rcv_nxt, 0);
	return bpf_ntohl(tcp->ack_seq) == request->snt_isn + 1;
}

/* The socket of a connection; what only listens has none. */
static __always_inline enum chance_match
connection_match(struct bpf_sock *found, const struct tcphdr *tcp, const bool error)
{
	switch (found->state) {
	case BPF_TCP_NEW_SYN_RECV:
		return fits(request_fits(found, tcp, error));
	case BPF_TCP_TIME_WAIT:
		return timewait_match(found, tcp, error);
	default:
		return established_match(found, tcp, error);
	}
}

/* A listener has no connections, but may have given somebody a cookie. */
static __always_inline enum chance_match cookie_match(struct bpf_sock *found, const void *ip,
						      const __u32 length, const struct tcphdr *tcp)
{
	/* Both headers are only read. */
	return bpf_tcp_check_syncookie(found, (void *)ip, length, (void *)tcp, sizeof(*tcp))
		       ? CHANCE_ABSENT
		       : CHANCE_FITS;
}

static __always_inline enum chance_match copied_cookie_match(struct bpf_sock *found,
							     struct __sk_buff *skb,
							     const struct chance_packet *packet,
							     const bool six)
{
	struct ipv6hdr ip6;
	struct iphdr ip4;

	if (packet->error)
		return CHANCE_ABSENT;
	if (six)
		return bpf_skb_load_bytes(skb, packet->offset, &ip6, sizeof(ip6))
			       ? CHANCE_ABSENT
			       : cookie_match(found, &ip6, sizeof(ip6), &packet->tcp);
	return bpf_skb_load_bytes(skb, packet->offset, &ip4, sizeof(ip4))
		       ? CHANCE_ABSENT
		       : cookie_match(found, &ip4, sizeof(ip4), &packet->tcp);
}

static __noinline enum chance_match socket_find(struct __sk_buff *skb,
						const struct siblings *siblings,
						const struct chance_packet *packet)
{
	const bool six = packet->six;
	const struct chance_flow *flow = &packet->flow;
	struct bpf_sock_tuple tuple = {};
	enum chance_match match;
	struct bpf_sock *found;

	if (siblings->netns < 0)
		return CHANCE_ABSENT;
	if (six) {
		__builtin_memcpy(tuple.ipv6.saddr, &flow->client, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, &flow->public, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = flow->client_port;
		tuple.ipv6.dport = flow->public_port;
	} else {
		tuple.ipv4.saddr = address_ipv4(&flow->client);
		tuple.ipv4.daddr = address_ipv4(&flow->public);
		tuple.ipv4.sport = flow->client_port;
		tuple.ipv4.dport = flow->public_port;
	}
	found = bpf_skc_lookup_tcp(skb, &tuple, six ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4),
				   siblings->netns, 0);
	if (!found)
		return CHANCE_ABSENT;
	match = found->state == BPF_TCP_LISTEN
			? copied_cookie_match(found, skb, packet, six)
			: connection_match(found, &packet->tcp, packet->error);
	bpf_sk_release(found);
	return match;
}

#endif
