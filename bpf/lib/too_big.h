/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The answer to a packet that is larger than the way it would take: in the gateway's name, back to the workload; or in
 * the name of whom it is for, back to a client outside.
 */
#pragma once

#include "neighbour.h"
#include "packet.h"
#include "turn_back.h"

#define ICMP_FRAGMENTATION_NEEDED 4 /* code of ICMP_UNREACHABLE */
#define ICMPV6_PACKET_TOO_BIG 2
#define IPV4_DONT_FRAGMENT 0x4000 /* of the field `frag_off` */
#define GATEWAY4 bpf_htonl(0xa9fe0101) /* 169.254.1.1, reconciler/compile/routes.py */

/* What is quoted of the packet: its headers, and what the kernel keeps of a packet whose checksum is still open. */
#define QUOTED4 68
#define QUOTED6 88

struct too_big4 {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 unused;
	__be16 mtu; /* RFC 1191, section 4 */
	__u8 quoted[QUOTED4];
};

struct too_big6 {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu; /* RFC 4443, section 3.2 */
	__u8 quoted[QUOTED6];
};

/* Where the answer is put together; too large for the stack. */
union too_big {
	struct too_big4 v4;
	struct too_big6 v6;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union too_big);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} too_big SEC(".maps");

INLINE union too_big *too_big_message(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&too_big, &zero);
}

/* `by_receiver`: in the name of whom the packet is for. Returns 0 or not. */
GLOBAL int write_too_big4(struct __sk_buff *skb, __u32 mtu, __u32 by_receiver)
{
	union too_big *room = too_big_message();
	struct too_big4 *message = &room->v4;
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(sizeof(ip) + sizeof(*message)),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
		.saddr = GATEWAY4,
	};

	if (!room)
		return -1;
	message->type = ICMP_UNREACHABLE;
	message->code = ICMP_FRAGMENTATION_NEEDED;
	message->checksum = 0;
	message->unused = 0;
	message->mtu = bpf_htons(mtu);
	if (bpf_skb_load_bytes(skb, ETH_HLEN, message->quoted, QUOTED4) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &ip.daddr, 4))
		return -1;
	if (by_receiver)
		__builtin_memcpy(&ip.saddr, message->quoted + offsetof(struct iphdr, daddr), 4);
	message->checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)message, sizeof(*message), 0));
	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	if (turn_back(skb, QUOTED4, sizeof(ip) + ICMP_HEADER_LENGTH))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), message, sizeof(*message), 0);
}

GLOBAL int write_too_big6(struct __sk_buff *skb, __u32 mtu, __u32 by_receiver)
{
	union too_big *room = too_big_message();
	struct too_big6 *message = &room->v6;
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(sizeof(*message)),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = 64,
		.saddr.in6_u.u6_addr8 = { 0xfe, 0x80, [15] = 1 }, /* reconciler/compile/routes.py */
	};
	__be32 pseudo[2] = { bpf_htonl(sizeof(*message)), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;

	if (!room)
		return -1;
	message->type = ICMPV6_PACKET_TOO_BIG;
	message->code = 0;
	message->checksum = 0;
	message->mtu = bpf_htonl(mtu);
	if (bpf_skb_load_bytes(skb, ETH_HLEN, message->quoted, QUOTED6) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &ip.daddr, 16))
		return -1;
	if (by_receiver)
		__builtin_memcpy(&ip.saddr, message->quoted + offsetof(struct ipv6hdr, daddr), 16);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip.saddr, 32, 0);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), sum);
	message->checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)message, sizeof(*message), sum));
	if (turn_back(skb, QUOTED6, sizeof(ip) + ICMP_HEADER_LENGTH))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(ip), message, sizeof(*message), 0);
}

/* Bytes of the largest IP packet that this one is, or is cut into where it is segmented. */
INLINE __u32 network_length(struct __sk_buff *skb, __u8 protocol, const bool v6)
{
	__u32 headers = sizeof(struct ipv6hdr);
	__u8 byte;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	if (!v6) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &byte, 1))
			return 0;
		headers = (byte & 0xf) * 4;
	}
	if (protocol != IPPROTO_TCP)
		return headers + sizeof(struct udphdr) + skb->gso_size;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + headers + 12, &byte, 1))
		return 0;
	return headers + (byte >> 4) * 4 + skb->gso_size;
}
