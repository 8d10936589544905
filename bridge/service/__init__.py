"""The asyncio shell: queue, observe, perform, supervise. It carries out what `decide` says and decides nothing."""
