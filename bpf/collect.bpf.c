// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Collects flows that have expired, and counts those that live; the daemon runs it now and then by BPF_PROG_TEST_RUN.
 */
#include "lib/collection.h"
#include "lib/conntrack.h"
#include "lib/translation.h"

struct bpf_map;

static long collect_entry(struct bpf_map *map, const void *key, struct conntrack_entry *entry, struct sweep *sweep)
{
	return collect(map, key, entry->expires, sweep);
}

static long collect_denial(struct bpf_map *map, const void *key, struct denial *denial, struct sweep *sweep)
{
	return collect(map, key, denial->expires, sweep);
}

static long collect_translation(struct bpf_map *map, const void *key, struct translation *translation,
				struct sweep *sweep)
{
	return collect(map, key, translation->expires, sweep);
}

SEC("syscall")
int collect_conntrack(struct collection *context)
{
	struct sweep sweep = { .now = ticks_now() };

	bpf_for_each_map_elem(&conntrack4, collect_entry, &sweep, 0);
	context->live[0] = sweep.live;
	sweep.live = 0;
	bpf_for_each_map_elem(&conntrack6, collect_entry, &sweep, 0);
	context->live[1] = sweep.live;
	bpf_for_each_map_elem(&denials4, collect_denial, &sweep, 0);
	bpf_for_each_map_elem(&denials6, collect_denial, &sweep, 0);
	sweep.live = 0;
	bpf_for_each_map_elem(&translations, collect_translation, &sweep, 0);
	context->live[2] = sweep.live;
	context->now = sweep.now;
	context->collected = sweep.collected;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
