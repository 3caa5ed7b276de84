"""The worker's own walls, which need no container: it takes away from itself what it never needs.

Three of the kernel's means, each for good and for every thread and child: no new
privileges, a filter of system calls (seccomp), and a list of the only folders that may be
written (Landlock). Whoever takes the worker over finds no network, no other program, no
other process's memory. ``trial`` tries all of it in a child process and believes nothing.
"""

from site_client.sandbox.confine import Walls, confine, seal_environment

__all__ = ["Walls", "confine", "seal_environment"]
