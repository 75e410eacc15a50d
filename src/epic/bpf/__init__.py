"""The tunnel programs in the kernel: loading, attaching and their maps."""
