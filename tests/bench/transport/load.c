// SPDX-License-Identifier: Apache-2.0
/*
 * The load generators: `load CPU MODE ARGUMENTS`. Each pins itself to one
 * processor and prints its result as one line of JSON; servers print "ready"
 * first and end with SIGTERM or with their client.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCH       64
#define STREAMS_MAX 16
#define PAYLOAD_MAX 2048
#define CHUNK       (128 * 1024)

static volatile sig_atomic_t ended;

static void end(int signal_number)
{
	(void)signal_number;
	ended = 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int opened(int kind)
{
	int fd = socket(AF_INET, kind, 0), size = 32 << 20, one = 1;

	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (kind == SOCK_DGRAM)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	return fd;
}

static int served(int kind, const char *port)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int fd = opened(kind);

	if (bind(fd, (struct sockaddr *)&own, sizeof(own)))
		err(1, "bind");
	if (kind == SOCK_STREAM && listen(fd, 1024))
		err(1, "listen");
	puts("ready");
	fflush(stdout);
	return fd;
}

static int connected(int kind, const char *address, const char *port)
{
	struct sockaddr_in far = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int fd = opened(kind);

	inet_pton(AF_INET, address, &far.sin_addr);
	if (connect(fd, (struct sockaddr *)&far, sizeof(far)))
		err(1, "connect");
	return fd;
}

static void udp_sink(char **arg)
{
	static char buffers[BATCH][PAYLOAD_MAX];
	struct mmsghdr messages[BATCH] = {0};
	struct iovec parts[BATCH];
	uint64_t received = 0;
	int fd = served(SOCK_DGRAM, arg[0]);

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){buffers[i], PAYLOAD_MAX};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while (!ended) {
		int n = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);

		if (n > 0)
			received += n;
	}
	printf("{\"packets\": %lu}\n", received);
}

static void udp_blast(char **arg)
{
	static char payload[PAYLOAD_MAX];
	double begun = now(), until = begun + atof(arg[2]);
	size_t size = atoi(arg[3]);
	uint64_t sent = 0;
	int fd = connected(SOCK_DGRAM, arg[0], arg[1]);

	while (now() < until)
		for (int i = 0; i < BATCH; i++)
			sent += send(fd, payload, size, 0) == (ssize_t)size;
	printf("{\"packets\": %lu, \"seconds\": %f}\n", sent, now() - begun);
}

static void udp_echo(char **arg)
{
	char payload[PAYLOAD_MAX];
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	int fd = served(SOCK_DGRAM, arg[0]);

	while (!ended) {
		ssize_t n = recvfrom(fd, payload, sizeof(payload), 0, (struct sockaddr *)&from,
				     &length);

		if (n > 0)
			sendto(fd, payload, n, 0, (struct sockaddr *)&from, length);
	}
	puts("{}");
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void udp_ping(char **arg)
{
	struct timeval patience = {.tv_usec = 200000};
	int count = atoi(arg[2]), fd = connected(SOCK_DGRAM, arg[0], arg[1]), lost = 0;
	double *times = calloc(count, sizeof(*times));
	char payload[64] = {0};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	for (int i = 0; i < count; i++) {
		double begun = now();

		if (send(fd, payload, sizeof(payload), 0) < 0 ||
		    recv(fd, payload, sizeof(payload), 0) < 0)
			lost++;
		times[i] = (now() - begun) * 1e6;
	}
	qsort(times, count, sizeof(*times), by_value);
	printf("{\"p50\": %f, \"p99\": %f, \"lost\": %d}\n", times[count / 2],
	       times[count * 99 / 100], lost);
}

static int one_client(const char *port)
{
	int listener = served(SOCK_STREAM, port), fd = accept(listener, NULL, NULL), one = 1;

	if (fd < 0)
		err(1, "accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void tcp_echo(char **arg)
{
	char payload[PAYLOAD_MAX];
	int fd = one_client(arg[0]);
	ssize_t n;

	while ((n = recv(fd, payload, sizeof(payload), 0)) > 0)
		send(fd, payload, n, 0);
	puts("{}");
}

static void tcp_ping(char **arg)
{
	int count = atoi(arg[2]), fd = connected(SOCK_STREAM, arg[0], arg[1]), one = 1;
	double *times = calloc(count, sizeof(*times));
	char payload[64] = {0};

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 0; i < count; i++) {
		double begun = now();

		if (send(fd, payload, sizeof(payload), 0) < 0 ||
		    recv(fd, payload, sizeof(payload), 0) <= 0)
			errx(1, "the connection broke");
		times[i] = (now() - begun) * 1e6;
	}
	qsort(times, count, sizeof(*times), by_value);
	printf("{\"p50\": %f, \"p99\": %f}\n", times[count / 2], times[count * 99 / 100]);
}

static void tcp_sink(char **arg)
{
	static char buffer[CHUNK];
	int streams = atoi(arg[1]), open = 0, listener = served(SOCK_STREAM, arg[0]);
	struct pollfd fds[STREAMS_MAX];
	uint64_t bytes = 0;
	double begun;

	for (; open < streams; open++) {
		fds[open] = (struct pollfd){.fd = accept(listener, NULL, NULL), .events = POLLIN};
		if (fds[open].fd < 0)
			return;
	}
	for (begun = now(); open > 0 && !ended;) {
		poll(fds, streams, 1000);
		for (int i = 0; i < streams; i++) {
			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			ssize_t n = recv(fds[i].fd, buffer, sizeof(buffer), MSG_DONTWAIT);

			if (n > 0) {
				bytes += n;
			} else if (n == 0 || errno != EAGAIN) {
				close(fds[i].fd);
				fds[i].fd = -1;
				open--;
			}
		}
	}
	printf("{\"gbits\": %f}\n", bytes * 8 / (now() - begun) / 1e9);
}

static void tcp_blast(char **arg)
{
	static char buffer[CHUNK];
	double until = now() + atof(arg[2]);

	for (int i = atoi(arg[3]); i > 0; i--) {
		int fd;

		if (fork())
			continue;
		fd = connected(SOCK_STREAM, arg[0], arg[1]);
		while (now() < until && write(fd, buffer, sizeof(buffer)) > 0)
			;
		_exit(0);
	}
	while (wait(NULL) > 0)
		;
	puts("{}");
}

/* The server closes first: the clients' ports are free again at once. */
static void connection_sink(char **arg)
{
	int listener = served(SOCK_STREAM, arg[0]);
	char byte;

	while (!ended) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		if (recv(fd, &byte, 1, 0) == 1)
			send(fd, &byte, 1, MSG_NOSIGNAL);
		close(fd);
	}
	puts("{}");
}

static void connections(char **arg)
{
	double begun = now(), until = begun + atof(arg[2]);
	uint64_t count = 0;
	char byte = 0;

	while (now() < until) {
		int fd = connected(SOCK_STREAM, arg[0], arg[1]);

		if (send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1 &&
		    recv(fd, &byte, 1, 0) == 0)
			count++;
		close(fd);
	}
	printf("{\"rate\": %f}\n", count / (now() - begun));
}

static const struct mode {
	const char *name;
	void (*run)(char **arguments);
	int arguments;
} modes[] = {
	{"udp-sink", udp_sink, 1},
	{"udp-blast", udp_blast, 4},
	{"udp-echo", udp_echo, 1},
	{"udp-ping", udp_ping, 3},
	{"tcp-echo", tcp_echo, 1},
	{"tcp-ping", tcp_ping, 3},
	{"tcp-sink", tcp_sink, 2},
	{"tcp-blast", tcp_blast, 4},
	{"connection-sink", connection_sink, 1},
	{"connections", connections, 3},
};

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = end}; /* no SA_RESTART: a waiting call returns */
	cpu_set_t cpus;

	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; argc > 2 && i < sizeof(modes) / sizeof(*modes); i++) {
		if (strcmp(argv[2], modes[i].name) || argc - 3 != modes[i].arguments)
			continue;
		CPU_ZERO(&cpus);
		CPU_SET(atoi(argv[1]), &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus))
			err(1, "processor %s", argv[1]);
		modes[i].run(argv + 3);
		return 0;
	}
	errx(2, "no such mode");
}
