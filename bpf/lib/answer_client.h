/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a workload hears of what it sends to a service, where no backend gets that as it is. */
#pragma once

#include "onward.h"
#include "reset.h"
#include "translate.h"
#include "unreachable.h"

/* The packet becomes its answer, if it gets one. Returns 0 or not. */
INLINE int tell_client(struct __sk_buff *skb, const struct flow *flow, const bool v6)
{
	switch (refusal_of(flow)) {
	case REFUSAL_UNREACHABLE:
		return v6 ? answer_unreachable6(skb, flow->protocol) : answer_unreachable4(skb, flow->protocol);
	case REFUSAL_RESET:
		return v6 ? answer_reset6(skb) : answer_reset4(skb);
	default:
		return -1;
	}
}

/* What a workload sends to a service, where no backend gets it as it is. */
INLINE int answer_client(struct __sk_buff *skb, const struct passage *at, int result, const bool v6)
{
	struct other_end *other = other_end_of_packet();
	struct endpoint *endpoint;
	struct tunnel *tunnel;

	switch (result) {
	case SELF_ASKED:
	case SELF_ANSWERED:
		endpoint = find_endpoint(&at->flow.source, v6);
		if (!endpoint || endpoint->ifindex != skb->ifindex)
			return drop(skb, at, REASON_SPOOFED_SOURCE, v6);
		if (!other || turn_to_self(skb, &at->flow, other->port, result == SELF_ANSWERED, v6))
			return drop(skb, at, REASON_MALFORMED, v6);
		return deliver(skb, endpoint, v6);
	case TOO_LARGE:
		tunnel = find_tunnel(&at->flow.destination, v6);
		return tunnel ? refuse_size(skb, tunnel->mtu, v6) : drop(skb, at, REASON_TUNNEL_DESTINATION, v6);
	case UNSERVED:
		return tell_client(skb, &at->flow, v6) ? TC_ACT_SHOT : hand_over(skb->ifindex);
	default:
		return result;
	}
}

GLOBAL int answer_client4(struct __sk_buff *skb, const struct passage *at, int result)
{
	return at ? answer_client(skb, at, result, false) : TC_ACT_SHOT;
}

GLOBAL int answer_client6(struct __sk_buff *skb, const struct passage *at, int result)
{
	return at ? answer_client(skb, at, result, true) : TC_ACT_SHOT;
}
