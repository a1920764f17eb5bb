/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows that go through this host, as they go: what a packet becomes and who gets it, for as long as a tick.
 *
 * Of one that is answered directly nothing changes. It is wrapped, and `ends` are those of the outer header, with the
 * backend's port as the destination's.
 */
#pragma once

#include "packet.h"

/* The ends of a packet, in its own direction: what a transport checksum covers of them. */
struct ends4 {
	__be32 source;
	__be32 destination;
	struct ports ports;
};

struct ends6 {
	__u8 source[16];
	__u8 destination[16];
	struct ports ports;
};

struct passing4_key {
	struct ends4 ends;
	__u32 protocol;
};

struct passing6_key {
	struct ends6 ends;
	__u32 protocol;
};

struct next_hop {
	__u32 checked; /* first: the tick in which route, neighbour, backend and translations were looked at */
	__u16 mtu; /* of the packet as it came, on the way there */
	__u16 pseudo_sum; /* of the pseudo-header as the packet comes, but for its length */
	__u16 header_sum; /* what changes in the IPv4 header's, with a hop less; of an outer header, its sum */
	__u16 transport_sum; /* in that of TCP or UDP */
	__u8 macs[2 * ETH_ALEN]; /* as a frame begins: the neighbour's, and the device's own */
	__u32 wraps; /* 1: it is wrapped */
};

struct passing4 {
	struct ends4 ends; /* that the packet gets */
	struct next_hop hop;
};

struct passing6 {
	struct ends6 ends;
	struct next_hop hop;
};

/* Written and read by the program. Full: the least recently used flow is looked at again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct passing4_key);
	__type(value, struct passing4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} passing4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct passing6_key);
	__type(value, struct passing6);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} passing6 SEC(".maps");

/* By a hash of address and port: whether a flow to them ever went through. So packets to any others are not looked for.
 * Written and read by the program; never full, as two may share a mark.
 */
struct passing_marks {
	__u8 marks[1 << 16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct passing_marks);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} passing_marks SEC(".maps");

/* `address`: of the destination; of IPv6 its two halves as one. */
INLINE __u8 *passing_mark(__u64 address, __be16 port)
{
	__u32 zero = 0;
	struct passing_marks *found = bpf_map_lookup_elem(&passing_marks, &zero);

	address ^= (__u64)port << 32;
	return found ? &found->marks[(address * 0x9e3779b97f4a7c15) >> 48] : NULL; /* Knuth's multiplicative hash */
}

/* Where the entry of the packet that this CPU is at is put together; too large for the stack. */
union passing {
	struct passing4 v4;
	struct passing6 v6;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union passing);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} new_passing SEC(".maps");

INLINE union passing *passing_draft(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&new_passing, &zero);
}

INLINE bool are_same(const void *left, const void *right, const __u32 bytes)
{
	const __u32 *ours = left, *theirs = right;
	__u32 differing = 0;

#pragma unroll
	for (__u32 word = 0; word < bytes / sizeof(*ours); word++)
		differing |= ours[word] ^ theirs[word];
	return !differing;
}

INLINE bool is_same_hop(const struct next_hop *left, const struct next_hop *right)
{
	return are_same(&left->mtu, &right->mtu, sizeof(*left) - sizeof(left->checked));
}

/* For the next packets. `stale`: what was known in an earlier tick, or NULL; mostly it still holds, and to say so is
 * half of what entering it again costs.
 */
INLINE void keep4(const struct passing4_key *key, struct passing4 *stale, const struct passing4 *fresh)
{
	if (stale && is_same_hop(&stale->hop, &fresh->hop) && are_same(&stale->ends, &fresh->ends, sizeof(fresh->ends)))
		stale->hop.checked = fresh->hop.checked;
	else
		bpf_map_update_elem(&passing4, key, fresh, BPF_ANY);
}

INLINE void keep6(const struct passing6_key *key, struct passing6 *stale, const struct passing6 *fresh)
{
	if (stale && is_same_hop(&stale->hop, &fresh->hop) && are_same(&stale->ends, &fresh->ends, sizeof(fresh->ends)))
		stale->hop.checked = fresh->hop.checked;
	else
		bpf_map_update_elem(&passing6, key, fresh, BPF_ANY);
}
