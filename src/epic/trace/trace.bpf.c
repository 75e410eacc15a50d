/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What epic-trace runs in the kernel: where packets are received, sent, taken by a socket and freed.
 * A buffer is known by its address from the one to the other. Compiled by bcc; before this text come
 * packet.bpf.c, compareN() and taken_outN() for each version of the tunnel programs, and COMPARE and
 * TAKEN_OUT that call them all. Offsets (OFFSET_) and TC_ come from the kernel's BTF, filters (WANT_)
 * from the command line. No kernel header is needed.
 */
#define SECOND_NS 1000000000ULL
#define IFNAMSIZ  16

enum kind { RECEIVED, SENT, TAKEN, FREED };
/* Of what a run knows of a packet. */
enum seen_as { OTHER, DATA, CONTROL, INSIDE, PASSED_ON };

struct run {
	u64 entered_ns, left_ns;
	u32 kind, cpu, before_namespace, namespace, before_len, after_len, before_as, after_as;
	u32 tunnel, before_ether, ether; /* tunnel: of what XDP took out */
	u32 reason;
	s32 ours, reserved;
	char before_name[IFNAMSIZ], name[IFNAMSIZ];
	u8 before[SNAP], after[SNAP];
};

struct budget {
	u64 second;
	u32 used;
};

BPF_PERCPU_ARRAY(running, struct run, 1);
BPF_PERCPU_ARRAY(later, struct run, 1);
BPF_PERCPU_ARRAY(receiving, u64, 1);
BPF_PERCPU_ARRAY(moved, s32, 1); /* the counter; in a map, so that not each value is verified apart */
BPF_PERCPU_ARRAY(budgets, struct budget, 1);
BPF_PERCPU_ARRAY(lost, u64, 2); /* over the rate, ring buffer full */
BPF_TABLE("lru_hash", u64, struct run, held, 4096);
BPF_RINGBUF_OUTPUT(events, 512);

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

static INLINE int place_wanted(u32 namespace, const char *name)
{
#ifdef WANT_NAME_LOW
	if (load64((u64)name) != WANT_NAME_LOW || load64((u64)name + 8) != WANT_NAME_HIGH)
		return 0;
#endif
	return WANT_NAMESPACE(namespace);
}

static INLINE int run_wanted(const struct run *run, const struct flow *before, const struct flow *after)
{
	if (!flow_wanted(before) && !flow_wanted(after))
		return 0;
#ifdef WANT_TUNNEL
	if (!(before->gue && !before->passed_on && before->tunnel == WANT_TUNNEL) &&
	    !(after->gue && !after->passed_on && after->tunnel == WANT_TUNNEL) &&
	    !(run->before_as == INSIDE && run->tunnel == WANT_TUNNEL))
		return 0;
#endif
	return place_wanted(run->before_namespace, run->before_name) ||
	       place_wanted(run->namespace, run->name);
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
	if (!flow->gue)
		return OTHER;
	return flow->control ? CONTROL : flow->passed_on ? PASSED_ON : DATA;
}

static INLINE u32 place_read(char *name, u64 skb)
{
	u64 device = load64(skb + OFFSET_DEV);

	if (!device)
		return 0;
	bpf_probe_read_kernel(name, IFNAMSIZ, (void *)(device + OFFSET_NAME));
	return load32(load64(device + OFFSET_NET) + OFFSET_INUM);
}

/* Our XDP program leaves a cookie, and the tunnel's slot, in front of what it took out. */
static INLINE int is_taken_out(u64 skb, u32 *tunnel)
{
	u64 head = load64(skb + OFFSET_HEAD), at;

	if (load8(head + load32(skb + OFFSET_END) + OFFSET_META_LEN) != 16)
		return 0;
	at = head + load16(skb + OFFSET_MAC_HEADER) - 16;
	return TAKEN_OUT(load64(at), load32(at + 8), tunnel);
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
	run->ours = -1;
	run->cpu = bpf_get_smp_processor_id();
	run->entered_ns = run->left_ns = bpf_ktime_get_ns();
	run->before_len = snap_read(run->before, skb, load64(skb + OFFSET_DATA));
	flow_read(&before, run->before);
	run->before_as = seen_as(&before);
	if (!before.gue && is_taken_out(skb, &run->tunnel))
		run->before_as = INSIDE;
	run->before_ether = bpf_ntohs(load16(skb + OFFSET_PROTOCOL));
	run->before_namespace = place_read(run->before_name, skb);
	held.update(&skb, run);
	receiving.update(&zero, &skb);
#ifndef WANT_DROPS
	if (run->before_as != OTHER && run_wanted(run, &before, &before))
		emit(run);
#endif
	return 0;
}

/* Mapped endpoints are rewritten, so one end is enough. */
static INLINE int same_flow(const struct flow *a, const struct flow *b)
{
	return a->protocol == b->protocol && a->source_port == b->source_port &&
	       a->destination_port == b->destination_port &&
	       (same(a->source, b->source.high, b->source.low) ||
		same(a->destination, b->destination.high, b->destination.low));
}

/* The packet as it is now, and as it was received if it was. The kernel frees some buffers unseen:
 * another packet in the same place is not the one that was received. */
static INLINE struct run *run_recall(u64 skb, u64 at, int has_device, struct flow *before,
				     struct flow *after)
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
	snap_read(run->after, skb, at);
	flow_read(after, run->after);
	if (!same_flow(before, after)) {
		__builtin_memset(run, 0, sizeof(*run));
		__builtin_memset(before, 0, sizeof(*before));
	}
	run->left_ns = bpf_ktime_get_ns();
	run->cpu = bpf_get_smp_processor_id();
	run->ours = -1;
	run->after_len = snap_read(run->after, skb, at);
	run->after_as = seen_as(after);
	run->ether = bpf_ntohs(load16(skb + OFFSET_PROTOCOL));
	if (has_device)
		run->namespace = place_read(run->name, skb);
	return run;
}

/* Whether this is the inner packet of what was received. */
static INLINE int is_inside(const struct run *run, const struct flow *after)
{
	return run->after_as == OTHER && after->inner &&
	       (run->before_as == INSIDE || ((run->before_as == DATA || run->before_as == PASSED_ON) &&
					     run->before_len > run->after_len));
}

int on_send(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	struct flow before = {}, after = {};
	struct run *run = run_recall(skb, network_header(skb), 1, &before, &after);

	if (!run || (run->after_as == OTHER && !is_inside(run, &after)))
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
	/* Sockets have other uses for the member. */
	run = run_recall(skb, network_header(skb), 0, &before, &after);
	if (!run || !(is_inside(run, &after) || run->after_as == CONTROL))
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

/* UDP gives buffers back unseen by tracepoints (Linux 6.18), but calls its reader (6.4) while the
 * processor is still at the packet that it received. */
int on_ready(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	u64 *skb = receiving.lookup(&zero);

	if (!skb || load16(ctx->args[0] + OFFSET_SOCKET_PROTOCOL) != 17)
		return 0;
	return taken(*skb);
}

int on_tcp(struct bpf_raw_tracepoint_args *ctx)
{
	return taken(ctx->args[1]);
}

/* Kernels that do not name the drops of tc: the counter is looked at for all. */
#ifdef TC_INGRESS
#define MAYBE_OURS(why) ((why) == TC_INGRESS || (why) == TC_EGRESS)
#else
#define MAYBE_OURS(why) 1
#endif

/* Our own drops are told by the counter that moved; the kernel's only of packets of the tunnel. */
int on_free(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0];
	struct flow before = {}, after = {};
	struct run *run;
	int zero = 0;
	s32 *found = moved.lookup(&zero);
	u32 why = 0;

	if (!found)
		return 0;
	*found = -1;

#ifdef REASONS_NAMED
	why = ctx->args[2];
#endif
	if (MAYBE_OURS(why)) {
		COMPARE
	}
	if (*found < 0 && !held.lookup(&skb))
		return 0;
	run = run_recall(skb, network_header(skb), 1, &before, &after);
	if (!run || (*found < 0 && run->after_as == OTHER && !is_inside(run, &after)))
		return 0;
	run->kind = FREED;
	run->reason = why;
	run->ours = *found;
	if (run_wanted(run, &before, &after))
		emit(run);
	return 0;
}
