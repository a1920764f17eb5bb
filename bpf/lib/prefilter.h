/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who gets no answer at all: CIDRs whose packets are dropped before anything else looks at them. */
#pragma once

#include "base.h"

/* There are such CIDRs. */
OPTION(bool, prefilter, false);

struct prefilter4_key {
	__u32 prefixlen;
	__be32 source;
};

struct prefilter6_key {
	__u32 prefixlen;
	__u8 source[16];
};

/* A CIDR that is denied; the value means nothing. Written by the daemon. Full: the commit is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 131072);
	__type(key, struct prefilter4_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} prefilter4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 131072);
	__type(key, struct prefilter6_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} prefilter6 SEC(".maps");

INLINE bool is_denied4(__be32 source)
{
	struct prefilter4_key key = { .prefixlen = 32, .source = source };

	return prefilter && bpf_map_lookup_elem(&prefilter4, &key);
}

INLINE bool is_denied6(const struct in6_addr *source)
{
	struct prefilter6_key key = { .prefixlen = 128 };

	__builtin_memcpy(key.source, source, 16);
	return prefilter && bpf_map_lookup_elem(&prefilter6, &key);
}
