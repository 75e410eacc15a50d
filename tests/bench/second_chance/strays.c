// SPDX-License-Identifier: Apache-2.0
/*
 * A flood of stray ACKs: `strays DESTINATION PORT RATE SECONDS`. Each is from an address and a port
 * of its own in 10.10.128.0/17, with random numbers. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH     50
#define NETWORK   0x0a0a8000
#define ADDRESSES 0x7fff

struct stray {
	struct iphdr ip;
	struct tcphdr tcp;
};

static uint64_t state = 88172645463325252ULL;

static uint32_t any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 16;
}

static uint16_t sum(const void *data, size_t length, uint32_t total)
{
	const uint16_t *words = data;

	for (size_t i = 0; i < length / 2; i++)
		total += words[i];
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total;
}

static void fill(struct stray *stray, in_addr_t to, uint16_t port)
{
	uint32_t from = htonl(NETWORK + any() % ADDRESSES);
	uint32_t ends = (from & 0xffff) + (from >> 16) + (to & 0xffff) + (to >> 16);

	*stray = (struct stray){
		.ip = {.ihl = 5,
		       .version = 4,
		       .ttl = 64,
		       .protocol = IPPROTO_TCP,
		       .saddr = from,
		       .daddr = to},
		.tcp = {.source = any(),
			.dest = htons(port),
			.seq = any(),
			.ack_seq = any(),
			.doff = 5,
			.ack = 1},
	};
	stray->ip.tot_len = htons(sizeof(*stray));
	stray->tcp.window = htons(500);
	stray->tcp.check = sum(&stray->tcp, sizeof(stray->tcp),
			       ends + htons(IPPROTO_TCP) + htons(sizeof(stray->tcp)));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static struct stray strays[BATCH];
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct mmsghdr messages[BATCH] = {0};
	struct iovec parts[BATCH];
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	double begun = now(), rate, seconds;
	uint64_t sent = 0;

	if (argc != 5)
		errx(2, "DESTINATION PORT RATE SECONDS");
	if (fd < 0)
		err(1, "socket");
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	rate = atof(argv[3]);
	seconds = atof(argv[4]);
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){&strays[i], sizeof(strays[i])};
		messages[i].msg_hdr = (struct msghdr){.msg_name = &to,
						      .msg_namelen = sizeof(to),
						      .msg_iov = &parts[i],
						      .msg_iovlen = 1};
	}
	while (now() - begun < seconds) {
		double ahead = sent / rate - (now() - begun);
		int done;

		if (ahead > 0) {
			struct timespec pause = {.tv_nsec = ahead * 1e9};

			nanosleep(&pause, NULL);
			continue;
		}
		for (int i = 0; i < BATCH; i++)
			fill(&strays[i], to.sin_addr.s_addr, atoi(argv[2]));
		done = sendmmsg(fd, messages, BATCH, 0);
		if (done < 0)
			err(1, "sendmmsg");
		sent += done;
	}
	printf("{\"packets\": %lu, \"seconds\": %f}\n", sent, now() - begun);
	return 0;
}
