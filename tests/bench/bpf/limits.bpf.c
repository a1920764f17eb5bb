// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What nobody can be faster than: parse a TCP packet and look its flow up once, or remember it once. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__be32 source, destination;
	__be16 source_port, destination_port;
	__u8 protocol;
	__u8 pad[3];
};

/* Known flows. Written by whoever measures. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} known_flows SEC(".maps");

/* Flows that `remember` saw, as big as the datapath's own conntrack. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} new_flows SEC(".maps");

static __always_inline int parse(struct __sk_buff *skb, struct flow *flow)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct tcphdr *tcp = (void *)(ip + 1);

	if ((void *)(tcp + 1) > data_end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
		return -1;
	flow->source = ip->saddr;
	flow->destination = ip->daddr;
	flow->source_port = tcp->source;
	flow->destination_port = tcp->dest;
	flow->protocol = ip->protocol;
	return 0;
}

SEC("tc")
int lookup(struct __sk_buff *skb)
{
	struct flow flow = {};
	__u64 *packets;

	if (parse(skb, &flow))
		return TC_ACT_SHOT;
	packets = bpf_map_lookup_elem(&known_flows, &flow);
	if (!packets)
		return TC_ACT_SHOT;
	(*packets)++;
	return bpf_redirect(1, 0);
}

SEC("tc")
int remember(struct __sk_buff *skb)
{
	struct flow flow = {};
	__u64 packets = 1;

	if (parse(skb, &flow) || bpf_map_update_elem(&new_flows, &flow, &packets, BPF_ANY))
		return TC_ACT_SHOT;
	return bpf_redirect(1, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
