# What a node agent needs (snapbridge node): which plugins there are, and which allocation holds each.

namespace "*" {
  capabilities = ["read-job"]             # the allocations of a plugin's job, before Nomad calls them healthy
}

plugin {
  policy = "read"                         # the plugins and their controllers
}
