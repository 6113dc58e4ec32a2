"""Jobs that outlive the kernel: their host process, and how clients reach it."""
