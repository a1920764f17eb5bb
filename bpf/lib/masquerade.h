/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Workloads talk to the outside with the address of their host's device, each flow on a port of its own. So do clients
 * of services to backends that are not here.
 */
#pragma once

#include "devices.h"
#include "passage.h"
#include "ports.h"
#include "rewrite.h"
#include "served.h"

INLINE union address device_address(const struct device *device, const bool v6)
{
	union address address = {};

	if (v6)
		__builtin_memcpy(address.bytes, device->address6, 16);
	else
		address.v4 = device->address4;
	return address;
}

/* What a translation is found by: a packet's own ends or, for an ICMP error, those of the packets it is an answer to.
 */
INLINE struct translation_key key_of(const struct flow *flow, bool reply, const bool v6)
{
	struct translation_key key = { .protocol = flow->protocol, .reply = reply, .v6 = v6 };

	key.source = flow->related ? flow->destination : flow->source;
	key.destination = flow->related ? flow->source : flow->destination;
	key.source_port = flow->related ? flow->destination_port : flow->source_port;
	key.destination_port = flow->related ? flow->source_port : flow->destination_port;
	return key;
}

INLINE bool is_translatable(const struct flow *flow, const bool v6)
{
	if (flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP || flow->protocol == IPPROTO_SCTP)
		return true;
	return flow->protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) &&
	       flow->icmp_type == (v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST);
}

INLINE bool masquerades(const struct device *device, const bool v6)
{
	return device->flags & (v6 ? DEVICE_MASQUERADE6 : DEVICE_MASQUERADE4);
}

/* What the translation of a backend's answers to a packet is found by. */
INLINE struct translation_key key_of_answers(const struct flow *flow, const bool v6)
{
	struct translation_key key = { .protocol = flow->protocol, .v6 = v6 };

	key.source = flow->destination;
	key.destination = flow->source;
	key.source_port = flow->destination_port;
	key.destination_port = flow->source_port;
	return key;
}

/* Whether a packet came in for a service and is now for a backend that is not here. That one is to answer this host.
 */
INLINE bool is_for_backend(const struct passage *at, const bool v6)
{
	struct translation_key answer = key_of_answers(&at->flow, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &answer);

	return known && known->backend && !passed(at->now, known->expires);
}

/* Whether a flow without a translation is to get one: it is a workload's own, to somebody outside, or it is for a
 * backend.
 */
INLINE bool is_to_leave(struct passage *at, const struct device *device, const bool v6)
{
	struct conntrack_entry *entry;

	if (!find_endpoint(&at->flow.source, v6))
		return device->flags & DEVICE_SERVICES && is_for_backend(at, v6);
	if (!masquerades(device, v6) || is_plain(&at->flow.destination, v6))
		return false;
	at->end = conntrack_key(&at->flow, &at->key, v6);
	entry = conntrack_find(&at->key, v6);
	return !entry || entry->origin == at->end; /* who came in without a translation is answered without one */
}

/* An ICMP error on its way out: whoever gets it knows the flow that it quotes by the address of this host. A workload
 * speaks of its own flows only; routers, this host among them, of any.
 */
INLINE int masquerade_error(struct __sk_buff *skb, const struct flow *flow, const bool v6)
{
	struct translation_key key = key_of(flow, false, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &key);
	union address source, destination;
	struct change change = {};

	if (!known)
		return NOT_TRANSLATED;
	if (!load_addresses(skb, &source, &destination, v6))
		return REASON_MALFORMED;
	change.address = known->address;
	change.was_address = key.source;
	change.port = known->port;
	change.was_port = key.source_port;
	if (find_endpoint(&source, v6)) {
		if (!same_address(&source, &key.source, v6))
			return REASON_UNTRANSLATABLE;
		change.source = true;
		if (rewrite_error(skb, &change, v6))
			return REASON_MALFORMED;
	}
	change.source = false;
	return rewrite_quoted(skb, &change, flow->protocol, v6) ? REASON_MALFORMED : 0;
}

INLINE bool is_unset(const union address *address, const bool v6)
{
	return v6 ? !(address->v6[0] | address->v6[1]) : !address->v4;
}

/* The address and the port of a packet's flow on its way out. Returns 0, a reason to drop it, or NOT_TRANSLATED. */
INLINE int translation_of(struct __sk_buff *skb, struct passage *at, const struct device *device,
			  struct translation *found, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct translation_key key = key_of(flow, false, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &key);

	found->address = device_address(device, v6);
	if (likely(known && !passed(at->now, known->expires) &&
		   (known->backend || same_address(&known->address, &found->address, v6)))) {
		translation_touch(&key, known, flow->tcp_flags, at->now);
		found->address = known->address;
		found->port = known->port;
		return 0;
	}
	if (!is_to_leave(at, device, v6))
		return NOT_TRANSLATED;
	if (is_unset(&found->address, v6))
		return REASON_UNTRANSLATABLE;
	found->state = SENT_OUT;
	return is_translatable(flow, v6) ? allocate(skb, &key, found, bpf_get_prandom_u32(), at->now) :
					   REASON_UNTRANSLATABLE;
}

INLINE int rewrite_source(struct __sk_buff *skb, const struct flow *flow, const struct translation *found,
			  const bool v6)
{
	struct change change = { .source = true };

	change.address = found->address;
	change.port = found->port;
	change.was_address = flow->source;
	change.was_port = flow->source_port;
	if (keeps_ports(flow, change.was_port, change.port))
		return REASON_UNTRANSLATABLE;
	if (unlikely(flow->first_fragment))
		remember_fragment(flow, v6);
	return rewrite(skb, &change, flow->protocol, flow->later_fragment, v6) ? REASON_MALFORMED : 0;
}

/* Whether an ICMP error is for whoever sent the packet that it quotes. */
INLINE bool is_for_quoted(struct __sk_buff *skb, const struct flow *flow, const bool v6)
{
	union address source, destination;

	return load_addresses(skb, &source, &destination, v6) && same_address(&destination, &flow->source, v6);
}

/* A packet that comes in gets the destination that its flow's translation says, and so does its flow. Returns 0, a
 * reason to drop it, or NOT_TRANSLATED.
 */
INLINE int rewrite_destination(struct __sk_buff *skb, struct flow *flow, const struct translation *found, const bool v6)
{
	struct change change = {};

	change.address = found->address;
	change.port = found->port;
	if (unlikely(flow->related)) {
		change.was_address = flow->source;
		change.was_port = flow->source_port;
		if (!is_for_quoted(skb, flow, v6))
			return NOT_TRANSLATED;
		if (rewrite_error(skb, &change, v6))
			return REASON_MALFORMED;
		change.source = true;
		return rewrite_quoted(skb, &change, flow->protocol, v6) ? REASON_MALFORMED : 0;
	}
	change.was_address = flow->destination;
	change.was_port = flow->destination_port;
	if (keeps_ports(flow, change.was_port, change.port))
		return REASON_UNTRANSLATABLE;
	if (unlikely(flow->first_fragment))
		remember_fragment(flow, v6);
	flow->destination = found->address;
	flow->destination_port = found->port;
	return rewrite(skb, &change, flow->protocol, flow->later_fragment, v6) ? REASON_MALFORMED : 0;
}

/* Whether a translation of answers is a service's, and gives them this address and port. */
INLINE bool answers_as(const struct translation *known, const union address *address, __be16 port, const bool v6)
{
	return known->backend && known->port == port && same_address(&known->address, address, v6);
}

/* Whether another flow may have its ends. */
INLINE bool is_over(const struct translation *known, __u32 now)
{
	return passed(now, known->expires) || known->closing == SENT_BOTH;
}

/* Whether a translation on the way in is of answers to an address of this host, else of what a service is asked. */
INLINE bool is_answer(const struct translation *known)
{
	return !known->backend || known->state & ANSWERS;
}

/* The workload whose flow a packet to the device's own address belongs to, if there is one. Returns 0 or
 * NOT_TRANSLATED.
 */
INLINE int find_masqueraded(const struct passage *at, const struct device *device, struct translation *found,
			    const bool v6)
{
	union address address = device_address(device, v6);
	const struct flow *flow = &at->flow;
	struct translation_key key = key_of(flow, true, v6);
	struct translation *known;

	if (!same_address(&key.destination, &address, v6))
		return NOT_TRANSLATED;
	if (!is_in_range(key.destination_port) && !is_icmp(flow->protocol))
		return NOT_TRANSLATED;
	known = bpf_map_lookup_elem(&translations, &key);
	if (!known || !is_answer(known) || passed(at->now, known->expires))
		return NOT_TRANSLATED;
	if (likely(!flow->related))
		translation_touch(&key, known, flow->tcp_flags, at->now);
	*found = *known;
	return 0;
}

/* Each in a frame of its own, as together they would be too large; and each verified once. */
GLOBAL int translation_of4(struct __sk_buff *skb, struct passage *at, const struct device *device,
			   struct translation *found)
{
	if (!at || !device || !found)
		return TC_ACT_SHOT;
	return translation_of(skb, at, device, found, false);
}

GLOBAL int translation_of6(struct __sk_buff *skb, struct passage *at, const struct device *device,
			   struct translation *found)
{
	if (!at || !device || !found)
		return TC_ACT_SHOT;
	return translation_of(skb, at, device, found, true);
}

GLOBAL int rewrite_source4(struct __sk_buff *skb, const struct flow *flow, const struct translation *found)
{
	if (!flow || !found)
		return TC_ACT_SHOT;
	return rewrite_source(skb, flow, found, false);
}

GLOBAL int rewrite_source6(struct __sk_buff *skb, const struct flow *flow, const struct translation *found)
{
	if (!flow || !found)
		return TC_ACT_SHOT;
	return rewrite_source(skb, flow, found, true);
}

GLOBAL int masquerade_error4(struct __sk_buff *skb, const struct flow *flow)
{
	if (!flow)
		return TC_ACT_SHOT;
	return masquerade_error(skb, flow, false);
}

GLOBAL int masquerade_error6(struct __sk_buff *skb, const struct flow *flow)
{
	if (!flow)
		return TC_ACT_SHOT;
	return masquerade_error(skb, flow, true);
}

GLOBAL int find_masqueraded4(const struct passage *at, const struct device *device)
{
	struct translation *found = towards_inside();

	return at && device && found ? find_masqueraded(at, device, found, false) : TC_ACT_SHOT;
}

GLOBAL int find_masqueraded6(const struct passage *at, const struct device *device)
{
	struct translation *found = towards_inside();

	return at && device && found ? find_masqueraded(at, device, found, true) : TC_ACT_SHOT;
}

GLOBAL int rewrite_destination4(struct __sk_buff *skb, struct flow *flow)
{
	struct translation *found = towards_inside();

	return flow && found ? rewrite_destination(skb, flow, found, false) : TC_ACT_SHOT;
}

GLOBAL int rewrite_destination6(struct __sk_buff *skb, struct flow *flow)
{
	struct translation *found = towards_inside();

	return flow && found ? rewrite_destination(skb, flow, found, true) : TC_ACT_SHOT;
}

/* A packet on its way out. Returns 0, a reason to drop it, or NOT_TRANSLATED. */
INLINE int masquerade(struct __sk_buff *skb, struct passage *at, const struct device *device, const bool v6)
{
	struct translation found = {};
	int reason;

	if (unlikely(at->flow.related))
		return v6 ? masquerade_error6(skb, &at->flow) : masquerade_error4(skb, &at->flow);
	reason = v6 ? translation_of6(skb, at, device, &found) : translation_of4(skb, at, device, &found);
	if (reason)
		return reason;
	return v6 ? rewrite_source6(skb, &at->flow, &found) : rewrite_source4(skb, &at->flow, &found);
}

/* A flow of the host itself on a port that a workload's flow has: the host's it is. */
INLINE void give_back(const struct flow *flow, const bool v6)
{
	struct translation *known, back;
	struct translation_key reply = { .protocol = flow->protocol, .reply = true, .v6 = v6 }, key;

	if (flow->related || (!is_in_range(flow->source_port) && !flow->icmp) || !is_translatable(flow, v6))
		return;
	reply.source = flow->destination;
	reply.destination = flow->source;
	reply.source_port = flow->destination_port;
	reply.destination_port = flow->source_port;
	known = bpf_map_lookup_elem(&translations, &reply);
	if (likely(!known || !is_answer(known)))
		return;
	turn(&reply, known, &key, &back);
	bpf_map_delete_elem(&translations, &key);
	bpf_map_delete_elem(&translations, &reply);
}
