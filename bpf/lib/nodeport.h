/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services from outside: what comes in for a frontend gets a backend's address, and the answer the frontend's.
 *
 * Such a flow is a translation as a masqueraded one is, only that it begins on the other side: on its way in the
 * frontend becomes the backend, and on its way out the backend becomes the frontend. A backend here sees its client's
 * own address. One that is not here has to answer this host, so the flow is masqueraded too, mostly at once
 * (lib/forward.h); or its host learns what the client knows, and it answers itself.
 */
#pragma once

#include "balance.h"
#include "direct_send.h"
#include "elsewhere.h"
#include "forward.h"

INLINE bool is_balanced(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* Whether a client is among those that a service is for. */
INLINE bool is_admitted(__u32 service, const union address *client, const bool v6)
{
	if (v6) {
		struct service_source6_key key = { .prefixlen = 32 + 128, .service = service };

		__builtin_memcpy(key.address, client->bytes, 16);
		return bpf_map_lookup_elem(&service_sources6, &key);
	} else {
		struct service_source4_key key = { .prefixlen = 32 + 32, .service = service, .address = client->v4 };

		return bpf_map_lookup_elem(&service_sources4, &key);
	}
}

/* Answers to what a flow was before are none any more. */
INLINE void forget_answers(const struct passage *at, const bool v6)
{
	struct translation_key key = key_of(&at->flow, true, v6), answer;
	struct translation *known = bpf_map_lookup_elem(&translations, &key), back;

	if (likely(!known) || known->state & DIRECT)
		return;
	turn(&key, known, &answer, &back);
	known = bpf_map_lookup_elem(&translations, &answer);
	if (known && answers_as(known, &back.address, back.port, v6)) /* else its port is another flow's by now */
		bpf_map_delete_elem(&translations, &answer);
}

/* Enters a flow, both ways. It must not have the same ends as another one's answers; those of a direct one do not come
 * here. The same flow may have come to another host first, which brought it to the backend here. Returns 0 or a reason.
 */
INLINE int enter_flow(const struct passage *at, const struct translation *fresh, const bool v6)
{
	struct translation_key key = key_of(&at->flow, true, v6), answer;
	struct translation *known, back;

	if (fresh->state & DIRECT) {
		if (unlikely(at->flow.tcp_flags & TCP_RST))
			return 0; /* nothing comes after it */
		return bpf_map_update_elem(&translations, &key, fresh, BPF_ANY) ? REASON_CONNTRACK_FULL : 0;
	}
	turn(&key, fresh, &answer, &back);
	known = bpf_map_lookup_elem(&translations, &answer);
	if (unlikely(known && !is_over(known, at->now) && !answers_as(known, &back.address, back.port, v6)))
		return REASON_NO_PORT;
	if (bpf_map_update_elem(&translations, &answer, &back, BPF_ANY) ||
	    bpf_map_update_elem(&translations, &key, fresh, BPF_ANY))
		return REASON_CONNTRACK_FULL;
	return 0;
}

/* The service that a packet is for, if it is for one, and its client may use it: `found->service`. Returns 0, a reason
 * to drop it, or NOT_TRANSLATED.
 */
INLINE int find_service(const struct passage *at, struct translation *found, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct fronted fronted = find_frontend(&flow->destination, flow->destination_port, flow->protocol,
					       SCOPE_OUTSIDE, at->version.epoch, v6);

	if (likely(!fronted.service))
		return NOT_TRANSLATED;
	if (unlikely(!is_elsewhere(&flow->source, at->version.epoch, v6)))
		return REASON_SPOOFED_SOURCE;
	if (fronted.flags & FRONTEND_SOURCES && !is_admitted(fronted.service, &flow->source, v6))
		return REASON_NOT_ADMITTED;
	found->service = fronted.service;
	return 0;
}

/* Whether a flow goes on to its backend. A direct one does not to a workload that came here; and where that one does
 * not answer directly any more, only as a connection, whose backend's host knows it. That needs nothing but routes
 * (or in an overlay, that the host takes it again).
 */
INLINE bool goes_on(const struct translation *known, const struct backend *backend, const struct flow *flow)
{
	if (!backend || likely(!(known->state & DIRECT)))
		return backend;
	if (!direct_return)
		return !overlay && flow->protocol == IPPROTO_TCP && !opens(flow);
	if (backend->flags & BACKEND_LOCAL)
		return false;
	return likely(backend->flags & BACKEND_DIRECT) || (flow->protocol == IPPROTO_TCP && !opens(flow));
}

/* Whether a connection that begins again has a backend of this version of the service already. */
INLINE bool keeps_backend(const struct passage *at, struct translation *found, const bool v6)
{
	struct translation_key key = key_of(&at->flow, true, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &key);

	if (!known || is_answer(known) || passed(at->now, known->expires) || known->service != found->service ||
	    !goes_on(known, backend_of(known->backend).backend, &at->flow) || is_closed(known->backend))
		return false;
	translation_touch(&key, known, at->flow.tcp_flags, at->now);
	*found = *known;
	return true;
}

/* Whether a backend answers this client itself. To one of the cluster, which may be on its very host, answers need not
 * leave by a node device, where they would get the service's address.
 */
INLINE bool answers_directly(const struct backend *backend, const union address *client, __u32 epoch, const bool v6)
{
	return direct_return && backend->flags & BACKEND_DIRECT &&
	       !is_of_cluster(find_peer(client, v6, epoch).identity);
}

INLINE __u32 hash_of(const struct flow *flow, const bool v6)
{
	return flow_hash(&flow->source, &flow->destination, flow->source_port, flow->destination_port, flow->protocol,
			 v6);
}

/* A backend of `found->service` for a flow. Returns 0, a reason to drop the packet, or UNSERVED. */
INLINE int choose(const struct passage *at, struct translation *found, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct service *service = bpf_map_lookup_elem(&services, &found->service);
	struct affinity_key client = { .v6 = v6 };
	struct choice choice;

	if (!service)
		return REASON_NO_BACKEND;
	client.client = flow->source;
	choice = choose_backend(found->service, service, &client, hash_of(flow, v6), at->now);
	if (!choice.backend)
		return service->flags & SERVICE_DROP ? REASON_NO_BACKEND : UNSERVED;
	found->from.v6[0] = found->from.v6[1] = 0;
	found->from_port = 0;
	found->checked = 0;
	found->address = choice.backend->address;
	found->port = choice.backend->port;
	found->closing = 0;
	found->state = SENT_IN;
	if (answers_directly(choice.backend, &flow->source, at->version.epoch, v6))
		found->state |= DIRECT;
	else if (!(choice.backend->flags & BACKEND_LOCAL))
		found->state |= THROUGH;
	found->expires = at->now + flow_timeout(flow->protocol, 0, false);
	found->backend = choice.id;
	return 0;
}

/* Where a packet for a service goes, if its flow is known. Returns 0, a reason to drop it, NOT_TRANSLATED, NOT_KNOWN,
 * BEGINS_AGAIN or UNSERVED.
 */
INLINE int find_flow(const struct passage *at, struct translation *found, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct translation_key key = key_of(flow, true, v6);
	struct translation *known = bpf_map_lookup_elem(&translations, &key);

	if (known && likely(!is_answer(known) && !passed(at->now, known->expires) && !opens(flow)) &&
	    !is_abandoned(&key.destination, key.destination_port, key.protocol, SCOPE_OUTSIDE, at->version.epoch, v6)) {
		const struct backend *backend = backend_of(known->backend).backend;

		if (likely(goes_on(known, backend, flow))) {
			if (likely(!flow->related))
				translation_touch(&key, known, flow->tcp_flags, at->now);
			*found = *known;
			if (!overlay && !(backend->flags & BACKEND_DIRECT))
				found->state &= ~DIRECT; /* needs nothing but routes now */
			return 0;
		}
		if (!backend && flow->protocol == IPPROTO_TCP)
			return is_silent(at, SCOPE_OUTSIDE, v6) ? REASON_NO_BACKEND : UNSERVED;
	}
	if (unlikely(flow->related || flow->later_fragment))
		return NOT_TRANSLATED;
	return known ? BEGINS_AGAIN : NOT_KNOWN;
}

/* Each in a frame of its own, as together they would be too large; and each verified once. */
GLOBAL int find_flow4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? find_flow(at, found, false) : TC_ACT_SHOT;
}

GLOBAL int find_flow6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? find_flow(at, found, true) : TC_ACT_SHOT;
}

GLOBAL int find_service4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? find_service(at, found, false) : TC_ACT_SHOT;
}

GLOBAL int find_service6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? find_service(at, found, true) : TC_ACT_SHOT;
}

GLOBAL int keeps_backend4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? keeps_backend(at, found, false) : false;
}

GLOBAL int keeps_backend6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? keeps_backend(at, found, true) : false;
}

GLOBAL int choose4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? choose(at, found, false) : TC_ACT_SHOT;
}

GLOBAL int choose6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? choose(at, found, true) : TC_ACT_SHOT;
}

GLOBAL int enter_flow4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? enter_flow(at, found, false) : TC_ACT_SHOT;
}

GLOBAL int enter_flow6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? enter_flow(at, found, true) : TC_ACT_SHOT;
}

/* Where a flow's port is looked for first. It follows from the flow, so that one whose row was pushed out finds that of
 * its answers.
 */
GLOBAL __u32 first_place4(const struct passage *at)
{
	return at ? hash_of(&at->flow, false) : 0;
}

GLOBAL __u32 first_place6(const struct passage *at)
{
	return at ? hash_of(&at->flow, true) : 0;
}

GLOBAL int enter_forwarded4(struct __sk_buff *skb, const struct passage *at, __u32 start)
{
	struct translation *found = towards_inside();
	struct translation_key key;

	if (!at || !found)
		return TC_ACT_SHOT;
	key = key_of(&at->flow, true, false);
	return allocate(skb, &key, found, start, at->now);
}

GLOBAL int enter_forwarded6(struct __sk_buff *skb, const struct passage *at, __u32 start)
{
	struct translation *found = towards_inside();
	struct translation_key key;

	if (!at || !found)
		return TC_ACT_SHOT;
	key = key_of(&at->flow, true, true);
	return allocate(skb, &key, found, start, at->now);
}

GLOBAL int forget_answers4(const struct passage *at)
{
	if (at)
		forget_answers(at, false);
	return 0;
}

GLOBAL int forget_answers6(const struct passage *at)
{
	if (at)
		forget_answers(at, true);
	return 0;
}

/* A new flow is forwarded if it may be, and the way of its first packet is known. Returns 0, a reason to drop it, or
 * WAY_KNOWN.
 */
INLINE int enter_fresh(struct __sk_buff *skb, const struct passage *at, struct translation *found, const bool v6)
{
	int reason;

	if (found->state & THROUGH && likely(aim(skb, at, found, v6))) {
		reason = v6 ? enter_forwarded6(skb, at, first_place6(at)) : enter_forwarded4(skb, at, first_place4(at));
		return reason ? reason : WAY_KNOWN;
	}
	found->state &= ~THROUGH;
	return v6 ? enter_flow6(at) : enter_flow4(at);
}

/* A flow that has no backend, or begins again, gets one. Returns 0, a reason to drop the packet, NOT_TRANSLATED or
 * WAY_KNOWN.
 */
INLINE int begin_flow(struct __sk_buff *skb, const struct passage *at, bool again, const bool v6)
{
	int reason = v6 ? find_service6(at) : find_service4(at);
	struct translation *found = towards_inside();

	if (reason || (again && (v6 ? keeps_backend6(at) : keeps_backend4(at))))
		return reason;
	reason = v6 ? choose6(at) : choose4(at);
	if (reason || !found)
		return reason;
	if (again)
		v6 ? forget_answers6(at) : forget_answers4(at);
	return enter_fresh(skb, at, found, v6);
}

/* A packet whose backend is found. Returns 0, a reason to drop it, NOT_TRANSLATED, SENT or TOO_LARGE. */
INLINE int go_to_backend(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	struct translation *found = towards_inside();

	if (direct_return && found && found->state & DIRECT)
		return send_direct(skb, at, v6);
	return carry_on(skb, at, v6);
}

/* A packet that comes in, for a service or not. Returns the same, or UNSERVED. */
INLINE int serve(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	int reason;

	if (!is_balanced(at->flow.protocol))
		return NOT_TRANSLATED;
	reason = v6 ? find_flow6(at) : find_flow4(at);
	if (unlikely(reason == NOT_KNOWN || reason == BEGINS_AGAIN))
		reason = begin_flow(skb, at, reason == BEGINS_AGAIN, v6);
	if (reason == WAY_KNOWN)
		return v6 ? readdress6(skb, at) : readdress4(skb, at);
	return reason ? reason : go_to_backend(skb, at, v6);
}
