/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The answer to a packet for a service that nobody serves: port unreachable, in the service's name. */
#pragma once

#include "neighbour.h"
#include "packet.h"
#include "turn_back.h"

#define ICMP_PORT_UNREACHABLE 3 /* code of ICMP_UNREACHABLE */
#define ICMPV6_PORT_UNREACHABLE 4 /* code of ICMPV6_UNREACHABLE */
#define SCTP_HEADER_LENGTH 12

/* What is quoted behind the IP header: the ports, and what the kernel keeps of a packet whose checksum is still open.
 */
#define QUOTED_TRANSPORT sizeof(struct tcphdr)

struct unreachable4 {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 unused;
	__u8 quoted[sizeof(struct iphdr) + QUOTED_TRANSPORT];
};

struct unreachable6 {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 unused;
	__u8 quoted[sizeof(struct ipv6hdr) + QUOTED_TRANSPORT];
};

INLINE int write_unreachable4(struct __sk_buff *skb, const __u32 transport)
{
	const __u32 quoted = sizeof(struct iphdr) + transport, length = ICMP_HEADER_LENGTH + quoted;
	struct unreachable4 message = { .type = ICMP_UNREACHABLE, .code = ICMP_PORT_UNREACHABLE };
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(sizeof(ip) + length),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
	};

	if (bpf_skb_load_bytes(skb, ETH_HLEN, message.quoted, quoted))
		return -1;
	__builtin_memcpy(&ip.daddr, message.quoted + offsetof(struct iphdr, saddr), 4);
	__builtin_memcpy(&ip.saddr, message.quoted + offsetof(struct iphdr, daddr), 4);
	message.checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)&message, length, 0));
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	return turn_back(skb, quoted, sizeof(ip) + ICMP_HEADER_LENGTH) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &message, length, 0);
}

INLINE int write_unreachable6(struct __sk_buff *skb, const __u32 transport)
{
	const __u32 quoted = sizeof(struct ipv6hdr) + transport, length = ICMP_HEADER_LENGTH + quoted;
	struct unreachable6 message = { .type = ICMPV6_UNREACHABLE, .code = ICMPV6_PORT_UNREACHABLE };
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(length),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = 64,
	};
	__be32 pseudo[2] = { bpf_htonl(length), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, message.quoted, quoted))
		return -1;
	__builtin_memcpy(&ip.daddr, message.quoted + offsetof(struct ipv6hdr, saddr), 16);
	__builtin_memcpy(&ip.saddr, message.quoted + offsetof(struct ipv6hdr, daddr), 16);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip.saddr, 32, 0);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), sum);
	message.checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)&message, length, sum));
	return turn_back(skb, quoted, sizeof(ip) + ICMP_HEADER_LENGTH) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), &message, length, 0);
}

/* Turns the packet into its answer. Returns 0 or not. */
GLOBAL int answer_unreachable4(struct __sk_buff *skb, __u32 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return write_unreachable4(skb, QUOTED_TRANSPORT);
	case IPPROTO_SCTP:
		return write_unreachable4(skb, SCTP_HEADER_LENGTH);
	default:
		return write_unreachable4(skb, sizeof(struct udphdr));
	}
}

GLOBAL int answer_unreachable6(struct __sk_buff *skb, __u32 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return write_unreachable6(skb, QUOTED_TRANSPORT);
	case IPPROTO_SCTP:
		return write_unreachable6(skb, SCTP_HEADER_LENGTH);
	default:
		return write_unreachable6(skb, sizeof(struct udphdr));
	}
}
