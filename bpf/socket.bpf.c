// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Services at the socket: a process that connects to a service is connected to a backend, and none of its packets has
 * to be translated. What it asks the kernel for, and what the kernel answers, has the service's address.
 */
#include "lib/balance.h"
#include "lib/state.h"

#define ALLOW 1
#define REFUSE 0

#define CONNECTION_REFUSED 111 /* ECONNREFUSED */
#define STREAM 1 /* SOCK_STREAM */
#define DATAGRAM 2 /* SOCK_DGRAM */

struct socket_flow_key {
	__u64 cookie; /* of the socket */
	union address address; /* IPv4: then zeros */
	__be16 port;
	__u8 protocol;
	__u8 v6;
	__u8 reply; /* address and port are those of the backend, else those of the frontend */
	__u8 pad[3];
};

struct socket_flow {
	union address address; /* the other one's */
	__u32 backend;
	__be16 port;
	__u8 pad[2];
};

/* What a socket's services were translated to, both ways. Written and read by these programs. Full: the least recently
 * used entry goes; a datagram socket then chooses anew, and a process is told the backend's address.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct socket_flow_key);
	__type(value, struct socket_flow);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} socket_flows SEC(".maps");

/* An address that a process speaks of; of an IPv6 socket it may be an IPv4 one (::ffff:a.b.c.d). */
struct named {
	union address address;
	__be16 port;
	__u8 protocol;
	bool v6;
};

INLINE bool is_translated(const struct bpf_sock_addr *ctx)
{
	return (ctx->protocol == IPPROTO_TCP && ctx->type == STREAM) ||
	       (ctx->protocol == IPPROTO_UDP && ctx->type == DATAGRAM);
}

INLINE void read4(const struct bpf_sock_addr *ctx, struct named *named)
{
	named->address.v4 = ctx->user_ip4;
	named->port = ctx->user_port;
	named->protocol = ctx->protocol;
}

INLINE void read6(const struct bpf_sock_addr *ctx, struct named *named)
{
	__be32 words[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };

	named->v6 = words[0] || words[1] || words[2] != bpf_htonl(0xffff);
	if (named->v6)
		__builtin_memcpy(named->address.bytes, words, 16);
	else
		named->address.v4 = words[3];
	named->port = ctx->user_port;
	named->protocol = ctx->protocol;
}

INLINE void write4(struct bpf_sock_addr *ctx, const union address *address, __be16 port)
{
	ctx->user_ip4 = address->v4;
	ctx->user_port = port;
}

INLINE void write6(struct bpf_sock_addr *ctx, const union address *address, __be16 port, bool v6)
{
	if (v6) {
		__be32 words[4];

		__builtin_memcpy(words, address->bytes, 16);
		ctx->user_ip6[0] = words[0];
		ctx->user_ip6[1] = words[1];
		ctx->user_ip6[2] = words[2];
		ctx->user_ip6[3] = words[3];
	} else {
		ctx->user_ip6[3] = address->v4;
	}
	ctx->user_port = port;
}

INLINE void name_flow(struct socket_flow_key *key, struct bpf_sock_addr *ctx, const struct named *named, bool reply)
{
	key->cookie = bpf_get_socket_cookie(ctx);
	key->address = named->address;
	key->port = named->port;
	key->protocol = named->protocol;
	key->v6 = named->v6;
	key->reply = reply;
}

/* Both ways, so that answers show the frontend's address, and the next datagram goes where the last one went. */
INLINE void remember(const struct socket_flow_key *asked, const struct choice *choice)
{
	struct socket_flow_key key = *asked;
	struct socket_flow flow = {
		.address = choice->backend->address,
		.port = choice->backend->port,
		.backend = choice->id,
	};

	if (asked->protocol == IPPROTO_UDP)
		bpf_map_update_elem(&socket_flows, asked, &flow, BPF_ANY);
	key.address = flow.address;
	key.port = flow.port;
	key.reply = true;
	flow.address = asked->address;
	flow.port = asked->port;
	bpf_map_update_elem(&socket_flows, &key, &flow, BPF_ANY);
}

/* The backend that this socket's datagrams to a frontend already go to, while it lives. */
INLINE struct choice used_backend(const struct socket_flow_key *key)
{
	struct socket_flow *flow = bpf_map_lookup_elem(&socket_flows, key);
	struct choice choice = backend_of(flow ? flow->backend : 0);

	return choice;
}

INLINE struct choice new_backend(struct bpf_sock_addr *ctx, __u32 id, const struct service *service,
				 const struct named *named)
{
	struct affinity_key client = { .v6 = named->v6 };
	__u32 hash = mix(bpf_get_socket_cookie(ctx)) >> 32;

	/* Its address is not chosen yet; a network namespace is what has one. */
	client.client.v6[0] = bpf_get_netns_cookie(ctx);
	return choose_backend(id, service, &client, hash, ticks_now());
}

/* Puts a backend in the place of a service. Returns ALLOW or REFUSE; `chosen->backend` is set if there is one. */
INLINE int translate(struct bpf_sock_addr *ctx, const struct named *named, bool every_time, struct choice *chosen)
{
	struct state *state = host_state();
	struct socket_flow_key key = {};
	struct service *service;
	struct fronted fronted;

	if (!state)
		return ALLOW;
	fronted = find_frontend(&named->address, named->port, named->protocol, SCOPE_INSIDE,
				((union version){ .word = *(volatile __u64 *)&state->version }).epoch, named->v6);
	if (likely(!fronted.service))
		return ALLOW;
	service = bpf_map_lookup_elem(&services, &fronted.service);
	if (!service)
		return ALLOW;
	name_flow(&key, ctx, named, false);
	if (every_time) {
		*chosen = used_backend(&key);
		if (chosen->backend)
			return ALLOW;
	}
	*chosen = new_backend(ctx, fronted.service, service, named);
	if (!chosen->backend) {
		bpf_set_retval(-CONNECTION_REFUSED);
		return REFUSE;
	}
	remember(&key, chosen);
	return ALLOW;
}

INLINE int translate4(struct bpf_sock_addr *ctx, bool every_time)
{
	struct choice chosen = {};
	struct named named = {};
	int answer;

	if (!is_translated(ctx))
		return ALLOW;
	read4(ctx, &named);
	answer = translate(ctx, &named, every_time, &chosen);
	if (chosen.backend)
		write4(ctx, &chosen.backend->address, chosen.backend->port);
	return answer;
}

INLINE int translate6(struct bpf_sock_addr *ctx, bool every_time)
{
	struct choice chosen = {};
	struct named named = {};
	int answer;

	if (!is_translated(ctx))
		return ALLOW;
	read6(ctx, &named);
	answer = translate(ctx, &named, every_time, &chosen);
	if (chosen.backend)
		write6(ctx, &chosen.backend->address, chosen.backend->port, named.v6);
	return answer;
}

/* The frontend that a backend's address stands for in this socket; NULL if it stands for itself. */
INLINE struct socket_flow *frontend_of(struct bpf_sock_addr *ctx, const struct named *named)
{
	struct socket_flow_key key = {};

	name_flow(&key, ctx, named, true);
	return bpf_map_lookup_elem(&socket_flows, &key);
}

INLINE int restore4(struct bpf_sock_addr *ctx)
{
	struct socket_flow *flow;
	struct named named = {};

	read4(ctx, &named);
	flow = frontend_of(ctx, &named);
	if (flow)
		write4(ctx, &flow->address, flow->port);
	return ALLOW;
}

INLINE int restore6(struct bpf_sock_addr *ctx)
{
	struct socket_flow *flow;
	struct named named = {};

	read6(ctx, &named);
	flow = frontend_of(ctx, &named);
	if (flow)
		write6(ctx, &flow->address, flow->port, named.v6);
	return ALLOW;
}

SEC("cgroup/connect4")
int socket_connect4(struct bpf_sock_addr *ctx)
{
	return translate4(ctx, false);
}

SEC("cgroup/connect6")
int socket_connect6(struct bpf_sock_addr *ctx)
{
	return translate6(ctx, false);
}

SEC("cgroup/sendmsg4")
int socket_sendmsg4(struct bpf_sock_addr *ctx)
{
	return translate4(ctx, true);
}

SEC("cgroup/sendmsg6")
int socket_sendmsg6(struct bpf_sock_addr *ctx)
{
	return translate6(ctx, true);
}

SEC("cgroup/recvmsg4")
int socket_recvmsg4(struct bpf_sock_addr *ctx)
{
	return restore4(ctx);
}

SEC("cgroup/recvmsg6")
int socket_recvmsg6(struct bpf_sock_addr *ctx)
{
	return restore6(ctx);
}

SEC("cgroup/getpeername4")
int socket_getpeername4(struct bpf_sock_addr *ctx)
{
	return restore4(ctx);
}

SEC("cgroup/getpeername6")
int socket_getpeername6(struct bpf_sock_addr *ctx)
{
	return restore6(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
