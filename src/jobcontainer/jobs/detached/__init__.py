"""Jobs that outlive the kernel: their host process, and how others speak with it."""
