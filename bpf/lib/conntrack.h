/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flows that were judged: one entry for both directions, with the verdict and the epoch it was given in. */
#pragma once

#include "base.h"
#include "packet.h"

/* Seconds without a packet, in ticks (base.h), rounded up by the loader. */
OPTION(__u32, timeout_tcp_established, 20118);
OPTION(__u32, timeout_tcp_opening, 56);
OPTION(__u32, timeout_tcp_closing, 10);
OPTION(__u32, timeout_udp, 56);
OPTION(__u32, timeout_icmp, 28);
OPTION(__u32, timeout_other, 56);

/* Direction-free: the lower of the two ends is end 0, whoever sent first. `asker` is 1 and the end that sends an ICMP
 * echo's requests, 0 of any other protocol: a request the other way is never the same flow, whatever its identifier.
 */
struct conntrack4_key {
	__be32 address[2];
	__be16 port[2];
	__u8 protocol;
	__u8 asker;
	__u8 pad[2];
};

struct conntrack6_key {
	__u64 address[2][2];
	__be16 port[2];
	__u8 protocol;
	__u8 asker;
	__u8 pad[2];
};

/* A verdict and the epoch it was given in: one word, so that two packets that judge at once leave one or the other. */
union judgement {
	__u64 word;
	struct {
		__u32 epoch;
		__u8 reason; /* enum reason: allowed, or why not */
		__u8 side; /* enum side: whose policy decided */
		__u16 pad;
	};
};

struct conntrack_entry {
	__u64 packets[2]; /* by the end that sent them */
	__u64 bytes[2];
	__u64 judgement; /* union judgement */
	__u32 expires; /* ticks */
	__u32 pad;
	__u32 ifindex[2]; /* host end of the workload at that end, 0 if it is not one of ours */
	__u32 identity[2];
	__u32 cookie; /* of the rule that decided */
	__u8 origin; /* the end that sent the first packet */
	__u8 closing; /* a bit for each end that sent FIN; both after RST */
	__u8 replied; /* 1: the other end has sent something; 2: and then one of them what opens no connection */
	__u8 icmp_type; /* of the first packet */
	__u8 from_host; /* the first packet came from this host itself */
	__u8 wrapped; /* the other end is on another node, and its ifindex the overlay device */
	__u8 vouched; /* the other end's identity is what its node told */
	__u8 fronted; /* 1 and the end that knows the other one as a service only; 0: neither does */
	__u32 pad1;
	union address frontend; /* the service's, where `fronted` */
	__be16 frontend_port;
	__u8 pad2[6];
};

/* Flows that were allowed at least once. Written and read by the programs, counted and collected by the daemon. Full:
 * the least recently used flow is forgotten and judged anew with its next packet. Sized by the loader.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct conntrack4_key);
	__type(value, struct conntrack_entry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} conntrack4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct conntrack6_key);
	__type(value, struct conntrack_entry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} conntrack6 SEC(".maps");

/* Where the entry of a new flow is put together; too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct conntrack_entry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} new_entry SEC(".maps");

INLINE struct conntrack_entry *conntrack_draft(void)
{
	__u32 zero = 0;
	struct conntrack_entry *entry = bpf_map_lookup_elem(&new_entry, &zero);

	if (entry)
		__builtin_memset(entry, 0, sizeof(*entry));
	return entry;
}

struct denial {
	__u32 epoch;
	__u32 expires; /* ticks */
	__u32 cookie;
	__u32 identity[2];
	__u8 origin;
	__u8 reason;
	__u8 side;
	__u8 pad;
};

/* Flows that were never allowed: apart, so that a flood of forbidden packets cannot push allowed flows out. The same
 * keys; full: the least recently used is judged again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct conntrack4_key);
	__type(value, struct denial);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} denials4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct conntrack6_key);
	__type(value, struct denial);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} denials6 SEC(".maps");

#define DENIAL_TICKS 30

union conntrack_key {
	struct conntrack4_key v4;
	struct conntrack6_key v6;
};

INLINE __u8 asker_of(const struct flow *flow, bool sender, const bool v6)
{
	if (likely(flow->protocol != (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) || !is_icmp_echo(flow->icmp_type, v6))
		return 0;
	return 1 + (is_echo_request(flow->icmp_type, v6) ? sender : !sender);
}

/* Fills the key and returns the end (0 or 1) that sent this packet. */
INLINE __u32 conntrack_key(const struct flow *flow, union conntrack_key *key, const bool v6)
{
	bool second;

	if (v6) {
		const union address *a = &flow->source, *b = &flow->destination;

		second = a->v6[0] != b->v6[0] ? a->v6[0] > b->v6[0] :
			 a->v6[1] != b->v6[1] ? a->v6[1] > b->v6[1] :
						flow->source_port > flow->destination_port;
		__builtin_memset(&key->v6, 0, sizeof(key->v6));
		if (second) {
			__builtin_memcpy(key->v6.address[0], b->v6, 16);
			__builtin_memcpy(key->v6.address[1], a->v6, 16);
			key->v6.port[0] = flow->destination_port;
			key->v6.port[1] = flow->source_port;
		} else {
			__builtin_memcpy(key->v6.address[0], a->v6, 16);
			__builtin_memcpy(key->v6.address[1], b->v6, 16);
			key->v6.port[0] = flow->source_port;
			key->v6.port[1] = flow->destination_port;
		}
		key->v6.protocol = flow->protocol;
		key->v6.asker = asker_of(flow, second, v6);
	} else {
		__be32 a = flow->source.v4, b = flow->destination.v4;

		second = a != b ? a > b : flow->source_port > flow->destination_port;
		__builtin_memset(&key->v4, 0, sizeof(key->v4));
		key->v4.address[0] = second ? b : a;
		key->v4.address[1] = second ? a : b;
		key->v4.port[0] = second ? flow->destination_port : flow->source_port;
		key->v4.port[1] = second ? flow->source_port : flow->destination_port;
		key->v4.protocol = flow->protocol;
		key->v4.asker = asker_of(flow, second, v6);
	}
	return second;
}

INLINE struct conntrack_entry *conntrack_find(const union conntrack_key *key, const bool v6)
{
	if (v6)
		return bpf_map_lookup_elem(&conntrack6, &key->v6);
	return bpf_map_lookup_elem(&conntrack4, &key->v4);
}

INLINE int conntrack_add(const union conntrack_key *key, const struct conntrack_entry *entry, const bool v6)
{
	if (v6)
		return bpf_map_update_elem(&conntrack6, &key->v6, entry, BPF_ANY);
	return bpf_map_update_elem(&conntrack4, &key->v4, entry, BPF_ANY);
}

INLINE struct denial *denial_find(const union conntrack_key *key, const bool v6)
{
	if (v6)
		return bpf_map_lookup_elem(&denials6, &key->v6);
	return bpf_map_lookup_elem(&denials4, &key->v4);
}

INLINE void denial_add(const union conntrack_key *key, const struct denial *denial, const bool v6)
{
	if (v6)
		bpf_map_update_elem(&denials6, &key->v6, denial, BPF_ANY);
	else
		bpf_map_update_elem(&denials4, &key->v4, denial, BPF_ANY);
}

INLINE union judgement judgement_of(const struct conntrack_entry *entry)
{
	union judgement judgement = { .word = *(volatile __u64 *)&entry->judgement };

	return judgement;
}

INLINE __u32 flow_timeout(__u8 protocol, __u8 closing, bool established)
{
	if (likely(protocol == IPPROTO_TCP)) {
		if (closing == 3)
			return timeout_tcp_closing;
		return established ? timeout_tcp_established : timeout_tcp_opening;
	}
	if (protocol == IPPROTO_UDP)
		return timeout_udp;
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return timeout_icmp;
	return timeout_other;
}

INLINE __u32 conntrack_timeout(const struct conntrack_entry *entry, __u8 protocol)
{
	return flow_timeout(protocol, entry->closing, entry->replied == 2);
}

/* A connection request for a connection that is over is a new flow. */
INLINE bool reopens(const struct conntrack_entry *entry, const struct flow *flow)
{
	return entry->closing == 3 && (flow->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A connection whose opener says nothing more after the answer is forgotten soon. */
INLINE void note_reply(struct conntrack_entry *entry, const struct flow *flow, __u32 end)
{
	if (end != entry->origin)
		entry->replied = 1;
	if (entry->replied && !(flow->tcp_flags & TCP_SYN))
		entry->replied = 2;
}

/* What every packet of an allowed flow leaves behind. */
INLINE void conntrack_touch(struct conntrack_entry *entry, const struct flow *flow, __u32 end, __u32 now, __u32 length)
{
	__u32 expires;

	if (unlikely(flow->tcp_flags & (TCP_FIN | TCP_RST)))
		entry->closing |= flow->tcp_flags & TCP_RST ? 3 : 1 << end;
	if (unlikely(entry->replied != 2))
		note_reply(entry, flow, end);
	expires = now + conntrack_timeout(entry, flow->protocol);
	if (entry->expires != expires)
		entry->expires = expires;
	__sync_fetch_and_add(&entry->packets[end & 1], 1);
	__sync_fetch_and_add(&entry->bytes[end & 1], length);
}
