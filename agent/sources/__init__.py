"""Where facts come from: the kernel modules, /proc, BPF, cgroups and the Docker engine."""
