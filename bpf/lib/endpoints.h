/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Local workloads by address: where their packets go, and which device may send with that address. */
#pragma once

#include "base.h"

struct endpoint {
	__u32 ifindex; /* host end of the veth pair */
	__u8 mac[ETH_ALEN]; /* workload end */
	__u16 pad;
	__u32 identity; /* what the whole cluster knows it by */
};

/* An address of a workload of this host. Written by the daemon, read for delivery and for the source address check.
 * Full: the new workload is refused by the daemon, nothing else changes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __be32);
	__type(value, struct endpoint);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} endpoints4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct address6);
	__type(value, struct endpoint);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} endpoints6 SEC(".maps");

INLINE struct endpoint *find_endpoint(const union address *address, const bool v6)
{
	if (v6)
		return bpf_map_lookup_elem(&endpoints6, address->v6);
	return bpf_map_lookup_elem(&endpoints4, &address->v4);
}
