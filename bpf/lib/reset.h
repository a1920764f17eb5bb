/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The answer to a connection that has lost its backend: a reset, in the service's name (RFC 9293, section 3.10.7.1). */
#pragma once

#include "neighbour.h"
#include "rewrite.h"
#include "turn_back.h"

/* How somebody is told that nobody serves a packet. */
enum refusal {
	REFUSAL_SILENT, /* it is an answer itself, or its first fragment has one */
	REFUSAL_UNREACHABLE, /* it opens something: the answer has an error for whoever asked (lib/unreachable.h) */
	REFUSAL_RESET, /* it goes on with a connection, which no ICMP error ends (RFC 5927) */
};

INLINE enum refusal refusal_of(const struct flow *flow)
{
	if (flow->related || flow->later_fragment || flow->tcp_flags & TCP_RST)
		return REFUSAL_SILENT;
	return flow->protocol == IPPROTO_TCP && !opens(flow) ? REFUSAL_RESET : REFUSAL_UNREACHABLE;
}

/* What a TCP checksum covers before the segment. */
struct pseudo4 {
	__be32 source, destination;
	__be32 length_and_protocol;
};

/* In sequence, or with an acknowledgement of all there is: so the other side believes it. */
INLINE struct tcphdr reset_to(const struct tcphdr *segment, __u32 length)
{
	struct tcphdr reset = { .source = segment->dest, .dest = segment->source, .doff = sizeof(reset) / 4, .rst = 1 };

	if (segment->ack) {
		reset.seq = segment->ack_seq;
	} else {
		reset.ack = 1;
		reset.ack_seq =
			bpf_htonl(bpf_ntohl(segment->seq) + length - segment->doff * 4 + segment->syn + segment->fin);
	}
	return reset;
}

/* Writes the reset behind its IP header. `pseudo`: the sum of what its checksum covers before it. Where a device is to
 * finish checksums, the field has that sum, and no change of the segment itself touches it; elsewhere the change from
 * the sum to the whole checksum does.
 */
INLINE int store_reset(struct __sk_buff *skb, __u32 transport, struct tcphdr *reset, __s64 pseudo)
{
	__s64 change;

	reset->check = ~fold(pseudo);
	change = bpf_csum_diff(NULL, 0, (__be32 *)reset, sizeof(*reset), pseudo);
	return bpf_skb_store_bytes(skb, transport, reset, sizeof(*reset), 0) ||
	       bpf_l4_csum_replace(skb, transport + offsetof(struct tcphdr, check), 0, change, 0);
}

/* Turns the packet into its answer. Returns 0 or not. */
GLOBAL int answer_reset4(struct __sk_buff *skb)
{
	__u32 transport = transport_offset(skb, ETH_HLEN, false);
	struct tcphdr segment, reset;
	struct pseudo4 pseudo = { .length_and_protocol = bpf_htonl(IPPROTO_TCP << 16 | sizeof(reset)) };
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(sizeof(ip) + sizeof(reset)),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
	};

	if (!transport || bpf_skb_load_bytes(skb, transport, &segment, sizeof(segment)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &pseudo, 8))
		return -1;
	ip.daddr = pseudo.source;
	ip.saddr = pseudo.destination;
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	reset = reset_to(&segment, transport_length(skb, transport, false));
	return turn_back(skb, sizeof(ip) + sizeof(reset), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       store_reset(skb, ETH_HLEN + sizeof(ip), &reset,
			   bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
}

GLOBAL int answer_reset6(struct __sk_buff *skb)
{
	__u32 transport = transport_offset(skb, ETH_HLEN, true);
	struct tcphdr segment, reset;
	__be32 pseudo[2] = { bpf_htonl(sizeof(reset)), bpf_htonl(IPPROTO_TCP) };
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(sizeof(reset)),
		.nexthdr = IPPROTO_TCP,
		.hop_limit = 64,
	};
	__s64 sum;

	if (!transport || bpf_skb_load_bytes(skb, transport, &segment, sizeof(segment)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &ip.daddr, 16) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, daddr), &ip.saddr, 16))
		return -1;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip.saddr, 32, 0);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), sum);
	reset = reset_to(&segment, transport_length(skb, transport, true));
	return turn_back(skb, sizeof(ip) + sizeof(reset), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       store_reset(skb, ETH_HLEN + sizeof(ip), &reset, sum);
}
