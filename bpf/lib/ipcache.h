/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From an address to the identity behind it: exact addresses first, prefixes second. */
#pragma once

#include "base.h"

enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_HEALTH = 4, /* the endpoint of a node that others probe */
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
	IDENTITY_FIRST_CLUSTER = 256, /* of workloads, shared by all hosts */
	IDENTITY_FIRST_LOCAL = 1 << 24, /* of CIDRs, this host's own */
	IDENTITY_FIRST_REFINED = 3 << 23, /* of workloads, this host's own */
};

enum ipcache_flags {
	IPCACHE_LOCAL = 1 << 0, /* a workload of this host: its side of a flow is judged here */
	IPCACHE_HOST = 1 << 1, /* an address of this host */
	IPCACHE_AUDIT = 1 << 2, /* with LOCAL: what its side denies is recorded, and passes */
};

/* What an address means before and from a transaction on: the row is written ahead of the flip and counts with it.
 * An identity of 0 means that there is no such row (yet, or any more).
 */
struct ipcache_value {
	__u32 identity; /* from epoch `since` on */
	__u32 previous; /* before */
	__u32 since;
	__u16 flags; /* enum ipcache_flags; the upper half is the daemon's own, in the tries */
	__u16 previous_flags;
};

struct cidr4_key {
	__u32 prefixlen;
	__be32 address;
};

struct cidr6_key {
	__u32 prefixlen;
	__u8 address[16];
};

/* A single address of the cluster. Written by the daemon. Full: the commit is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__type(key, __be32);
	__type(value, struct ipcache_value);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ipcache4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__type(key, struct address6);
	__type(value, struct ipcache_value);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ipcache6 SEC(".maps");

/* A prefix that policy speaks of, down to the world itself. Written by the daemon. Full: the commit is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 524288);
	__type(key, struct cidr4_key);
	__type(value, struct ipcache_value);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cidr4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 524288);
	__type(key, struct cidr6_key);
	__type(value, struct ipcache_value);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cidr6 SEC(".maps");

struct peer {
	__u32 identity;
	__u32 flags;
};

INLINE struct peer ipcache_at(const struct ipcache_value *value, __u32 epoch)
{
	struct peer peer = {};

	if (!value)
		return peer;
	if (unlikely((__s32)(epoch - value->since) < 0)) {
		peer.identity = value->previous;
		peer.flags = value->previous_flags;
	} else {
		peer.identity = value->identity;
		peer.flags = value->flags;
	}
	return peer;
}

/* Whether it is a node's or a workload's, of whichever cluster. */
INLINE bool is_of_cluster(__u32 identity)
{
	switch (identity) {
	case IDENTITY_UNKNOWN:
	case IDENTITY_WORLD:
	case IDENTITY_WORLD_IPV4:
	case IDENTITY_WORLD_IPV6:
		return false;
	default:
		return identity < IDENTITY_FIRST_LOCAL || identity >= IDENTITY_FIRST_REFINED;
	}
}

/* Identity of an address as of an epoch; the world is there as a prefix of length 0, so 0 means an empty ipcache. */
INLINE struct peer find_peer(const union address *address, const bool v6, __u32 epoch)
{
	struct peer peer;

	if (v6) {
		peer = ipcache_at(bpf_map_lookup_elem(&ipcache6, address->v6), epoch);
		if (!peer.identity) {
			struct cidr6_key key = { .prefixlen = 128 };

			__builtin_memcpy(key.address, address->bytes, 16);
			peer = ipcache_at(bpf_map_lookup_elem(&cidr6, &key), epoch);
		}
	} else {
		peer = ipcache_at(bpf_map_lookup_elem(&ipcache4, &address->v4), epoch);
		if (!peer.identity) {
			struct cidr4_key key = { .prefixlen = 32, .address = address->v4 };

			peer = ipcache_at(bpf_map_lookup_elem(&cidr4, &key), epoch);
		}
	}
	return peer;
}

/* Whether an address is known to be a node's or a workload's. One whose address nobody has told yet is not. */
INLINE bool is_known_member(const union address *address, __u32 epoch, const bool v6)
{
	const struct ipcache_value *known = v6 ? bpf_map_lookup_elem(&ipcache6, address->v6) :
						 bpf_map_lookup_elem(&ipcache4, &address->v4);

	return is_of_cluster(ipcache_at(known, epoch).identity);
}
