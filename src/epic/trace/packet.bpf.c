/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What epic-trace reads of a packet; goes before trace.bpf.c. */
#define SNAP      160
#define GUE_PORT  6080
#define GUE_LANES 4
/* Lengths of the private header in words: a tunnel's, and that of a packet passed on to a sibling. */
#define DATA_WORDS   4
#define CHANCE_WORDS 3

struct address {
	u64 high, low;
};

struct flow {
	struct address source, destination;
	u32 tunnel;
	u16 source_port, destination_port;
	u8 protocol, gue, control, passed_on, inner;
};

static INLINE u64 load64(u64 at)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static INLINE u32 load32(u64 at)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static INLINE u16 load16(u64 at)
{
	u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

static INLINE u8 load8(u64 at)
{
	u8 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)at);
	return value;
}

/* IPv4 addresses as ::ffff:a.b.c.d, in the order of the wire. */
static INLINE struct address address_read(u64 at, int six)
{
	struct address address = {};

	if (six) {
		address.high = load64(at);
		address.low = load64(at + 8);
	} else {
		address.low = (u64)load32(at) << 32 | 0xffff0000ULL;
	}
	return address;
}

/* The IP packet at `at`; where its payload begins, or 0. */
static INLINE u64 ip_read(struct flow *flow, u64 at)
{
	u8 first = load8(at);

	if (first >> 4 == 4) {
		flow->protocol = load8(at + 9);
		flow->source = address_read(at + 12, 0);
		flow->destination = address_read(at + 16, 0);
		at += (first & 15) * 4;
	} else if (first >> 4 == 6) {
		flow->protocol = load8(at + 6);
		flow->source = address_read(at + 8, 1);
		flow->destination = address_read(at + 24, 1);
		at += 40;
	} else {
		return 0;
	}
	flow->source_port = flow->destination_port = 0;
	if (flow->protocol == 6 || flow->protocol == 17) {
		flow->source_port = bpf_ntohs(load16(at));
		flow->destination_port = bpf_ntohs(load16(at + 2));
	}
	return at;
}

static INLINE int lane(u16 port)
{
	return port - GUE_PORT < GUE_LANES && port >= GUE_PORT;
}

/* A snapshot is as good as the packet: bytes behind its end are zero. */
static INLINE void flow_read(struct flow *flow, const u8 *snap)
{
	u64 at = ip_read(flow, (u64)snap);
	u8 first;

	flow->inner = at != 0;
	if (!at || flow->protocol != 17 || !(lane(flow->source_port) || lane(flow->destination_port)))
		return;
	first = load8(at + 8);
	if (first & 0xc0)
		return;
	flow->gue = 1;
	flow->control = first >> 5 & 1;
	flow->passed_on = !flow->control && (first & 0x1f) == CHANCE_WORDS;
	at += 8;
	if (flow->passed_on) {
		flow->inner = ip_read(flow, at + 4 + 4 * CHANCE_WORDS) != 0;
		return;
	}
	flow->tunnel = bpf_ntohl(load32(at + 4));
	flow->inner = !flow->control && ip_read(flow, at + 4 + 4 * DATA_WORDS) != 0;
}
