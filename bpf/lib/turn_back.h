/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a packet becomes its own answer: it is cut, gets room for other headers, and its frame goes back where it came
 * from.
 */
#pragma once

#include "base.h"

/* Keeps `kept` bytes of the packet behind `room` new ones. Returns 0 or not. */
INLINE int turn_back(struct __sk_buff *skb, __u32 kept, __u32 room)
{
	__u8 macs[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, macs, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, 0, macs + ETH_ALEN, ETH_ALEN) || bpf_skb_change_tail(skb, ETH_HLEN + kept, 0) ||
	    (room && bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0)))
		return -1;
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
}
