// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Collects what services remember of flows and clients once it has expired, and counts what lives; the daemon runs it
 * now and then by BPF_PROG_TEST_RUN.
 */
#include "lib/collection.h"
#include "lib/service.h"

struct bpf_map;

static long collect_flow(struct bpf_map *map, const void *key, struct service_flow *flow, struct sweep *sweep)
{
	return collect(map, key, flow->expires, sweep);
}

static long collect_affinity(struct bpf_map *map, const void *key, struct affinity *affinity, struct sweep *sweep)
{
	return collect(map, key, affinity->expires, sweep);
}

SEC("syscall")
int collect_services(struct collection *context)
{
	struct sweep sweep = { .now = ticks_now() };

	bpf_for_each_map_elem(&service_flows4, collect_flow, &sweep, 0);
	context->live[0] = sweep.live;
	sweep.live = 0;
	bpf_for_each_map_elem(&service_flows6, collect_flow, &sweep, 0);
	context->live[1] = sweep.live;
	sweep.live = 0;
	bpf_for_each_map_elem(&affinities, collect_affinity, &sweep, 0);
	context->live[2] = sweep.live;
	context->now = sweep.now;
	context->collected = sweep.collected;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
