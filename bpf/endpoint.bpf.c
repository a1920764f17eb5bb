// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What a workload's packets pass: one program for what it sends, one for what it gets.
 *
 * Both sit on the host end of its veth pair. A packet between two workloads of this host is judged for both of them
 * where it enters, and goes straight to the other one's device. Nothing passes that has no verdict of this epoch.
 */
#include "lib/delivery.h"
#include "lib/direct_return.h"
#include "lib/geneve.h"
#include "lib/judge.h"
#include "lib/neighbour.h"
#include "lib/passage.h"
#include "lib/reset.h"
#include "lib/too_big.h"
#include "lib/translate.h"
#include "lib/tunnels.h"
#include "lib/unreachable.h"

/* Deliver past the other pair's host end, into its namespace (kernel 5.10). */
OPTION(bool, redirect_peer, true);

/* What a closer look at a packet of a workload finds where nothing speaks against it. No action has this number. */
#define GOES_ON 64

/* To a workload of this host, or back to the one that sent it. */
INLINE int hand_over(__u32 ifindex)
{
	return redirect_peer ? bpf_redirect_peer(ifindex, 0) : bpf_redirect(ifindex, 0);
}

/* Hands the packet to a workload of this host. */
INLINE int deliver(struct __sk_buff *skb, const struct endpoint *endpoint, const bool v6)
{
	if (!take_hop_to(skb, endpoint->mac, v6))
		return PASS;
	return hand_over(endpoint->ifindex);
}

/* Larger than the way to the other node. What may be cut, the stack cuts; else the sender is told. */
INLINE int refuse_size(struct __sk_buff *skb, __u32 mtu, const bool v6)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if (v6)
		return write_too_big6(skb, mtu, false) ? PASS : hand_over(skb->ifindex);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end || !(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT)))
		return PASS;
	return write_too_big4(skb, mtu, false) ? PASS : hand_over(skb->ifindex);
}

/* Sends the packet to another node, wrapped; `identity` is what the whole cluster knows the sender by. */
INLINE int send_wrapped(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity, __u32 now, __u8 protocol,
			const bool v6)
{
	__u32 mtu = tunnel_mtu(skb, tunnel, now);

	if (unlikely(network_length(skb, protocol, v6) > mtu))
		return refuse_size(skb, mtu, v6);
	if (!take_hop(skb, v6))
		return PASS;
	if (geneve)
		return wrap_geneve(skb, tunnel, identity);
	if (enter_tunnel(skb, tunnel, identity, true))
		return discard(skb, REASON_NO_ROOM);
	return bpf_redirect(tunnel->ifindex, 0);
}

/* Each in a frame of its own, and verified once. */
GLOBAL int send_wrapped4(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity, __u32 now, __u32 protocol)
{
	return tunnel ? send_wrapped(skb, tunnel, identity, now, protocol, false) : TC_ACT_SHOT;
}

GLOBAL int send_wrapped6(struct __sk_buff *skb, struct tunnel *tunnel, __u32 identity, __u32 now, __u32 protocol)
{
	return tunnel ? send_wrapped(skb, tunnel, identity, now, protocol, true) : TC_ACT_SHOT;
}

INLINE int send_to_node(struct __sk_buff *skb, const struct passage *at, const union address *destination,
			__u32 identity, const bool v6)
{
	struct tunnel *tunnel = find_tunnel(destination, v6);

	if (!tunnel)
		return PASS;
	return v6 ? send_wrapped6(skb, tunnel, identity, at->now, at->flow.protocol) :
		    send_wrapped4(skb, tunnel, identity, at->now, at->flow.protocol);
}

/* What the whole cluster knows the workload of this device by. */
INLINE __u32 shared_identity(const union address *source, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(source, v6);

	return endpoint ? endpoint->identity : IDENTITY_UNKNOWN;
}

/* A packet that may go on: to a workload of this host, wrapped to one of another node, or to the stack. */
INLINE int send_on(struct __sk_buff *skb, const struct passage *at, const union address *source,
		   const union address *destination, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(destination, v6);

	if (endpoint)
		return deliver(skb, endpoint, v6);
	if (overlay && at->beyond)
		return send_to_node(skb, at, destination, shared_identity(source, v6), v6);
	return PASS;
}

/* Whether the packet's own address, source or destination, belongs to the device that it passes. */
INLINE bool owns_address(struct __sk_buff *skb, const union address *address, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(address, v6);

	return endpoint && endpoint->ifindex == skb->ifindex;
}

/* A denied packet, in the words of whoever denied it. `origin`: the end that sent the flow's first packet. */
INLINE int refuse(struct __sk_buff *skb, const struct passage *at, const __u32 identity[2], __u32 cookie, __u8 reason,
		  __u8 side, __u32 origin, const bool v6)
{
	report(skb, at, EVENT_DROP, reason, side, cookie, at->end ? identity[1] : identity[0],
	       at->end ? identity[0] : identity[1], at->end != origin, v6);
	return TC_ACT_SHOT;
}

INLINE int deny(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, const struct outcome *outcome,
		__u32 origin, const bool v6)
{
	struct denial denial = {
		.epoch = at->version.epoch,
		.expires = at->now + DENIAL_TICKS,
		.cookie = outcome->cookie,
		.origin = origin,
		.reason = outcome->reason,
		.side = outcome->side,
	};

	denial.identity[0] = origin ? outcome->identity[1] : outcome->identity[0];
	denial.identity[1] = origin ? outcome->identity[0] : outcome->identity[1];
	if (entry)
		settle(entry, outcome, at->version.epoch);
	else if (!at->flow.related)
		denial_add(&at->key, &denial, v6);
	return refuse(skb, at, denial.identity, outcome->cookie, outcome->reason, outcome->side, origin, v6);
}

/* Remembers an allowed flow. Returns 0 or a reason. */
INLINE int remember(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry,
		    const struct outcome *outcome, bool from_host, const bool outbound, const bool v6)
{
	const union address *peer = outbound ? &at->flow.destination : &at->flow.source;
	struct endpoint *other = find_endpoint(peer, v6);
	__u32 theirs = other ? other->ifindex : at->beyond;
	bool second = outbound ? at->end : !at->end; /* our end of the flow is end 1 */
	struct conntrack_entry *known = entry;

	if (!entry) {
		entry = conntrack_draft();
		if (!entry)
			return REASON_CONNTRACK_FULL;
		entry->origin = at->end;
		entry->icmp_type = at->flow.icmp_type;
		entry->from_host = from_host;
	}
	settle(entry, outcome, at->version.epoch);
	entry->ifindex[0] = second ? theirs : skb->ifindex;
	entry->ifindex[1] = second ? skb->ifindex : theirs;
	entry->wrapped = !other && at->beyond;
	entry->vouched = at->vouched || (at->beyond && entry->vouched);
	if (serving && outbound)
		remember_frontend(entry, at);
	if (known) {
		conntrack_touch(entry, &at->flow, at->end, at->now, skb->len);
		return 0;
	}
	entry->packets[0] = !at->end;
	entry->packets[1] = at->end;
	entry->bytes[0] = at->end ? 0 : skb->len;
	entry->bytes[1] = at->end ? skb->len : 0;
	entry->expires = at->now + conntrack_timeout(entry, at->flow.protocol);
	count(COUNTER_NEW_FLOWS, skb->len);
	return conntrack_add(&at->key, entry, v6) ? REASON_CONNTRACK_FULL : 0;
}

/* Whether a known flow's other end may send this packet: a workload of this host through its own device only, this host
 * itself not through any. (IPv4 has the kernel's martian check for the host's addresses, IPv6 has none.)
 */
INLINE bool may_send(struct __sk_buff *skb, __u32 ifindex, __u32 identity)
{
	if (ifindex)
		return ifindex == skb->ingress_ifindex;
	return !(skb->ingress_ifindex && identity == IDENTITY_HOST);
}

/* The same for a packet on its way to a workload whose flow is not known, or not any more. */
INLINE bool is_forged(struct __sk_buff *skb, const struct conntrack_entry *entry, __u32 theirs, __u32 beyond,
		      const union address *source, const bool v6)
{
	struct endpoint *endpoint = find_endpoint(source, v6);

	if (endpoint)
		return endpoint->ifindex != skb->ingress_ifindex;
	if (overlay && beyond) /* from_overlay has marked it */
		return beyond != skb->ingress_ifindex || !skb->mark;
	return entry && !may_send(skb, 0, entry->identity[theirs & 1]);
}

/* Whether an ICMP error from `source` may speak of the flow whose end `end` it would be: a workload of this host only
 * of its own flows; routers on the way of any.
 */
INLINE bool may_report(struct __sk_buff *skb, const struct conntrack_entry *entry, __u32 end,
		       const union address *source, const bool outbound, const bool v6)
{
	if (outbound)
		return entry->ifindex[end & 1] == skb->ifindex;
	return !find_endpoint(source, v6) || entry->ifindex[end & 1] == skb->ingress_ifindex;
}

/* A flow that was denied in this epoch is denied again. Returns an action, or GOES_ON. */
INLINE int refuse_again(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct denial *denial = denial_find(&at->key, v6);

	if (!denial || denial->epoch != at->version.epoch || denial->origin != at->end ||
	    passed(at->now, denial->expires))
		return GOES_ON;
	return refuse(skb, at, denial->identity, denial->cookie, denial->reason, denial->side, denial->origin, v6);
}

/* A packet whose flow has no verdict of this epoch, or that needs a closer look; `refuse_again` let it go on. Returns
 * an action, or GOES_ON.
 */
INLINE int examine(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry, const bool outbound,
		   const bool v6)
{
	bool from_host, forward, quoted = false;
	union address source, destination;
	union judgement judgement = {};
	struct outcome outcome = {};
	__u32 origin;
	int reason;

	if (entry && (passed(at->now, entry->expires) || reopens(entry, &at->flow)))
		entry = NULL;
	source = at->flow.source;
	destination = at->flow.destination;
	if (unlikely(at->flow.related)) {
		if (!load_addresses(skb, &source, &destination, v6))
			return drop(skb, at, REASON_MALFORMED, v6);
		quoted = entry && same_address(&destination, &at->flow.source, v6) &&
			 may_report(skb, entry, at->end ^ 1, &source, outbound, v6);
		if (quoted) {
			at->end ^= 1; /* the quoted packet went the other way */
		} else {
			entry = NULL;
			stand_for_itself(at, &source, &destination, v6);
		}
	}
	if (!owns_address(skb, outbound ? &source : &destination, v6))
		return drop(skb, at, outbound ? REASON_SPOOFED_SOURCE : REASON_UNKNOWN_DESTINATION, v6);
	if (!outbound && is_forged(skb, entry, at->end, at->beyond, &source, v6))
		return drop(skb, at, REASON_SPOOFED_SOURCE, v6);

	if (unlikely(!entry && at->flow.later_fragment)) /* its first one opens the flow, or nothing does */
		return drop(skb, at, REASON_FRAGMENT_UNKNOWN, v6);

	origin = entry ? entry->origin : at->end;
	forward = origin == at->end;
	from_host = entry ? entry->from_host : !outbound && !skb->ingress_ifindex;
	if (entry)
		judgement = judgement_of(entry);
	if (entry && judgement.epoch == at->version.epoch) {
		outcome.identity[0] = origin ? entry->identity[1] : entry->identity[0];
		outcome.identity[1] = origin ? entry->identity[0] : entry->identity[1];
		outcome.cookie = entry->cookie;
		outcome.reason = judgement.reason;
		outcome.side = judgement.side;
	} else {
		bool as_sent = quoted ? !forward : forward; /* the flow's fields are those of its first packet */
		__be16 dport = as_sent ? at->flow.destination_port : at->flow.source_port;

		if (at->flow.protocol == IPPROTO_ICMP || at->flow.protocol == IPPROTO_ICMPV6)
			dport = bpf_htons(entry ? entry->icmp_type : at->flow.icmp_type);
		if (overlay && !outbound && !quoted && at->beyond)
			at->vouched = skb->mark;
		else if (overlay && entry && entry->vouched)
			at->remembered = entry->identity[(at->end ^ 1) & 1];
		judge(as_sent ? &at->flow.source : &at->flow.destination,
		      as_sent ? &at->flow.destination : &at->flow.source, at->flow.protocol, dport, from_host,
		      outbound == forward, at, &outcome, v6);
		if (!outcome.reason)
			report(skb, at, EVENT_VERDICT, outcome.audited ? REASON_AUDITED : REASON_ALLOWED, outcome.side,
			       outcome.cookie, forward ? outcome.identity[0] : outcome.identity[1],
			       forward ? outcome.identity[1] : outcome.identity[0], !forward, v6);
	}
	if (outcome.reason)
		return deny(skb, at, entry, &outcome, origin, v6);
	if (likely(!at->flow.related)) {
		reason = remember(skb, at, entry, &outcome, from_host, outbound, v6);
		if (reason)
			return drop(skb, at, reason, v6);
		if (unlikely(at->flow.first_fragment))
			remember_fragment(&at->flow, v6);
	}
	return outbound ? GOES_ON : PASS;
}

/* Each in a frame of its own, as together they would be too large; and each verified once. */
GLOBAL int examine_sent4(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, true, false) : TC_ACT_SHOT;
}

GLOBAL int examine_sent6(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, true, true) : TC_ACT_SHOT;
}

GLOBAL int examine_received4(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, false, false) : TC_ACT_SHOT;
}

GLOBAL int examine_received6(struct __sk_buff *skb, struct passage *at, struct conntrack_entry *entry)
{
	return at ? examine(skb, at, entry, false, true) : TC_ACT_SHOT;
}

/* Whether the other end of the packet is on another node; of an ICMP error, its own other end. */
INLINE int look_beyond(struct __sk_buff *skb, struct passage *at, bool outbound, const bool v6)
{
	union address source = at->flow.source, destination = at->flow.destination;

	if (!at->flow.related || load_addresses(skb, &source, &destination, v6))
		at->beyond = device_beyond(outbound ? &destination : &source, v6);
	return 0;
}

GLOBAL int look_beyond4(struct __sk_buff *skb, struct passage *at, __u32 outbound)
{
	return at ? look_beyond(skb, at, outbound, false) : 0;
}

GLOBAL int look_beyond6(struct __sk_buff *skb, struct passage *at, __u32 outbound)
{
	return at ? look_beyond(skb, at, outbound, true) : 0;
}

/* An ICMP error goes where it is addressed itself. */
INLINE int send_error(struct __sk_buff *skb, const struct passage *at, const bool v6)
{
	union address source, destination;

	if (!load_addresses(skb, &source, &destination, v6))
		return drop(skb, at, REASON_MALFORMED, v6);
	return send_on(skb, at, &source, &destination, v6);
}

GLOBAL int send_error4(struct __sk_buff *skb, struct passage *at)
{
	return at ? send_error(skb, at, false) : TC_ACT_SHOT;
}

GLOBAL int send_error6(struct __sk_buff *skb, struct passage *at)
{
	return at ? send_error(skb, at, true) : TC_ACT_SHOT;
}

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
