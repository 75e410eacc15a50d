/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What epic-trace runs in the kernel: where packets are received, sent, taken by a socket and freed.
 * A buffer is known by its address from the one to the other. Compiled by bcc; before this text comes
 * one compareN() for each version of the tunnel programs, and COMPARE that calls them all. Offsets (OFFSET_) come from the kernel's BTF,
 * filters (WANT_) from the command line. No kernel header is needed.
 */
#define SNAP      160
#define GUE_PORT  6080
#define GUE_LANES 4
#define SECOND_NS 1000000000ULL

enum kind { RECEIVED, SENT, TAKEN, FREED };
/* Of what a run knows of a packet. */
enum seen_as { OTHER, DATA, CONTROL };

struct run {
	u64 entered_ns, left_ns;
	u32 kind, cpu, ifindex, namespace, before_len, after_len, before_as, after_as;
	s32 reason, version;
	char before_name[16], name[16];
	u8 before[SNAP], after[SNAP];
};

struct address {
	u64 high, low;
};

struct flow {
	struct address source, destination;
	u32 tunnel;
	u16 source_port, destination_port;
	u8 protocol, gue, control, inner;
};

struct budget {
	u64 second;
	u32 used;
};

BPF_PERCPU_ARRAY(running, struct run, 1);
BPF_PERCPU_ARRAY(later, struct run, 1);
BPF_PERCPU_ARRAY(budgets, struct budget, 1);
BPF_PERCPU_ARRAY(lost, u64, 2); /* over the rate, ring buffer full */
BPF_TABLE("lru_hash", u64, struct run, held, 4096);
BPF_RINGBUF_OUTPUT(events, 512);
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
	flow->tunnel = bpf_ntohl(load32(at + 12));
	flow->inner = !flow->control && ip_read(flow, at + 8 + 20) != 0;
}

static INLINE int same(struct address a, u64 high, u64 low)
{
	return a.high == high && a.low == low;
}

static INLINE int flow_wanted(const struct flow *flow)
{
#ifdef WANT_INNER
	if (!flow->inner)
		return 0;
#endif
#ifdef WANT_PROTOCOL
	if (flow->protocol != WANT_PROTOCOL && flow->protocol != WANT_PROTOCOL6)
		return 0;
#endif
#ifdef WANT_PORT
	if (flow->source_port != WANT_PORT && flow->destination_port != WANT_PORT)
		return 0;
#endif
#ifdef WANT_HOST_LOW
	if (!same(flow->source, WANT_HOST_HIGH, WANT_HOST_LOW) &&
	    !same(flow->destination, WANT_HOST_HIGH, WANT_HOST_LOW))
		return 0;
#endif
	return 1;
}

static INLINE int name_wanted(const char *name)
{
#ifdef WANT_NAME_LOW
	return load64((u64)name) == WANT_NAME_LOW && load64((u64)name + 8) == WANT_NAME_HIGH;
#else
	return 1;
#endif
}

static INLINE int run_wanted(const struct run *run, const struct flow *before, const struct flow *after)
{
	if (!flow_wanted(before) && !flow_wanted(after))
		return 0;
#ifdef WANT_TUNNEL
	if (!(before->gue && before->tunnel == WANT_TUNNEL) &&
	    !(after->gue && after->tunnel == WANT_TUNNEL))
		return 0;
#endif
	return name_wanted(run->before_name) || name_wanted(run->name);
}

static INLINE void count_lost(int why)
{
	u64 *count = lost.lookup(&why);

	if (count)
		*count += 1;
}

static INLINE void emit(struct run *run)
{
	int zero = 0;
	struct budget *budget = budgets.lookup(&zero);
	u64 second = run->left_ns / SECOND_NS;

	if (!budget)
		return;
	if (budget->second != second) {
		budget->second = second;
		budget->used = 0;
	}
	if (budget->used >= RATE) {
		count_lost(0);
		return;
	}
	budget->used += 1;
	if (events.ringbuf_output(run, sizeof(*run), 0))
		count_lost(1);
}

/* The packet from its IP header on, as far as it lies in the buffer's linear head. */
static INLINE u32 snap_read(u8 *snap, u64 skb, u64 at)
{
	u64 end = load64(skb + OFFSET_DATA) + load32(skb + OFFSET_LEN) - load32(skb + OFFSET_DATA_LEN);
	u64 size = at < end ? end - at : 0;

	__builtin_memset(snap, 0, SNAP);
	/* The verifier must see the limit on the register that is used. */
	asm volatile("" : "+r"(size));
	if (size > SNAP)
		size = SNAP;
	bpf_probe_read_kernel(snap, size, (void *)at);
	return load32(skb + OFFSET_LEN) + (u32)(load64(skb + OFFSET_DATA) - at);
}

static INLINE u64 network_header(u64 skb)
{
	return load64(skb + OFFSET_HEAD) + load16(skb + OFFSET_NETWORK_HEADER);
}

static INLINE u32 seen_as(const struct flow *flow)
{
	return flow->gue ? flow->control ? CONTROL : DATA : OTHER;
}

static INLINE void place_read(struct run *run, char *name, u64 skb)
{
	u64 device = load64(skb + OFFSET_DEV);

	run->cpu = bpf_get_smp_processor_id();
	if (!device)
		return;
	run->ifindex = load32(device + OFFSET_IFINDEX);
	run->namespace = load32(load64(device + OFFSET_NET) + OFFSET_INUM);
	bpf_probe_read_kernel(name, sizeof(run->name), (void *)(device + OFFSET_NAME));
}

/* Before any filter: what lies at the packet's start is its IP header. */
int on_receive(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	int zero = 0;
	struct run *run = running.lookup(&zero);
	struct flow before = {};

	if (!run)
		return 0;
	__builtin_memset(run, 0, sizeof(*run));
	run->kind = RECEIVED;
	run->reason = run->version = -1;
	run->entered_ns = run->left_ns = bpf_ktime_get_ns();
	run->before_len = snap_read(run->before, skb, load64(skb + OFFSET_DATA));
	flow_read(&before, run->before);
	run->before_as = seen_as(&before);
	place_read(run, run->before_name, skb);
	held.update(&skb, run);
#ifndef WANT_DROPS
	if (before.gue && run_wanted(run, &before, &before))
		emit(run);
#endif
	return 0;
}

/* The packet as it is now, and as it was received if it was. */
static INLINE struct run *run_recall(u64 skb, u64 at, struct flow *before, struct flow *after)
{
	struct run *known = held.lookup(&skb), *run;
	int zero = 0;

	run = later.lookup(&zero);
	if (!run)
		return 0;
	__builtin_memset(run, 0, sizeof(*run));
	if (known) {
		bpf_probe_read_kernel(run, sizeof(*run), known);
		flow_read(before, run->before);
		held.delete(&skb);
	}
	run->left_ns = bpf_ktime_get_ns();
	run->reason = run->version = -1;
	run->after_len = snap_read(run->after, skb, at);
	flow_read(after, run->after);
	run->after_as = seen_as(after);
	place_read(run, run->name, skb);
	return run;
}

/* Whether this is the inner packet of what was received, and no other in the same buffer. */
static INLINE int is_inside(const struct run *run)
{
	u32 outer = run->before[0] >> 4 == 6 ? 40 : 20;

	return run->before_as == DATA && run->after_as == OTHER &&
	       load8((u64)run->before + outer + 9) == (run->after[0] >> 4 == 6 ? 41 : 4) &&
	       run->before_len > run->after_len;
}

int on_send(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	struct flow before = {}, after = {};
	struct run *run = run_recall(skb, network_header(skb), &before, &after);

	if (!run || (run->after_as == OTHER && !is_inside(run)))
		return 0;
	run->kind = SENT;
#ifndef WANT_DROPS
	if (run_wanted(run, &before, &after))
		emit(run);
#endif
	return 0;
}

static INLINE int taken(u64 skb)
{
	struct flow before = {}, after = {};
	struct run *run;

	if (!held.lookup(&skb))
		return 0;
	run = run_recall(skb, network_header(skb), &before, &after);
	if (!run || !(is_inside(run) || run->after_as == CONTROL))
		return 0;
	run->kind = TAKEN;
#ifndef WANT_DROPS
	if (run_wanted(run, &before, &after))
		emit(run);
#endif
	return 0;
}

int on_consume(struct bpf_raw_tracepoint_args *ctx)
{
	return taken(ctx->args[0]);
}

int on_copy(struct bpf_raw_tracepoint_args *ctx)
{
	return taken(ctx->args[0]);
}

int on_tcp(struct bpf_raw_tracepoint_args *ctx)
{
	return taken(ctx->args[1]);
}

/* Our own drops are told by the counter that moved; the kernel's only of packets of the tunnel. */
int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	u32 why = ctx->args[2];
	int ours = why == TC_INGRESS || why == TC_EGRESS;
	struct flow before = {}, after = {};
	struct run *run;
	s32 found = -1;

	if (ours) {
		COMPARE
	} else if (!held.lookup(&skb)) {
		return 0;
	}
	run = run_recall(skb, network_header(skb), &before, &after);
	if (!run || (found < 0 && run->before_as == OTHER))
		return 0;
	run->kind = FREED;
	run->reason = why;
	run->version = found;
	if (run_wanted(run, &before, &after))
		emit(run);
	return 0;
}
