/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a collector tells the daemon: what it removed, and how much lives on in each map that it went through. */
#pragma once

#include "base.h"

/* reconciler/observe/fullness.py reads it. */
struct collection {
	__u32 now; /* ticks */
	__u32 collected;
	__u32 live[3]; /* by map, as reconciler/observe/fullness.py names them */
};

/* The map that is being gone through. */
struct sweep {
	__u32 now;
	__u32 collected;
	__u32 live;
};

/* What becomes of an entry: gone once it has expired. */
INLINE long collect(void *map, const void *key, __u32 expires, struct sweep *sweep)
{
	if (passed(sweep->now, expires)) {
		bpf_map_delete_elem(map, key);
		sweep->collected++;
	} else {
		sweep->live++;
	}
	return 0;
}
