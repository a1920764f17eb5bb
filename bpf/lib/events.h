/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What programs tell user space: drops and verdicts, with both identities and the rule behind them. */
#pragma once

#include "base.h"
#include "state.h"

enum event_type {
	EVENT_DROP = 1,
	EVENT_VERDICT = 2, /* a new flow, or one that was judged again */
};

/* Why. User space has a name for each (reconciler/observe/flow.py). */
enum reason {
	REASON_ALLOWED = 0,
	REASON_POLICY_DEFAULT = 1, /* isolated, and no rule allows it */
	REASON_POLICY_DENY = 2, /* a rule denies it */
	REASON_NO_POLICY = 3, /* the subject has no rows */
	REASON_SPOOFED_SOURCE = 4, /* the address is not the sender's */
	REASON_UNKNOWN_DESTINATION = 5, /* to a workload's device, for an address that it does not have */
	REASON_MALFORMED = 6,
	REASON_UNSUPPORTED_PROTOCOL = 7, /* not IPv4, IPv6 or ARP; multicast */
	REASON_FRAGMENT_UNKNOWN = 8, /* a later fragment whose first one was not seen */
	REASON_CONNTRACK_FULL = 9,
	REASON_AUDITED = 10, /* would be dropped, passes: audit mode */
	REASON_NO_STATE = 11, /* the host's state is missing; only counted */
	REASON_NO_PROXY = 12, /* a rule gives the proxy the last word, and there is none */
	REASON_NO_PORT = 13, /* to leave with the host's address, and no port is left */
	REASON_UNTRANSLATABLE = 14, /* to get another port, which its protocol has not or its fragments cannot */
	REASON_TUNNEL_NODE = 15, /* wrapped by another than the node whose workloads have the source address */
	REASON_TUNNEL_IDENTITY = 16, /* wrapped with an identity that the other node cannot speak for */
	REASON_TUNNEL_DESTINATION = 17, /* wrapped for an address that is not here */
	REASON_NO_BACKEND = 18, /* for a service that has no backend, or whose backend is dead */
	REASON_NOT_ADMITTED = 19, /* for a service that is not for this client */
	REASON_PREFILTERED = 20, /* from a CIDR that gets no answer at all; only counted */
	REASON_TUNNEL_FORBIDDEN = 21, /* a workload's own, to the port of tunnels and not to a workload */
	REASON_NO_FRONTEND = 22, /* another node brought it, in the name of what is no service of the cluster */
	REASON_TOO_LARGE = 23, /* it does not fit the way to its backend, and may be cut, which nobody does */
	REASON_NO_ROOM = 24, /* no headers fit before it: no memory, or its device takes no larger packet */
	REASONS,
};

enum side {
	SIDE_NONE = 0,
	SIDE_EGRESS = 1, /* of the source */
	SIDE_INGRESS = 2, /* of the destination */
};

struct event {
	__u64 time_ns; /* clock_ns(); within a tick, records are in order */
	__u8 type; /* enum event_type */
	__u8 reason; /* enum reason */
	__u8 side; /* enum side: whose policy decided */
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	__u8 tcp_flags;
	__be16 source_port; /* ICMP: the identifier */
	__be16 destination_port; /* ICMP: the type */
	__u8 icmp_code;
	__u8 reply; /* 1: against the direction of the flow's first packet */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 cookie;
	__u32 generation;
	__u32 ifindex;
	__u32 length;
	__u32 pad;
	__u8 source[16]; /* IPv4 in the first four bytes */
	__u8 destination[16];
};

/* Events on their way to the daemon, which is the only reader. Full: the event is lost and counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");

enum counter {
	COUNTER_LOST_EVENTS = REASONS, /* after one counter for each reason */
	COUNTER_NEW_FLOWS,
	COUNTERS,
};

struct counter_value {
	__u64 packets;
	__u64 bytes;
};

/* Packets and bytes by reason, and the counters above. Written by the programs, read by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, struct counter_value);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

INLINE void count(__u32 counter, __u64 bytes)
{
	struct counter_value *value = bpf_map_lookup_elem(&counters, &counter);

	if (value) {
		value->packets++;
		value->bytes += bytes;
	}
}

/* Drops what has no flow that could be told. */
INLINE int discard(struct __sk_buff *skb, __u8 reason)
{
	count(reason, skb->len);
	return TC_ACT_SHOT;
}
