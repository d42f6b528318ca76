"""What the `sslk` command runs: one typed function per sub-command, thin over the Python API."""
