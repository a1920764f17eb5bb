/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which backend a new flow gets: the one its client keeps, or what the service's table says. */
#pragma once

#include "passage.h"
#include "service.h"
#include "endpoints.h"
#include "ipcache.h"

/* A backend that was looked for. */
struct choice {
	struct backend *backend; /* NULL: there is none */
	__u32 id;
};

/* Mixes 64 bits (the finalizer of MurmurHash3, public domain). */
INLINE __u64 mix(__u64 word)
{
	word ^= word >> 33;
	word *= 0xff51afd7ed558ccd;
	word ^= word >> 33;
	word *= 0xc4ceb9fe1a85ec53;
	return word ^ word >> 33;
}

/* The same on every host, so that it does not matter where a flow comes in. `client`, `frontend`: IPv4 without what
 * follows it.
 */
INLINE __u32 flow_hash(const union address *client, const union address *frontend, __be16 client_port, __be16 port,
		       __u8 protocol, const bool v6)
{
	__u64 ends = (__u64)client_port << 32 | (__u64)port << 16 | protocol;

	if (!v6)
		return mix(mix((__u64)client->v4 << 32 | frontend->v4) + ends) >> 32;
	return mix(mix(mix(mix(client->v6[0]) + client->v6[1]) + frontend->v6[0]) + frontend->v6[1] + ends) >> 32;
}

INLINE struct choice backend_of(__u32 id)
{
	struct choice choice = { .id = id };

	if (id)
		choice.backend = bpf_map_lookup_elem(&backends, &id);
	return choice;
}

/* Looks for a backend in a service's table. */
struct search {
	void *table;
	__u32 first; /* word of the first backend */
	__u32 wanted;
	bool found;
};

static long look_at(__u32 place, struct search *search)
{
	__u32 word = search->first + place;
	__u64 *backend = bpf_map_lookup_elem(search->table, &word);

	search->found = backend && (__u32)*backend == search->wanted;
	return !backend || search->found;
}

/* Whether a version of a service has the backend. Looked up when a client's service has changed, not by packet. */
GLOBAL int has_backend(__u32 id, __u32 slots, __u32 count, __u32 wanted)
{
	struct search search = { .wanted = wanted, .first = (slots + SLOTS_PER_WORD - 1) / SLOTS_PER_WORD };

	search.table = bpf_map_lookup_elem(&service_tables, &id);
	if (!search.table)
		return 0;
	bpf_loop(count, look_at, &search, 0);
	return search.found;
}

/* The backend that a client keeps, if it may. */
INLINE struct choice kept_backend(__u32 id, const struct service *service, const struct affinity_key *key, __u32 now)
{
	struct affinity *kept = bpf_map_lookup_elem(&affinities, key);
	struct choice choice = {};

	if (!kept || passed(now, kept->expires))
		return choice;
	if (kept->service != id) {
		if (!has_backend(id, service->slots, service->backends, kept->backend))
			return choice;
		kept->service = id;
	}
	choice = backend_of(kept->backend);
	if (choice.backend)
		kept->expires = now + service->affinity_s;
	return choice;
}

/* Whether a backend is a workload of this host to which no packet is handed over: for a moment before the commit that
 * takes it away counts, and a moment after the one that brings it (endpoints are a gate: engine/transaction.py).
 */
GLOBAL int is_closed(__u32 id)
{
	struct backend *backend = bpf_map_lookup_elem(&backends, &id);
	struct ipcache_value *known;

	if (!backend || !(backend->flags & BACKEND_LOCAL) ||
	    find_endpoint(&backend->address, backend->flags & BACKEND_V6))
		return false;
	known = backend->flags & BACKEND_V6 ? bpf_map_lookup_elem(&ipcache6, backend->address.v6) :
					      bpf_map_lookup_elem(&ipcache4, &backend->address.v4);
	return known && (known->flags | known->previous_flags) & IPCACHE_LOCAL; /* else an address of the host */
}

#define PLACES 16 /* that are looked at for one that is open: of two backends it is missed once in 65,536 times */

/* What a service's table says for a hash, as an id; while that backend is closed, for others that follow from it. */
GLOBAL __u32 backend_for(__u32 id, __u32 slots, __u32 hash)
{
	__u32 found = backend_in_slot(id, slots, (__u64)hash * slots >> 32);

	for (int place = 1; place < PLACES && is_closed(found); place++) {
		hash = mix(hash);
		found = backend_in_slot(id, slots, (__u64)hash * slots >> 32);
	}
	return found;
}

/* The backend for a new flow of a client (`key->client`), whose hash is `hash`. */
INLINE struct choice choose_backend(__u32 id, const struct service *service, struct affinity_key *key, __u32 hash,
				    __u32 now)
{
	struct choice choice = {};

	if (!service->slots)
		return choice;
	if (unlikely(service->affinity_s)) {
		key->service = service->name;
		choice = kept_backend(id, service, key, now);
		if (choice.backend && !is_closed(choice.id))
			return choice;
	}
	if (service->algorithm == ALGORITHM_RANDOM)
		hash = bpf_get_prandom_u32();
	choice = backend_of(backend_for(id, service->slots, hash));
	if (unlikely(service->affinity_s && choice.backend)) {
		struct affinity kept = { .backend = choice.id, .expires = now + service->affinity_s, .service = id };

		bpf_map_update_elem(&affinities, key, &kept, BPF_ANY);
	}
	return choice;
}

/* Whether the service that a packet is for says nothing to those whom nobody serves. */
INLINE bool is_silent(const struct passage *at, __u8 scope, const bool v6)
{
	const struct flow *flow = &at->flow;
	struct fronted fronted = find_frontend(&flow->destination, flow->destination_port, flow->protocol, scope,
					       at->version.epoch, v6);
	struct service *service = bpf_map_lookup_elem(&services, &fronted.service);

	return service && service->flags & SERVICE_DROP;
}
