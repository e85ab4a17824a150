"""What lets people see inside: logs, and the state that `dump` shows."""
