/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Rules for the host itself, at its node devices: its own flows are judged as a workload's are, in both directions.
 *
 * Flows between the host and its own workloads never get here; they are judged at the workload's device (judge.h).
 */
#pragma once

#include "devices.h"
#include "passage.h"
#include "tunnels.h"

INLINE bool is_link_local(const union address *address, const bool v6)
{
	return v6 && address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

/* Whether a packet that comes in is for the host. Multicast and broadcast are not, so nobody is cut off from DHCP. */
INLINE bool is_for_host(const union address *destination, const union version version, const bool v6)
{
	return is_link_local(destination, v6) || find_peer(destination, v6, version.epoch).flags & IPCACHE_HOST;
}

INLINE int guard_refuse(struct __sk_buff *skb, const struct passage *at, const struct outcome *outcome, bool reply,
			const bool v6)
{
	report(skb, at, EVENT_DROP, outcome->reason, outcome->side, outcome->cookie,
	       reply ? outcome->identity[1] : outcome->identity[0], reply ? outcome->identity[0] : outcome->identity[1],
	       reply, v6);
	return TC_ACT_SHOT;
}

/* Policy of the host for a flow in the direction of its first packet. False: there is none. */
INLINE bool judge_host(const union address *other, bool host_is_source, __u8 protocol, __be16 dport,
		       const union version version, struct outcome *outcome, const bool v6)
{
	struct peer host = { .identity = IDENTITY_HOST }, peer = find_peer(other, v6, version.epoch);
	struct decision decision;

	if (peer.flags & IPCACHE_HOST) /* forged, as the host's own packets do not come from outside */
		peer.identity = v6 ? IDENTITY_WORLD_IPV6 : IDENTITY_WORLD_IPV4;
	outcome->identity[0] = host_is_source ? IDENTITY_HOST : peer.identity;
	outcome->identity[1] = host_is_source ? peer.identity : IDENTITY_HOST;
	outcome->side = host_is_source ? SIDE_EGRESS : SIDE_INGRESS;
	decision = judge_side(version.generation, IDENTITY_HOST, peer.identity, host_is_source, protocol, dport);
	if (decision.flags & POLICY_MISSING)
		return false;
	if (tunnel_port && peer.identity == IDENTITY_REMOTE_NODE && protocol == IPPROTO_UDP &&
	    dport == bpf_htons(tunnel_port))
		return true;
	add_side(outcome, &decision, &host, outcome->side);
	return true;
}

/* A packet whose flow has no verdict of this epoch. Returns an action. */
INLINE int guard_closely(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, const bool outbound,
			 const bool v6)
{
	union address source, destination;
	struct outcome outcome = {};
	union judgement judgement;
	bool forward, reply;
	__be16 dport;

	if (entry && (passed(at->now, entry->expires) || reopens(entry, &at->flow)))
		entry = NULL;
	if (unlikely(at->flow.related)) {
		if (!load_addresses(skb, &source, &destination, v6))
			return drop(skb, at, REASON_MALFORMED, v6);
		if (entry && same_address(&destination, &at->flow.source, v6) && !judgement_of(entry).reason)
			return PASS;
		entry = NULL;
		stand_for_itself(at, &source, &destination, v6);
	}
	if (!outbound && find_endpoint(&at->flow.source, v6))
		return drop(skb, at, REASON_SPOOFED_SOURCE, v6);
	forward = !entry || entry->origin == at->end;
	reply = !forward;
	dport = forward ? at->flow.destination_port : at->flow.source_port;
	if (at->flow.icmp)
		dport = bpf_htons(entry ? entry->icmp_type : at->flow.icmp_type);
	if (!judge_host(outbound ? &at->flow.destination : &at->flow.source, outbound == forward, at->flow.protocol,
			dport, at->version, &outcome, v6))
		return PASS;
	if (unlikely(!entry && at->flow.later_fragment))
		return drop(skb, at, REASON_FRAGMENT_UNKNOWN, v6);
	if (entry) {
		judgement = judgement_of(entry);
		settle(entry, &outcome, at->version.epoch);
	}
	if (outcome.reason)
		return guard_refuse(skb, at, &outcome, reply, v6);
	if (!entry || judgement.epoch != at->version.epoch)
		report(skb, at, EVENT_VERDICT, outcome.audited ? REASON_AUDITED : REASON_ALLOWED, outcome.side,
		       outcome.cookie, reply ? outcome.identity[1] : outcome.identity[0],
		       reply ? outcome.identity[0] : outcome.identity[1], reply, v6);
	if (entry) {
		conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
	} else if (!at->flow.related) {
		struct conntrack_entry *fresh = conntrack_draft();

		if (!fresh)
			return drop(skb, at, REASON_CONNTRACK_FULL, v6);
		fresh->origin = at->end;
		fresh->icmp_type = at->flow.icmp_type;
		fresh->from_host = outbound;
		settle(fresh, &outcome, at->version.epoch);
		fresh->packets[0] = !at->end;
		fresh->packets[1] = at->end;
		fresh->bytes[0] = at->end ? 0 : skb->len;
		fresh->bytes[1] = at->end ? skb->len : 0;
		fresh->expires = at->now + conntrack_timeout(fresh, at->flow.protocol);
		count(COUNTER_NEW_FLOWS, skb->len);
		if (conntrack_add(&at->key, fresh, v6))
			return drop(skb, at, REASON_CONNTRACK_FULL, v6);
	}
	if (unlikely(at->flow.first_fragment))
		remember_fragment(&at->flow, v6);
	return PASS;
}

/* Each in a frame of its own, as together they would be too large; and each verified once. */
GLOBAL int guard_arriving4(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	if (!at)
		return TC_ACT_SHOT;
	return guard_closely(skb, at, entry, false, false);
}

GLOBAL int guard_arriving6(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	if (!at)
		return TC_ACT_SHOT;
	return guard_closely(skb, at, entry, false, true);
}

GLOBAL int guard_leaving4(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	if (!at)
		return TC_ACT_SHOT;
	return guard_closely(skb, at, entry, true, false);
}

GLOBAL int guard_leaving6(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	if (!at)
		return TC_ACT_SHOT;
	return guard_closely(skb, at, entry, true, true);
}

/* A packet that the host sends, or that is for it. Returns an action. */
INLINE int guard(struct __sk_buff *skb, struct passage *at, const bool outbound, const bool v6)
{
	struct conntrack_entry *entry;
	union judgement judgement;

	at->end = conntrack_key(&at->flow, &at->key, v6);
	entry = conntrack_find(&at->key, v6);
	if (likely(entry && !at->flow.related)) {
		judgement = judgement_of(entry);
		if (likely(judgement.epoch == at->version.epoch && !judgement.reason &&
			   !passed(at->now, entry->expires) && !reopens(entry, &at->flow))) {
			conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
			if (unlikely(at->flow.first_fragment))
				remember_fragment(&at->flow, v6);
			return PASS;
		}
	}
	if (v6)
		return outbound ? guard_leaving6(skb, at, entry) : guard_arriving6(skb, at, entry);
	return outbound ? guard_leaving4(skb, at, entry) : guard_arriving4(skb, at, entry);
}

/* A packet that comes in. `reason`: what is wrong with it, or 0. */
INLINE int guard_arriving(struct __sk_buff *skb, struct passage *at, int reason, const bool v6)
{
	union address source, destination = at->flow.destination;

	if (unlikely(at->flow.related) && !load_addresses(skb, &source, &destination, v6))
		return drop(skb, at, REASON_MALFORMED, v6);
	if (!is_for_host(&destination, at->version, v6))
		return PASS;
	return reason ? drop(skb, at, reason, v6) : guard(skb, at, false, v6);
}

/* A packet that the host sends. */
INLINE int guard_leaving(struct __sk_buff *skb, struct passage *at, int reason, const bool v6)
{
	if (is_multicast(&at->flow.destination, v6))
		return PASS;
	return reason ? drop(skb, at, reason, v6) : guard(skb, at, true, v6);
}
