// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Nothing to load: this object's BTF tells user space the layout of what goes through the ring buffer.
 *
 * Clang keeps only types that a global, a map or a function's prototype reaches, and a ring buffer names no type.
 */
#include "../lib/events.h"

const struct event *flow_event __attribute__((used));
