/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows that go through this host, as they go: what a packet becomes and who gets it, for as long as a tick. */
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
	__u32 checked; /* the tick in which route, neighbour, backend and translations were looked at */
	__u16 mtu; /* of the way there */
	__u16 pseudo_sum; /* of the pseudo-header as the packet comes, but for its length */
	__u16 header_sum; /* what changes in the checksum of the IPv4 header, with a hop less */
	__u16 transport_sum; /* in that of TCP or UDP */
	__u8 macs[2 * ETH_ALEN]; /* as a frame begins: the neighbour's, and the device's own */
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
