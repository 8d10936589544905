# What several replicas need beside policy.hcl: the lock on the variable that says who leads.

namespace "default" {
  variables {
    path "snapbridge/leader" {
      capabilities = ["read", "write"]      # read: who leads, and whether it is free; write: acquire, renew, release
    }
  }
}
