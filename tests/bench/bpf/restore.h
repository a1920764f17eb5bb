/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Undoes what the last run made of a packet's headers, and makes the packet of another flow. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define WORDS 12 /* 96 bytes: Ethernet, IPv6 and TCP fit */

const volatile __u64 packet[WORDS] = {};
const volatile __u32 words = 8; /* of the packet that are restored */
const volatile __u32 slot = 0; /* of the program to run */

/* Four bytes of the packet that make another flow of it: `vary_first`, and `vary_step` more each time. */
const volatile __u32 vary_count = 0; /* flows in the cycle; 0: always the same one */
const volatile __u32 vary_offset = 34;
const volatile __u32 vary_first = 0;
const volatile __u32 vary_step = 1;

static __u32 turn;

static __always_inline int restore(void *data, void *data_end)
{
	__u64 *to = data;

	if (data + words * 8 > data_end)
		return -1;
#pragma unroll
	for (__u32 i = 0; i < WORDS; i++)
		if (i < words) {
			if ((void *)(to + i + 1) > data_end)
				return -1;
			to[i] = packet[i];
		}
	if (vary_count) {
		__u32 *flow = data + vary_offset;

		if ((void *)(flow + 1) > data_end)
			return -1;
		*flow = bpf_htonl(vary_first + turn * vary_step);
		turn = turn + 1 < vary_count ? turn + 1 : 0;
	}
	return 0;
}
