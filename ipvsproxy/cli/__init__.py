"""The command line: `main` finds the command, and each command has a module.

* `arguments`: from the words to typed values.
* `run`: the command of the agent: its threads, and how it ends.
* `agent`: the agent put together.
* `settings`, `kernel_settings`: what of the configuration goes to which part, and to the kernel.
* `lock`, `ending`: one agent on a node, and the signals that it waits for.
* `config`: the command that shows the configuration; `reload`, `config_watch`: what becomes of a file that changes.
* `dump`, `tables`: the command that shows what should be beside what is, and how it prints that.
"""
