"""A filter as a tracing program in C: reads the event's fields by offset, keeps what matches, hands it to user space.

The program hangs on a raw tracepoint, which needs neither tracefs nor kprobes. Only numbers, and names from the tables
here, are ever written into the text.
"""

from __future__ import annotations

from reconciler.errors import FeatureMissing
from reconciler.observe.kernel_condition import condition, word
from reconciler.observe.kernel_events import Event
from reconciler.observe.kernel_expression import Filter
from reconciler.observe.kernel_layout import Layout

RING_PAGES = 256

_PRELUDE = """
struct record {
	u64 time_ns; u64 location;
	u32 saddr[4]; u32 daddr[4]; /* network order, IPv4 in the first */
	u64 ifname[2];
	u32 netns; u32 length; u32 ifindex; u32 reason;
	u32 state; u32 oldstate; u32 newstate;
	u16 sport; u16 dport; u8 family; u8 protocol; u16 pad;
};

BPF_RINGBUF_OUTPUT(records, RING_PAGES);
BPF_ARRAY(lost, u64, 1);

#define READ(to, base, offset) bpf_probe_read_kernel(&(to), sizeof(to), (void *)(base) + (offset))
#define SWAP16(value) __builtin_bswap16(value)
#define TO_HOST16(value) (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? SWAP16(value) : (value))

static __always_inline void read_net(struct record *r, void *owner, u32 offset)
{
	void *net = 0;

	if (!READ(net, owner, offset) && net)
		READ(r->netns, net, NET_NUMBER);
}
"""

_PACKET = """
struct ipv4 { u8 version; u8 tos; u16 length; u16 id; u16 fragment; u8 ttl; u8 protocol; u16 sum; u32 from; u32 to; };
struct ipv6 { u8 version; u8 label[3]; u16 length; u8 next; u8 hops; u32 from[4]; u32 to[4]; };

/* Where the transport header begins, 0 if this packet has none. */
static __always_inline u32 read_ipv4(struct record *r, void *head, u32 at)
{
	struct ipv4 ip = {};

	if (READ(ip, head, at) || ip.version >> 4 != 4)
		return 0;
	r->family = 4;
	r->protocol = ip.protocol;
	r->saddr[0] = ip.from;
	r->daddr[0] = ip.to;
	return TO_HOST16(ip.fragment) & 0x1fff ? 0 : at + (ip.version & 15) * 4;
}

static __always_inline u32 read_ipv6(struct record *r, void *head, u32 at)
{
	struct ipv6 ip = {};
	u8 extension[4] = {};

	if (READ(ip, head, at) || ip.version >> 4 != 6)
		return 0;
	r->family = 6;
	r->protocol = ip.next;
	__builtin_memcpy(r->saddr, ip.from, 16);
	__builtin_memcpy(r->daddr, ip.to, 16);
	at += sizeof(ip);
#pragma unroll
	for (int i = 0; i < 4; i++) { /* hop by hop, routing, fragment, destination options */
		if (r->protocol != 0 && r->protocol != 43 && r->protocol != 44 && r->protocol != 60)
			return at;
		if (READ(extension, head, at))
			return 0;
		if (r->protocol == 44 && (extension[2] || extension[3] & 0xf8)) {
			r->protocol = extension[0];
			return 0;
		}
		at += r->protocol == 44 ? 8 : (extension[1] + 1) * 8;
		r->protocol = extension[0];
	}
	return at;
}

static __always_inline void read_packet(struct record *r, void *skb)
{
	void *head = 0, *device = 0;
	u16 network = 0, ethertype = 0, ports[2] = {};
	u32 transport = 0;

	READ(r->length, skb, SKB_LENGTH);
	if (!READ(device, skb, SKB_DEVICE) && device) {
		READ(r->ifindex, device, DEVICE_INDEX);
		bpf_probe_read_kernel_str(r->ifname, sizeof(r->ifname), device + DEVICE_NAME);
		read_net(r, device, DEVICE_NET);
	}
	READ(ethertype, skb, SKB_PROTOCOL);
	READ(network, skb, SKB_NETWORK_HEADER);
	if (READ(head, skb, SKB_HEAD) || !head || network == 0xffff)
		return;
	if (TO_HOST16(ethertype) == 0x0800)
		transport = read_ipv4(r, head, network);
	if (TO_HOST16(ethertype) == 0x86dd)
		transport = read_ipv6(r, head, network);
	if (!transport || (r->protocol != 6 && r->protocol != 17 && r->protocol != 132))
		return;
	if (!READ(ports, head, transport)) {
		r->sport = TO_HOST16(ports[0]);
		r->dport = TO_HOST16(ports[1]);
	}
}
"""

_SOCKET = """
static __always_inline void read_socket(struct record *r, void *sk)
{
	u16 family = 0, port = 0;
	u8 state = 0;

	READ(family, sk, SOCK_FAMILY);
	READ(state, sk, SOCK_STATE);
	READ(r->protocol, sk, SOCK_PROTOCOL);
	READ(r->sport, sk, SOCK_SOURCE_PORT);
	READ(port, sk, SOCK_DESTINATION_PORT);
	r->dport = TO_HOST16(port);
	r->state = state;
	read_net(r, sk, SOCK_NET);
	if (family == 2) {
		r->family = 4;
		READ(r->saddr[0], sk, SOCK_SOURCE);
		READ(r->daddr[0], sk, SOCK_DESTINATION);
	} else if (family == 10) {
		r->family = 6;
		READ(r->saddr, sk, SOCK_SOURCE6);
		READ(r->daddr, sk, SOCK_DESTINATION6);
		if (!r->saddr[0] && !r->saddr[1] && r->saddr[2] == MAPPED && !r->daddr[0] && !r->daddr[1] &&
			r->daddr[2] == MAPPED) { /* IPv4 over an IPv6 socket */
			r->family = 4;
			r->saddr[0] = r->saddr[3];
			r->daddr[0] = r->daddr[3];
			r->saddr[2] = r->saddr[3] = r->daddr[2] = r->daddr[3] = 0;
		}
	}
}
"""

_PROBE = """
static __always_inline int matches(const struct record *r)
{{
	return {condition};
}}

int probe(struct bpf_raw_tracepoint_args *context)
{{
	struct record r = {{}};
	int zero = 0;

{body}
	if (!matches(&r))
		return 0;
	r.time_ns = bpf_ktime_get_ns();
	if (records.ringbuf_output(&r, sizeof(r), 0)) {{
		u64 *missed = lost.lookup(&zero);

		if (missed)
			__sync_fetch_and_add(missed, 1);
	}}
	return 0;
}}
"""


def program(wanted: Filter, layout: Layout) -> str:
    """C for bcc. Raises FeatureMissing if the kernel lacks the event's tracepoint, or gives it other arguments."""
    numbers = {**layout.offsets, "RING_PAGES": RING_PAGES, "MAPPED": word(b"\0\0\xff\xff")}
    defines = "".join(f"#define {name} {number}\n" for name, number in numbers.items())
    parts = _PACKET if wanted.event.name == "drop" else _SOCKET
    matches = "1" if wanted.where is None else condition(wanted.where)
    return defines + _PRELUDE + parts + _PROBE.format(condition=matches, body=_body(wanted.event, layout))


def _body(event: Event, layout: Layout) -> str:
    """What fills the record in. Arguments are found by type: newer kernels add some."""
    if event.tracepoint not in layout.arguments:
        raise FeatureMissing(f"this kernel has no tracepoint {event.tracepoint}, which `{event.name}` needs")
    types = layout.arguments[event.tracepoint]

    def argument(kind: str, nth: int = 0) -> str:
        places = [place for place, name in enumerate(types) if name == kind]
        if len(places) <= nth:
            raise FeatureMissing(f"this kernel's tracepoint {event.tracepoint} passes no {kind}")
        return f"context->args[{places[nth]}]"

    if event.name == "drop":
        lines = [f"read_packet(&r, (void *){argument('sk_buff')});"]
        if len(types) > 1:
            lines.append("r.location = context->args[1];")
        if "reason" in event.fields:
            lines.append(f"r.reason = {argument('skb_drop_reason')};")
    else:
        lines = [f"read_socket(&r, (void *){argument('sock')});"]
    if event.name == "state":
        lines += [f"r.oldstate = {argument('int')};", f"r.newstate = {argument('int', 1)};"]
    return "\n".join("\t" + line for line in lines)
