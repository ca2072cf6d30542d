/* SPDX-License-Identifier: GPL-2.0-only */
/* BCC compiles with this in place of the kernel's configuration and checks for this one option. */
#define CONFIG_BPF_SYSCALL 1
