// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Collects what services remember of flows and clients once it has expired; the daemon runs it now and then by
 * BPF_PROG_TEST_RUN.
 */
#include "lib/service.h"

struct bpf_map;

struct service_collection {
	__u32 now; /* ticks; out */
	__u32 flows; /* live; out */
	__u32 affinities; /* live; out */
	__u32 collected; /* out */
};

static long collect_flow(struct bpf_map *map, const void *key, struct service_flow *flow,
			 struct service_collection *collection)
{
	if (passed(collection->now, flow->expires)) {
		bpf_map_delete_elem(map, key);
		collection->collected++;
	} else {
		collection->flows++;
	}
	return 0;
}

static long collect_affinity(struct bpf_map *map, const void *key, struct affinity *affinity,
			     struct service_collection *collection)
{
	if (passed(collection->now, affinity->expires)) {
		bpf_map_delete_elem(map, key);
		collection->collected++;
	} else {
		collection->affinities++;
	}
	return 0;
}

SEC("syscall")
int collect_services(struct service_collection *context)
{
	/* Not ticks_now(): programs of this type have no coarse clock. */
	struct service_collection collection = { .now = bpf_ktime_get_ns() >> 30 };

	bpf_for_each_map_elem(&service_flows4, collect_flow, &collection, 0);
	bpf_for_each_map_elem(&service_flows6, collect_flow, &collection, 0);
	bpf_for_each_map_elem(&affinities, collect_affinity, &collection, 0);
	*context = collection;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
