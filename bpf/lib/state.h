/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one word that makes a commit a transaction, and what the host wants to hear about. */
#pragma once

#include "base.h"

/* Read once per packet, written once per transaction, as one 64-bit word.
 *
 * epoch       counts transactions. A conntrack entry of an older epoch is judged again; an ipcache row that is
 *             staged for an epoch counts from that epoch on.
 * generation  selects the policy rows: the epoch of the last transaction that changed any.
 */
union version {
	__u64 word;
	struct {
		__u32 epoch;
		__u32 generation;
	};
};

enum event_mask {
	EVENT_MASK_DROP = 1 << 0,
	EVENT_MASK_VERDICT = 1 << 1,
};

struct state {
	__u64 version; /* union version */
	__u32 events; /* enum event_mask */
	__u32 pad;
};

/* The host's state, one row. Written by the daemon, read by every program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} state SEC(".maps");

INLINE struct state *host_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&state, &zero);
}
