"""The whole system on one machine: a Lambda host, an API front, an Imburse emulator and moto. Nothing deployed imports it."""
