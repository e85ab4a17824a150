"""The loop that brings the kernel to what the store's objects ask for, and keeps it there."""
