// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Nothing to load: this object's BTF tells user space the layout of policy rows.
 *
 * Their inner maps are made by user space after a template of plain sizes, and libbpf gives a map of maps no types.
 */
#include "lib/policy.h"

const struct subject_key *policy_subject_key __attribute__((used));
const struct policy_key *policy_row_key __attribute__((used));
const struct policy_value *policy_row_value __attribute__((used));
