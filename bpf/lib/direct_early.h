/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Direct return at XDP: a flow gets a backend that answers its client, from its first packet on. */
#pragma once

#include "balance.h"
#include "direct_return.h"
#include "early.h"
#include "elsewhere.h"
#include "ipcache.h"
#include "state.h"

/* Packets to backends that answer directly are wrapped here. Geneve and options are left to tc. */
INLINE bool wraps(void)
{
	return direct_return == DIRECT_IPIP;
}

/* The service behind a frontend that anybody may use, from wherever; NULL: it is not for this program. */
INLINE struct service *open_service(const struct frontend *frontend, __u32 epoch, __u32 *id)
{
	struct fronted fronted = frontend_at(frontend, epoch);
	struct service *service;

	if (!fronted.service || fronted.flags)
		return NULL;
	service = bpf_map_lookup_elem(&services, &fronted.service);
	*id = fronted.service;
	return service && service->slots && !service->affinity_s ? service : NULL;
}

/* So many flows of Maglev services each CPU remembers in a tick: on all together, for an eighth of the rows of
 * `translations`.
 */
OPTION(__u32, remembered_per_tick, 1 << 14);

/* How many it has. Written and read by the program. */
struct remembered {
	__u32 tick;
	__u32 flows;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct remembered);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} remembered SEC(".maps");

/* More flows begin than anybody's clients do: each new row would push out that of a flow which lives. */
INLINE bool is_flooded(__u32 now)
{
	__u32 zero = 0;
	struct remembered *remembered_here = bpf_map_lookup_elem(&remembered, &zero);

	if (!remembered_here)
		return false;
	if (remembered_here->tick != now) {
		remembered_here->tick = now;
		remembered_here->flows = 0;
	}
	return ++remembered_here->flows > remembered_per_tick;
}

/* Whether a new flow needs no row: what ends it comes first, or it is one of a flood. Its next packet, if there is one,
 * gets the same backend from the same table.
 */
INLINE bool is_passing_by(const struct service *service, const struct transport *transport)
{
	return service->algorithm == ALGORITHM_MAGLEV &&
	       (unlikely(transport->tcp_flags & TCP_RST) || unlikely(is_flooded(transport->now)));
}

/* Remembers the backend of a flow that is not known, if it answers directly: it does not answer nodes and workloads, as
 * these may be on its own host. Returns it, or NULL; so it does for a flow that is known, whatever has become of it.
 */
INLINE struct backend *enter_direct(const struct translation_key *flow, const struct frontend *frontend,
				    const struct transport *transport, const bool v6)
{
	__u32 id, hash = flow_hash(&flow->source, &flow->destination, flow->source_port, flow->destination_port,
				   flow->protocol, v6);
	struct translation *fresh = towards_inside();
	struct state *state = host_state();
	struct service *service;
	struct choice choice;
	union version version;

	if (!state || !fresh)
		return NULL;
	version.word = *(volatile __u64 *)&state->version;
	service = open_service(frontend, version.epoch, &id);
	if (!service || is_known_member(&flow->source, version.epoch, v6) ||
	    !is_elsewhere(&flow->source, version.epoch, v6))
		return NULL;
	if (service->algorithm == ALGORITHM_RANDOM)
		hash = bpf_get_prandom_u32();
	choice = backend_of(backend_in_slot(id, service->slots, (__u64)hash * service->slots >> 32));
	if (!choice.backend || !(choice.backend->flags & BACKEND_DIRECT))
		return NULL;
	if (is_passing_by(service, transport))
		return bpf_map_lookup_elem(&translations, flow) ? NULL : choice.backend;
	__builtin_memset(fresh, 0, sizeof(*fresh));
	fresh->address = choice.backend->address;
	fresh->port = choice.backend->port;
	fresh->state = SENT_IN | DIRECT;
	fresh->expires = transport->now + flow_timeout(flow->protocol, 0, false);
	fresh->backend = choice.id;
	fresh->service = id;
	return bpf_map_update_elem(&translations, flow, fresh, BPF_NOEXIST) ? NULL : choice.backend;
}

/* Where an outer header comes from, as in direct_send.h; NULL: nowhere, or services are not reached by the device. */
INLINE const struct device *device_known(__u32 ifindex, const bool v6)
{
	const __u32 own = DEVICE_OWN;
	const struct device *device = bpf_map_lookup_elem(&devices, &ifindex), *known;

	if (!device || !(device->flags & DEVICE_SERVICES))
		return NULL;
	known = bpf_map_lookup_elem(&devices, &own);
	if (known && has_address(known, v6))
		return known;
	return has_address(device, v6) ? device : NULL;
}
