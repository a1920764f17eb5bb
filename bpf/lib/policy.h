/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The verdict of one subject towards one peer. */
#pragma once

#include "base.h"

/* Only the first `prefixlen` bits compare, so what may be wildcarded stands last, the port after the protocol (a port
 * without a protocol means nothing).
 */
struct policy_key {
	__u32 prefixlen; /* bits that must match after this field: 40, 48, or 48 and the port's prefix */
	__u32 peer; /* identity, 0 = any */
	__u8 egress;
	__u8 protocol; /* IPPROTO_* */
	__be16 dport; /* ICMP: the type */
};

enum policy_verdict {
	POLICY_DEFAULT_DENY = 0,
	POLICY_ALLOW = 1,
	POLICY_DENY = 2,
};

enum policy_flags {
	POLICY_REDIRECT = 1 << 0,
	POLICY_AUDIT = 1 << 1,
	POLICY_MISSING = 1 << 7, /* never in a row: the subject has none */
};

struct policy_value {
	__u8 verdict; /* enum policy_verdict */
	__u8 flags; /* enum policy_flags */
	__be16 proxy_port;
	__u32 cookie; /* of the rule behind it */
};

/* libbpf cannot resolve struct types behind a template's pointers, hence plain sizes. */
struct policy_rows {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(key_size, sizeof(struct policy_key));
	__uint(value_size, sizeof(struct policy_value));
	__uint(map_flags, BPF_F_NO_PREALLOC);
};

struct subject_key {
	__u32 generation;
	__u32 subject; /* identity of a local workload */
};

/* All rows of one subject under one generation; generations in which a subject did not change share its rows. Written
 * by the daemon: the next generation is complete before the flip, the last one is removed after it. A subject without
 * an entry may do nothing.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 65536);
	__type(key, struct subject_key);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct policy_rows);
} policy SEC(".maps");

struct decision {
	__u8 verdict;
	__u8 flags;
	__be16 proxy_port;
	__u32 cookie;
};

/* Deny beats what the proxy must see, which beats allow, which beats default deny. */
INLINE __u8 strength(__u8 verdict, __u8 flags)
{
	return verdict << 1 | (verdict == POLICY_ALLOW && flags & POLICY_REDIRECT);
}

INLINE void strengthen(struct decision *decision, const struct policy_value *value)
{
	__u8 known = strength(decision->verdict, decision->flags), found;

	if (!value)
		return;
	found = strength(value->verdict, value->flags);
	if (found > known || (found == known && !decision->cookie)) {
		decision->verdict = value->verdict;
		decision->flags = value->flags;
		decision->proxy_port = value->proxy_port;
		decision->cookie = value->cookie;
	}
}

/* One side of a flow. The rows of the peer itself come first: where both allow, the more specific rule is named. */
INLINE struct decision judge_side(__u32 generation, __u32 subject, __u32 peer, const bool egress, __u8 protocol,
				  __be16 dport)
{
	struct subject_key outer = { .generation = generation, .subject = subject };
	struct policy_key key = {
		.prefixlen = 64,
		.peer = peer,
		.egress = egress,
		.protocol = protocol,
		.dport = dport,
	};
	struct decision decision = {};
	void *rows = bpf_map_lookup_elem(&policy, &outer);

	if (!rows) {
		decision.flags = POLICY_MISSING;
		return decision;
	}
	strengthen(&decision, bpf_map_lookup_elem(rows, &key));
	key.peer = 0;
	strengthen(&decision, bpf_map_lookup_elem(rows, &key));
	return decision;
}
