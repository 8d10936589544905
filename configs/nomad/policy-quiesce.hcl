# Freeze and thaw by commands inside tasks. Add it to policy.hcl.

namespace "*" {
  capabilities = [
    "alloc-exec",       # commands in tasks of isolating drivers (docker, exec, podman)
    "alloc-node-exec",  # the same in raw_exec tasks, as the host's root: leave it out where there are none
  ]
}
