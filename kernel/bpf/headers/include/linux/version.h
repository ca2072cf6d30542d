/* SPDX-License-Identifier: GPL-2.0-only */
/* BCC chooses its helpers by version; every kernel with a task iterator has what is used here. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)
