// SPDX-License-Identifier: Apache-2.0
/* One byte there, one byte back, over TCP: how long a request waits for its response.
 *
 *     request_response serve ADDRESS PORT            until it is killed; prints a line when it listens
 *     request_response ask ADDRESS PORT COUNT        prints the median and the 99th percentile in microseconds
 *     request_response connect ADDRESS PORT COUNT    the same, with a connection of its own for each request
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *doing)
{
	perror(doing);
	exit(1);
}

static double now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int by_value(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

static int make_socket(void)
{
	int one = 1, made = socket(AF_INET, SOCK_STREAM, 0);
	struct linger at_once = { .l_onoff = 1 };

	if (made < 0)
		die("socket");
	setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(made, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return made;
}

static void serve(const struct sockaddr_in *address)
{
	int listener = make_socket();

	if (bind(listener, (const void *)address, sizeof(*address)) || listen(listener, 64))
		die("listen");
	puts("listening");
	fflush(stdout);
	for (;;) {
		int peer = accept(listener, NULL, NULL), one = 1;
		char byte;

		if (peer < 0)
			die("accept");
		setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (read(peer, &byte, 1) == 1 && write(peer, &byte, 1) == 1)
			;
		close(peer);
	}
}

static int connected(const struct sockaddr_in *address)
{
	int made = make_socket();

	if (connect(made, (const void *)address, sizeof(*address)))
		die("connect");
	return made;
}

static void request(int peer)
{
	char byte = 0;

	if (write(peer, &byte, 1) != 1 || read(peer, &byte, 1) != 1)
		die("request");
}

static void ask(const struct sockaddr_in *address, int count, int always_connect)
{
	double *times = calloc(count, sizeof(*times));
	int peer = always_connect ? -1 : connected(address);

	for (int i = 0; i < count; i++) {
		double began = now_us();

		if (always_connect)
			peer = connected(address);
		request(peer);
		if (always_connect)
			close(peer);
		times[i] = now_us() - began;
	}
	qsort(times, count, sizeof(*times), by_value);
	printf("%.2f %.2f\n", times[count / 2], times[count * 99 / 100]);
}

int main(int count, char **arguments)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (count < 4 || inet_pton(AF_INET, arguments[2], &address.sin_addr) != 1)
		return 2;
	address.sin_port = htons(atoi(arguments[3]));
	if (!strcmp(arguments[1], "serve"))
		serve(&address);
	else if (count == 5)
		ask(&address, atoi(arguments[4]), !strcmp(arguments[1], "connect"));
	return 0;
}
