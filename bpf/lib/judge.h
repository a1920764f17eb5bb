/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A flow that has no verdict of this epoch gets one: who are the two ends, what does policy say of them. */
#pragma once

#include "conntrack.h"
#include "endpoints.h"
#include "events.h"
#include "ipcache.h"
#include "policy.h"
#include "state.h"

/* A packet on its way through a program. */
struct passage {
	struct flow flow;
	union conntrack_key key;
	union version version;
	__u32 now; /* ticks */
	__u32 end; /* which end of the flow sent it */
	__u16 events; /* enum event_mask */
	bool fronted; /* it was for a service, and is for a backend now (lib/translate.h) */
	__u32 vouched; /* identity of the sender as its node tells it with the packet, 0: not told */
	__u32 remembered; /* what it told with an earlier one */
	__u32 beyond; /* overlay device, if the other end of the packet is on another node */
};

struct outcome {
	__u32 identity[2]; /* source, destination, in the direction of the first packet */
	__u32 cookie;
	__u8 reason;
	__u8 side;
	bool audited; /* allowed, because the rule that would not, or its subject, is in audit mode */
};

INLINE void report(struct __sk_buff *skb, const struct passage *at, __u8 type, __u8 reason, __u8 side, __u32 cookie,
		   __u32 sender, __u32 receiver, bool reply, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct event *event;

	count(reason, skb->len);
	if (!(at->events & (type == EVENT_DROP ? EVENT_MASK_DROP : EVENT_MASK_VERDICT)))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count(COUNTER_LOST_EVENTS, 0);
		return;
	}
	event->time_ns = clock_ns();
	event->type = type;
	event->reason = reason;
	event->side = side;
	event->family = v6 ? 6 : 4;
	event->protocol = flow->protocol;
	event->tcp_flags = flow->tcp_flags;
	event->source_port = flow->icmp ? flow->identifier : flow->source_port;
	event->destination_port = flow->icmp ? bpf_htons(flow->icmp_type) : flow->destination_port;
	event->icmp_code = flow->icmp_code;
	event->reply = reply;
	event->source_identity = sender;
	event->destination_identity = receiver;
	event->cookie = cookie;
	event->generation = at->version.generation;
	event->ifindex = skb->ifindex;
	event->length = skb->len;
	event->pad = 0;
	__builtin_memcpy(event->source, flow->source.bytes, 16);
	__builtin_memcpy(event->destination, flow->destination.bytes, 16);
	bpf_ringbuf_submit(event, 0);
}

/* Drops the packet, and says why. */
INLINE int drop(struct __sk_buff *skb, const struct passage *at, __u8 reason, const bool v6)
{
	report(skb, at, EVENT_DROP, reason, SIDE_NONE, 0, 0, 0, false, v6);
	return TC_ACT_SHOT;
}

INLINE __u8 reason_of(const struct decision *decision)
{
	if (decision->flags & POLICY_MISSING)
		return REASON_NO_POLICY;
	if (decision->verdict == POLICY_ALLOW)
		return decision->flags & POLICY_REDIRECT ? REASON_NO_PROXY : REASON_ALLOWED;
	return decision->verdict == POLICY_DENY ? REASON_POLICY_DENY : REASON_POLICY_DEFAULT;
}

/* Whether the side of an end is judged here. The host has one as its workloads have. */
INLINE bool is_judged(const struct peer *subject)
{
	return subject->flags & IPCACHE_LOCAL || subject->identity == IDENTITY_HOST;
}

/* Adds what one side says; `subject` is the end whose side it is. False if it refuses: it has the last word. What a
 * rule or a subject in audit mode would deny does not refuse, nor does a host that no rule selects, which has no rows.
 */
INLINE bool add_side(struct outcome *outcome, const struct decision *decision, const struct peer *subject, __u8 side)
{
	__u8 reason = reason_of(decision);
	bool denied = reason == REASON_POLICY_DEFAULT || reason == REASON_POLICY_DENY;

	if (reason == REASON_NO_POLICY && subject->identity == IDENTITY_HOST)
		return true;
	if (denied && (decision->flags & POLICY_AUDIT || subject->flags & IPCACHE_AUDIT)) {
		outcome->audited = true;
		outcome->cookie = decision->cookie;
		outcome->side = side;
		return true;
	}
	if (reason) {
		outcome->audited = false;
		outcome->reason = reason;
	}
	if (reason || (decision->cookie && !outcome->audited)) {
		outcome->cookie = decision->cookie;
		outcome->side = side;
	}
	return !reason;
}

/* What an end's own node tells counts for more than what the address is known for; an identity that only this host has
 * means the same and more. What it told once counts as long as the address is not known.
 */
INLINE void believe(struct peer *other, const struct passage *at)
{
	bool known = other->identity >= IDENTITY_FIRST_CLUSTER && other->identity < IDENTITY_FIRST_LOCAL;

	if (likely(!at->vouched && !at->remembered) || other->identity >= IDENTITY_FIRST_REFINED)
		return;
	if (at->vouched)
		other->identity = at->vouched;
	else if (!known)
		other->identity = at->remembered;
}

/* Policy of both ends for a flow in the direction of its first packet. `from_host`: the host itself sent it.
 * `ours_is_source`: the workload whose device this is opened the flow; it must be known, or nothing passes.
 */
INLINE void judge(const union address *source, const union address *destination, __u8 protocol, __be16 dport,
		  bool from_host, bool ours_is_source, const struct passage *at, struct outcome *outcome, const bool v6)
{
	const union version version = at->version;
	struct peer from = find_peer(source, v6, version.epoch);
	struct peer to = find_peer(destination, v6, version.epoch);
	struct decision decision;

	if (from_host) {
		from.identity = IDENTITY_HOST;
		from.flags = IPCACHE_HOST;
	} else if (!ours_is_source && from.flags & IPCACHE_HOST) {
		/* Forwarded, with an address of this host: masqueraded by it, or forged. Not the host's own word. */
		from.identity = v6 ? IDENTITY_WORLD_IPV6 : IDENTITY_WORLD_IPV4;
		from.flags = 0;
	}
	believe(ours_is_source ? &to : &from, at);
	outcome->identity[0] = from.identity;
	outcome->identity[1] = to.identity;
	outcome->cookie = 0;
	outcome->audited = false;
	outcome->side = ours_is_source ? SIDE_EGRESS : SIDE_INGRESS;
	if (!((ours_is_source ? from.flags : to.flags) & IPCACHE_LOCAL) || !from.identity || !to.identity) {
		outcome->reason = REASON_NO_POLICY;
		return;
	}
	outcome->reason = REASON_ALLOWED;
	if (is_judged(&from)) {
		decision = judge_side(version.generation, from.identity, to.identity, true, protocol, dport);
		if (!add_side(outcome, &decision, &from, SIDE_EGRESS))
			return;
	}
	if (is_judged(&to)) {
		decision = judge_side(version.generation, to.identity, from.identity, false, protocol, dport);
		add_side(outcome, &decision, &to, SIDE_INGRESS);
	}
}

/* Writes a verdict into an entry, new or old. */
INLINE void settle(struct conntrack_entry *entry, const struct outcome *outcome, __u32 epoch)
{
	union judgement judgement = { .epoch = epoch, .reason = outcome->reason, .side = outcome->side };
	bool swap = entry->origin; /* fixed indices: an entry may lie on the stack */

	entry->identity[0] = swap ? outcome->identity[1] : outcome->identity[0];
	entry->identity[1] = swap ? outcome->identity[0] : outcome->identity[1];
	entry->cookie = outcome->cookie;
	*(volatile __u64 *)&entry->judgement = judgement.word;
}
