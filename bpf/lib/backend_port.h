/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which port of its backend a connection is for that comes wrapped in IPIP over IPv4.
 *
 * The outer header says it by its identification. That counts up where what is wrapped is large and cut into segments
 * on the way (kernel net/ipv4/af_inet.c, inet_gso_segment), so only the first segment has the port. What opens a
 * connection is never cut: from then on the port is known here. Of a connection that began elsewhere it is known with
 * the first packet for a port that answers it already.
 */
#pragma once

#include "direct.h"
#include "nodeport.h"

struct backend_port {
	__be32 backend;
	__be16 port;
	__u16 pad;
};

/* By a client's connection. Written and read by the program. Full: of the least recently used the outer header is
 * believed again. Sized by the loader: a few where nothing comes in IPIP.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct service_flow4_key);
	__type(value, struct backend_port);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} backend_ports SEC(".maps");

/* Whether the port in the outer header has answers that are this connection's. */
INLINE bool is_answered(const struct flow *flow, const struct direct_way *way)
{
	struct translation_key key = {
		.source_port = way->backend_port,
		.destination_port = flow->source_port,
		.protocol = flow->protocol,
	};
	struct translation *known;

	key.source.v4 = way->backend.v4;
	key.destination.v4 = flow->source.v4;
	known = bpf_map_lookup_elem(&translations, &key);
	return known && answers_as(known, &flow->destination, flow->destination_port, false);
}

/* Makes the port in `direct_way` of a packet, which is as its client sent it, the right one. */
GLOBAL int settle_port(const struct passage *at)
{
	struct direct_way *way = direct_way_of_packet();
	struct backend_port *known, fresh = {};
	struct service_flow4_key key = {};

	if (!at || !way)
		return TC_ACT_SHOT;
	key.client = at->flow.source.v4;
	key.frontend = at->flow.destination.v4;
	key.client_port = at->flow.source_port;
	key.port = at->flow.destination_port;
	key.protocol = at->flow.protocol;
	known = bpf_map_lookup_elem(&backend_ports, &key);
	if (known && known->backend == way->backend.v4 && !opens(&at->flow)) {
		way->backend_port = known->port;
	} else if (opens(&at->flow) || is_answered(&at->flow, way)) {
		fresh.backend = way->backend.v4;
		fresh.port = way->backend_port;
		bpf_map_update_elem(&backend_ports, &key, &fresh, BPF_ANY);
	}
	return 0;
}
