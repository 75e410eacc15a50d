/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* All state of the programs. src/epic/bpf/tables/records.py packs the same structs. */
#ifndef EPIC_MAPS_H
#define EPIC_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "chance_counters.h"
#include "consts.h"
#include "drop_reasons.h"
#include "siphash.h"

/* Where a tunnel leads to, and from which address of ours. */
struct end {
	union address address; /* 0: not known */
	union address local;
	__be16 port;
	__u16 flags; /* CONTROL_SPREAD, CONTROL_CHECKSUM */
	__u32 reserved;
};

struct tunnel {
	__u32 id; /* 0: the slot is free */
	__u32 service;
	__u32 slot;      /* of this, in `peers` and in `traffic` */
	__u32 interface; /* host side of the instance's veth; 0: this is the workload node's end */
	__u32 underlay;  /* ifindex */
	__u32 underlay_mtu;
	__be32 inside;
	__u8 active; /* slot of the key that signs */
	__u8 valid;  /* bit n: the key in slot n verifies */
	__u8 lanes;  /* that a workload node sends from */
	__u8 reserved;
	__u32 routed_interface;
	__u32 reserved2;
	__u64 fingerprint; /* of service and keys; 0: they are just changing */
	struct siphash_key keys[KEY_SLOTS];
	union address inside6;
	struct end declared;  /* EPIC node: only what hellos show is sent to */
	union address routed; /* the far address that the next hop is for; 0: none */
	struct bpf_redir_neigh next_hop;
};

/* Two places for the far end, so that one can be written while the other is read. */
struct lane {
	__u64 counter; /* highest verified */
	__u64 seen_ns; /* CLOCK_MONOTONIC of that packet */
	__u32 current;
	__u32 reserved;
	struct end ends[2];
};

struct peer {
	struct bpf_spin_lock lock; /* of those who write */
	__u32 lanes;               /* that the far end says it has */
	__u32 generation;          /* random, since the counters began; 0: not yet */
	__u32 reserved;
	__u64 stray_counter; /* highest one of hellos of other generations */
	__u64 used_until;    /* up to when hellos have used their share (CLOCK_MONOTONIC) */
	struct lane lane[LANES];
};

struct traffic {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
};

/* Key of `endpoints`: the same pair at both ends of a tunnel, unless the endpoint is mapped. */
struct endpoint_key {
	__be32 inside;
	__be32 endpoint;
};

struct endpoint6_key {
	union address inside;
	union address endpoint;
};

/*
 * A tag once computed: it is the same for all packets of a pair and protocol. Two processors may
 * write at a time: `check` tells whether `tag` is whole, and what it was computed for.
 */
struct kept_tag {
	__u64 tag;
	__u64 check;
};

struct endpoint {
	__u32 slot;
	__u32 tunnel;    /* id, for a slot may be given to another tunnel */
	__u32 interface; /* workload node: host side of the pod's veth; 0: the stack delivers */
	__u32 reserved;
	union address real; /* EPIC node: what the workload's network calls it; 0: the same */
	struct kept_tag sent;
	struct kept_tag received;
};

/* Key of `mapped`: an endpoint as the workload's network calls it. */
struct real_key {
	__u32 tunnel;
	__u32 reserved;
	union address real;
};

struct instance {
	__be32 inside;
	__be32 public; /* 0: it has none of IPv4 */
	union address inside6;
	union address public6; /* 0: it has none of IPv6 */
	char name[IFNAME_LENGTH];
};

struct settings {
	/*
	 * Proves to the tc program that the XDP program took a packet out. It stands first in every
	 * version, for a new one takes it over, even if the map is another.
	 */
	__u64 cookie;
	__u32 segmenter; /* interface that cuts GSO packets up; 0: there is none */
	__u32 reserved;
};

/* The instances of one gateway that live, each known by its index. */
struct siblings {
	__s32 netns; /* id of the network namespace of the instance here; below 0: there is none */
	__u8 own;    /* index */
	__u8 active; /* slot of the key that signs */
	__u8 valid;  /* bit n: the key in slot n verifies */
	__u8 count;
	__u16 listed;     /* bit n: there is a sibling of index n */
	__u16 candidates; /* those that packets can be passed on to */
	__u16 draining;
	__u16 alive;
	__u32 slot; /* of this in `hits` */
	__u16 leaving;
	__u16 reserved;
	__u64 order; /* indexes, four bits each, in which they are tried; the first one lowest */
	__u64 changed_ns; /* CLOCK_MONOTONIC of the last change of the list */
	__u64 account;    /* number of the account, whose gateways share a budget */
	struct siphash_key keys[KEY_SLOTS];
	__u16 joined[MAX_SIBLINGS]; /* by index: nothing learned of earlier lives is believed */
	union address addresses[MAX_SIBLINGS]; /* of their nodes, by index */
};

/*
 * Of 44 bits of a flow's hash, all but those that choose the set; in the place of these, when its
 * owner had joined; and in the lowest four the owner's index. 0: free.
 */
struct owner_set {
	__u64 owners[OWNERS_IN_SET];
};

struct chance_counters {
	__u64 counts[CHANCE_COUNTERS];
};

enum event_kind {
	EVENT_UP,
	EVENT_MOVED,
};

struct event {
	__u32 tunnel;
	__u16 kind;
	__u16 lane;
	__u64 at_ns;
	struct end before;
	struct end after;
};

/* By slot: arrays are looked up in next to no time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, struct tunnel);
} tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32); /* tunnel id */
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

/* Workload node: up to when ICMP errors of others have used their share (CLOCK_MONOTONIC). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, __u64);
} errors SEC(".maps");

/* IPv4 has a map of its own, for a short key is hashed faster. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDPOINTS);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDPOINTS);
	__type(key, struct endpoint6_key);
	__type(value, struct endpoint);
} endpoints6 SEC(".maps");

/* EPIC node: from what the workload's network calls an endpoint to what Envoy calls it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDPOINTS);
	__type(key, struct real_key);
	__type(value, union address);
} mapped SEC(".maps");

/*
 * The inside addresses: on workload nodes those that replies go to, on EPIC nodes the instances'.
 * Nothing from one leaves in the clear.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_INSIDES);
	__type(key, __be32);
	__type(value, __u32); /* workload node: slot of the tunnel; EPIC node: ifindex */
} insides SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_INSIDES);
	__type(key, union address);
	__type(value, __u32);
} insides6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_INSTANCES);
	__type(key, __u32); /* ifindex */
	__type(value, struct instance);
} instances SEC(".maps");

/* Our underlay addresses: UDP 6080 to any other address is somebody else's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_LOCALS);
	__type(key, union address);
	__type(value, __u32); /* ifindex */
} locals SEC(".maps");

/* EPIC node: by the gateway's public address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_GATEWAYS);
	__type(key, union address);
	__type(value, struct siblings);
} siblings SEC(".maps");

/*
 * Which sibling a flow was found at. An array, for it takes 2 MB where a map of least recently used
 * entries would take 30, is written without a lock, and forgets as little.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OWNER_SETS);
	__type(key, __u32);
	__type(value, struct owner_set);
} owners SEC(".maps");

/* Of flows, by part of their hash: the rest of that of the last one that was over the budget. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REFUSED_FLOWS);
	__type(key, __u32);
	__type(value, __u32);
} refused SEC(".maps");

/*
 * By public address: up to when packets of unknown flows have used their share; by an account's
 * number in the first half of an address, whose second one is nobody's then: the account's; 0: the
 * node's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * MAX_GATEWAYS + 1);
	__type(key, union address);
	__type(value, __u64);
} budgets SEC(".maps");

/* By slot, for of all packets most are hits: a search less. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_GATEWAYS);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_GATEWAYS);
	__type(key, union address);
	__type(value, struct chance_counters);
} chances SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

static __always_inline struct tunnel *tunnel_at(__u32 slot)
{
	return bpf_map_lookup_elem(&tunnels, &slot);
}

static __always_inline struct tunnel *tunnel_find(__u32 id)
{
	__u32 *slot = bpf_map_lookup_elem(&slots, &id);
	struct tunnel *tunnel = slot ? tunnel_at(*slot) : NULL;

	return tunnel && tunnel->id == id ? tunnel : NULL;
}

/* The tunnel that an endpoint is reached through. */
static __always_inline struct tunnel *tunnel_of(const struct endpoint *endpoint)
{
	struct tunnel *tunnel = tunnel_at(endpoint->slot);

	return tunnel && tunnel->id == endpoint->tunnel ? tunnel : NULL;
}

/* The pair's entry; NULL when they may not talk. */
static __always_inline struct endpoint *endpoint_find(__be32 inside, __be32 endpoint)
{
	struct endpoint_key key = {.inside = inside, .endpoint = endpoint};

	return bpf_map_lookup_elem(&endpoints, &key);
}

static __always_inline struct endpoint *endpoint6_find(const union address *inside,
						       const union address *endpoint)
{
	struct endpoint6_key key = {.inside = *inside, .endpoint = *endpoint};

	return bpf_map_lookup_elem(&endpoints6, &key);
}

static __always_inline const struct settings *settings_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

#endif
