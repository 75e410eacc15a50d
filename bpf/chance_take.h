/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What a sibling has passed on: verified wholly before a byte of it is changed. */
#ifndef EPIC_CHANCE_TAKE_H
#define EPIC_CHANCE_TAKE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "chance.h"

/* A packet passed on, and what is known of it once it is verified. */
struct taken {
	struct chance_packet packet;
	struct passage passage;
	const struct siblings *siblings;
	__u8 tos; /* of the outer packet */
};

static __always_inline bool is_chance(const struct received *received)
{
	return (received->gue->version_control_hlen & GUE_HLEN_MASK) == GUE_CHANCE_HLEN;
}

/* An answer quotes no more than the headers of the packet that it is about. */
static __always_inline bool length_agrees(const struct taken *taken,
					  const struct received *received)
{
	const __u32 carried = received->length - sizeof(struct chance_header);

	return taken->passage.kind == CHANCE_KIND_FOUND ? taken->packet.length >= carried
							: taken->packet.length == carried;
}

static __noinline int taken_read(struct taken *taken, struct __sk_buff *skb,
				 const struct received *received)
{
	const struct chance_header *header = (const void *)received->gue;
	struct chance_packet *packet = &taken->packet;
	const bool six = packet->six;
	__be16 fragment = 0;

	if (six) {
		const struct ipv6hdr *ip = (const void *)(header + 1);

		if ((const void *)(ip + 1) > received->readable_end)
			return DROP_TRUNCATED;
		if (ip->version != IPV6_VERSION)
			return DROP_INNER_HEADER;
		packet->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		packet->header_length = sizeof(*ip);
		packet->flow.client = address_v6(&ip->saddr);
		packet->flow.public = address_v6(&ip->daddr);
		packet->flow.protocol = ip->nexthdr;
	} else {
		const struct iphdr *ip = (const void *)(header + 1);

		if ((const void *)(ip + 1) > received->readable_end)
			return DROP_TRUNCATED;
		if (!ipv4_header_sane(ip))
			return DROP_INNER_HEADER;
		packet->length = bpf_ntohs(ip->tot_len);
		packet->header_length = ip->ihl * 4;
		packet->flow.client = address_v4(ip->saddr);
		packet->flow.public = address_v4(ip->daddr);
		packet->flow.protocol = ip->protocol;
		fragment = ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET);
	}
	if (!length_agrees(taken, received))
		return DROP_INNER_LENGTH;
	if (!is_chance_protocol(packet->flow.protocol, six) ||
	    read_flow(skb, packet, NULL, fragment, six) != CHANCE_READ_FLOW || is_for_here(packet))
		return DROP_CHANCE_FLOW;
	return OK;
}

/* Whether a sibling that keeps to the rules can have sent this to us. */
static __always_inline bool passage_sane(const struct passage *passage,
					 const struct siblings *siblings)
{
	const __u32 own = siblings->own % MAX_SIBLINGS;
	const bool asked = passage->visited & 1 << own;

	if (!(passage->visited & 1 << passage->sender) ||
	    !(passage->visited & 1 << passage->origin))
		return false;
	switch (passage->kind) {
	case CHANCE_KIND_ASK:
		return !asked;
	case CHANCE_KIND_GIVE:
		return passage->spare == own;
	default:
		return passage->origin == own;
	}
}

static __always_inline int taken_authentic(const struct taken *taken,
					   const struct received *received, const bool six)
{
	const struct chance_header *header = (const void *)received->gue;
	const struct passage *passage = &taken->passage;
	const struct siblings *siblings = taken->siblings;
	const __u32 own = siblings->own % MAX_SIBLINGS, slot = passage->slot % KEY_SLOTS;

	if (!is_listed(siblings, passage->sender) ||
	    !address_equal(&received->source, sibling_address(siblings, passage->sender)) ||
	    !address_equal(&received->destination, sibling_address(siblings, own)))
		return DROP_CHANCE_SIBLING;
	if (!(siblings->valid & 1 << slot) ||
	    chance_tag(&siblings->keys[slot], header, &taken->packet.flow, own, six) !=
		    tag_word(&header->tag))
		return DROP_CHANCE_TAG;
	return passage_sane(passage, siblings) ? OK : DROP_CHANCE_FIELD;
}

/* Leave only the headers, if the kernel can cut the packet: not what it holds for encapsulated. */
static __always_inline void shorten(struct __sk_buff *skb, const struct chance_packet *packet,
				    const bool over6)
{
	const __u32 length = packet->shown - ETH_HLEN;
	struct view view;

	if (skb->len <= packet->shown || bpf_skb_change_tail(skb, packet->shown, 0) ||
	    !view_open(&view, skb, ETH_HLEN + chance_overhead(over6)))
		return;
	if (over6) {
		struct chance_outer6 *outer = view_at(&view, ETH_HLEN, sizeof(*outer));

		if (!outer)
			return;
		outer->ip.payload_len = bpf_htons(length - sizeof(outer->ip));
		outer->udp.len = outer->ip.payload_len;
	} else {
		struct chance_outer *outer = view_at(&view, ETH_HLEN, sizeof(*outer));

		if (!outer)
			return;
		outer->ip.tot_len = bpf_htons(length);
		outer->udp.len = bpf_htons(length - sizeof(outer->ip));
	}
}

/*
 * Make the packet tell where it came in that the flow is here, and have a copy of it come to us
 * once more, to be delivered. If that cannot be, it is to be delivered itself.
 */
static __always_inline bool becomes_answer(struct __sk_buff *skb, struct taken *taken,
					   const bool over6)
{
	const struct siblings *siblings = taken->siblings;
	const __u32 own = siblings->own % MAX_SIBLINGS;
	struct passage *passage = &taken->passage;

	if (!is_candidate(siblings, passage->origin))
		return false;
	passage->sender = own;
	passage->visited |= 1 << own;
	passage->spare = own;
	passage->kind = CHANCE_KIND_GIVE;
	passage->answer = false;
	if (readdress(skb, &taken->packet, siblings, passage, own) != OK ||
	    bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
		return false;
	shorten(skb, &taken->packet, over6);
	passage->kind = CHANCE_KIND_FOUND;
	return true;
}

/*
 * Who gets the packet if it fits nobody's socket: a socket that it may be of, for its owner asks
 * the client for the right numbers; else an instance without any, whose RST ends the client's
 * waiting, which a socket of another connection would not.
 */
static __always_inline __u32 choose_spare(const struct passage *passage,
					  const struct siblings *siblings, enum chance_match match,
					  int next)
{
	const __u32 own = siblings->own % MAX_SIBLINGS;

	if (match == CHANCE_DOUBTFUL)
		return own;
	if (passage->spare != own || (match == CHANCE_ABSENT && siblings->netns >= 0))
		return passage->spare;
	return next == NOBODY ? passage->origin : next;
}

/* Not here: on to the next one, or back to where it came in; NOBODY: it is left to the stack. */
static __always_inline int ask_next(struct taken *taken, enum chance_match match, __u32 packets)
{
	const union address *public = &taken->packet.flow.public;
	const struct siblings *siblings = taken->siblings;
	const __u32 own = siblings->own % MAX_SIBLINGS;
	struct passage *passage = &taken->passage;
	int receiver;

	if (match != CHANCE_ABSENT)
		count_chance(public, CHANCE_STALE, 1);
	passage->visited |= 1 << own;
	passage->sender = own;
	passage->answer = true;
	receiver = next_sibling(siblings, passage->visited);
	passage->spare = choose_spare(passage, siblings, match, receiver);
	if (receiver != NOBODY) {
		count_chance(public, CHANCE_FORWARDED, packets);
		return receiver;
	}
	if (!is_candidate(siblings, passage->origin)) {
		count_chance(public, CHANCE_CHAIN_ENDS, packets);
		return NOBODY;
	}
	passage->kind = CHANCE_KIND_RETURN;
	passage->answer = false;
	count_chance(public, CHANCE_RETURNED, packets);
	return passage->origin;
}

/* Nobody had it, nor has it come here meanwhile: the spare one takes it; NOBODY: the stack does. */
static __always_inline int end_chain(struct taken *taken, enum chance_match match, __u32 packets)
{
	const union address *public = &taken->packet.flow.public;
	const struct siblings *siblings = taken->siblings;
	const __u32 own = siblings->own % MAX_SIBLINGS;
	struct passage *passage = &taken->passage;

	forget_owner(&taken->packet.flow);
	if (match == CHANCE_DOUBTFUL || passage->spare == own ||
	    !is_candidate(siblings, passage->spare)) {
		count_chance(public, CHANCE_CHAIN_ENDS, packets);
		return NOBODY;
	}
	passage->sender = own;
	passage->kind = CHANCE_KIND_GIVE;
	count_chance(public, CHANCE_FALLBACKS, packets);
	return passage->spare;
}

static __always_inline int learn(const struct taken *taken)
{
	learn_owner(&taken->packet.flow, taken->siblings, taken->passage.sender);
	give_back_share(taken->siblings, &taken->packet.flow);
	count_chance(&taken->packet.flow.public, CHANCE_LEARNED, 1);
	return TC_ACT_SHOT;
}

static __always_inline int chance_take(struct __sk_buff *skb, const struct received *received,
				       const bool over6, const bool six)
{
	struct taken taken = {
		.packet.offset = ETH_HLEN + chance_overhead(over6),
		.packet.six = six,
		.tos = received->tos,
	};
	enum chance_match match = CHANCE_FITS;
	const __u32 packets = segments_of(skb);
	int reason, receiver = NOBODY;

	passage_read(&taken.passage, (const void *)received->gue);
	reason = taken_read(&taken, skb, received);
	if (reason != OK)
		return drop(reason);
	taken.siblings = siblings_find(&taken.packet.flow.public);
	if (!taken.siblings)
		return drop(DROP_CHANCE_GATEWAY);
	reason = taken_authentic(&taken, received, six);
	if (reason != OK)
		return drop(reason);
	if (taken.passage.kind == CHANCE_KIND_FOUND)
		return learn(&taken);
	if (taken.passage.kind != CHANCE_KIND_GIVE)
		match = any_number(skb, socket_find(skb, taken.siblings, &taken.packet));
	if (match != CHANCE_FITS)
		receiver = taken.passage.kind == CHANCE_KIND_RETURN
				   ? end_chain(&taken, match, packets)
				   : ask_next(&taken, match, packets);
	else if (taken.passage.kind == CHANCE_KIND_ASK && taken.passage.answer &&
		 becomes_answer(skb, &taken, over6))
		receiver = taken.passage.origin;
	else
		count_chance(&taken.packet.flow.public, CHANCE_TAKEN, packets);
	if (receiver != NOBODY)
		return send_on(skb, &taken.packet, taken.siblings, &taken.passage, receiver);
	reason = strip(skb, chance_overhead(over6), taken.tos, over6, six);
	return reason == OK ? NOT_OURS : drop(reason);
}

#endif
