// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Who changes our maps, links and hooks: every bpf(2) call of another process that succeeded, with the writer; and who
 * a process was that has ended by the time somebody asks.
 *
 * What is at stake is seen at entry, where the arguments are still the caller's; whether it happened, at exit. Blind to
 * writes through mmap, by BPF programs, and to unlinked pins (observe/pins.py sees those).
 */
#include "../lib/base.h"
#include <bpf/bpf_core_read.h>

/* The kernel's own structs, as far as we read them; libbpf moves the offsets to where this kernel has them. */
#define KERNEL_STRUCT __attribute__((preserve_access_index))

struct bpf_map {
	__u32 id;
} KERNEL_STRUCT;

struct bpf_link {
	__u32 id;
} KERNEL_STRUCT;

struct file {
	void *private_data;
} KERNEL_STRUCT;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} KERNEL_STRUCT;

struct files_struct {
	struct fdtable *fdt;
} KERNEL_STRUCT;

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
} KERNEL_STRUCT;

struct task_struct {
	struct task_struct *real_parent;
	struct files_struct *files;
	struct mm_struct *mm;
	int tgid;
} KERNEL_STRUCT;

/* Arguments of the two tracepoints (tracefs, events/syscalls/sys_enter_bpf/format). */
struct sys_enter_bpf {
	__u64 common;
	long nr;
	__u64 command;
	__u64 attributes;
	__u64 size;
};

struct sys_exit_bpf {
	__u64 common;
	long nr;
	long result;
};

#define TAMPER_KEY_BYTES 40

enum tamper_target {
	TAMPER_MAP = 1,
	TAMPER_LINK = 2,
	TAMPER_HOOK = 3, /* a device or a cgroup, by the caller's own descriptor or index */
};

struct tamper {
	__u64 time_ns; /* CLOCK_MONOTONIC, when the call returned */
	__u32 pid; /* of the thread */
	__u32 tgid; /* of the process */
	__u32 parent; /* of the process that started it, which often outlives it */
	__u32 uid;
	__u32 command; /* enum bpf_cmd */
	__u32 target; /* enum tamper_target */
	__u32 target_id; /* of the map or link; of a hook the index or descriptor */
	__u32 attach_type; /* of a hook: enum bpf_attach_type */
	__u32 count; /* rows, of a batch; otherwise 1 */
	__u32 key_size; /* bytes of `key` that count, 0 if there is no key */
	char comm[16];
	__u8 key[TAMPER_KEY_BYTES]; /* of a batch the first one */
};

/* A call between its entry and its exit. */
struct attempt {
	struct tamper tamper;
	__u64 attributes; /* where the caller keeps union bpf_attr */
	__u32 batch;
	__u32 pad;
};

#define ENDED_COMMAND_BYTES 128

struct ended {
	__u32 parent; /* the process that started it */
	__u32 uid;
	__u32 length; /* bytes of `command` that count; 0 if its arguments were gone already (kernels before 6.16) */
	char comm[16];
	char command[ENDED_COMMAND_BYTES]; /* arguments, each with its zero */
};

/* The process whose writes are no tampering: the daemon. */
OPTION(__u32, self_pid, 0);

/* Map id -> bytes of its key. Written by the daemon. Full: what did not fit is not watched; it says so. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} watched SEC(".maps");

/* Calls that have begun, by thread. Full: the oldest go, their tampering is not reported. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

/* Processes that have ended, by number. Written here, read by the daemon. Full: the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct ended);
} ended SEC(".maps");

/* To the daemon, woken by each. Full: lost, and counted in `lost`. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} tampers SEC(".maps");

/* One counter: reports that did not fit. Written here, read by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

/* Where union bpf_attr has the descriptor of what the command changes; -1: it changes nothing that we guard. */
INLINE int descriptor_offset(__u32 command)
{
	switch (command) {
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_DELETE_ELEM:
	case BPF_MAP_LOOKUP_AND_DELETE_ELEM:
	case BPF_MAP_FREEZE:
		return offsetof(union bpf_attr, map_fd);
	case BPF_MAP_UPDATE_BATCH:
	case BPF_MAP_DELETE_BATCH:
	case BPF_MAP_LOOKUP_AND_DELETE_BATCH:
		return offsetof(union bpf_attr, batch.map_fd);
	case BPF_LINK_UPDATE:
		return offsetof(union bpf_attr, link_update.link_fd);
	case BPF_LINK_DETACH:
		return offsetof(union bpf_attr, link_detach.link_fd);
	case BPF_PROG_ATTACH:
	case BPF_PROG_DETACH:
		return offsetof(union bpf_attr, target_fd);
	default:
		return -1;
	}
}

INLINE bool is_batch(__u32 command)
{
	return command == BPF_MAP_UPDATE_BATCH || command == BPF_MAP_DELETE_BATCH ||
	       command == BPF_MAP_LOOKUP_AND_DELETE_BATCH;
}

/* What the kernel keeps behind a descriptor of the calling process, or NULL. */
INLINE void *behind(__u32 descriptor)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files, *file = NULL;

	if (descriptor >= BPF_CORE_READ(table, max_fds))
		return NULL;
	files = BPF_CORE_READ(table, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), files + descriptor) || !file)
		return NULL;
	return BPF_CORE_READ(file, private_data);
}

/* Fills in the map, if it is a watched one, and its key. */
INLINE bool is_watched(struct attempt *attempt, __u32 descriptor)
{
	struct tamper *tamper = &attempt->tamper;
	struct bpf_map *map = behind(descriptor);
	__u64 keys = 0;
	__u32 *key_size;

	if (!map)
		return false;
	tamper->target = TAMPER_MAP;
	tamper->target_id = BPF_CORE_READ(map, id);
	key_size = bpf_map_lookup_elem(&watched, &tamper->target_id);
	if (!key_size)
		return false;
	if (tamper->command == BPF_MAP_FREEZE)
		return true;
	bpf_probe_read_user(&keys, sizeof(keys),
			    (void *)attempt->attributes + (attempt->batch ? offsetof(union bpf_attr, batch.keys) :
									    offsetof(union bpf_attr, key)));
	tamper->key_size = *key_size < TAMPER_KEY_BYTES ? *key_size : TAMPER_KEY_BYTES;
	if (tamper->command == BPF_MAP_LOOKUP_AND_DELETE_BATCH) /* here the kernel fills the keys in */
		tamper->key_size = 0;
	if (tamper->key_size && bpf_probe_read_user(tamper->key, tamper->key_size & 63, (void *)keys))
		tamper->key_size = 0;
	return true;
}

INLINE bool is_ours(struct attempt *attempt, __u32 descriptor)
{
	struct tamper *tamper = &attempt->tamper;
	struct bpf_link *link;

	switch (tamper->command) {
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
		link = behind(descriptor);
		tamper->target = TAMPER_LINK;
		tamper->target_id = link ? BPF_CORE_READ(link, id) : 0;
		return link;
	case BPF_PROG_ATTACH:
	case BPF_PROG_DETACH:
		tamper->target = TAMPER_HOOK;
		tamper->target_id = descriptor;
		bpf_probe_read_user(&tamper->attach_type, sizeof(tamper->attach_type),
				    (void *)attempt->attributes + offsetof(union bpf_attr, attach_type));
		return true;
	default:
		return is_watched(attempt, descriptor);
	}
}

SEC("tracepoint/syscalls/sys_enter_bpf")
int bpf_begins(struct sys_enter_bpf *context)
{
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 command = context->command, descriptor;
	int offset = descriptor_offset(command);
	struct attempt attempt = {};

	if (offset < 0 || (__u32)(thread >> 32) == self_pid)
		return 0;
	attempt.attributes = context->attributes;
	attempt.batch = is_batch(command);
	attempt.tamper.command = command;
	if (bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)context->attributes + offset))
		return 0;
	if (is_ours(&attempt, descriptor))
		bpf_map_update_elem(&attempts, &thread, &attempt, BPF_ANY);
	return 0;
}

/* Rows that the call changed. A batch may fail half way: the kernel then says how far it came. */
INLINE __u32 rows_changed(const struct attempt *attempt, long result)
{
	__u32 count = 0;

	if (!attempt->batch)
		return result >= 0;
	if (result == -1 /* EPERM */ || result == -22 /* EINVAL */ || result == -9 /* EBADF */)
		return 0;
	bpf_probe_read_user(&count, sizeof(count), (void *)attempt->attributes + offsetof(union bpf_attr, batch.count));
	return count;
}

SEC("tracepoint/syscalls/sys_exit_bpf")
int bpf_ends(struct sys_exit_bpf *context)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 thread = bpf_get_current_pid_tgid(), *missed;
	struct attempt *attempt = bpf_map_lookup_elem(&attempts, &thread);
	struct tamper *tamper;
	__u32 zero = 0;

	if (!attempt)
		return 0;
	tamper = &attempt->tamper;
	tamper->count = rows_changed(attempt, context->result);
	if (tamper->count) {
		tamper->time_ns = bpf_ktime_get_ns();
		tamper->pid = thread;
		tamper->tgid = thread >> 32;
		tamper->parent = BPF_CORE_READ(task, real_parent, tgid);
		tamper->uid = bpf_get_current_uid_gid();
		bpf_get_current_comm(tamper->comm, sizeof(tamper->comm));
		if (bpf_ringbuf_output(&tampers, tamper, sizeof(*tamper), BPF_RB_FORCE_WAKEUP)) {
			missed = bpf_map_lookup_elem(&lost, &zero);
			if (missed)
				__sync_fetch_and_add(missed, 1);
		}
	}
	bpf_map_delete_elem(&attempts, &thread);
	return 0;
}

SEC("tracepoint/sched/sched_process_exit")
int process_ends(void *context __attribute__((unused)))
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 process = thread >> 32;
	struct ended last = {};
	unsigned long start, length;

	if ((__u32)thread != process)
		return 0;
	last.parent = BPF_CORE_READ(task, real_parent, tgid);
	last.uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(last.comm, sizeof(last.comm));
	start = BPF_CORE_READ(task, mm, arg_start);
	length = BPF_CORE_READ(task, mm, arg_end) - start;
	if (length >= ENDED_COMMAND_BYTES)
		length = ENDED_COMMAND_BYTES - 1;
	if (!bpf_probe_read_user(last.command, length & (ENDED_COMMAND_BYTES - 1), (void *)start))
		last.length = length;
	bpf_map_update_elem(&ended, &process, &last, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
