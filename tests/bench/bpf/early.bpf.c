// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Runs a program of the XDP hook on the same packet again and again, as again.bpf.c does for others. */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include "restore.h"

/* Slot 0 is an empty program, the others are measured. Written by whoever measures. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} early_targets SEC(".maps");

/* By how much the program makes a packet longer: what the last run put before it is taken off. */
const volatile __u32 grows = 0;
const volatile __u32 length = 0; /* of the packet before */

SEC("xdp.frags")
int early(struct xdp_md *context)
{
	if (grows && context->data_end - context->data > length && bpf_xdp_adjust_head(context, grows))
		return XDP_ABORTED;
	if (restore((void *)(long)context->data, (void *)(long)context->data_end))
		return XDP_ABORTED;
	bpf_tail_call(context, &early_targets, slot);
	return XDP_ABORTED;
}

SEC("xdp.frags")
int pass_on(struct xdp_md *context __attribute__((unused)))
{
	return XDP_PASS;
}

/* What any program does that sends a TCP packet back: looks as far as its ports, and swaps the two MAC addresses. */
SEC("xdp.frags")
int swap(struct xdp_md *context)
{
	void *data_end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	__u8 mac[ETH_ALEN];

	if ((void *)(tcp + 1) > data_end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != IPPROTO_TCP || !tcp->dest)
		return XDP_PASS;
	__builtin_memcpy(mac, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, mac, ETH_ALEN);
	return XDP_TX;
}

/* What any program does that wraps a packet in IPv4: makes room before it. */
SEC("xdp.frags")
int grow(struct xdp_md *context)
{
	return bpf_xdp_adjust_head(context, -(int)sizeof(struct iphdr)) ? XDP_ABORTED : XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
