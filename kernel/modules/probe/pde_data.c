// SPDX-License-Identifier: GPL-2.0
/* Before 5.17 (359745d78351) it is called PDE_DATA(). */
#include <linux/fs.h>
#include <linux/proc_fs.h>

void *so1_probe(struct inode *inode);

void *so1_probe(struct inode *inode)
{
	return pde_data(inode);
}
