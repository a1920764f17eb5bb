// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a workload's packets pass: one program for what it sends, one for what it gets.
 *
 * Both sit on the host end of its veth pair. A packet between two workloads of this host is judged for both of them
 * where it enters, and goes straight to the other one's device. Nothing passes that has no verdict of this epoch.
 */
#include "lib/answer_client.h"
#include "lib/examine.h"
#include "lib/neighbour.h"
#include "lib/onward.h"
#include "lib/passage.h"
#include "lib/translate.h"
#include "lib/wrapped_by_workload.h"

/* A packet for a client that knows the sender as a service gets its address back. A packet between two workloads of
 * this host passes a program at each end, if it is not delivered past the second one's: then that one does it. False:
 * no way.
 */
INLINE bool show_service(struct __sk_buff *skb, const struct passage *at, const struct conntrack_entry *entry,
			 const bool outbound, const bool v6)
{
	if (outbound && !redirect_peer && entry->ifindex[(at->end ^ 1) & 1])
		return true;
	return !(v6 ? restore6(skb, at, entry) : restore4(skb, at, entry));
}

/* The same after a closer look, which may have made the entry anew. `end` sent the packet, or the one that it quotes.
 */
INLINE bool show_service_closely(struct __sk_buff *skb, const struct passage *at, __u32 end, const bool outbound,
				 const bool v6)
{
	struct conntrack_entry *entry;

	if (at->flow.icmp)
		return true;
	entry = conntrack_find(&at->key, v6);
	if (!entry || !is_answer(entry, at->flow.related ? end ^ 1 : end))
		return true;
	return show_service(skb, at, entry, outbound, v6);
}

/* Lets a packet go on if a closer look allows it. `looked`: it was looked for among denials. */
INLINE int look_closely(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, bool looked,
			const bool outbound, const bool v6)
{
	__u32 end = at->end;
	int action;

	if (!looked && !at->flow.related && (!entry || passed(at->now, entry->expires) || reopens(entry, &at->flow))) {
		action = refuse_again(skb, at, v6);
		if (action != GOES_ON)
			return action;
	}
	if (overlay && v6)
		look_beyond6(skb, at, outbound);
	else if (overlay)
		look_beyond4(skb, at, outbound);
	if (outbound)
		action = v6 ? examine_sent6(skb, at, entry) : examine_sent4(skb, at, entry);
	else
		action = v6 ? examine_received6(skb, at, entry) : examine_received4(skb, at, entry);
	if (action != (outbound ? GOES_ON : PASS))
		return action;
	if (serving && entry && !show_service_closely(skb, at, end, outbound, v6))
		return TC_ACT_SHOT;
	if (!outbound)
		return PASS;
	if (unlikely(at->flow.related))
		return v6 ? send_error6(skb, at) : send_error4(skb, at);
	return send_on(skb, at, &at->flow.source, &at->flow.destination, v6);
}

/* The common part of both programs, from the parsed flow on. */
INLINE int handle(struct __sk_buff *skb, struct passage *at, const bool outbound, const bool v6)
{
	struct conntrack_entry *entry;
	bool looked = false;
	union judgement judgement;
	__u32 ours, theirs;

	at->end = conntrack_key(&at->flow, &at->key, v6);
	entry = conntrack_find(&at->key, v6);
	if (serving && outbound && !entry) {
		int result;

		if (!at->flow.related && !may_be_service(&at->flow.destination, v6)) {
			result = refuse_again(skb, at, v6);
			if (result != GOES_ON)
				return result;
			looked = true;
		}
		result = translate(skb, at, v6);
		if (result == TRANSLATED) {
			entry = conntrack_find(&at->key, v6);
			looked = false;
		} else if (result != NO_SERVICE) {
			return v6 ? answer_client6(skb, at, result) : answer_client4(skb, at, result);
		}
	}
	if (is_wrapping() && outbound && unlikely(is_to_tunnel_port(&at->flow))) {
		int action = v6 ? refuse_wrapped6(skb, at) : refuse_wrapped4(skb, at);

		if (action != GOES_ON)
			return action;
	}
	if (unlikely(!entry || at->flow.related))
		return look_closely(skb, at, entry, looked, outbound, v6);
	ours = (outbound ? at->end : at->end ^ 1) & 1;
	theirs = ours ^ 1;
	judgement = judgement_of(entry);
	if (likely(judgement.epoch == at->version.epoch && !judgement.reason && entry->ifindex[ours] == skb->ifindex &&
		   (outbound || may_send(skb, entry->ifindex[theirs], entry->identity[theirs])) &&
		   !passed(at->now, entry->expires) && !reopens(entry, &at->flow) &&
		   (!serving || !outbound || knows_frontend(entry, at, v6)))) {
		conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
		if (unlikely(at->flow.first_fragment))
			remember_fragment(&at->flow, v6);
		if (serving && is_answer(entry, at->end) && !show_service(skb, at, entry, outbound, v6))
			return TC_ACT_SHOT;
		if (!outbound || !entry->ifindex[theirs])
			return PASS;
		if (overlay && entry->wrapped) {
			__u32 identity = entry->identity[ours];

			if (unlikely(identity >= IDENTITY_FIRST_LOCAL))
				identity = shared_identity(&at->flow.source, v6);
			return send_to_node(skb, at, &at->flow.destination, identity, v6);
		}
		return send_on(skb, at, &at->flow.source, &at->flow.destination, v6);
	}
	return look_closely(skb, at, entry, looked, outbound, v6);
}

INLINE int handle_ipv4(struct __sk_buff *skb, const bool outbound)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct passage at = {};
	int reason;

	if ((void *)(ip + 1) > data_end)
		return discard(skb, REASON_MALFORMED);
	if (!enter(&at))
		return TC_ACT_SHOT;
	reason = parse_ipv4(skb, ip, data_end, &at.flow);
	if (unlikely(reason))
		return drop(skb, &at, reason, false);
	if (unlikely(is_multicast(&at.flow.destination, false)))
		return discard(skb, REASON_UNSUPPORTED_PROTOCOL);
	return handle(skb, &at, outbound, false);
}

INLINE int handle_ipv6(struct __sk_buff *skb, const bool outbound)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct passage at = {};
	__u8 type;
	int reason;

	if ((void *)(ip + 1) > data_end)
		return discard(skb, REASON_MALFORMED);
	if (unlikely(is_neighbour_discovery(skb, ip, &type))) {
		if (ip->hop_limit != ND_HOP_LIMIT)
			return discard(skb, REASON_MALFORMED);
		if (!outbound)
			return PASS;
		return type == ND_NEIGHBOUR_SOLICITATION ? answer_neighbour(skb) : TC_ACT_SHOT;
	}
	if (!enter(&at))
		return TC_ACT_SHOT;
	reason = parse_ipv6(skb, ip, data_end, &at.flow);
	if (unlikely(reason))
		return drop(skb, &at, reason, true);
	if (unlikely(is_multicast(&at.flow.destination, true)))
		return discard(skb, REASON_UNSUPPORTED_PROTOCOL);
	return handle(skb, &at, outbound, true);
}

INLINE int handle_packet(struct __sk_buff *skb, const bool outbound)
{
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		make_readable(skb, HEADERS4);
		return handle_ipv4(skb, outbound);
	case bpf_htons(ETH_P_IPV6):
		make_readable(skb, HEADERS6);
		return handle_ipv6(skb, outbound);
	case bpf_htons(ETH_P_ARP):
		make_readable(skb, ETH_HLEN + sizeof(struct arp_ipv4));
		return outbound ? answer_arp(skb) : PASS;
	default:
		return discard(skb, REASON_UNSUPPORTED_PROTOCOL);
	}
}

SEC("tc")
int from_workload(struct __sk_buff *skb)
{
	return handle_packet(skb, true);
}

SEC("tc")
int to_workload(struct __sk_buff *skb)
{
	return handle_packet(skb, false);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
