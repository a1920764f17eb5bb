/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How every program begins: headers within reach, what the host is at, and what an ICMP error is about. */
#pragma once

#include "judge.h"

/* Let the next program on the hook, or the stack, have it. */
#define PASS TC_ACT_UNSPEC

/* Headers must be readable in place; a packet that is not linear that far is made so, once. */
INLINE void make_readable(struct __sk_buff *skb, __u32 length)
{
	if (unlikely(skb->data_end - skb->data < length && skb->len > skb->data_end - skb->data))
		bpf_skb_pull_data(skb, skb->len < length ? skb->len : length);
}

#define HEADERS4 (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct tcphdr))
#define HEADERS6 (ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct tcphdr))

/* What the host is at when the packet comes in. Nothing passes a host without a state. */
INLINE bool enter(struct passage *at)
{
	struct state *state = host_state();

	if (unlikely(!state)) {
		count(REASON_NO_STATE, 0);
		return false;
	}
	at->version.word = *(volatile __u64 *)&state->version;
	at->events = state->events;
	at->now = ticks_now();
	return true;
}

INLINE bool is_multicast(const union address *address, const bool v6)
{
	if (v6)
		return address->bytes[0] == 0xff;
	return (address->v4 & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || address->v4 == 0xffffffff;
}

/* The flow of an ICMP error is the one that it reports on. Where nobody knows that one, or the error is on its way to
 * somebody else than who sent the packet that it quotes, the error stands for itself.
 */
INLINE void stand_for_itself(struct passage *at, const union address *source, const union address *destination,
			     const bool v6)
{
	at->flow.source = *source;
	at->flow.destination = *destination;
	at->flow.source_port = 0;
	at->flow.destination_port = bpf_htons(at->flow.error_type);
	at->flow.identifier = 0;
	at->flow.icmp = true;
	at->flow.protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	at->flow.icmp_type = at->flow.error_type;
	at->flow.icmp_code = at->flow.error_code;
	at->end = conntrack_key(&at->flow, &at->key, v6);
}

/* Addresses of the packet itself, where the flow has those of the packet that it quotes. False if it is too short. */
INLINE bool load_addresses(struct __sk_buff *skb, union address *source, union address *destination, const bool v6)
{
	const __u32 length = v6 ? 16 : 4;
	const __u32 from = ETH_HLEN + (v6 ? offsetof(struct ipv6hdr, saddr) : offsetof(struct iphdr, saddr));

	return !bpf_skb_load_bytes(skb, from, source->bytes, length) &&
	       !bpf_skb_load_bytes(skb, from + length, destination->bytes, length);
}

INLINE bool same_address(const union address *one, const union address *other, const bool v6)
{
	return v6 ? one->v6[0] == other->v6[0] && one->v6[1] == other->v6[1] : one->v4 == other->v4;
}
