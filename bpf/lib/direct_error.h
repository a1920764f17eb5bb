/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* An ICMP error about the answer of a backend elsewhere, at a host that does not know the flow: routers that spread
 * flows over hosts have led it here by its own ends.
 *
 * The service's table is the same on every host, so it says which backend the flow has; the error goes on to that one
 * as if the flow were known, and nothing is remembered. What else than the table and the flow's ends decides (lots,
 * what a client keeps, backends of one host only) nobody but the first host knows.
 */
#pragma once

#include "nodeport.h"

/* Whether flows get the backends of a service by their ends alone, at whichever host. */
INLINE bool is_same_everywhere(const struct service *service, const struct fronted *fronted)
{
	return service->slots && service->algorithm == ALGORITHM_MAGLEV && !service->affinity_s &&
	       !(fronted->flags & FRONTEND_LOCAL);
}

/* Whether a backend is of this host. Of one that an EndpointSlice lists nothing but the address says so. */
INLINE bool is_here(const struct backend *backend, const bool v6)
{
	return backend->flags & BACKEND_LOCAL || find_endpoint(&backend->address, v6);
}

/* The backend that the client's first packet got. Returns 0, a reason to drop the error, or NOT_TRANSLATED. */
INLINE int find_answerer(const struct passage *at, struct translation *found, const bool v6)
{
	const struct flow *answer = &at->flow;
	struct fronted fronted = find_frontend(&answer->source, answer->source_port, answer->protocol, SCOPE_OUTSIDE,
					       at->version.epoch, v6);
	struct service *service = bpf_map_lookup_elem(&services, &fronted.service);
	struct choice choice;
	bool direct;

	if (!service || !is_same_everywhere(service, &fronted))
		return NOT_TRANSLATED;
	if (fronted.flags & FRONTEND_SOURCES && !is_admitted(fronted.service, &answer->destination, v6))
		return REASON_NOT_ADMITTED;
	choice = backend_of(backend_for(fronted.service, service->slots,
					flow_hash(&answer->destination, &answer->source, answer->destination_port,
						  answer->source_port, answer->protocol, v6)));
	if (!choice.backend)
		return NOT_TRANSLATED;
	direct = answers_directly(choice.backend, &answer->destination, at->version.epoch, v6);
	if (!direct && !is_here(choice.backend, v6))
		return NOT_TRANSLATED; /* it answers the first host, by a port of that one */
	found->address = choice.backend->address;
	found->port = choice.backend->port;
	found->state = direct ? DIRECT : 0;
	return 0;
}

/* Each in a frame of its own, and verified once. */
GLOBAL int find_answerer4(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? find_answerer(at, found, false) : TC_ACT_SHOT;
}

GLOBAL int find_answerer6(const struct passage *at)
{
	struct translation *found = towards_inside();

	return at && found ? find_answerer(at, found, true) : TC_ACT_SHOT;
}

/* An error about a flow that is not known. Returns as `serve` does. */
INLINE int serve_error(struct __sk_buff *skb, struct passage *at, const bool v6)
{
	int reason = v6 ? find_answerer6(at) : find_answerer4(at);

	return reason ? reason : go_to_backend(skb, at, v6);
}
