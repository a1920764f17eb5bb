/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Node devices: where this host meets the network around it, and what is done there. */
#pragma once

#include "base.h"

enum device_flags {
	DEVICE_MASQUERADE4 = 1 << 0, /* workloads leave with address4, over IPv4 */
	DEVICE_MASQUERADE6 = 1 << 1,
	DEVICE_HOST_POLICY = 1 << 2, /* there may be rules for the host itself; without rows of its own it is open */
	DEVICE_SERVICES = 1 << 3, /* services are reached from outside; backends elsewhere see the device's address */
};

struct device {
	__u8 address6[16];
	__be32 address4;
	__u32 flags; /* enum device_flags */
};

/* The loopback's index. Its row, where there is one, has no flags, and the addresses by which other nodes know this
 * host.
 */
#define DEVICE_OWN 1

INLINE bool has_address(const struct device *device, const bool v6)
{
	const __u64 *halves = (const void *)device->address6;

	return v6 ? halves[0] | halves[1] : device->address4;
}

/* A node device by its index. Written by the daemon, read by its programs, which let everything pass without a row.
 * Full: the commit is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct device);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} devices SEC(".maps");

/* CIDRs that workloads talk to with their own addresses: those of all workloads, and what the cluster excludes. Written
 * by the daemon. Full: the commit is refused.
 */
struct plain4_key {
	__u32 prefixlen;
	__be32 address;
};

struct plain6_key {
	__u32 prefixlen;
	__u8 address[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__type(key, struct plain4_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} plain4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__type(key, struct plain6_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} plain6 SEC(".maps");

/* Whether workloads keep their own addresses towards this one. */
INLINE bool is_plain(const union address *address, const bool v6)
{
	if (v6) {
		struct plain6_key key = { .prefixlen = 128 };

		__builtin_memcpy(key.address, address->bytes, 16);
		return bpf_map_lookup_elem(&plain6, &key);
	} else {
		struct plain4_key key = { .prefixlen = 32, .address = address->v4 };

		return bpf_map_lookup_elem(&plain4, &key);
	}
}
