"""The loop that brings the kernel to what the store's objects ask for, and keeps it there.

* `controller`: the loop: changes, retries, drains, and a slice of the resync.
* `planning`: from changed Services to the desired state.
* `rounds`: what is told of each round, to the log and to who observes; `hooks`: whom else the loop tells.
* `state`: desired and actual state, and the one way from the second to the first.
* `apply`: operations carried out in their order, whatever fails.
* `resync`: the comparison of everything with the kernel.
* `drain`: which real servers drain, and until when.
* `flows`: what connection tracking has to forget.
* `questions`: what other threads ask of the loop.
* `repair`: service addresses that others delete, between two comparisons.
* `retry`: what failed, and when it is tried again.
* `pace`: how often changes are taken.
"""
