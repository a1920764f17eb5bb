// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Collects flows that have expired, and counts those that live; the daemon runs it now and then by BPF_PROG_TEST_RUN.
 */
#include "lib/conntrack.h"
#include "lib/translation.h"

struct bpf_map;

struct collection {
	__u32 now; /* ticks; out */
	__u32 live; /* out */
	__u32 collected; /* out */
	__u32 translations; /* live; out */
};

static long collect_entry(struct bpf_map *map, const void *key, struct conntrack_entry *entry,
			  struct collection *collection)
{
	if (passed(collection->now, entry->expires)) {
		bpf_map_delete_elem(map, key);
		collection->collected++;
	} else {
		collection->live++;
	}
	return 0;
}

static long collect_denial(struct bpf_map *map, const void *key, struct denial *denial, struct collection *collection)
{
	if (passed(collection->now, denial->expires)) {
		bpf_map_delete_elem(map, key);
		collection->collected++;
	}
	return 0;
}

static long collect_translation(struct bpf_map *map, const void *key, struct translation *translation,
				struct collection *collection)
{
	if (passed(collection->now, translation->expires)) {
		bpf_map_delete_elem(map, key);
		collection->collected++;
	} else {
		collection->translations++;
	}
	return 0;
}

SEC("syscall")
int collect_conntrack(struct collection *context)
{
	/* Not ticks_now(): programs of this type have no coarse clock. */
	struct collection collection = { .now = bpf_ktime_get_ns() >> 30 };

	bpf_for_each_map_elem(&conntrack4, collect_entry, &collection, 0);
	bpf_for_each_map_elem(&conntrack6, collect_entry, &collection, 0);
	bpf_for_each_map_elem(&denials4, collect_denial, &collection, 0);
	bpf_for_each_map_elem(&denials6, collect_denial, &collection, 0);
	bpf_for_each_map_elem(&translations, collect_translation, &collection, 0);
	*context = collection;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
