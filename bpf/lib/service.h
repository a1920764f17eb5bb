/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services: from an address and port that clients use to the backends that answer; one set of maps for every hook. */
#pragma once

#include "base.h"

enum frontend_scope {
	SCOPE_INSIDE = 0, /* for workloads and the host itself */
	SCOPE_OUTSIDE = 1, /* for what comes in on a node device */
};

enum frontend_flags {
	FRONTEND_LOCAL = 1 << 0, /* all backends are of this host, and see the client's own address */
	FRONTEND_SOURCES = 1 << 1, /* only for clients in `service_sources*` of the service */
};

struct frontend4_key {
	__be32 address;
	__be16 port;
	__u8 protocol; /* IPPROTO_* */
	__u8 scope; /* enum frontend_scope */
};

struct frontend6_key {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 scope;
};

/* Staged as rows of the ipcache are: written ahead of the flip, and counting with it. A service of 0 means that there
 * is no such frontend (yet, or any more).
 */
struct frontend {
	__u32 service; /* from epoch `since` on */
	__u32 previous; /* before */
	__u32 since;
	__u16 flags; /* enum frontend_flags */
	__u16 previous_flags;
};

/* What clients connect to. Written by the daemon. Full: the commit is refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct frontend4_key);
	__type(value, struct frontend);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} frontends4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct frontend6_key);
	__type(value, struct frontend);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} frontends6 SEC(".maps");

enum service_algorithm {
	ALGORITHM_MAGLEV = 0, /* by a hash of the flow */
	ALGORITHM_RANDOM = 1,
};

enum service_flags {
	SERVICE_DROP = 1 << 0, /* without a backend: say nothing. Else the client is told: port unreachable, or reset */
};

/* One version of what stands behind a frontend: content and table never change, another content has another id. */
struct service {
	__u32 name; /* number of the service's port, which keeps it from version to version; affinity goes by it */
	__u32 affinity_s; /* a client keeps its backend so long after its last connection; 0: not at all */
	__u32 slots; /* of its table; 0: it has no backend */
	__u16 backends;
	__u8 algorithm; /* enum service_algorithm */
	__u8 flags; /* enum service_flags */
};

/* By id. Written by the daemon before any frontend names it, removed after the last one did. Full: the commit is
 * refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct service);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} services SEC(".maps");

/* Words of 64 bits: first the slots, four places of 16 bits in each word, lowest bits first; then, for each place, a
 * backend's id (lower half) and its weight (upper half), which programs need not look at.
 */
struct service_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
	__uint(map_flags, BPF_F_INNER_MAP);
};

#define SLOTS_PER_WORD 4

/* A service's table, by the service's id; services with the same backends share one. Written as `services`; a table is
 * frozen for user space once it is filled.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct service_table);
} service_tables SEC(".maps");

struct service_source4_key {
	__u32 prefixlen; /* 32 more than the prefix of the address */
	__u32 service;
	__be32 address;
};

struct service_source6_key {
	__u32 prefixlen;
	__u32 service;
	__u8 address[16];
};

/* Clients that may use a service by frontends with FRONTEND_SOURCES; the value means nothing. Written as `services`. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__type(key, struct service_source4_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} service_sources4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__type(key, struct service_source6_key);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} service_sources6 SEC(".maps");

enum backend_flags {
	BACKEND_V6 = 1 << 0,
	BACKEND_LOCAL = 1 << 1, /* of this host */
	BACKEND_DRAINING = 1 << 2, /* keeps its flows and gets no new ones: in no table */
	BACKEND_UNHEALTHY = 1 << 3, /* does not answer its checks; in a table only where all of them are so */
	BACKEND_DIRECT = 1 << 4, /* of another host, which answers clients outside itself */
};

/* The id is drawn from address, port and protocol: it never means another backend. */
struct backend {
	union address address; /* IPv4: then zeros */
	__be16 port;
	__u8 protocol;
	__u8 flags; /* enum backend_flags */
	__u32 pad;
};

/* Where flows go. Written by the daemon before a table names it; it is gone when it is dead, and not while it drains.
 * Full: the commit is refused.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__type(key, __u32);
	__type(value, struct backend);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} backends SEC(".maps");

struct service_flow4_key {
	__be32 client;
	__be32 frontend;
	__be16 client_port;
	__be16 port;
	__u8 protocol;
	__u8 pad[3];
};

struct service_flow6_key {
	__u64 client[2];
	__u64 frontend[2];
	__be16 client_port;
	__be16 port;
	__u8 protocol;
	__u8 pad[3];
};

struct service_flow {
	union address address; /* of the backend */
	__u32 backend;
	__u32 service; /* the version that chose it */
	__u32 expires; /* ticks */
	__be16 port;
	__u8 closing; /* as in conntrack.h */
	__u8 replied;
};

/* What flows to frontends were translated to. Written and read by the programs, collected by the daemon. Full: the
 * least recently used flow is forgotten. Sized by the loader: a few where the cluster serves no services.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct service_flow4_key);
	__type(value, struct service_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} service_flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct service_flow6_key);
	__type(value, struct service_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} service_flows6 SEC(".maps");

struct affinity_key {
	union address client; /* IPv4: then zeros */
	__u32 service; /* its name's number */
	__u32 v6;
};

struct affinity {
	__u32 backend;
	__u32 expires; /* ticks */
	__u32 service; /* the version in whose table the backend was found last */
};

/* Which backend a client keeps. Written and read by the programs, collected by the daemon. Full: the least recently
 * used client chooses anew. Sized as `service_flows*`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} affinities SEC(".maps");

struct fronted {
	__u32 service; /* 0: this is no frontend */
	__u32 flags; /* enum frontend_flags */
};

INLINE struct fronted frontend_at(const struct frontend *frontend, __u32 epoch)
{
	struct fronted found = {};

	if (!frontend)
		return found;
	if (unlikely((__s32)(epoch - frontend->since) < 0)) {
		found.service = frontend->previous;
		found.flags = frontend->previous_flags;
	} else {
		found.service = frontend->service;
		found.flags = frontend->flags;
	}
	return found;
}

/* The service behind an address and port as of an epoch. */
INLINE struct fronted find_frontend(const union address *address, __be16 port, __u8 protocol, __u8 scope, __u32 epoch,
				    const bool v6)
{
	if (v6) {
		struct frontend6_key key = { .port = port, .protocol = protocol, .scope = scope };

		__builtin_memcpy(key.address, address->bytes, 16);
		return frontend_at(bpf_map_lookup_elem(&frontends6, &key), epoch);
	} else {
		struct frontend4_key key = {
			.address = address->v4,
			.port = port,
			.protocol = protocol,
			.scope = scope,
		};

		return frontend_at(bpf_map_lookup_elem(&frontends4, &key), epoch);
	}
}

/* The id of the backend in a slot of a service's table (`slot` below `slots`); 0 if there is none. */
INLINE __u32 backend_in_slot(__u32 id, __u32 slots, __u32 slot)
{
	__u32 word = slot / SLOTS_PER_WORD, first = (slots + SLOTS_PER_WORD - 1) / SLOTS_PER_WORD;
	void *table = bpf_map_lookup_elem(&service_tables, &id);
	__u64 *places, *backend;

	if (!table)
		return 0;
	places = bpf_map_lookup_elem(table, &word);
	if (!places)
		return 0;
	word = first + (__u16)(*places >> (slot % SLOTS_PER_WORD * 16));
	backend = bpf_map_lookup_elem(table, &word);
	return backend ? (__u32)*backend : 0;
}

/* Whether flows to an address and port end: datagrams do once it is no frontend any more, so that whoever has the port
 * then gets them; connections go on with their backend.
 */
INLINE bool is_abandoned(const union address *address, __be16 port, __u8 protocol, __u8 scope, __u32 epoch,
			 const bool v6)
{
	return protocol == IPPROTO_UDP && !find_frontend(address, port, protocol, scope, epoch, v6).service;
}
