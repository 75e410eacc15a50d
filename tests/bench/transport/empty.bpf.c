// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* What the kernel's statistics say of this program is the cost of measuring. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

SEC("tc")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
