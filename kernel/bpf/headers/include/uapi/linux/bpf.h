/* SPDX-License-Identifier: GPL-2.0-only */
/* Included by BCC's helpers.h; nothing of it is needed (PAGE_SIZE comes from the command line). */
