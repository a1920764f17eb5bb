/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets that a workload itself has wrapped as nodes do. */
#pragma once

#include "direct_return.h"
#include "examine.h"

/* Whether nodes believe what other nodes send over UDP. */
INLINE bool is_wrapping(void)
{
	return overlay || direct_return == DIRECT_GENEVE;
}

/* Whether a packet is made as such ones are. */
INLINE bool is_to_tunnel_port(const struct flow *flow)
{
	return flow->protocol == IPPROTO_UDP && !flow->related &&
	       ((overlay && flow->destination_port == bpf_htons(tunnel_port)) ||
		(direct_return == DIRECT_GENEVE && flow->destination_port == bpf_htons(direct_port)));
}

/* Whether it is known that a workload somewhere has the address. */
INLINE bool is_workloads(const union address *address, __u32 epoch, const bool v6)
{
	__u32 identity = find_peer(address, v6, epoch).identity;

	return identity >= IDENTITY_FIRST_REFINED ||
	       (identity >= IDENTITY_FIRST_CLUSTER && identity < IDENTITY_FIRST_LOCAL);
}

/* What a workload itself has wrapped may be for another workload only. To a node it would come with the address of this
 * host, which is believed in whatever it says.
 */
INLINE int refuse_wrapped(struct __sk_buff *skb, const struct passage *at, const bool v6)
{
	if (find_endpoint(&at->flow.destination, v6) || find_tunnel(&at->flow.destination, v6) ||
	    is_workloads(&at->flow.destination, at->version.epoch, v6))
		return GOES_ON;
	return drop(skb, at, REASON_TUNNEL_FORBIDDEN, v6);
}

GLOBAL int refuse_wrapped4(struct __sk_buff *skb, const struct passage *at)
{
	return at ? refuse_wrapped(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int refuse_wrapped6(struct __sk_buff *skb, const struct passage *at)
{
	return at ? refuse_wrapped(skb, at, true) : TC_ACT_SHOT;
}
