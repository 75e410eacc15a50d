/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* All state of the programs. src/epic/bpf/records.py packs the same structs. */
#ifndef EPIC_MAPS_H
#define EPIC_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "drop_reasons.h"
#include "siphash.h"

/* Key of `endpoints`: the same pair at both ends of a tunnel. */
struct endpoint_key {
	__be32 inside;
	__be32 endpoint;
};

struct tunnel {
	__u32 service;
	__be32 inside;
	__be32 local;
	__be32 remote; /* 0: only what a control packet shows */
	__be16 remote_port;
	__u8 active;    /* slot of the key that signs */
	__u8 valid;     /* bit n: the key in slot n verifies */
	__u32 underlay; /* ifindex */
	__u32 underlay_mtu;
	__u32 reserved;
	struct siphash_key keys[KEY_SLOTS];
};

/* Where the far end was seen; one word, so that it is read and written whole. */
union outer_end {
	struct {
		__be32 address;
		__be16 port;
		__u16 reserved;
	};
	__u64 word;
};

struct peer {
	struct bpf_spin_lock lock;
	__u32 reserved;
	__u64 counter; /* highest verified */
	__u64 seen_ns; /* CLOCK_MONOTONIC of that packet */
	union outer_end end;
};

struct traffic {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
};

struct instance {
	__be32 inside;
	__be32 public;
	char name[IFNAME_LENGTH];
};

/* An inside address known here: an instance of ours (gateway role) or the far end's (workload
 * role). */
struct inside {
	__u32 ifindex; /* host side of the instance's veth; 0 on workload nodes */
	__u32 flags;
	__u32 tunnel; /* that made the entry; 0 on gateway nodes */
	__u32 reserved;
};

#define INSIDE_REDIRECT_PEER 1 /* the interface is one of a pair across namespaces */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, struct tunnel);
} tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TUNNELS);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDPOINTS);
	__type(key, struct endpoint_key);
	__type(value, __u32); /* tunnel id */
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_INSIDES);
	__type(key, __be32);
	__type(value, struct inside);
} insides SEC(".maps");

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
	__type(key, __be32);
	__type(value, __u32); /* ifindex */
} locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

#endif
