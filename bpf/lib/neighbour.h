/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers to ARP and neighbour discovery: whatever a workload asks for, its gateway is the way there. */
#pragma once

#include "base.h"

/* Host ends of all veth pairs have this one address (reconciler/model/datapath.py). */
OPTION(__u8, gateway_mac[ETH_ALEN], { 0 });

/* RFC 826, for IPv4 over Ethernet. */
struct arp_ipv4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

struct neighbour_advertisement {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__u8 target[16];
	__u8 option_type;
	__u8 option_length; /* in units of 8 bytes */
	__u8 option_mac[ETH_ALEN];
};

#define ARP_REQUEST bpf_htons(1)
#define ARP_REPLY bpf_htons(2)

#define ND_NEIGHBOUR_SOLICITATION 135
#define ND_NEIGHBOUR_ADVERTISEMENT 136
#define ND_HOP_LIMIT 255 /* RFC 4861, section 7.1: not forwarded by any router */
#define ND_OPTION_TARGET_MAC 2
#define ND_FLAGS bpf_htonl(0xe0000000) /* router, solicited, override */

/* Turns an ARP request into its answer and sends it back where it came from. */
NOINLINE int answer_arp(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct arp_ipv4 *arp = (void *)(ethernet + 1);
	__be32 sender;

	if ((void *)(arp + 1) > data_end)
		return TC_ACT_SHOT;
	if (arp->operation != ARP_REQUEST || arp->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_SHOT;
	if (!arp->sender || arp->sender == arp->target) /* a probe or an announcement of its own address */
		return TC_ACT_SHOT;
	arp->operation = ARP_REPLY;
	sender = arp->sender;
	arp->sender = arp->target;
	arp->target = sender;
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, arp->sender_mac, ETH_ALEN);
	for (int i = 0; i < ETH_ALEN; i++) {
		ethernet->h_source[i] = gateway_mac[i];
		arp->sender_mac[i] = gateway_mac[i];
	}
	return bpf_redirect(skb->ifindex, 0);
}

INLINE __sum16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* The same for a neighbour solicitation. The packet is written anew, as the option may be missing in the question. */
NOINLINE int answer_neighbour(struct __sk_buff *skb)
{
	struct neighbour_advertisement advertisement = {
		.type = ND_NEIGHBOUR_ADVERTISEMENT,
		.flags = ND_FLAGS,
		.option_type = ND_OPTION_TARGET_MAC,
		.option_length = 1,
	};
	const __u32 offset = ETH_HLEN + sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 macs[2 * ETH_ALEN];
	__be32 pseudo[2] = { bpf_htonl(sizeof(advertisement)), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, offset + 8, advertisement.target, 16))
		return TC_ACT_SHOT;
	if (!(ip.saddr.in6_u.u6_addr32[0] | ip.saddr.in6_u.u6_addr32[1] | ip.saddr.in6_u.u6_addr32[2] |
	      ip.saddr.in6_u.u6_addr32[3])) /* duplicate address detection: nobody has it */
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ETH_ALEN, macs, ETH_ALEN))
		return TC_ACT_SHOT;
	for (int i = 0; i < ETH_ALEN; i++) {
		macs[ETH_ALEN + i] = gateway_mac[i];
		advertisement.option_mac[i] = gateway_mac[i];
	}
	ip.daddr = ip.saddr;
	__builtin_memcpy(&ip.saddr, advertisement.target, 16);
	ip.payload_len = bpf_htons(sizeof(advertisement));
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip.saddr, 32, 0);
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&advertisement, sizeof(advertisement), sum);
	advertisement.checksum = fold(sum);
	if (bpf_skb_change_tail(skb, offset + sizeof(advertisement), 0))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) ||
	    bpf_skb_store_bytes(skb, offset, &advertisement, sizeof(advertisement), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}
