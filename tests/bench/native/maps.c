// SPDX-License-Identifier: Apache-2.0
/* What a loop in C takes to bring a map to its desired rows: read it by batches, compare, write what differs.
 *
 *     maps ROWS KEY VALUE    sizes in bytes; prints milliseconds: fill, read, compare, write a hundredth of the rows
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 65536

static int rows, key_size, value_size, map;
static char *keys, *values;

static void die(const char *doing)
{
	perror(doing);
	exit(1);
}

static double now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdULL;
	value ^= value >> 33;
	return value;
}

static size_t hash(const char *key)
{
	uint64_t value = 0;
	uint32_t word;

	for (int at = 0; at + 4 <= key_size; at += 4) {
		memcpy(&word, key + at, 4);
		value = mix(value ^ word);
	}
	return value;
}

static void update(int count)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options);

	for (int at = 0; at < count;) {
		__u32 part = count - at < BATCH ? count - at : BATCH;

		if (bpf_map_update_batch(map, keys + (size_t)at * key_size, values + (size_t)at * value_size, &part,
					 &options))
			die("update");
		at += part;
	}
}

static int read_all(char *found_keys, char *found_values)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	char token[64], next[64];
	int got = 0, done = 0;

	while (!done) {
		__u32 part = BATCH;

		done = bpf_map_lookup_batch(map, got ? token : NULL, next, found_keys + (size_t)got * key_size,
					    found_values + (size_t)got * value_size, &part, &options);
		if (done && errno != ENOENT)
			die("read");
		got += part;
		memcpy(token, next, sizeof(token));
	}
	return got;
}

/* How many of the rows found are not as they should be; those that should be are looked up in a table of slots. */
static int compare(const char *found_keys, const char *found_values, int found)
{
	size_t slots = 1;
	int *owner, different = 0;

	while (slots < (size_t)rows * 2)
		slots <<= 1;
	owner = malloc(slots * sizeof(*owner));
	memset(owner, 0xff, slots * sizeof(*owner));
	for (int row = 0; row < rows; row++) {
		size_t slot = hash(keys + (size_t)row * key_size) & (slots - 1);

		while (owner[slot] >= 0)
			slot = (slot + 1) & (slots - 1);
		owner[slot] = row;
	}
	for (int row = 0; row < found; row++) {
		const char *key = found_keys + (size_t)row * key_size, *value = found_values + (size_t)row * value_size;
		size_t slot = hash(key) & (slots - 1);

		while (owner[slot] >= 0 && memcmp(keys + (size_t)owner[slot] * key_size, key, key_size))
			slot = (slot + 1) & (slots - 1);
		different += owner[slot] < 0 || memcmp(values + (size_t)owner[slot] * value_size, value, value_size);
	}
	free(owner);
	return different;
}

int main(int count, char **arguments)
{
	double began, filled, was_read, compared, written;
	char *found_keys, *found_values;
	int found;

	if (count != 4)
		return 2;
	rows = atoi(arguments[1]);
	key_size = atoi(arguments[2]);
	value_size = atoi(arguments[3]);
	keys = calloc(rows, key_size);
	values = calloc(rows, value_size);
	found_keys = malloc((size_t)(rows + BATCH) * key_size);
	found_values = malloc((size_t)(rows + BATCH) * value_size);
	for (int row = 0; row < rows; row++) {
		uint64_t random = mix(row);

		memcpy(keys + (size_t)row * key_size, &row, 4);
		if (key_size >= 12)
			memcpy(keys + (size_t)row * key_size + 4, &random, 8);
		memset(values + (size_t)row * value_size, row, value_size);
	}
	map = bpf_map_create(BPF_MAP_TYPE_HASH, "bench", key_size, value_size, rows, NULL);
	if (map < 0)
		die("create");
	began = now_ms();
	update(rows);
	filled = now_ms();
	found = read_all(found_keys, found_values);
	was_read = now_ms();
	if (found != rows || compare(found_keys, found_values, found))
		die("compare");
	compared = now_ms();
	memset(values, 7, (size_t)rows / 100 * value_size);
	update(rows / 100);
	written = now_ms();
	printf("%.2f %.2f %.2f %.2f\n", filled - began, was_read - filled, compared - was_read, written - compared);
	return 0;
}
