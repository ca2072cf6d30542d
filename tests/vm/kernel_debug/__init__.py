"""The kernel modules on a kernel that catches mistakes: KASAN, lockdep, kmemleak, fault injection.

Outside CI, because the kernel takes half an hour to build: `python3 -m tests.vm.kernel_debug`.
"""
