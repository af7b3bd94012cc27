"""The command line `imburse-vending`: one module a command or family of commands, put together in `main`."""
