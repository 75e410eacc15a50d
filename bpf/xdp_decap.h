/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Data packets taken out of the tunnel before the kernel makes buffers of them (XDP), so that it
 * merges inner packets. Only what is wholly in order is touched: all else is left to the tc
 * program, which names what is wrong.
 */
#ifndef EPIC_XDP_DECAP_H
#define EPIC_XDP_DECAP_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "counters.h"
#include "decap.h"
#include "maps.h"
#include "packet.h"
#include "receive.h"

/* What lies in front of such a packet. The cookie is known to no sender. */
struct xdp_decap {
	__u64 cookie;
	__u32 slot; /* of the tunnel's counters */
	__u32 interface;
};

static __always_inline bool xdp_decap_read(struct xdp_decap *out, struct __sk_buff *skb)
{
	const struct xdp_decap *there = (void *)(long)skb->data_meta;
	const struct settings *settings;

	if ((const void *)(there + 1) > (void *)(long)skb->data)
		return false;
	settings = settings_get();
	if (!settings || !settings->cookie || there->cookie != settings->cookie)
		return false;
	*out = *there;
	return true;
}

static __always_inline int xdp_decap_deliver(struct __sk_buff *skb, const struct xdp_decap *out)
{
	count_received(skb, out->slot, skb->len - ETH_HLEN);
	return out->interface ? bpf_redirect_peer(out->interface, 0) : NOT_OURS;
}

/*
 * The link header moves up to the inner packet, and what is known of it lies down before it. The
 * memory in front of a packet holds leftovers of others: no cookie may be among them.
 */
static __always_inline int xdp_decap_head(struct xdp_md *ctx, const struct xdp_decap *out,
					  const bool over6, const bool six)
{
	struct xdp_decap *there;
	struct ethhdr *ethernet;
	struct ethhdr saved;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*there)))
		return XDP_PASS;
	there = (void *)(long)ctx->data_meta;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(there + 1) > (void *)ethernet ||
	    (void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	there->cookie = 0;
	saved = *ethernet;
	if (bpf_xdp_adjust_head(ctx, overhead(over6)))
		return XDP_PASS;
	there = (void *)(long)ctx->data_meta;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(there + 1) > (void *)ethernet ||
	    (void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	*there = *out;
	*ethernet = saved;
	ethernet->h_proto = six ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	return XDP_PASS;
}

static __always_inline int xdp_decap_data(struct xdp_md *ctx, const struct received *received,
					  const bool gateway, const bool over6, const bool six)
{
	const struct settings *settings = settings_get();
	struct verified verified = {};
	struct xdp_decap out = {};

	if (!settings || data_verify(&verified, received, six, gateway) != OK || verified.mapped ||
	    (verified.tos & ECN_MASK) == ECN_CE)
		return XDP_PASS;
	out.cookie = settings->cookie;
	out.slot = verified.tunnel->slot;
	out.interface = verified.interface;
	return xdp_decap_head(ctx, &out, over6, six);
}

static __always_inline int xdp_decap_over(struct xdp_md *ctx, const bool gateway, const bool over6)
{
	struct view view = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct received received = {};
	bool six;

	view.length = view.end - view.data;
	if (!is_gue(&view, gateway ? 1 : LANES, over6) ||
	    outer_verify(&received, &view, over6) != OK || is_control(&received) ||
	    data_family(&received, &six) != OK)
		return XDP_PASS;
	if (six)
		return xdp_decap_data(ctx, &received, gateway, over6, true);
	return xdp_decap_data(ctx, &received, gateway, over6, false);
}

static __always_inline int xdp_decap(struct xdp_md *ctx, const bool gateway)
{
	const struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((const void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return xdp_decap_over(ctx, gateway, false);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return xdp_decap_over(ctx, gateway, true);
	return XDP_PASS;
}

#endif
