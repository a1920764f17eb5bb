/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who gets no answer at all: CIDRs whose packets are dropped before anything else looks at them. */
#pragma once

#include "events.h"

/* There are such CIDRs. */
OPTION(bool, prefilter, false);

struct prefilter4_key {
	__u32 prefixlen;
	__be32 address;
};

struct prefilter6_key {
	__u32 prefixlen;
	__u8 address[16];
};

/* A CIDR that is denied; the value is its length, by which the daemon knows a row from what covers it. Written by the
 * daemon. A commit may ask for half of the entries; the other half is for exchanging them. Room takes no memory.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 262144);
	__type(key, struct prefilter4_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} prefilter4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 262144);
	__type(key, struct prefilter6_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} prefilter6 SEC(".maps");

INLINE bool is_denied4(__be32 source)
{
	struct prefilter4_key key = { .prefixlen = 32, .address = source };

	return prefilter && bpf_map_lookup_elem(&prefilter4, &key);
}

INLINE bool is_denied6(const struct in6_addr *source)
{
	struct prefilter6_key key = { .prefixlen = 128 };

	__builtin_memcpy(key.address, source, 16);
	return prefilter && bpf_map_lookup_elem(&prefilter6, &key);
}

/* The same of a packet, whatever it is and however much of it lies in one piece. */
NOINLINE bool is_denied(struct __sk_buff *skb)
{
	struct in6_addr source;

	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &source, 4) &&
		       is_denied4(source.in6_u.u6_addr32[0]);
	case bpf_htons(ETH_P_IPV6):
		return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &source, 16) &&
		       is_denied6(&source);
	default:
		return false;
	}
}
