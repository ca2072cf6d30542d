// SPDX-License-Identifier: GPL-2.0
/* get_mm_counter_sum(): the exact count, as an inline of the kernel's own. */
#include <linux/mm.h>

unsigned long so1_probe(struct mm_struct *mm);

unsigned long so1_probe(struct mm_struct *mm)
{
	return get_mm_counter_sum(mm, MM_ANONPAGES);
}
