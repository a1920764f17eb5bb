// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One number for all rows of the ipcache's exact addresses: a million rows in some 100 ms, where reading them out takes
 * three times that. The daemon runs it by BPF_PROG_TEST_RUN; the sum does not depend on the order of rows.
 */
#include "lib/ipcache.h"

struct bpf_map;

struct fingerprint {
	__u64 sum4; /* out, as all others */
	__u64 sum6;
	__u32 rows4;
	__u32 rows6;
};

/* Two rounds of multiply and shift, with the constants of MurmurHash3's finalizer: each bit of the row reaches half of
 * the result's.
 */
INLINE __u64 mixed(__u64 word)
{
	word ^= word >> 33;
	word *= 0xff51afd7ed558ccdULL;
	word ^= word >> 33;
	word *= 0xc4ceb9fe1a85ec53ULL;
	return word ^ word >> 33;
}

INLINE __u64 of_value(__u64 key, const struct ipcache_value *value)
{
	const __u64 *words = (const void *)value;

	return mixed(mixed(mixed(key) + words[0]) + words[1]);
}

_Static_assert(sizeof(struct ipcache_value) == 16, "of_value() reads two words");

static long add4(struct bpf_map *map __attribute__((unused)), const __be32 *key, const struct ipcache_value *value,
		 struct fingerprint *fingerprint)
{
	fingerprint->sum4 += of_value(*key, value);
	fingerprint->rows4++;
	return 0;
}

static long add6(struct bpf_map *map __attribute__((unused)), const struct address6 *key,
		 const struct ipcache_value *value, struct fingerprint *fingerprint)
{
	const __u32 *words = (const void *)key; /* the key is aligned to no more */
	__u64 high = (__u64)words[0] << 32 | words[1], low = (__u64)words[2] << 32 | words[3];

	fingerprint->sum6 += of_value(mixed(high) + low, value);
	fingerprint->rows6++;
	return 0;
}

SEC("syscall")
int fingerprint_ipcache(struct fingerprint *context)
{
	struct fingerprint fingerprint = {};

	bpf_for_each_map_elem(&ipcache4, add4, &fingerprint, 0);
	bpf_for_each_map_elem(&ipcache6, add6, &fingerprint, 0);
	*context = fingerprint;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
