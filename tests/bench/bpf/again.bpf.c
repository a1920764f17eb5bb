// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Runs a program on the same packet again and again: what the last run made of the headers is undone first.
 *
 * BPF_PROG_TEST_RUN with a repeat count gives every run the packet that the one before left. The cost of this wrapper
 * is what it costs around an empty program, and is subtracted.
 */
#include <linux/pkt_cls.h>
#include "restore.h"

/* Slot 0 is an empty program, the others are measured. Written by whoever measures. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} targets SEC(".maps");

SEC("tc")
int again(struct __sk_buff *skb)
{
	if (restore((void *)(long)skb->data, (void *)(long)skb->data_end))
		return TC_ACT_SHOT;
	bpf_tail_call(skb, &targets, slot);
	return TC_ACT_SHOT;
}

/* For frames that go on into the stack as if the device had received them. */
SEC("xdp")
int receive(struct xdp_md *context)
{
	if (restore((void *)(long)context->data, (void *)(long)context->data_end))
		return XDP_ABORTED;
	return XDP_PASS;
}

SEC("tc")
int empty(struct __sk_buff *skb __attribute__((unused)))
{
	return TC_ACT_OK;
}

/* The end of a path that is measured: what arrives is counted and goes no further. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} arrived SEC(".maps");

SEC("tc")
int sink(struct __sk_buff *skb __attribute__((unused)))
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&arrived, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
