"""Nomad as an orchestrator: volumes, plugins, hooks in job files, callers with workload identities.

It must not import another adapter, gRPC, or anything of the bridge but its model and its ports.
"""
