"""The BPF witness: programs, their compiler and loader, and what they recorded."""
